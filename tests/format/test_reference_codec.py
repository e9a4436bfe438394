"""The reference codec against the golden vectors and the segment fixture, and against itself."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_codec import (
    HEADER_BYTES,
    Batch,
    FormatError,
    Header,
    Reader,
    StoredRecord,
    build_batch,
    crc32c,
    decode_batch,
    decode_control,
    decode_log,
    decode_record,
    encode_record,
    encode_varint,
)
from reference_files import (
    OffsetEntry,
    TimeEntry,
    decode_leader_epochs,
    decode_offset_checkpoint,
    decode_offset_index,
    decode_partition_metadata,
    decode_time_index,
    derive_indexes,
    encode_leader_epochs,
    encode_offset_checkpoint,
    encode_offset_index,
    encode_partition_metadata,
    encode_time_index,
    find_offset,
    find_timestamp,
)

from logstore.errors import CorruptDataError
from logstore.records import codecs

VECTORS = Path(__file__).parents[1] / "vectors"
SEGMENT = VECTORS / "segment"
PARTITION = SEGMENT / "topic-a-0"
BASE_OFFSET = 1000
LIMIT = 2 << 20

INDEX = json.loads((VECTORS / "index.json").read_text())
GOOD = {vector["name"]: vector for vector in INDEX["vectors"] if vector["valid"]}
BAD = {vector["name"]: vector for vector in INDEX["vectors"] if not vector["valid"]}


def vector_bytes(name):
    return (VECTORS / f"{name}.bin").read_bytes()


def decompressor(codec):
    return lambda payload: codecs.decompress(codec, payload, LIMIT)


def described(data):
    """Describe bytes as index.json does."""
    if data is None:
        return None
    if len(data) <= 48:
        return {"hex": data.hex()}
    return {"len": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def expected_records(vector):
    if "records_ref" not in vector:
        return vector["records"]
    base = vector["records_base_offset"]
    return [
        record | {"offset": record["offset"] + base}
        for record in INDEX["record_sets"][vector["records_ref"]]
    ]


# --- golden vectors ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOOD)
def test_good_vector_decodes_to_its_header_and_records(name):
    vector = GOOD[name]
    batch = decode_batch(vector_bytes(name))
    header = batch.header
    expected = dict(vector["header"])
    decoded = expected.pop("attributes_decoded")
    assert header.size_bytes == expected.pop("size_in_bytes") == len(vector_bytes(name))
    assert header.batch_length == expected.pop("length")
    assert header.crc == int(expected.pop("crc"), 16)
    assert {field: getattr(header, field) for field in expected} == expected
    assert header.codec == decoded["codec"]
    assert (header.attributes & 0x08 != 0) == (decoded["timestamp_type"] == "LogAppendTime")
    assert (header.attributes & 0x10 != 0) == decoded["transactional"]
    assert (header.attributes & 0x20 != 0) == decoded["control"]
    assert (header.attributes & 0x40 != 0) == decoded["delete_horizon"]

    records = batch.records(decompressor(header.codec) if header.codec else None)
    assert [
        {
            "offset": record.offset,
            "timestamp": record.timestamp,
            "key": described(record.key),
            "value": described(record.value),
            "headers": [[name, described(value)] for name, value in record.headers],
        }
        for record in records
    ] == expected_records(vector)


# A reader takes these, but a writer never writes them: what they decode to is written otherwise.
NOT_CANONICAL = {"varint_overlong", "key_length_minus_2"}


@pytest.mark.parametrize(
    "name", [name for name, vector in GOOD.items() if not vector["header"]["attributes"] & 7]
)
def test_uncompressed_vector_is_encoded_again_byte_for_byte(name):
    batch = decode_batch(vector_bytes(name))
    payload = b"".join(map(encode_record, batch.stored_records()))
    same = Batch(batch.header, payload).encode() == vector_bytes(name)
    assert same == (name not in NOT_CANONICAL)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, vector in GOOD.items()
        if vector.get("encoder") in ("aiokafka-c", "kafka-python")
        and not vector["header"]["attributes"]
        and "header_fields_rewritten_after_build" not in vector
        and not name.startswith("offsets_")
    ],
)
def test_vector_is_built_byte_for_byte_from_its_records(name):
    batch = decode_batch(vector_bytes(name))
    header = batch.header
    built = build_batch(
        [(r.timestamp, r.key, r.value, r.headers) for r in batch.records()],
        partition_leader_epoch=header.partition_leader_epoch,
        producer_id=header.producer_id,
        producer_epoch=header.producer_epoch,
        base_sequence=header.base_sequence,
    )
    assert built == vector_bytes(name)


@pytest.mark.parametrize("name", [name for name, vector in GOOD.items() if "control" in vector])
def test_control_records(name):
    expected = GOOD[name]["control"]
    batch = decode_batch(vector_bytes(name))
    control = decode_control(batch.stored_records()[0])
    assert control.type == expected["type"]
    assert control.coordinator_epoch == expected.get("coordinator_epoch", -1)
    assert decode_control(batch.records()[0]) == control


# The framing is sound and the records decode: only an append from a producer refuses them.
SOUND = {
    "bad_base_offset_nonzero_from_client",
    "bad_control_from_client",
    "bad_count_offset_mismatch",
    "bad_count_zero",
    "bad_log_append_time_from_client",
    "bad_null_key_on_compacted_topic",
    "bad_pid_without_sequence",
}
# Their framing is sound, so the original's recovery keeps them; the recommendation is to refuse.
REFUSED_EARLIER = {
    "bad_count_huge",
    "bad_count_negative",
    "bad_last_offset_delta_negative",
    "bad_magic_127",
    "bad_magic_3",
}
MARKERS = {"bad_control_key_short", "bad_control_value_short"}


def read_everything(data):
    for _, batch in decode_log(data):
        codec = batch.header.codec
        records = batch.records(decompressor(codec) if codec else None)
        if batch.header.attributes & 0x20 and batch.header.producer_id >= 0:
            for record in records:
                decode_control(record)


@pytest.mark.parametrize("name", BAD)
def test_bad_vector_gets_its_verdict(name):
    if name in SOUND:
        read_everything(vector_bytes(name))
        assert BAD[name]["expect"]["recovery_scan"]["result"] == "accept"
    else:
        with pytest.raises((FormatError, CorruptDataError)):
            read_everything(vector_bytes(name))


@pytest.mark.parametrize("name", BAD)
def test_bad_vector_keeps_what_a_recovery_scan_keeps(name):
    data = vector_bytes(name)
    valid_bytes = 0
    try:
        for position, batch in decode_log(data):
            valid_bytes = position + batch.header.size_bytes
    except FormatError:
        pass
    if name in REFUSED_EARLIER:
        assert valid_bytes == 0
    elif name in MARKERS:
        assert valid_bytes == len(data)  # markers are looked at by who reads records
    else:
        assert valid_bytes == BAD[name]["expect"]["recovery_scan"]["valid_bytes"]


# --- CRC and varints --------------------------------------------------------------------------


def test_crc32c_check_values():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(4)) == 0x48674BC7
    assert crc32c(b"") == 0


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (-1, "01"),
        (63, "7e"),
        (-64, "7f"),
        (64, "8001"),
        (-65, "8101"),
        (300, "d804"),
        (8191, "fe7f"),
        (8192, "808001"),
        (2**31 - 1, "feffffff0f"),
        (-(2**31), "ffffffff0f"),
        (2**63 - 1, "fe" + "ff" * 8 + "01"),
        (-(2**63), "ff" * 9 + "01"),
    ],
)
def test_varint_check_values(value, encoded):
    assert encode_varint(value).hex() == encoded
    reader = Reader(bytes.fromhex(encoded))
    assert (reader.varint() if -(2**31) <= value < 2**31 else reader.varlong()) == value
    assert not reader.remaining


def test_varint_edges():
    assert Reader(b"\x92\x00").varint() == 9  # longer than it need be
    assert Reader(b"\xfe\xff\xff\xff\x7f").varint() == 2**31 - 1  # bits past the 32nd are dropped
    for data in (b"", b"\x80", b"\x80\x80\x80\x80\x80\x01"):
        with pytest.raises(FormatError):
            Reader(data).varint()
    with pytest.raises(FormatError):
        Reader(b"\x80" * 10 + b"\x01").varlong()


@given(st.integers(-(2**63), 2**63 - 1))
def test_varint_round_trip(value):
    assert Reader(encode_varint(value)).varlong() == value


# --- round trips ------------------------------------------------------------------------------

timestamps = st.one_of(st.just(-1), st.integers(0, 2**63 - 1), st.integers(0, 2 * 10**12))
nullable = st.none() | st.binary(max_size=40)
headers = st.lists(st.tuples(st.text(max_size=10), nullable), max_size=3)
produced = st.lists(st.tuples(timestamps, nullable, nullable, headers), min_size=1, max_size=8)


@settings(max_examples=200, deadline=None)
@given(records=produced, codec=st.sampled_from([0, 1]), base_offset=st.integers(0, 2**62))
def test_batch_round_trip(records, codec, base_offset):
    data = build_batch(records, codec=codec, base_offset=base_offset)
    batch = decode_batch(data)
    assert [(r.timestamp, r.key, r.value, list(r.headers)) for r in batch.records()] == records
    assert [r.offset for r in batch.records()] == [base_offset + i for i in range(len(records))]
    assert batch.header.max_timestamp == max(record[0] for record in records)
    assert batch.encode() == data


@settings(max_examples=100, deadline=None)
@given(records=produced, data=st.data())
def test_any_changed_byte_that_the_crc_covers_is_noticed(records, data):
    batch = bytearray(build_batch(records))
    position = data.draw(st.integers(17, len(batch) - 1))
    batch[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(FormatError):
        decode_batch(bytes(batch))


def test_record_timestamps_are_those_of_the_batch_under_log_append_time():
    data = build_batch(
        [(5, b"k", b"v", []), (9, None, None, [])], attributes=0x08, max_timestamp=70
    )
    batch = decode_batch(data)
    assert [record.timestamp for record in batch.records()] == [70, 70]
    assert [record.timestamp_delta for record in batch.stored_records()] == [0, 4]


@pytest.mark.parametrize(
    "change",
    [
        {"base_offset": -1},
        {"last_offset_delta": -1, "records_count": 0},
        {"base_offset": 2**63 - 1, "last_offset_delta": 1},
        {"records_count": -1},
        {"records_count": 4},
        {"magic": 1},
        {"magic": 3},
    ],
)
def test_header_that_breaks_a_rule_is_refused_whatever_the_crc_says(change):
    header = replace(Header(last_offset_delta=2), **change)
    with pytest.raises(FormatError):
        decode_batch(Batch(header, b"").encode())


def test_batch_without_records_has_none_whatever_its_codec_and_payload():
    for codec in range(8):
        header = Header(attributes=codec, last_offset_delta=3)
        assert decode_batch(Batch(header, b"anything").encode()).records() == []


def test_batches_must_follow_each_other():
    def log(*batches):
        data = b"".join(
            Batch(Header(base_offset=offset, partition_leader_epoch=epoch), b"").encode()
            for offset, epoch in batches
        )
        return [batch.header.base_offset for _, batch in decode_log(data, 10)]

    assert log((10, 3), (12, -1), (20, 3), (10 + 2**31 - 1, 4)) == [10, 12, 20, 10 + 2**31 - 1]
    for batches in (
        [(9, 0)],
        [(10, 0), (10, 0)],
        [(11, 0), (10, 0)],
        [(10, 3), (11, -1), (12, 2)],
        [(10, 0), (10 + 2**31, 0)],
    ):
        with pytest.raises(FormatError):
            log(*batches)


def test_record_offsets_must_rise_within_the_batch():
    def batch(*deltas):
        payload = b"".join(encode_record(StoredRecord(delta, 0)) for delta in deltas)
        header = Header(last_offset_delta=5, records_count=len(deltas))
        return decode_batch(Batch(header, payload).encode())

    assert [record.offset for record in batch(1, 3, 5).records()] == [1, 3, 5]
    for deltas in ((1, 1), (3, 1), (6,), (-1,)):
        with pytest.raises(FormatError):
            batch(*deltas).records()


def test_record_keeps_its_attributes_and_a_name_that_is_not_utf8():
    record = StoredRecord(3, -4, b"k", None, (("caf\udce9", b""),), attributes=9)
    data = b"\x1a\x09\x07\x06\x02k\x01\x02\x08caf\xe9\x00"
    decoded = decode_record(Reader(data))
    assert decoded == record


def test_gzip_payload_decodes_with_the_standard_library():
    assert len(decode_batch(vector_bytes("one_gzip")).records()) == 1
    with pytest.raises(NotImplementedError):
        decode_batch(vector_bytes("one_zstd")).records()
    stored = decode_batch(vector_bytes("many10_gzip"))
    assert stored.records(lambda payload: zlib.decompress(payload, 31)) == stored.records()


# --- the segment fixture ----------------------------------------------------------------------


def fixture_log():
    data = (PARTITION / f"{BASE_OFFSET:020}.log").read_bytes()
    return data, list(decode_log(data, BASE_OFFSET))


def test_segment_fixture_decodes_to_its_batches():
    data, batches = fixture_log()
    expected = json.loads((SEGMENT / "topic-a-0.batches.json").read_text())
    assert [
        {
            "position": position,
            "size": batch.header.size_bytes,
            "base_offset": batch.header.base_offset,
            "last_offset": batch.header.last_offset,
            "max_timestamp": batch.header.max_timestamp,
            "epoch": batch.header.partition_leader_epoch,
            "codec": batch.header.codec,
        }
        for position, batch in batches
    ] == [{key: row[key] for key in expected[0]} for row in expected]
    assert len(data) == batches[-1][0] + batches[-1][1].header.size_bytes


@pytest.mark.parametrize(
    ("folder", "interval"), [(PARTITION, 4096), (SEGMENT / "interval-1024", 1024)]
)
def test_segment_fixture_indexes_are_derived_byte_for_byte(folder, interval):
    data, batches = fixture_log()
    offsets, times = derive_indexes(
        [(position, batch.header) for position, batch in batches], BASE_OFFSET, interval
    )
    offset_file = (folder / f"{BASE_OFFSET:020}.index").read_bytes()
    time_file = (folder / f"{BASE_OFFSET:020}.timeindex").read_bytes()
    assert encode_offset_index(offsets, BASE_OFFSET) == offset_file
    assert encode_time_index(times, BASE_OFFSET) == time_file
    assert decode_offset_index(offset_file, BASE_OFFSET, len(data)) == offsets
    assert decode_time_index(time_file, BASE_OFFSET, 2442) == times


def test_segment_fixture_lookups():
    data, batches = fixture_log()
    lookups = json.loads((SEGMENT / "topic-a-0.lookups.json").read_text())
    offsets = decode_offset_index(
        (PARTITION / f"{BASE_OFFSET:020}.index").read_bytes(), BASE_OFFSET, len(data)
    )
    for target, expected in lookups["offset_index_lookup"].items():
        assert list(find_offset(offsets, BASE_OFFSET, int(target))) == expected
    for target, expected in lookups["translate_offset"].items():
        start = find_offset(offsets, BASE_OFFSET, int(target)).position
        found = next(
            [position, batch.header.size_bytes]
            for position, batch in batches
            if position >= start and batch.header.last_offset >= int(target)
        )
        assert found == expected

    times = decode_time_index(
        (PARTITION / f"{BASE_OFFSET:020}.timeindex").read_bytes(), BASE_OFFSET, 2442
    )
    for target, expected in lookups["offsets_for_times"].items():
        skip_to = find_timestamp(times, BASE_OFFSET, int(target) - 1).offset
        found = next(
            (
                [record.offset, record.timestamp]
                for _, batch in batches
                if batch.header.last_offset >= skip_to
                for record in batch.records(decompressor(batch.header.codec))
                if record.timestamp >= int(target)
            ),
            None,
        )
        assert found == expected


def test_index_rules():
    entries = [OffsetEntry(1003, 500), OffsetEntry(1009, 900)]
    data = encode_offset_index(entries, BASE_OFFSET)
    assert decode_offset_index(data, BASE_OFFSET, 901) == entries
    for bad in (
        data[:-1],
        data + data[-8:],
        data[8:] + data[:8],
        struct.pack(">ii", -1, 0),
        struct.pack(">iiii", 1, 500, 2, 500),
        data + bytes(8),
    ):
        with pytest.raises(FormatError):
            decode_offset_index(bad, BASE_OFFSET, 901)
    with pytest.raises(FormatError):
        decode_offset_index(data, BASE_OFFSET, 900)

    times = [TimeEntry(7, 1003), TimeEntry(9, 1003), TimeEntry(10, 1009)]
    data = encode_time_index(times, BASE_OFFSET)
    assert decode_time_index(data, BASE_OFFSET, 1010) == times
    for bad in (
        data[:-1],
        data + data[-12:],
        data[24:] + data[:12],
        struct.pack(">qi", 5, -1),
        struct.pack(">qi", -1, 0),
        data + bytes(12),
    ):
        with pytest.raises(FormatError):
            decode_time_index(bad, BASE_OFFSET, 1010)
    with pytest.raises(FormatError):
        decode_time_index(data, BASE_OFFSET, 1009)


# --- text files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "offsets"),
    [
        ("recovery-point-offset-checkpoint", {("topic-a", 0): 1000}),
        ("replication-offset-checkpoint", {("topic-a", 0): 2442}),
        ("log-start-offset-checkpoint", {}),
        ("cleaner-offset-checkpoint", {}),
    ],
)
def test_offset_checkpoint_fixture(name, offsets):
    data = (SEGMENT / name).read_bytes()
    assert decode_offset_checkpoint(data) == offsets
    assert encode_offset_checkpoint(offsets) == data


def test_leader_epoch_and_partition_metadata_fixture():
    data = (PARTITION / "leader-epoch-checkpoint").read_bytes()
    assert decode_leader_epochs(data) == [(3, 1000), (5, 1628)]
    assert encode_leader_epochs([(3, 1000), (5, 1628)]) == data
    data = (PARTITION / "partition.metadata").read_bytes()
    assert decode_partition_metadata(data) == b"foobarbazqux1234"
    assert encode_partition_metadata(b"foobarbazqux1234") == data


@pytest.mark.parametrize(
    "data",
    [
        b"1\n0\n",
        b"zero\n",
        b"0\n2\na 0 1\n",
        b"0\n0\na 0 1\n",
        b"0\n1\na 0\n",
        b"0\n1\na 0 1 2\n",
        b"0\n1\na x 1\n",
        b"0\n1\na 0 -1\n",
        b"0\n1\na 0 9223372036854775808\n",
        b"0\n2\na 0 1\na 0 2\n",
        b"0\n-1\n",
        b"0\n1\n\xff 0 1\n",
        b"0\n1\n\n",
    ],
)
def test_malformed_offset_checkpoint_is_refused(data):
    with pytest.raises(FormatError):
        decode_offset_checkpoint(data)


def test_checkpoint_spellings_that_are_read():
    for data in (b"", b"0\n", b"0", b"0\n0\n", b"0\n0"):
        assert decode_offset_checkpoint(data) == {}
    assert decode_offset_checkpoint(b"0\n1\n a \t 0  7") == {("a", 0): 7}
    for data in (b"0\n2\n1 5\n1 6\n", b"0\n2\n1 5\n2 5\n", b"0\n2\n2 5\n1 6\n", b"0\n1\n-1 5\n"):
        with pytest.raises(FormatError):
            decode_leader_epochs(data)
    for data in (
        b"",
        b"version: 0\ntopic_id: short",
        b"version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA",
        b"topic_id: Zm9vYmFyYmF6cXV4MTIzNA\nversion: 0",
    ):
        with pytest.raises(FormatError):
            decode_partition_metadata(data)


def test_header_is_sixty_one_bytes():
    assert len(Header().pack()) == HEADER_BYTES == 61
