"""``logstore index``: see `logstore.cli.repair`."""

from __future__ import annotations

from logstore.cli.repair import index_command as command

__all__ = ["command"]
