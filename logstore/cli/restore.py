"""``logstore restore``: see `logstore.cli.backup`."""

from __future__ import annotations

from logstore.cli.backup import restore_command as command

__all__ = ["command"]
