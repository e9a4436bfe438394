"""Kafka's DumpLogSegments and record classes agree with every byte logstore wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import kafka_reads
import pytest
from logstore_topics import CODECS, Record, Written, write_topics

if TYPE_CHECKING:
    from collections.abc import Callable

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "segment"
CODEC_NAMES = ("none", "gzip", "snappy", "lz4", "zstd")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dump") / "data"


@pytest.fixture(scope="module")
def written(data: Path) -> dict[str, Written]:
    return write_topics(data)


@pytest.fixture(scope="module")
def logs(data: Path, written: dict[str, Written]) -> kafka_reads.Dump:
    return kafka_reads.dump(_files(data, "log"), "--deep-iteration", "--print-data-log")


def _files(data: Path, *suffixes: str) -> list[Path]:
    return sorted(path for suffix in suffixes for path in data.glob(f"*-0/*.{suffix}"))


def _records(dump: kafka_reads.Dump, folder: Path) -> list[kafka_reads.DumpedRecord]:
    return [record for path, dumped in sorted(dump.files.items()) if path.parent == folder for record in dumped.records]


def test_the_tool_finds_nothing_to_complain_about(logs: kafka_reads.Dump) -> None:
    assert logs.complaints == []
    assert [dumped.notes for dumped in logs.files.values() if dumped.notes] == []
    batches = [batch for dumped in logs.files.values() for batch in dumped.batches]
    assert len(batches) > 300
    assert all(batch.crc_valid for batch in batches)


def test_batches_fill_each_segment_without_a_gap(logs: kafka_reads.Dump, data: Path) -> None:
    for folder in {path.parent for path in logs.files}:
        next_offset = 0
        for path in sorted(path for path in logs.files if path.parent == folder):
            position = 0
            assert int(path.stem) == next_offset
            for batch in logs.files[path].batches:
                assert (batch.position, batch.base_offset) == (position, next_offset)
                position += batch.size_bytes
                next_offset = batch.last_offset + 1
            assert position == path.stat().st_size


def test_every_record_is_the_one_written(logs: kafka_reads.Dump, data: Path, written: dict[str, Written]) -> None:
    for each in written.values():
        found = [
            (record.offset, record.timestamp, record.key, record.value, record.header_keys)
            for record in _records(logs, data / each.folder)
        ]
        assert found == [
            (
                record.offset,
                record.timestamp,
                record.key,
                record.value,
                tuple(name for name, _ in record.headers),
            )
            for record in each.records
        ], each.topic


@pytest.mark.parametrize("codec", CODECS)
def test_topics_are_stored_in_their_codec_and_in_many_segments(
    logs: kafka_reads.Dump, data: Path, written: dict[str, Written], codec: str
) -> None:
    folder = data / written[f"codec-{codec}"].folder
    segments = [dumped for path, dumped in logs.files.items() if path.parent == folder]
    assert len(segments) > 3
    batches = [batch for dumped in segments for batch in dumped.batches]
    assert {batch.codec for batch in batches if batch.count > 3} == {codec}
    # A batch that compression would not shrink, such as one with a single null, stays as it is.
    assert {batch.codec for batch in batches} <= {codec, "none"}


def test_timestamp_types(logs: kafka_reads.Dump, written: dict[str, Written]) -> None:
    for path, dumped in logs.files.items():
        config = written[path.parent.name.removesuffix("-0")].config
        expected = config.get("message.timestamp.type", "CreateTime")
        assert {batch.timestamp_type for batch in dumped.batches} <= {expected}


def test_header_values_as_kafka_decodes_them(data: Path, written: dict[str, Written]) -> None:
    by_path = kafka_reads.read_records(_files(data, "log"))
    for each in written.values():
        found = [
            Record(
                record["offset"],
                record["timestamp"],
                record["key"],
                record["value"],
                tuple(record["headers"]),
            )
            for path, records in sorted(by_path.items())
            if path.parent == data / each.folder
            for record in records
        ]
        assert found == each.records, each.topic


def test_indexes_verify(data: Path, written: dict[str, Written]) -> None:
    verified = kafka_reads.dump(_files(data, "index", "timeindex"), "--verify-index-only")
    assert verified.complaints == []


def test_indexes_pass_the_check_a_starting_broker_makes(data: Path, written: dict[str, Written]) -> None:
    paths = _files(data, "index", "timeindex")
    checked = kafka_reads.dump(paths, "--index-sanity-check")
    assert checked.complaints == []
    assert sorted(checked.files) == paths
    for path, dumped in checked.files.items():
        assert dumped.notes in (["passed sanity check."], ["is empty."]), path
        assert (dumped.notes == ["is empty."]) == (path.stat().st_size == 0), path


def test_indexes_are_there_to_be_verified(data: Path, written: dict[str, Written]) -> None:
    dumped = kafka_reads.dump(_files(data, "index", "timeindex")).files
    for codec in CODECS:
        folder = data / f"codec-{codec}-0"
        entries = [each.offset_entries for path, each in dumped.items() if path.parent == folder]
        assert sum(map(len, entries)) > 10
        times = [each.time_entries for path, each in dumped.items() if path.parent == folder]
        assert sum(map(len, times)) >= len(_files(data, "timeindex")) / len(written) / 2


# The judge judged: over files whose content is known, and over damaged ones.


def test_reads_the_golden_segment_right() -> None:
    path = VECTORS / "topic-a-0" / "00000000000000001000.log"
    dump = kafka_reads.dump([path], "--deep-iteration", "--print-data-log")
    assert dump.complaints == []
    expected = json.loads((VECTORS / "topic-a-0.batches.json").read_text())
    assert [
        {
            "position": batch.position,
            "size": batch.size_bytes,
            "base_offset": batch.base_offset,
            "last_offset": batch.last_offset,
            "max_timestamp": batch.max_timestamp,
            "epoch": batch.leader_epoch,
            "codec": CODEC_NAMES.index(batch.codec),
        }
        for batch in dump.files[path].batches
    ] == expected
    assert [record.offset for record in dump.files[path].records] == list(range(1000, 2442))
    decoded = kafka_reads.read_records([path])[path]
    assert [(r["offset"], r["timestamp"], r["key"], r["value"]) for r in decoded] == [
        (r.offset, r.timestamp, r.key, r.value) for r in dump.files[path].records
    ]


def test_reads_the_golden_indexes_right() -> None:
    folder = VECTORS / "topic-a-0"
    paths = [folder / f"00000000000000001000.{suffix}" for suffix in ("index", "timeindex")]
    offsets, times = kafka_reads.dump(paths).files.values()
    assert len(offsets.offset_entries) == paths[0].stat().st_size // 8
    assert (1052, 4412) in offsets.offset_entries
    assert len(times.time_entries) == paths[1].stat().st_size // 12
    assert kafka_reads.dump(paths, "--verify-index-only").complaints == []


def _flip(path: Path, position: int, mask: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= mask
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        pytest.param("index", lambda path: _flip(path, 35, 4), id="offset index, a position"),
        pytest.param("timeindex", lambda path: _flip(path, 67, 64), id="time index, a timestamp"),
        pytest.param("timeindex", lambda path: _flip(path, 71, 1), id="time index, an offset"),
    ],
)
def test_damaged_indexes_are_complained_about(tmp_path: Path, suffix: str, damage: Callable[[Path], None]) -> None:
    folder = tmp_path / "topic-a-0"
    folder.mkdir()
    for each in ("log", "index", "timeindex"):
        name = f"00000000000000001000.{each}"
        shutil.copyfile(VECTORS / "topic-a-0" / name, folder / name)
    path = folder / f"00000000000000001000.{suffix}"
    damage(path)
    assert kafka_reads.dump([path], "--verify-index-only").complaints != []


def test_a_torn_tail_is_noted(tmp_path: Path) -> None:
    name = "00000000000000001000.log"
    content = (VECTORS / "topic-a-0" / name).read_bytes()
    (tmp_path / name).write_bytes(content[:-20])
    dumped = kafka_reads.dump([tmp_path / name], "--deep-iteration").files[tmp_path / name]
    assert any("invalid bytes" in note for note in dumped.notes)
