"""The command line: ``logstore``, or ``python -m logstore``. Nothing else of the library imports this package."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the process's own arguments where none are given.

    Returns
    -------
    int
        The exit code, see `logstore.cli.exit_codes`.
    """
    try:
        from logstore.cli.application import run

        return run(arguments)
    except KeyboardInterrupt:  # while modules load: a command of its own accord ends with the same code
        return 130
