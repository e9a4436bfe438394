"""Records of ``__consumer_offsets`` decoded by struct alone, to judge the code that writes them: it shares none of it."""

from __future__ import annotations

import struct
from typing import Any


class Fields:
    def __init__(self, data: bytes):
        self.data = memoryview(data)

    def number(self, kind: str) -> int:
        (value,) = struct.unpack_from(">" + kind, self.data)
        self.data = self.data[struct.calcsize(kind) :]
        return value

    def text(self) -> str | None:
        size = self.number("h")
        if size < 0:
            return None
        value, self.data = bytes(self.data[:size]).decode(), self.data[size:]
        return value

    def blob(self) -> bytes:
        size = self.number("i")
        value, self.data = bytes(self.data[:size]), self.data[size:]
        return value


def parse_key(data: bytes) -> tuple[Any, ...]:
    """``("offset", group, topic, partition)`` or ``("group", group)``."""
    fields = Fields(data)
    version = fields.number("h")
    key = ("offset", fields.text(), fields.text(), fields.number("i")) if version == 1 else ("group", fields.text())
    assert version in (1, 2)
    assert not fields.data
    return key


def parse_offset(data: bytes) -> dict[str, Any]:
    fields = Fields(data)
    value = {
        "version": fields.number("h"),
        "offset": fields.number("q"),
        "leader_epoch": fields.number("i"),
        "metadata": fields.text(),
        "commit_timestamp": fields.number("q"),
    }
    assert not fields.data
    return value


def parse_group(data: bytes) -> dict[str, Any]:
    fields = Fields(data)
    value: dict[str, Any] = {
        "version": fields.number("h"),
        "protocol_type": fields.text(),
        "generation": fields.number("i"),
        "protocol": fields.text(),
        "leader": fields.text(),
        "state_timestamp": fields.number("q"),
    }
    value["members"] = [
        {
            "member_id": fields.text(),
            "group_instance_id": fields.text(),
            "client_id": fields.text(),
            "client_host": fields.text(),
            "rebalance_timeout": fields.number("i"),
            "session_timeout": fields.number("i"),
            "subscription": fields.blob(),
            "assignment": fields.blob(),
        }
        for _ in range(fields.number("i"))
    ]
    assert not fields.data
    return value
