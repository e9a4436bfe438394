"""The examples in ``docs/format`` are decoded, so that the pages cannot drift from the truth."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import NamedTuple

import pytest
from reference_codec import (
    HEADER_BYTES,
    Reader,
    ReadRecord,
    crc32c,
    decode_batch,
    decode_control,
    encode_varint,
)
from reference_files import (
    decode_leader_epochs,
    decode_offset_checkpoint,
    decode_offset_index,
    decode_partition_metadata,
    decode_producer_snapshot,
    decode_time_index,
    decode_transaction_index,
    encode_leader_epochs,
    encode_offset_checkpoint,
    encode_partition_metadata,
)

from logstore._native.waiting_readers import empty_table
from logstore.broker.housekeeping_record import read_record, write_record
from logstore.broker.housekeeping_report import HousekeepingReport, HousekeepingResult
from logstore.broker.metadata import read_topics
from logstore.broker.offsets_schema import decode_key, decode_offset_value, encode_offset_key, encode_offset_value
from logstore.broker.offsets_topic import java_string_hash
from logstore.broker.transaction_state import (
    Status,
    decode_ends,
    decode_transaction_key,
    decode_transaction_value,
    encode_ends,
    encode_transaction_key,
    encode_transaction_value,
)
from logstore.model import TopicPartition
from logstore.records import codecs
from logstore.storage.checkpoint import Checkpoint, CheckpointFile
from logstore.storage.log import Log
from logstore.storage.segment_digests import SegmentDigest, SegmentDigests

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {page.name: page.read_text() for page in sorted((DOCS / "format").glob("*.md"))}
FENCE = re.compile(r"^```(hex|text) ([a-z0-9-]+)\n(.*?)\n```$", re.MULTILINE | re.DOTALL)
FIXED = {"i8": ">b", "i16": ">h", "i32": ">i", "i64": ">q", "u32": ">I", "le32": "<I"}


class Row(NamedTuple):
    """One line of an example."""

    data: bytes
    name: str
    type: str
    value: str


def parse_row(line):
    data, name, kind, *value = re.split(r" {2,}", line)
    return Row(bytes.fromhex(data), name, kind, value[0] if value else "")


HEX = {
    (page, tag): [parse_row(line) for line in body.splitlines()]
    for page, text in PAGES.items()
    for kind, tag, body in FENCE.findall(text)
    if kind == "hex"
}
TEXT = {
    tag: body
    for text in PAGES.values()
    for kind, tag, body in FENCE.findall(text)
    if kind == "text"
}


def example(tag):
    """Return the rows of the hex example with this tag, and its bytes."""
    (rows,) = [rows for (_, name), rows in HEX.items() if name == tag]
    return rows, b"".join(row.data for row in rows)


def numbers(rows):
    return [int(row.value, 0) for row in rows]


# --- every page -------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_page_has_its_parts(page):
    text = PAGES[page]
    assert text.startswith("# ")
    assert text.count("```") % 2 == 0
    if page == "README.md":
        linked = set(re.findall(r"\]\(([a-z-]+\.md)\)", text))
        assert linked | {"README.md"} == set(PAGES)
        return
    assert re.search(r"^\| ", text, re.MULTILINE), "no table"
    assert re.search(r"valid if and only if:?\n+1\. ", text, re.IGNORECASE), "no numbered rules"
    examples = {name for name, _ in HEX} | {"log-directory.md"}
    assert page in examples


@pytest.mark.parametrize("page", [*PAGES, "../glossary.md"])
def test_links_lead_somewhere(page):
    path = DOCS / "format" / page
    targets = re.findall(r"\]\(([^)#]+)\)", path.read_text())
    missing = [target for target in targets if not (path.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize(("page", "tag"), HEX)
def test_each_row_holds_the_value_that_it_names(page, tag):
    for row in HEX[page, tag]:
        if row.type in FIXED:
            assert struct.unpack(FIXED[row.type], row.data)[0] == int(row.value, 0), row
        elif row.type in ("varint", "varlong"):
            reader = Reader(row.data)
            number = reader.varint() if row.type == "varint" else reader.varlong()
            assert (number, reader.remaining) == (int(row.value), 0), row
            assert encode_varint(number) == row.data, row
        elif row.type == "text":
            assert f'"{row.data.decode()}"' == row.value, row
        else:
            assert row.type == "hex", row


# --- record batches ---------------------------------------------------------------------------


def check_header(rows, header):
    for row, (name, value) in zip(rows, vars(header).items(), strict=True):
        assert row.name.lower() == name.replace("_", "")
        assert int(row.value, 0) == value


@pytest.mark.parametrize("tag", ["record-batch", "control-batch"])
def test_batch_example_has_the_header_that_it_shows(tag):
    rows, data = example(tag)
    batch = decode_batch(data)
    check_header(rows[:13], batch.header)
    assert sum(len(row.data) for row in rows[:13]) == HEADER_BYTES
    assert batch.header.size_bytes == len(data)


def test_record_batch_example_holds_the_records_that_it_describes():
    _, data = example("record-batch")
    assert decode_batch(data).records() == [
        ReadRecord(42, 1700000000000, b"bob", b"hi", (("t", b"1"),)),
        ReadRecord(43, 1699999999999, b"amy", None, ()),
    ]


def test_control_batch_example_is_the_marker_that_it_describes():
    rows, data = example("control-batch")
    batch = decode_batch(data)
    (record,) = batch.records()
    assert record.offset == 42
    assert batch.header.producer_id == 4242
    assert decode_control(record) == ("COMMIT", 13)
    named = {row.name: row.value for row in rows}
    assert (named["key.type"], named["value.coordinatorEpoch"]) == ("1", "13")


def test_consumer_offsets_example_is_the_commit_that_it_describes():
    _, key = example("consumer-offsets-key")
    _, value = example("consumer-offsets-value")
    assert decode_key(key) == ("g1", "orders", 0)
    assert decode_offset_value(value) == (42, 0, "note", 1_700_000_000_000, -1)
    assert (encode_offset_key("g1", "orders", 0), encode_offset_value(decode_offset_value(value))) == (key, value)


def test_partitions_of_groups_are_those_of_the_table():
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (\d+) \| 0 \|", PAGES["consumer-offsets.md"], re.MULTILINE)
    assert len(rows) == 3
    for group, partition in rows:
        assert (java_string_hash(group) & 0x7FFFFFFF) % 50 == int(partition)


def test_header_table_matches_the_example():
    rows, _ = example("record-batch")
    table = re.findall(
        r"^\| (\d+) \| (\d+) \| ([iu]\d+) \| (\w+) \|", PAGES["record-batch.md"], re.MULTILINE
    )
    position = 0
    for (at, size, kind, name), row in zip(table, rows[:13], strict=True):
        assert (int(at), int(size), kind, name) == (position, len(row.data), row.type, row.name)
        position += len(row.data)


def test_numbers_in_the_text_of_the_record_batch_page():
    text = PAGES["record-batch.md"]
    varints = re.findall(r"(-?\d+) \| `((?:[0-9a-f]{2} ?)+)`", text)
    assert len(varints) == 10
    for number, data in varints:
        assert encode_varint(int(number)) == bytes.fromhex(data)
    assert f"`{crc32c(b'123456789'):#010x}`" in text
    assert f"`{crc32c(bytes(4)):#010x}`" in text


# --- codecs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", codecs.CODEC_NAMES[1:])
def test_codec_example_decodes(codec):
    _, data = example(codec)
    plain = b"logstore " * 4
    assert codecs.decompress(codecs.codec_id(codec), data, len(plain)) == plain


def test_codec_table_is_the_one_in_use():
    overview = PAGES["compression.md"].partition("## gzip")[0]
    table = re.findall(r"^\| (\d) \| (\w+) \|", overview, re.MULTILINE)
    assert [(codecs.codec_id(name), name) for _, name in table] == [(int(i), n) for i, n in table]
    assert tuple(name for _, name in table) == codecs.CODEC_NAMES


# --- indexes and text files -------------------------------------------------------------------


def test_offset_index_example():
    rows, data = example("offset-index")
    entries = decode_offset_index(data, 1000, 1 << 20)
    assert [offset for offset, _ in entries] == [1052, 1091, 1138]
    values = numbers(rows)
    assert [(offset - 1000, position) for offset, position in entries] == list(
        zip(values[::2], values[1::2], strict=True)
    )


def test_time_index_example():
    rows, data = example("time-index")
    values = numbers(rows)
    assert [(time, offset - 1000) for time, offset in decode_time_index(data, 1000, 2442)] == list(
        zip(values[::2], values[1::2], strict=True)
    )


def test_transaction_index_example():
    rows, data = example("transaction-index")
    entries = decode_transaction_index(data, 1000)
    assert [value for entry in entries for value in (0, *entry)] == numbers(rows)
    assert [entry[3] for entry in entries] == [1043, 1060]


def test_producer_snapshot_example():
    rows, data = example("producer-snapshot")
    entries = decode_producer_snapshot(data)
    assert [value for entry in entries for value in entry] == numbers(rows)[3:]
    assert [entry[-1] for entry in entries] == [-1, 1250]


def test_leader_epoch_example():
    _, data = example("leader-epoch-checkpoint")
    assert TEXT["leader-epoch-checkpoint"] + "\n" == data.decode()
    assert decode_leader_epochs(data) == [(3, 1000), (5, 1628)]
    assert encode_leader_epochs([(3, 1000), (5, 1628)]) == data


def test_offset_checkpoint_example():
    _, data = example("offset-checkpoint")
    assert TEXT["offset-checkpoint"] + "\n" == data.decode()
    offsets = {("orders", 0): 1000, ("orders", 1): 0}
    assert decode_offset_checkpoint(data) == offsets
    assert encode_offset_checkpoint(offsets) == data


def test_partition_metadata_example():
    _, topic_id = example("partition-metadata")
    assert decode_partition_metadata(TEXT["partition-metadata"].encode()) == topic_id
    assert encode_partition_metadata(topic_id).decode() == TEXT["partition-metadata"]


def test_directory_example_uses_names_from_the_table():
    known = set(re.findall(r"^\| `([^`]+)` \|", PAGES["log-directory.md"], re.MULTILINE))
    for line in TEXT["log-directory"].splitlines():
        directory, name = line.split()[0].split("/")
        assert re.fullmatch(r".+-\d+", directory)
        assert re.sub(r"^\d{20}", "<offset>", name) in known


# --- logstore's own files -----------------------------------------------------------------------


def test_log_checkpoint_example_reads_as_it_says(tmp_path):
    _, data = example("log-checkpoint")
    path = tmp_path / "logstore.checkpoint"
    path.write_bytes(data.ljust(4096, b"\0"))
    state = CheckpointFile(str(path)).read()
    assert state == Checkpoint(0, 1000, 512, 40960, 1000, is_clean=True)


def test_open_batch_example_reads_as_it_says(tmp_path, monkeypatch):
    _, block = example("open-batch-block")
    _, records = example("open-batch-records")
    with Log(tmp_path / "orders-0", topic_id="AbCdEfGhIjKlMnOpQrStUv") as log:
        log.append_many([b""] * 1000)
    content = block.ljust(128, b"\0") + records[:8]
    (tmp_path / "orders-0" / "logstore.open-batch").write_bytes(content.ljust(4096, b"\0") + records[8:])
    monkeypatch.setattr("logstore.storage.log.boot_id", lambda: block[32:48])
    with Log(tmp_path / "orders-0") as log:
        (record,) = log.read(1000)
    assert (record.offset, record.timestamp, record.key, record.value) == (1000, 1700000000000, b"k", b"v1")


def test_waiting_example_is_how_a_table_begins():
    _, data = example("waiting-header")
    table = empty_table()
    assert len(table) == 8192
    assert table == data.ljust(8192, b"\0")


def test_segment_digests_example_reads_as_it_says(tmp_path):
    _, data = example("segment-digests")
    (tmp_path / "logstore.digests").write_bytes(data)
    (digest,) = SegmentDigests(str(tmp_path)).entries().values()
    assert digest == SegmentDigest(
        512, 1000, 40960, 1357034400000, data[48:64], (80, 0x1C291CA3), (120, 0x8AB4F2D7), 1795359269997
    )


def test_housekeeping_example_is_what_is_written_and_read(tmp_path):
    _, data = example("housekeeping")
    result = HousekeepingResult("retention", "orders", 0, 1795359269990, 7, 4096, "1 segment by retention.ms")
    failures = {TopicPartition("clicks", 2): "compaction: batch is cut off"}
    report = HousekeepingReport("on", "", 1795359269997, 1795359270120, -1, -1, 4096, (result,), failures)
    write_record(str(tmp_path), report)
    assert (tmp_path / "logstore.housekeeping").read_bytes() == data
    record = read_record(str(tmp_path))
    assert record["results"] == [result._asdict()]
    assert record["failures"] == [{"topic": "clicks", "partition": 2, "reason": "compaction: batch is cut off"}]
    assert (record["last_retention_ms"], record["bytes_freed"]) == (1795359269997, 4096)


def test_topic_metadata_example_reads_as_it_says(tmp_path):
    _, data = example("topic-metadata")
    (tmp_path / "logstore.topics").write_bytes(data)
    (topic,) = read_topics(str(tmp_path)).values()
    assert (topic.name, topic.topic_id, topic.partitions) == ("orders", "bbNboY0oR1-iaFZ_87LUnA", 3)
    assert topic.config.overrides() == {"retention.ms": 604_800_000}


def test_transaction_state():
    _, key = example("transaction-state-key")
    assert decode_transaction_key(key) == "x"
    assert encode_transaction_key("x") == key
    _, data = example("transaction-state-value")
    value = decode_transaction_value(data)
    assert (value.producer_id, value.status, value.partitions) == (7, Status.ONGOING, (("orders", 2),))
    assert encode_transaction_value(value) == data
    _, data = example("transaction-state-ends")
    assert decode_ends(data) == {("orders", 2): 43}
    assert encode_ends(decode_ends(data)) == data
