"""How far groups are behind: the table, and the one that refreshes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from logstore.cli.output import Table, format_count

if TYPE_CHECKING:
    from logstore.broker.group_admin import DescribedGroup, GroupPartition

__all__ = ["lag_json", "lag_table", "watch_lag"]


def format_lag_seconds(seconds: float | None) -> str:
    """``0``, ``12.3 s``, ``3m 05s``, ``2h 11m``, ``3d 4h``; ``?`` where it is not known."""
    if seconds is None:
        return "?"
    if seconds < 60:
        return "0" if seconds == 0 else f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d {whole % 86_400 // 3600}h"


def lag_json(partitions: Iterable[GroupPartition]) -> list[dict[str, Any]]:
    """Partitions for machines."""
    return [partition._asdict() for partition in partitions]


def lag_table(groups: Iterable[DescribedGroup], *, with_group: bool) -> Table:
    """A row for each partition, and the total where there are several."""
    headings = ("topic", "partition>", "committed>", "end>", "lag>", "behind>", "member")
    table = Table("group", *headings) if with_group else Table(*headings)
    total, oldest = 0, 0.0
    for group in groups:
        for partition in group.partitions:
            cells = (
                partition.topic,
                str(partition.partition),
                _or_dash(partition.committed_offset),
                _or_dash(partition.log_end_offset),
                "?" if partition.lag is None else format_count(partition.lag),
                format_lag_seconds(partition.lag_s),
                partition.member_id or "-",
            )
            table.add(*((group.group, *cells) if with_group else cells))
            total += partition.lag or 0
            oldest = max(oldest, partition.lag_s or 0.0)
    if len(table.rows) > 1:
        cells = ("total", "", "", "", format_count(total), format_lag_seconds(oldest), "")
        table.add(*(("", *cells) if with_group else cells))
    return table


def _or_dash(offset: int | None) -> str:
    return "-" if offset is None else str(offset)


def watch_lag(look: Callable[[], list[DescribedGroup]], seconds: float) -> None:
    """Redraws the table in place until Ctrl-C."""
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False, screen=False) as live:
        while True:
            groups = look()
            lines = list(lag_table(groups, with_group=True).lines()) if groups else ["no groups yet"]
            stamp = time.strftime("%H:%M:%S", time.gmtime())
            live.update(Text("\n".join([*lines, f"{stamp} UTC, every {seconds:g} s; Ctrl-C ends it"])), refresh=True)
            time.sleep(seconds)
