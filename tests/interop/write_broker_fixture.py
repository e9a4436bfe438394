"""Write tests/data/kafka_broker_dir{,_killed}: log directories as a real Kafka broker leaves them.

A broker is started on an empty directory, topics of many kinds are filled through kafka-python, and
the directory is copied after a clean stop. Then the broker runs once more over it, takes more
records, and is killed with SIGKILL; that state is the second copy. What must be read back goes into
expected.json beside each copy. It is checked twice before it is written: against what was sent, and
by Kafka's own record classes over the copied files.

    python tests/interop/write_broker_fixture.py [--target tests/data]
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kafka_jars
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.structs import OffsetAndMetadata
from kafka_broker import KafkaBroker
from kafka_reads import read_records

if TYPE_CHECKING:
    from collections.abc import Callable

SEED = 20131215
BASE_TIMESTAMP = 1_700_000_000_000
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
ROLLED = "rolled.by-size_1"
LOG_START = 23  # where DeleteRecords moves the first partition of ROLLED
WAIT_S = 30
# Preallocated at 10 MiB each whatever the settings say; a broker makes them anew.
LEFT_OUT_OF_KILLED = (
    "__cluster_metadata-0/00000000000000000000.index",
    "__cluster_metadata-0/00000000000000000000.timeindex",
)

SMALL_SEGMENTS = {"internal.segment.bytes": "2000", "index.interval.bytes": "256"}
TOPICS: dict[str, tuple[int, dict[str, str]]] = {
    # One codec a partition, compressed by the client.
    "codecs": (len(CODECS), {"index.interval.bytes": "512"}),
    # Sent plain, compressed by the broker itself: Kafka's own encoders.
    **{f"broker-{codec}": (1, {"compression.type": codec}) for codec in CODECS[1:]},
    ROLLED: (2, SMALL_SEGMENTS),
    "append-time": (1, {"message.timestamp.type": "LogAppendTime"}),
    "compacted": (
        1,
        {**SMALL_SEGMENTS, "cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01"},
    ),
    "transactions": (1, {}),
    "empty": (1, {}),
    "dropped": (1, {}),  # deleted just before the stop: leaves a directory named ...-delete
}


@dataclass(frozen=True)
class Sent:
    """One record as it was sent, before the broker gave it an offset."""

    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Writer:
    """Sends records and remembers, by partition and offset, what the broker acknowledged."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.sent: dict[tuple[str, int], dict[int, Sent]] = {}

    def producer(self, **settings: Any) -> KafkaProducer:
        return KafkaProducer(
            bootstrap_servers=self.bootstrap,
            **{"batch_size": 1500, "linger_ms": 20, **settings},
        )

    def send(self, producer: KafkaProducer, topic: str, partition: int, records: list[Sent]) -> list[int]:
        futures = [
            producer.send(
                topic,
                value=record.value,
                key=record.key,
                headers=list(record.headers),
                partition=partition,
                timestamp_ms=record.timestamp,
            )
            for record in records
        ]
        kept = self.sent.setdefault((topic, partition), {})
        offsets = []
        for record, future in zip(records, futures, strict=True):
            acknowledged = future.get(timeout=WAIT_S)
            kept[acknowledged.offset] = Sent(acknowledged.timestamp, record.key, record.value, record.headers)
            offsets.append(acknowledged.offset)
        return offsets


def sample_records(seed: str, count: int, start: int = 0) -> list[Sent]:
    """Make records that touch the corners: nulls, empties, odd bytes, headers, unordered times."""
    chance = random.Random(f"{SEED}-{seed}")
    records = []
    for index in range(start, start + count):
        key = chance.choice([None, b"", f"key-{index % 13}".encode(), bytes([0xFF, index % 256])])
        value: bytes | None = f'{{"index":{index},"seed":"{seed}","fill":"'.encode()
        value += chance.choice([b"ab", b"xyz", b"\x00\xfe"]) * chance.randrange(12) + b'"}'
        if index % 5 == 2 and key is not None:  # this client refuses a null key with a null value
            value = None
        elif index % 17 == 3:
            value = b""
        headers: tuple[tuple[str, bytes], ...] = ()
        if index % 3 == 0:
            headers = (("trace", index.to_bytes(4, "big")), ("trace", b""))
        elif index % 7 == 1:
            headers = (("größe", b"\xff\x00"), ("", b"empty name"))
        timestamp = BASE_TIMESTAMP + index * 1000 + chance.randrange(-5000, 5000)
        records.append(Sent(timestamp, key, value, headers))
    return records


def fill(writer: Writer, admin: KafkaAdminClient, data_dir: Path) -> None:
    """Put records into every topic of the first run."""
    for partition, codec in enumerate(CODECS):
        producer = writer.producer(compression_type=None if codec == "none" else codec)
        writer.send(producer, "codecs", partition, sample_records(codec, 32))
        producer.close()

    plain = writer.producer(enable_idempotence=False)
    for codec in CODECS[1:]:
        writer.send(plain, f"broker-{codec}", 0, sample_records(f"broker-{codec}", 24))
    for partition in range(2):
        # Short rounds: each ends a batch, so that a segment holds several.
        for start in range(0, 96, 8):
            writer.send(plain, ROLLED, partition, sample_records(f"rolled-{partition}", 8, start))
    writer.send(plain, "append-time", 0, sample_records("append-time", 20))
    writer.send(plain, "dropped", 0, sample_records("dropped", 5))
    for start in range(0, 240, 10):
        writer.send(plain, "compacted", 0, compacted_round(start, 10))
    plain.close()

    fill_transactions(writer)
    commit_group_offsets(writer.bootstrap)
    admin.delete_records({TopicPartition(ROLLED, 0): LOG_START})
    checkpoint = data_dir / "cleaner-offset-checkpoint"
    wait_until(lambda: "compacted 0" in checkpoint.read_text(), "the cleaner to finish a pass")
    admin.delete_topics(["dropped"])
    wait_until(lambda: any(data_dir.glob("dropped-0.*-delete")), "the topic to be deleted")


def compacted_round(start: int, count: int) -> list[Sent]:
    """Make keyed records, many for each key; some keys end with a tombstone."""
    return [
        Sent(
            BASE_TIMESTAMP + index,
            f"k{index * 7 % 19}".encode(),
            None if index * 7 % 19 in (3, 4) and index > 150 else f"value {index} ".encode() * 3,
        )
        for index in range(start, start + count)
    ]


def fill_transactions(writer: Writer) -> None:
    """Write a committed, an aborted and another committed transaction, with their markers."""
    producer = writer.producer(transactional_id="fixture")
    producer.init_transactions()
    for turn, commit in enumerate((True, False, True)):
        producer.begin_transaction()
        records = sample_records("transactions", 6, turn * 6)
        last = writer.send(producer, "transactions", 0, records)[-1]
        if commit:
            producer.commit_transaction()
        else:
            producer.abort_transaction()
        # The coordinator answers before the marker is in the log; the marker takes one offset.
        wait_until(lambda last=last: end_offset(writer.bootstrap, "transactions") == last + 2, "a marker")
    producer.close()


def commit_group_offsets(bootstrap: str) -> None:
    """Commit an offset, so that there is a __consumer_offsets partition."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id="fixture-group", enable_auto_commit=False)
    partition = TopicPartition("codecs", 0)
    consumer.assign([partition])
    consumer.commit({partition: OffsetAndMetadata(10, "", -1)})
    consumer.close()


def end_offset(bootstrap: str, topic: str, partition: int = 0) -> int:
    consumer = KafkaConsumer(bootstrap_servers=bootstrap)
    where = TopicPartition(topic, partition)
    try:
        return consumer.end_offsets([where])[where]
    finally:
        consumer.close()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {WAIT_S} s for {what}")
        time.sleep(0.1)


def partitions_kept() -> list[TopicPartition]:
    return [
        TopicPartition(topic, partition)
        for topic, (count, _) in TOPICS.items()
        if topic != "dropped"
        for partition in range(count)
    ]


def ask_broker(bootstrap: str) -> dict[TopicPartition, dict[str, Any]]:
    """Ask the running broker for what only it can judge: bounds and look-ups by time."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap)
    partitions = partitions_kept()
    starts = consumer.beginning_offsets(partitions)
    ends = consumer.end_offsets(partitions)
    answers: dict[TopicPartition, dict[str, Any]] = {
        where: {
            "log_start_offset": starts[where],
            "log_end_offset": ends[where],
            "offsets_for_times": [],
        }
        for where in partitions
    }
    for seconds in (-10, 0, 4, 17, 35, 58, 90, 118, 200):
        asked = BASE_TIMESTAMP + seconds * 1000
        for where, found in consumer.offsets_for_times(dict.fromkeys(partitions, asked)).items():
            answer = None if found is None else [found.offset, found.timestamp]
            # Kafka finds nothing in a log whose first segment was compacted away to an empty file:
            # such a segment counts as being as young as its file, and look-ups end in it.
            if where.topic != "compacted":
                answers[where]["offsets_for_times"].append([asked, answer])
    consumer.close()
    return answers


def describe(
    copy: Path,
    writer: Writer,
    answers: dict[TopicPartition, dict[str, Any]],
    topic_ids: dict[str, str],
) -> dict[str, Any]:
    """Build expected.json: what Kafka's classes read in the copy, checked against what was sent."""
    segments = {where: sorted((copy / f"{where.topic}-{where.partition}").glob("*.log")) for where in answers}
    by_segment = read_records([path for paths in segments.values() for path in paths])
    described = []
    for where, answer in answers.items():
        read = [record for path in segments[where] for record in by_segment[path]]
        records = [record for record in read if not record["control"]]
        check_against_sent(where, records, writer.sent.get((where.topic, where.partition), {}))
        described.append(
            {
                "topic": where.topic,
                "topic_id": topic_ids[where.topic],
                "partition": where.partition,
                "timestamp_type": TOPICS[where.topic][1].get("message.timestamp.type", "CreateTime"),
                **answer,
                "control_offsets": [record["offset"] for record in read if record["control"]],
                "records": [
                    {
                        "offset": record["offset"],
                        "timestamp": record["timestamp"],
                        "codec": record["codec"],
                        "key": hex_or_none(record["key"]),
                        "value": hex_or_none(record["value"]),
                        "headers": [[k, hex_or_none(v)] for k, v in record["headers"]],
                    }
                    for record in records
                    if record["offset"] >= answer["log_start_offset"]
                ],
            }
        )
    return {
        "kafka_version": kafka_jars.kafka_version(),
        "internal_topics": sorted(path.name.rpartition("-")[0] for path in copy.glob("__*") if path.is_dir()),
        "partitions": described,
    }


def check_against_sent(where: TopicPartition, records: list[dict[str, Any]], sent: dict[int, Sent]) -> None:
    """Refuse to write an expectation that differs from what was sent."""
    read = {
        record["offset"]: Sent(record["timestamp"], record["key"], record["value"], tuple(record["headers"]))
        for record in records
    }
    if where.topic == "compacted":
        latest = {record.key: offset for offset, record in sorted(sent.items())}
        assert read.items() <= sent.items(), where
        assert len(read) < len(sent), "nothing was compacted"
        assert set(latest.values()) <= set(read), "the latest record of a key is gone"
    else:
        assert read == sent, where


def hex_or_none(data: bytes | None) -> str | None:
    return None if data is None else data.hex()


def topic_ids_of(data_dir: Path) -> dict[str, str]:
    """Read each topic's id from its partition.metadata files."""
    ids = {}
    for path in data_dir.glob("*-[0-9]*/partition.metadata"):
        fields = dict(line.split(": ", 1) for line in path.read_text().splitlines())
        ids[path.parent.name.rpartition("-")[0]] = fields["topic_id"]
    return ids


def save(data_dir: Path, target: Path, leave_out: tuple[str, ...] = ()) -> Path:
    """Copy the directory to target/data, without what `leave_out` names."""
    shutil.rmtree(target / "data", ignore_errors=True)
    copy = target / "data"
    shutil.copytree(data_dir, copy)
    for name in leave_out:
        (copy / name).unlink()
    for path in copy.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return copy


def write_expected(target: Path, expected: dict[str, Any]) -> None:
    """Write one partition header and one record a line: a diff stays readable."""
    text = json.dumps(expected, ensure_ascii=False, separators=(",", ":"))
    text = text.replace('{"offset":', '\n{"offset":').replace('{"topic":', '\n{"topic":')
    (target / "expected.json").write_text(text + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    default = Path(__file__).resolve().parents[1] / "data"
    parser.add_argument("--target", type=Path, default=default)
    target = parser.parse_args().target
    clean, killed = target / "kafka_broker_dir", target / "kafka_broker_dir_killed"

    with tempfile.TemporaryDirectory() as scratch:
        data_dir = Path(scratch) / "data"
        data_dir.mkdir()
        with KafkaBroker(Path(scratch), data_dir) as broker:
            admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
            admin.create_topics(
                [NewTopic(name, count, 1, topic_configs=settings) for name, (count, settings) in TOPICS.items()]
            )
            writer = Writer(broker.bootstrap)
            fill(writer, admin, data_dir)
            answers = ask_broker(broker.bootstrap)
            admin.close()
        copy = save(data_dir, clean)
        write_expected(clean, describe(copy, writer, answers, topic_ids_of(copy)))

        with KafkaBroker(Path(scratch), data_dir) as broker:
            writer.bootstrap = broker.bootstrap
            for partition, codec in enumerate(CODECS):
                producer = writer.producer(compression_type=None if codec == "none" else codec)
                writer.send(producer, "codecs", partition, sample_records(codec, 8, 32))
                producer.close()
            plain = writer.producer(enable_idempotence=False)
            for start in range(96, 144, 8):
                writer.send(plain, ROLLED, 1, sample_records("rolled-1", 8, start))
            writer.send(plain, "empty", 0, sample_records("empty", 1))
            opened = writer.producer(transactional_id="left-open")
            opened.init_transactions()
            opened.begin_transaction()
            writer.send(opened, "transactions", 0, sample_records("transactions", 4, 18))
            answers = ask_broker(broker.bootstrap)
            broker.kill()
            copy = save(data_dir, killed, LEFT_OUT_OF_KILLED)
        write_expected(killed, describe(copy, writer, answers, topic_ids_of(copy)))
    for each in (clean, killed):
        sizes = [path.stat().st_size for path in each.rglob("*") if path.is_file()]
        print(f"{each}: {len(sizes)} files, {sum(sizes)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
