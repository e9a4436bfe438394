"""One line on a terminal: what runs now, how long it has been, how long it will be."""

from __future__ import annotations

import time
from typing import TextIO

__all__ = ["Progress"]

STEPS_BEFORE_A_GUESS = 20


class Progress:
    """Counts steps of about equal weight; silent where `out` is no terminal."""

    def __init__(self, out: TextIO, steps: int) -> None:
        self._out = out
        self._shown = out.isatty()
        self._steps = steps
        self._done = 0
        self._started = time.monotonic()

    def step(self, what: str) -> None:
        """The step before is done, and this one begins."""
        if self._shown:
            elapsed = time.monotonic() - self._started
            said = f"{what}  {_clock(elapsed)}"
            if self._done >= STEPS_BEFORE_A_GUESS:
                left = max(0, self._steps - self._done)
                said += f", about {_clock(elapsed / self._done * left)} to go"
            self._out.write(f"\r\x1b[K{said}")
            self._out.flush()
        self._done += 1

    def skip(self, steps: int) -> None:
        """So many of the steps announced will not come."""
        self._steps -= steps

    def clear(self) -> None:
        """Leave the line to the results."""
        if self._shown:
            self._out.write("\r\x1b[K")
            self._out.flush()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d}"
