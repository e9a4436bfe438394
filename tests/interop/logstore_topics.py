"""A directory of topics written through logstore's public interface, and what it must hold."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import logstore

if TYPE_CHECKING:
    from pathlib import Path

SEED = 42
BASE_TIMESTAMP = 1_700_000_000_000
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
SEGMENT_BYTES = 24 * 1024  # index.interval.bytes stays at 4096: several entries a segment


@dataclass(frozen=True)
class Record:
    """One record as it must be found, whoever looks."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


@dataclass
class Written:
    """One partition: its records in order, and the settings it was written under."""

    topic: str
    codec: str = "none"
    config: dict[str, str] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)

    @property
    def folder(self) -> str:
        """Name of the partition's directory."""
        return f"{self.topic}-0"


def write_topics(path: Path) -> dict[str, Written]:
    """Write one topic a codec, one stamped by append time and one of tombstones; close cleanly."""
    written: dict[str, Written] = {}
    with logstore.open(path, durability="appended") as broker:
        for codec in CODECS:
            config = {"segment.bytes": str(SEGMENT_BYTES)}
            if codec != "none":
                config["compression.type"] = codec
            each = written[f"codec-{codec}"] = Written(f"codec-{codec}", codec, config)
            topic = broker.create_topic(each.topic, config=config)
            _write_mixed(topic, each, random.Random(f"{SEED}-{codec}"))

        each = written["append-time"] = Written("append-time", config={"message.timestamp.type": "LogAppendTime"})
        topic = broker.create_topic(each.topic, config=each.config)
        _write_mixed(topic, each, random.Random(f"{SEED}-append-time"))
        # The clock is the log's, so these timestamps are known only from it.
        stamped = {record.offset: record.timestamp for record in topic.read()}
        each.records = [
            Record(old.offset, stamped[old.offset], old.key, old.value, old.headers) for old in each.records
        ]

        each = written["tombstones"] = Written("tombstones", config={"cleanup.policy": "compact"})
        topic = broker.create_topic(each.topic, config=each.config)
        for index in range(50):
            value = None if index % 3 == 2 else b"v%d" % index
            timestamp = BASE_TIMESTAMP + index
            offset = topic.append(value, key=b"k%d" % (index % 5), timestamp=timestamp)
            each.records.append(Record(offset, timestamp, b"k%d" % (index % 5), value))
    return written


def _write_mixed(topic: Any, written: Written, chance: random.Random) -> None:
    """Alternate single records and batches, with nulls, empties, headers and unordered times."""
    for turn in range(24):
        for _ in range(chance.randrange(1, 4)):
            single = _made_up(chance)
            headers = (("trace", chance.randbytes(4)), ("trace", b""), ("größe", None), ("", b"x"))
            offset = topic.append(
                single.value,
                key=single.key,
                headers=list(headers),
                timestamp=single.timestamp,
                partition=0,
            )
            written.records.append(Record(offset, single.timestamp, single.key, single.value, headers))
        batch = [_made_up(chance) for _ in range(chance.randrange(2, 25))]
        shared = (("turn", b"%d" % turn),) if turn % 3 == 0 else ()
        offsets = topic.append_many(
            [record.value for record in batch],
            [record.key for record in batch],
            timestamps=[record.timestamp for record in batch],
            headers=list(shared) or None,
            partition=0,
        )[0]
        assert len(offsets) == len(batch)
        written.records += [
            Record(offset, record.timestamp, record.key, record.value, shared)
            for offset, record in zip(offsets, batch, strict=True)
        ]


def _made_up(chance: random.Random) -> Record:
    key = chance.choice([None, b"", b"key-%d" % chance.randrange(9), chance.randbytes(5)])
    kind = chance.randrange(10)
    # Half of a value repeats the other half: every codec finds that, and segments still fill.
    half = chance.randbytes(chance.randrange(30, 500))
    value = None if kind == 0 else b"" if kind == 1 else half + half
    timestamp = BASE_TIMESTAMP + chance.randrange(1_000_000)
    return Record(-1, timestamp, key, value)
