"""Kafka's small text files: checkpoints, ``partition.metadata``, ``meta.properties`` (log-format, section 2.3)."""

from __future__ import annotations

import binascii
import os

from logstore.errors import CorruptDataError
from logstore.storage import layout
from logstore.storage.files import read_text, refusals, replace_file

__all__ = [
    "new_topic_id",
    "read_cluster_id",
    "read_offsets",
    "read_rows",
    "read_topic_id",
    "take_clean_shutdown",
    "was_clean_shutdown",
    "was_written_by_kafka",
    "write_clean_shutdown",
    "write_meta_properties",
    "write_offsets",
    "write_rows",
    "write_topic_id",
]


def read_rows(path: str, fields_count: int) -> list[list[str]]:
    """Entries of a checkpoint file; none where the file is missing, empty or has a version alone.

    Raises
    ------
    CorruptDataError
        Wrong version, a malformed line, or a count that does not match.
    """
    text = read_text(path)
    lines = [line for line in (text or "").splitlines() if line.strip()]
    if not lines:
        return []
    if lines[0].strip() != "0":
        raise CorruptDataError(path, 0, "checkpoint version is not 0", 0, lines[0].strip()[:40])
    if len(lines) == 1:
        return []
    rows = [line.split() for line in lines[2:]]
    if lines[1].strip() != str(len(rows)):
        raise CorruptDataError(path, -1, "number of entries", lines[1].strip()[:40], len(rows))
    for row in rows:
        if len(row) != fields_count:
            raise CorruptDataError(path, -1, "malformed entry", f"{fields_count} fields", " ".join(row)[:80])
    return rows


def write_rows(path: str, rows: list[tuple[object, ...]]) -> None:
    """Replaces a checkpoint file."""
    lines = ["0", str(len(rows)), *(" ".join(map(str, row)) for row in rows)]
    replace_file(path, ("\n".join(lines) + "\n").encode())


def read_offsets(path: str) -> dict[tuple[str, int], int]:
    """A ``topic partition offset`` checkpoint; damaged counts as empty, as Kafka has it: it is a lower bound."""
    try:
        return {(topic, int(partition)): int(offset) for topic, partition, offset in read_rows(path, 3)}
    except (CorruptDataError, ValueError):
        return {}


def write_offsets(path: str, offsets: dict[tuple[str, int], int]) -> None:
    """Replaces a ``topic partition offset`` checkpoint."""
    write_rows(path, [(topic, partition, offset) for (topic, partition), offset in sorted(offsets.items())])


def new_topic_id() -> str:
    """A random topic id: 16 bytes as 22 characters of URL-safe base64; never one that starts with a dash."""
    while True:
        encoded = binascii.b2a_base64(os.urandom(16), newline=False).decode().rstrip("=")
        encoded = encoded.replace("+", "-").replace("/", "_")
        if not encoded.startswith("-"):
            return encoded


def read_topic_id(directory: str) -> str | None:
    """The id in ``partition.metadata``; None where the file is missing.

    Raises
    ------
    CorruptDataError
    """
    path = os.path.join(directory, layout.PARTITION_METADATA_FILE)
    text = read_text(path)
    if text is None:
        return None
    fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    topic_id = fields.get("topic_id", "").strip()
    if len(topic_id) != 22 or "version" not in fields:
        raise CorruptDataError(path, 0, "no version and topic id of 22 characters", 22, len(topic_id))
    return topic_id


def write_topic_id(directory: str, topic_id: str) -> None:
    """Writes ``partition.metadata``; it has no trailing newline."""
    path = os.path.join(directory, layout.PARTITION_METADATA_FILE)
    replace_file(path, f"version: 0\ntopic_id: {topic_id}".encode())


def read_cluster_id(directory: str) -> str | None:
    """The cluster id in ``meta.properties``; None where there is none."""
    text = read_text(os.path.join(directory, layout.META_PROPERTIES_FILE))
    for line in (text or "").splitlines():
        name, equals, value = line.partition("=")
        if equals and name.strip() == "cluster.id":
            return value.strip()
    return None


def write_meta_properties(directory: str) -> None:
    """Writes ``meta.properties`` of a new directory, with ids of its own."""
    lines = [
        "version=1",
        f"cluster.id={new_topic_id()}",
        "node.id=1",
        f"directory.id={new_topic_id()}",
    ]
    replace_file(os.path.join(directory, layout.META_PROPERTIES_FILE), ("\n".join(lines) + "\n").encode())


def was_clean_shutdown(directory: str) -> bool:
    """Whether the directory's last writer stopped in good order."""
    return os.path.exists(os.path.join(directory, layout.CLEAN_SHUTDOWN_FILE))


def was_written_by_kafka(directory: str) -> bool:
    """Whether a Kafka broker was the directory's last writer, and stopped in good order."""
    text = read_text(os.path.join(directory, layout.CLEAN_SHUTDOWN_FILE))
    if text is None:
        return False
    import json

    try:
        return int(json.loads(text).get("brokerEpoch", 0)) >= 0
    except (ValueError, AttributeError, TypeError):
        return True  # older brokers leave it empty


def take_clean_shutdown(directory: str) -> bool:
    """The same, and removes the marker, so that a crash from here on counts as one."""
    path = os.path.join(directory, layout.CLEAN_SHUTDOWN_FILE)
    with refusals(path, "unlink"):
        try:
            os.unlink(path)
        except FileNotFoundError:
            return False
    return True


def write_clean_shutdown(directory: str) -> None:
    """Leaves the marker of a stop in good order."""
    # A broker epoch of -1 says that it was not a Kafka broker.
    replace_file(os.path.join(directory, layout.CLEAN_SHUTDOWN_FILE), b'{"version":0,"brokerEpoch":-1}')
