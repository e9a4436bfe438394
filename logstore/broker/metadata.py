"""``logstore.topics``: which topics a data directory holds, with their ids and settings (docs/format/topics.md).

It can be lost: topics, partitions and ids are found again in the partition directories; only settings are not.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from logstore._native.checksum import crc32c
from logstore.errors import CorruptDataError, UnsupportedFormatError
from logstore.storage import layout
from logstore.storage.config import TopicConfig
from logstore.storage.files import read_text, refusals, replace_file
from logstore.storage.text_checkpoints import new_topic_id, read_topic_id

__all__ = ["TopicMetadata", "find_topics", "read_topics", "write_topics"]

VERSION = 1


class TopicMetadata(NamedTuple):
    """A topic's name, id, number of partitions and settings; and whether its deletion has begun."""

    name: str
    topic_id: str
    partitions: int
    config: TopicConfig = TopicConfig()
    is_deleted: bool = False


def write_topics(directory: str, topics: dict[str, TopicMetadata]) -> None:
    """Replaces the file, durably: a line with version and CRC-32C, then JSON."""
    import json

    body = json.dumps(
        {
            name: {"id": topic.topic_id, "partitions": topic.partitions, "config": topic.config.overrides()}
            | ({"deleted": True} if topic.is_deleted else {})
            for name, topic in sorted(topics.items())
        },
        indent=1,
    ).encode()
    head = f"logstore.topics {VERSION} {crc32c(body):08x}\n".encode()
    replace_file(os.path.join(directory, layout.METADATA_FILE), head + body + b"\n")


def read_topics(directory: str) -> dict[str, TopicMetadata]:
    """Topics as written last; none where there is no file.

    Raises
    ------
    CorruptDataError
    UnsupportedFormatError
        A newer version wrote it.
    """
    path = os.path.join(directory, layout.METADATA_FILE)
    text = read_text(path)
    if text is None:
        return {}
    head, _, body = text.partition("\n")
    words = head.split()
    is_head = len(words) == 3 and words[0] == "logstore.topics"
    if not is_head or not (words[1].isascii() and words[1].isdigit() and len(words[1]) < 10):
        raise CorruptDataError(path, 0, "no logstore.topics file", "logstore.topics <version> <crc>", head[:60])
    if int(words[1]) != VERSION:
        raise UnsupportedFormatError(f"{path}: version {words[1]}, this release reads {VERSION}")
    import json

    crc = f"{crc32c(body.removesuffix(chr(10)).encode()):08x}"
    if crc != words[2]:
        raise CorruptDataError(path, len(head) + 1, "CRC mismatch", words[2], crc)
    return {
        name: TopicMetadata(
            name, entry["id"], entry["partitions"], TopicConfig(entry["config"]), bool(entry.get("deleted"))
        )
        for name, entry in json.loads(body).items()
    }


def find_topics(directory: str) -> tuple[dict[str, TopicMetadata], list[str]]:
    """Topics by the partition directories that are there.

    Returns
    -------
    dict[str, TopicMetadata], list[str]
        Topics, and names of directories that are no partition's.
    """
    partitions: dict[str, list[int]] = {}
    strange: list[str] = []
    with refusals(directory, "list"):
        names = sorted(entry.name for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False))
    for name in names:
        place = layout.split_partition_directory_name(name)
        if place is None:
            strange.append(name)
        else:
            partitions.setdefault(place[0], []).append(place[1])
    found: dict[str, Any] = {}
    for topic, numbers in partitions.items():
        topic_id = None
        for number in sorted(numbers):
            try:
                topic_id = topic_id or read_topic_id(
                    os.path.join(directory, layout.partition_directory_name(topic, number))
                )
            except CorruptDataError:
                continue
        found[topic] = TopicMetadata(topic, topic_id or new_topic_id(), max(numbers) + 1)
    return found, strange
