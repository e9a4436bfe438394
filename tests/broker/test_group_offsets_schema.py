"""Bytes of ``__consumer_offsets`` records: written as Kafka does, read in all versions, refused where they make no sense."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from offsets_parser import parse_group, parse_key, parse_offset

from logstore.broker.offsets_schema import (
    GroupKey,
    GroupValue,
    MalformedRecordError,
    MemberValue,
    OffsetKey,
    OffsetValue,
    decode_group_value,
    decode_key,
    decode_offset_value,
    encode_group_key,
    encode_group_value,
    encode_offset_key,
    encode_offset_value,
)
from logstore.broker.offsets_topic import java_string_hash

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
int32 = st.integers(-(2**31), 2**31 - 1)
int64 = st.integers(-(2**63), 2**63 - 1)
members = st.builds(
    MemberValue, texts, st.none() | texts, texts, texts, st.integers(0, 2**31 - 1), int32, st.binary(max_size=40),
    st.binary(max_size=40),
)
offset_values = st.builds(OffsetValue, int64, int32, texts, int64, st.just(-1))
group_values = st.builds(
    GroupValue, texts, int32, st.none() | texts, st.none() | texts, int64, st.lists(members, max_size=4).map(tuple)
)


def test_an_offset_by_hand():
    assert encode_offset_key("g1", "orders", 7) == bytes.fromhex("0001 0002 6731 0006 6f7264657273 00000007")
    value = encode_offset_value(OffsetValue(258, 3, "hé", 1_700_000_000_000))
    assert value == bytes.fromhex("0003 0000000000000102 00000003 0003 68c3a9 0000018bcfe56800")


def test_a_group_by_hand():
    assert encode_group_key("g1") == bytes.fromhex("0002 0002 6731")
    member = MemberValue("m", None, "c", "/h", 60_000, 10_000, b"\x01", b"")
    value = encode_group_value(GroupValue("consumer", 5, "range", "m", 255, (member,)))
    assert value == bytes.fromhex(
        "0003 0008 636f6e73756d6572 00000005 0005 72616e6765 0001 6d 00000000000000ff 00000001"
        "0001 6d ffff 0001 63 0002 2f68 0000ea60 00002710 00000001 01 00000000"
    )
    empty = encode_group_value(GroupValue("consumer", 6, None, None, 0, ()))
    assert empty == bytes.fromhex("0003 0008 636f6e73756d6572 00000006 ffff ffff 0000000000000000 00000000")


@given(texts, texts, st.integers(0, 2**31 - 1), offset_values)
def test_offsets_as_an_independent_parser_reads_them(group, topic, partition, value):
    key = encode_offset_key(group, topic, partition)
    assert parse_key(key) == ("offset", group, topic, partition)
    assert decode_key(key) == OffsetKey(group, topic, partition)
    data = encode_offset_value(value)
    parsed = parse_offset(data)
    assert parsed.pop("version") == 3
    assert parsed == {name: field for name, field in value._asdict().items() if name != "expire_timestamp"}
    assert decode_offset_value(data) == value


@given(texts, group_values)
def test_groups_as_an_independent_parser_reads_them(group, value):
    assert parse_key(encode_group_key(group)) == ("group", group)
    assert decode_key(encode_group_key(group)) == GroupKey(group)
    data = encode_group_value(value)
    parsed = parse_group(data)
    assert parsed["version"] == 3
    assert (parsed["protocol_type"], parsed["generation"]) == (value.protocol_type, value.generation)
    assert (parsed["protocol"], parsed["leader"]) == (value.protocol, value.leader)
    assert parsed["state_timestamp"] == value.state_timestamp
    assert [tuple(member.values()) for member in parsed["members"]] == list(value.members)
    assert decode_group_value(data) == value


def string(text):
    return struct.pack(">h", len(text)) + text.encode()


def compact(text):
    return bytes([len(text) + 1]) + text.encode()


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (struct.pack(">hq", 0, 9) + string("m") + struct.pack(">q", 70), OffsetValue(9, -1, "m", 70)),
        (struct.pack(">hq", 1, 9) + string("m") + struct.pack(">qq", 70, 80), OffsetValue(9, -1, "m", 70, 80)),
        (struct.pack(">hq", 2, 9) + string("m") + struct.pack(">q", 70), OffsetValue(9, -1, "m", 70)),
        (struct.pack(">hqi", 3, 9, 4) + string("m") + struct.pack(">q", 70), OffsetValue(9, 4, "m", 70)),
        (struct.pack(">hqi", 4, 9, 4) + compact("m") + struct.pack(">q", 70) + b"\0", OffsetValue(9, 4, "m", 70)),
        # With the topic id that Kafka 4.1 adds.
        (
            struct.pack(">hqi", 4, 9, 4) + compact("") + struct.pack(">q", 70) + b"\x01\x00\x10" + bytes(16),
            OffsetValue(9, 4, "", 70),
        ),
    ],
)
def test_every_version_of_an_offset(data, value):
    assert decode_offset_value(data) == value
    for end in range(len(data)):
        with pytest.raises(MalformedRecordError):
            decode_offset_value(data[:end])


HEAD = string("consumer") + struct.pack(">i", 5) + string("range") + string("m")
ENDS = struct.pack(">i", 2) + b"su" + struct.pack(">i", 1) + b"a"


@pytest.mark.parametrize(
    ("data", "state_timestamp", "instance", "rebalance_timeout_ms"),
    [
        (
            struct.pack(">h", 0) + HEAD + struct.pack(">i", 1)
            + string("m") + string("c") + string("/h") + struct.pack(">i", 10) + ENDS, -1, None, 10,
        ),
        (
            struct.pack(">h", 1) + HEAD + struct.pack(">i", 1)
            + string("m") + string("c") + string("/h") + struct.pack(">ii", 60, 10) + ENDS, -1, None, 60,
        ),
        (
            struct.pack(">h", 2) + HEAD + struct.pack(">qi", 77, 1)
            + string("m") + string("c") + string("/h") + struct.pack(">ii", 60, 10) + ENDS, 77, None, 60,
        ),
        (
            struct.pack(">h", 3) + HEAD + struct.pack(">qi", 77, 1)
            + string("m") + string("i") + string("c") + string("/h") + struct.pack(">ii", 60, 10) + ENDS, 77, "i", 60,
        ),
        (
            struct.pack(">h", 4) + compact("consumer") + struct.pack(">i", 5) + compact("range") + compact("m")
            + struct.pack(">q", 77) + b"\x02"
            + compact("m") + compact("i") + compact("c") + compact("/h") + struct.pack(">ii", 60, 10)
            + b"\x03su" + b"\x02a" + b"\0" + b"\0", 77, "i", 60,
        ),
    ],
)
def test_every_version_of_a_group(data, state_timestamp, instance, rebalance_timeout_ms):
    member = MemberValue("m", instance, "c", "/h", rebalance_timeout_ms, 10, b"su", b"a")
    assert decode_group_value(data) == GroupValue("consumer", 5, "range", "m", state_timestamp, (member,))
    for end in range(len(data)):
        with pytest.raises(MalformedRecordError):
            decode_group_value(data[:end])


def test_keys_of_other_kinds():
    assert decode_key(struct.pack(">h", 0) + string("g") + string("t") + struct.pack(">i", 1)) == OffsetKey("g", "t", 1)
    for kind in range(3, 17):
        assert decode_key(struct.pack(">h", kind) + string("g") + string("m")) is None
    assert decode_key(struct.pack(">h", 300)) is None
    for data in (b"", b"\0", b"\0\x01", b"\xff\xff" + string("g"), b"\0\x02\xff\xff", b"\0\x02\x00\x01\xff"):
        with pytest.raises(MalformedRecordError):
            decode_key(data)


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(data):
    for decode in (decode_key, decode_offset_value, decode_group_value):
        try:
            decode(data)
        except MalformedRecordError:
            continue


@pytest.mark.parametrize("version", [-1, 5, 99])
def test_values_of_unknown_versions_are_refused(version):
    for decode in (decode_offset_value, decode_group_value):
        with pytest.raises(MalformedRecordError, match="version"):
            decode(struct.pack(">h", version) + bytes(100))


def test_a_count_is_not_believed():
    data = struct.pack(">h", 3) + HEAD + struct.pack(">qi", 77, 2**31 - 1)
    with pytest.raises(MalformedRecordError, match="array"):
        decode_group_value(data)


def test_text_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="32767"):
        encode_offset_value(OffsetValue(1, -1, "x" * 32_768, 0))


def test_the_hash_of_java():
    for group, partition in {"g1": 42, "my-group": 36, "test-consumer-group": 17, "": 0}.items():
        assert (java_string_hash(group) & 0x7FFFFFFF) % 50 == partition
    assert java_string_hash("polygenelubricants") == -(2**31)
    assert java_string_hash("😀") == 0xD83D * 31 + 0xDE00
