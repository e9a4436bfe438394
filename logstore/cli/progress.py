"""A progress bar with rate and time left, on a terminal, for work that takes longer than a moment."""

from __future__ import annotations

import sys
from time import monotonic
from types import TracebackType
from typing import Any

__all__ = ["Progress"]

_PATIENCE_SECONDS = 0.4  # what is done sooner needs no bar, and no time to load one
_REFRESH_SECONDS = 0.1


class Progress:
    """How far something is, drawn on standard error if that is a terminal.

    Parameters
    ----------
    title : str
    total : int or None
        None where it is not known: then there is a rate, but no time left.
    unit : {"bytes", "records"}
        What is counted.
    """

    def __init__(self, title: str, total: int | None, unit: str = "bytes"):
        self.title = title
        self.total = total
        self.unit = unit
        self._watched = sys.stderr.isatty()
        self._due = monotonic() + _PATIENCE_SECONDS
        self._bar: Any = None
        self._task: Any = None

    def update(self, done: int) -> None:
        """Say how much is done so far."""
        if not self._watched or monotonic() < self._due:
            return
        if self._bar is None:
            self._start()
        self._due = monotonic() + _REFRESH_SECONDS
        self._bar.update(self._task, completed=done)

    def _start(self) -> None:
        from rich import progress
        from rich.console import Console

        if self.unit == "bytes":
            counts = [progress.DownloadColumn(binary_units=True), progress.TransferSpeedColumn()]
        else:
            counts = [progress.MofNCompleteColumn(), _records_rate()]
        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=None),
            progress.TaskProgressColumn(),
            *counts,
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(self.title, total=self.total)
        self._bar.start()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _records_rate() -> Any:
    from rich.progress import ProgressColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            speed = task.finished_speed or task.speed
            return Text("?/s" if speed is None else f"{speed:,.0f}/s", style="progress.data.speed")

    return Rate()
