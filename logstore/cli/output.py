"""What goes to standard output: JSON lines and aligned tables. Messages for people go to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO

import click

from logstore.cli.exit_codes import CHECK_FAILED

__all__ = [
    "Table", "confirm", "data_output", "format_count", "format_counted", "format_time", "json_line", "say", "write_json",
]

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode
_encode_ascii = json.JSONEncoder(separators=(",", ":"), default=str).encode


def data_output() -> BinaryIO:
    """Standard output, for bytes."""
    sys.stdout.flush()
    return sys.stdout.buffer


def say(message: str) -> None:
    """A message for people, on standard error."""
    click.echo(message, err=True)


def confirm(question: str, *, what: str = "deletion", refused: str = "nothing deleted") -> None:
    """Ask on standard error; "no" ends the command, and so does nobody being there to answer."""
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        if sys.stdin.isatty():  # Ctrl-C or Ctrl-D
            raise
        raise click.UsageError(f"Nobody is there to confirm the {what}: give --yes.") from None
    if not agreed:
        say(refused)
        raise click.exceptions.Exit(CHECK_FAILED)


def json_line(value: Any) -> bytes:
    """One line of JSON; text that is no UTF-8 (a header's name) is escaped."""
    try:
        return _encode(value).encode() + b"\n"
    except UnicodeEncodeError:
        return _encode_ascii(value).encode() + b"\n"


def write_json(*values: Any) -> None:
    """Values as JSON lines on standard output."""
    out = data_output()
    for value in values:
        out.write(json_line(value))
    out.flush()


def format_count(count: int) -> str:
    """A number for people: ``336,776``."""
    return f"{count:,}"


def format_counted(count: int, noun: str) -> str:
    """How many there are, and of what: ``1 record``, ``336,776 records``."""
    return f"{format_count(count)} {noun}" if count == 1 else f"{format_count(count)} {noun}s"


def format_time(timestamp_ms: int, precision: str = "milliseconds") -> str:
    """Milliseconds since 1970 as UTC: ``2013-01-01 10:15:00.000``; past the year 9999 the number."""
    if timestamp_ms < 0:
        return "-"
    from datetime import datetime, timedelta

    try:
        moment = datetime(1970, 1, 1) + timedelta(milliseconds=timestamp_ms)
    except OverflowError:
        return f"{timestamp_ms} ms"
    return moment.isoformat(" ", precision)


class Table:
    """Rows under headings: drawn by rich on a terminal, plain aligned text elsewhere.

    Parameters
    ----------
    *headings : str
        One that ends in ``>`` is of a column aligned to the right.
    """

    def __init__(self, *headings: str):
        self.headings = [heading.removesuffix(">") for heading in headings]
        self.right = [heading.endswith(">") for heading in headings]
        self.rows: list[Sequence[str]] = []

    def add(self, *cells: str) -> None:
        if len(cells) != len(self.headings):
            raise ValueError(f"{len(self.headings)} cells expected, not {len(cells)}")
        self.rows.append(cells)

    def show(self) -> None:
        """Write it to standard output."""
        if sys.stdout.isatty():
            self._show_rich()
        else:
            data_output().write("".join(f"{line}\n" for line in self.lines()).encode())

    def lines(self) -> Iterable[str]:
        """The plain form."""
        rows = [[heading.upper() for heading in self.headings], *self.rows]
        widths = [max(len(row[at]) for row in rows) for at in range(len(self.headings))]
        for row in rows:
            cells = [
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(row, widths, self.right, strict=True)
            ]
            yield "  ".join(cells).rstrip()

    def _show_rich(self) -> None:
        from rich import box
        from rich.console import Console
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for heading, right in zip(self.headings, self.right, strict=True):
            table.add_column(heading, justify="right" if right else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*map(Text, row))
        # As wide as its content: a terminal that is too narrow wraps lines, which keeps cells whole.
        width = Console(width=10_000).measure(table).maximum
        Console(width=max(width, 1), highlight=False).print(table)
