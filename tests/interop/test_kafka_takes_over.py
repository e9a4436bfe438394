"""A Kafka broker takes over partitions that it did not write, and serves every record.

The partitions' files are put in the place of empty ones the broker made itself, so that topic ids
and metadata are its own. The broker runs once to make the topics, once to serve the files as they
are, once after all indexes and the clean marker are gone, when it checks every batch and builds the
indexes anew, and once to append.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from kafka_broker import KafkaBroker
from kafka_reads import read_records
from logstore_topics import Record, write_topics

import logstore

if TYPE_CHECKING:
    from collections.abc import Mapping

GOLDEN = Path(__file__).resolve().parents[1] / "vectors" / "segment" / "topic-a-0"
TIMEOUT_MS = 20_000
INDEX_SUFFIXES = (".index", ".timeindex")
# Settings that decide where index entries and batches go; others are the broker's own business.
HANDED_ON = ("message.timestamp.type", "cleanup.policy", "index.interval.bytes")


@dataclass
class TakenOver:
    """What was seen in the runs, by topic."""

    data_dir: Path
    written: dict[str, list[Record]]
    indexes_before: dict[str, bytes]
    served: dict[str, list[Record]]
    served_after_recovery: dict[str, list[Record]]
    appended_by_kafka: dict[str, Record]
    indexes_rebuilt: dict[str, bytes]
    logs_unchanged: bool
    log_text: str


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> TakenOver:
    """Take over the golden segment, which logstore had no part in."""
    source = tmp_path_factory.mktemp("golden") / "source"
    folder = source / "topic-a-0"
    folder.mkdir(parents=True)
    for path in GOLDEN.glob("*1000.*"):
        if path.suffix in (".log", *INDEX_SUFFIXES):
            shutil.copyfile(path, folder / path.name)
    shutil.copyfile(GOLDEN / "leader-epoch-checkpoint", folder / "leader-epoch-checkpoint")
    (decoded,) = read_records(sorted(folder.glob("*.log"))).values()
    records = [Record(r["offset"], r["timestamp"], r["key"], r["value"], tuple(r["headers"])) for r in decoded]
    return _take_over(source.parent, source, {"topic-a": records}, {"topic-a": {}})


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> TakenOver:
    """Take over a directory that logstore wrote and closed."""
    work = tmp_path_factory.mktemp("ours")
    written = write_topics(work / "source")
    return _take_over(
        work,
        work / "source",
        {topic: each.records for topic, each in written.items()},
        {topic: {key: each.config[key] for key in HANDED_ON if key in each.config} for topic, each in written.items()},
    )


@pytest.fixture(params=["golden", "ours"])
def taken(request: pytest.FixtureRequest) -> TakenOver:
    """Both, one after the other: if only `ours` fails, it is not the test's doing."""
    return request.getfixturevalue(request.param)


def test_the_broker_serves_every_record(taken: TakenOver) -> None:
    for topic, records in taken.written.items():
        assert taken.served[topic] == records, topic


def test_recovery_keeps_every_record(taken: TakenOver) -> None:
    for topic, records in taken.written.items():
        assert f"partition={topic}-0" in taken.log_text
        assert taken.served_after_recovery[topic] == records, topic
    assert taken.logs_unchanged


def test_the_broker_builds_the_same_indexes(taken: TakenOver) -> None:
    assert any(taken.indexes_before.values())
    different = [
        name
        for name in sorted(taken.indexes_before.keys() | taken.indexes_rebuilt.keys())
        if taken.indexes_before.get(name) != taken.indexes_rebuilt.get(name)
    ]
    assert different == []


def test_the_broker_appends_where_the_log_ended(taken: TakenOver) -> None:
    for topic, records in taken.written.items():
        assert taken.appended_by_kafka[topic].offset == records[-1].offset + 1


def test_logstore_reads_on_what_the_broker_left(ours: TakenOver) -> None:
    with logstore.open(ours.data_dir, read_only=True) as broker:
        for topic, records in ours.written.items():
            found = [
                Record(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in broker.topic(topic).read()
            ]
            assert found == [*records, ours.appended_by_kafka[topic]], topic


def _take_over(
    work: Path,
    source: Path,
    written: dict[str, list[Record]],
    configs: Mapping[str, dict[str, str]],
) -> TakenOver:
    data_dir = work / "kafka"
    data_dir.mkdir()
    # Once the broker has appended, our segment is a sealed one, and a cleaner would compact it.
    broker = KafkaBroker(work, data_dir, {"log.cleaner.enable": "false"})
    with broker:
        admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
        admin.create_topics([NewTopic(topic, 1, 1, topic_configs=config) for topic, config in configs.items()])
        admin.close()
    for topic in written:
        _replace_partition(source / f"{topic}-0", data_dir / f"{topic}-0")
    indexes_before = _contents(data_dir, written, INDEX_SUFFIXES)
    logs_before = _contents(data_dir, written, (".log",))

    with broker:
        served = _consume(broker.bootstrap, written)

    # Gone are the marker, the knowledge of what is on disk, and every index.
    (data_dir / ".kafka_cleanshutdown").unlink()
    (data_dir / "recovery-point-offset-checkpoint").unlink()
    for name in _contents(data_dir, written, INDEX_SUFFIXES):
        (data_dir / name).unlink()
    with broker:
        after_recovery = _consume(broker.bootstrap, written)
    indexes_rebuilt = _contents(data_dir, written, INDEX_SUFFIXES)
    logs_unchanged = _contents(data_dir, written, (".log",)) == logs_before

    with broker:
        appended = _append_one_each(broker.bootstrap, written)
    return TakenOver(
        data_dir,
        written,
        indexes_before,
        served,
        after_recovery,
        appended,
        indexes_rebuilt,
        logs_unchanged,
        broker.log_text(),
    )


def _replace_partition(source: Path, target: Path) -> None:
    """Put the files of `source` into `target`, which keeps its own topic id."""
    for path in target.iterdir():
        if path.name != "partition.metadata":
            path.unlink()
    for path in source.iterdir():
        if path.name != "partition.metadata":
            shutil.copyfile(path, target / path.name)


def _contents(data_dir: Path, topics: Mapping[str, object], suffixes: tuple[str, ...]) -> dict[str, bytes]:
    return {
        str(path.relative_to(data_dir)): path.read_bytes()
        for topic in topics
        for path in (data_dir / f"{topic}-0").iterdir()
        if path.suffix in suffixes
    }


def _consume(bootstrap: str, topics: Mapping[str, object]) -> dict[str, list[Record]]:
    """Read all partitions from their beginning to the end the broker names."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    partitions = [TopicPartition(topic, 0) for topic in topics]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    ends = consumer.end_offsets(partitions)
    found: dict[str, list[Record]] = {topic: [] for topic in topics}
    while any(consumer.position(each) < ends[each] for each in partitions):
        polled = consumer.poll(timeout_ms=TIMEOUT_MS)
        assert polled, f"nothing came for {TIMEOUT_MS} ms; positions short of {ends}"
        for where, records in polled.items():
            found[where.topic] += [Record(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in records]
    consumer.close()
    return found


def _append_one_each(bootstrap: str, topics: Mapping[str, object]) -> dict[str, Record]:
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    futures = {
        topic: producer.send(topic, key=b"from", value=b"Kafka", headers=[("by", b"broker")], partition=0)
        for topic in topics
    }
    acknowledged = {topic: future.get(timeout=TIMEOUT_MS / 1000) for topic, future in futures.items()}
    producer.close()
    return {
        topic: Record(each.offset, each.timestamp, b"from", b"Kafka", (("by", b"broker"),))
        for topic, each in acknowledged.items()
    }
