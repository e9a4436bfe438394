"""What ``import logstore`` costs over bare Python; the limit is 15 ms."""

from __future__ import annotations


def timeraw_bare_python() -> str:
    return "pass"


def timeraw_import() -> str:
    return "import logstore"
