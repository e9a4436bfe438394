"""Log directories written by a real Kafka broker open read-only and read back right.

The two directories and what they hold are described in the README.md beside each.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import logstore

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = Path(__file__).resolve().parents[1] / "data"
FIXTURES = ("kafka_broker_dir", "kafka_broker_dir_killed")


def _expected(fixture: str) -> list[dict[str, Any]]:
    text = (DATA / fixture / "expected.json").read_text(encoding="utf-8")
    return json.loads(text)["partitions"]


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


def _record(expected: dict[str, Any]) -> tuple:
    headers = [(key, _bytes(value)) for key, value in expected["headers"]]
    return (
        expected["offset"],
        expected["timestamp"],
        _bytes(expected["key"]),
        _bytes(expected["value"]),
        headers,
    )


def _fields(record: Any) -> tuple:
    return (record.offset, record.timestamp, record.key, record.value, list(record.headers))


def _snapshot(folder: Path) -> dict[str, tuple[int, str]]:
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in folder.rglob("*")
        if path.is_file()
    }


PARTITIONS = [
    pytest.param(fixture, partition, id=f"{fixture}:{partition['topic']}-{partition['partition']}")
    for fixture in FIXTURES
    for partition in _expected(fixture)
]


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    opened = {}
    for fixture in FIXTURES:
        copy = tmp_path_factory.mktemp(fixture) / "data"
        shutil.copytree(DATA / fixture / "data", copy)
        opened[fixture] = logstore.open(copy, read_only=True)
    yield opened
    for broker in opened.values():
        broker.close()


@pytest.mark.parametrize("fixture", FIXTURES)
def test_topics_are_listed_without_internal_and_deleted_ones(brokers: dict[str, Any], fixture: str) -> None:
    expected = _expected(fixture)
    broker = brokers[fixture]
    assert broker.topics() == sorted({partition["topic"] for partition in expected})
    for name in broker.topics():
        theirs = [partition for partition in expected if partition["topic"] == name]
        assert broker.topic(name).partitions == len(theirs)
        assert broker.topic(name).id == theirs[0]["topic_id"]


@pytest.mark.parametrize(("fixture", "expected"), PARTITIONS)
def test_every_record_reads_back(brokers: dict[str, Any], fixture: str, expected: dict[str, Any]) -> None:
    topic = brokers[fixture].topic(expected["topic"])
    log = topic.partition(expected["partition"])
    assert log.log_start_offset == expected["log_start_offset"]
    assert log.log_end_offset == expected["log_end_offset"]

    found = list(topic.read(partition=expected["partition"]))
    assert [_fields(record) for record in found] == [_record(record) for record in expected["records"]]
    assert {record.timestamp_type for record in found} <= {expected["timestamp_type"]}


@pytest.mark.parametrize(("fixture", "expected"), PARTITIONS)
def test_columns_hold_the_same(brokers: dict[str, Any], fixture: str, expected: dict[str, Any]) -> None:
    offsets: list[int] = []
    timestamps: list[int] = []
    keys: list[bytes | None] = []
    values: list[bytes | None] = []
    topic = brokers[fixture].topic(expected["topic"])
    for batch in topic.scan(partition=expected["partition"]):
        offsets += map(int, batch.offsets)
        timestamps += map(int, batch.timestamps)
        keys += batch.keys()
        values += batch.values()
    records = [_record(record) for record in expected["records"]]
    assert list(zip(offsets, timestamps, keys, values, strict=True)) == [record[:4] for record in records]


@pytest.mark.parametrize(("fixture", "expected"), PARTITIONS)
def test_reading_starts_at_any_offset(brokers: dict[str, Any], fixture: str, expected: dict[str, Any]) -> None:
    topic = brokers[fixture].topic(expected["topic"])
    records = [_record(record) for record in expected["records"]]
    for start in range(expected["log_start_offset"], expected["log_end_offset"] + 1):
        stop = min(start + 3, expected["log_end_offset"])
        found = topic.read(start, stop=stop, partition=expected["partition"])
        assert [_fields(record) for record in found] == [record for record in records if start <= record[0] < stop]


@pytest.mark.parametrize(("fixture", "expected"), PARTITIONS)
def test_look_ups_by_time_answer_as_the_broker_did(
    brokers: dict[str, Any], fixture: str, expected: dict[str, Any]
) -> None:
    topic = brokers[fixture].topic(expected["topic"])
    for asked, answer in expected["offsets_for_times"]:
        found = topic.offset_for_timestamp(asked, partition=expected["partition"])
        ours = None if found is None else [found.offset, found.timestamp]
        assert ours == answer, f"asked for {asked}"


@pytest.mark.parametrize("fixture", FIXTURES)
def test_reading_only_leaves_every_file_as_it_was(tmp_path: Path, fixture: str) -> None:
    copy = tmp_path / "data"
    shutil.copytree(DATA / fixture / "data", copy)
    before = _snapshot(copy)
    with logstore.open(copy, read_only=True) as broker:
        for name in broker.topics():
            for _ in broker.topic(name).read():
                pass
    assert _snapshot(copy) == before


def test_the_fixtures_hold_what_their_readme_promises() -> None:
    """Guard the data itself: a regenerated fixture must not lose its hard cases."""
    for fixture in FIXTURES:
        by_topic: dict[str, list[dict[str, Any]]] = {}
        for partition in _expected(fixture):
            by_topic.setdefault(partition["topic"], []).append(partition)
        data = DATA / fixture / "data"
        assert {record["codec"] for each in by_topic["codecs"] for record in each["records"]} == {
            *("none", "gzip", "snappy", "lz4", "zstd")
        }
        for codec in ("gzip", "snappy", "lz4", "zstd"):
            assert {r["codec"] for r in by_topic[f"broker-{codec}"][0]["records"]} == {codec}
        rolled = by_topic["rolled.by-size_1"][0]
        assert rolled["log_start_offset"] == 23
        assert len(list((data / "rolled.by-size_1-0").glob("*.log"))) > 3
        compacted = by_topic["compacted"][0]
        assert 0 < len(compacted["records"]) < compacted["log_end_offset"]
        assert any(record["value"] is None for record in compacted["records"])
        assert len(by_topic["transactions"][0]["control_offsets"]) == 3
        assert list(data.glob("dropped-0.*-delete"))
        assert (data / ".kafka_cleanshutdown").exists() == (fixture == "kafka_broker_dir")
    killed = DATA / "kafka_broker_dir_killed" / "data"
    assert any(path.stat().st_size and not any(path.read_bytes()) for path in killed.rglob("*.index"))
