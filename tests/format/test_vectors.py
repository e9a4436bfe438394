"""The library against the golden vectors: what it decodes, what it builds, what it refuses."""

from __future__ import annotations

import pytest
from golden_vectors import (
    BAD,
    GOOD,
    described_records,
    expected_records,
    vector_bytes,
)

from logstore._native.record_batch import RecordBatch
from logstore._native.record_batch_builder import RecordBatchBuilder
from logstore.errors import (
    CorruptDataError,
    InvalidRecordError,
    InvalidTimestampError,
    UnsupportedFormatError,
)
from logstore.storage.config import TopicConfig
from logstore.storage.log import Log

# No vector is refused for its age.
ANY_TIME = {"message.timestamp.after.max.ms": 2**63 - 1}


def open_log(tmp_path, **config):
    return Log(tmp_path / "orders-0", TopicConfig(ANY_TIME, **config), durability="appended")


# ---- good vectors -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOOD)
def test_good_vector_decodes_to_its_header_and_records(name):
    expected = dict(GOOD[name]["header"])
    flags = expected.pop("attributes_decoded")
    batch = RecordBatch.validated(vector_bytes(name))
    assert batch.size_bytes == expected.pop("size_in_bytes") == expected.pop("length") + 12
    assert batch.crc == int(expected.pop("crc"), 16)
    assert {field: getattr(batch, field) for field in expected} == expected
    assert {
        "codec": batch.codec,
        "timestamp_type": batch.timestamp_type,
        "transactional": batch.is_transactional,
        "control": batch.is_control,
        "delete_horizon": batch.has_delete_horizon,
    } == flags
    assert described_records(batch) == expected_records(name)


@pytest.mark.parametrize("name", GOOD)
def test_log_gives_a_good_vector_back_as_it_is(name, tmp_path):
    """As a follower; control records are consumed but not shown."""
    data = vector_bytes(name)
    batch = RecordBatch.validated(data)
    with open_log(tmp_path) as log:
        log.append_as_follower(data)
        assert log.log_end_offset == batch.last_offset + 1
        (stored,) = log.fetch(batch.base_offset)
        assert bytes(stored) == data
        shown = [] if batch.is_control else expected_records(name)
        start = log.log_start_offset
        assert described_records(log.read(start)) == shown
    with open_log(tmp_path) as log:
        assert log.recovery_report.cut_bytes == 0
        assert described_records(log.read(start)) == shown


# What a builder can't write: files of compaction, unusual but legal encodings, fields that only a broker sets.
NOT_BUILT = {
    "attributes_unused_bits": "bits no writer sets",
    "compacted_delete_horizon": "written by compaction",
    "compacted_delete_horizon_append_time": "written by compaction",
    "compacted_empty_batch": "written by compaction",
    "compacted_empty_control": "written by compaction",
    "compacted_survivors": "written by compaction",
    "key_length_minus_2": "not canonical",
    "offsets_delta_max": "written by compaction",
    "offsets_first_delta_not_zero": "written by compaction",
    "offsets_sparse": "written by compaction",
    "record_attributes_nonzero": "bits no writer sets",
    "varint_overlong": "not canonical",
    "log_append_time": "keeps the producer's deltas, which nobody reads",
}


@pytest.mark.parametrize("name", [name for name, vector in GOOD.items() if not vector["header"]["attributes"] & 7])
def test_uncompressed_vector_is_built_byte_for_byte(name):
    data = vector_bytes(name)
    batch = RecordBatch.validated(data)
    builder = RecordBatchBuilder()
    for record in batch:
        builder.append(record.value, record.key, headers=record.headers, timestamp=record.timestamp)
    if not len(builder):
        assert name in NOT_BUILT
        return
    append_time = batch.max_timestamp if batch.timestamp_type == "LogAppendTime" else None
    built = builder.build(
        base_offset=batch.base_offset,
        partition_leader_epoch=batch.partition_leader_epoch,
        log_append_timestamp=append_time,
        transactional=batch.is_transactional,
        control=batch.is_control,
        producer_id=batch.producer_id,
        producer_epoch=batch.producer_epoch,
        base_sequence=batch.base_sequence,
    )
    assert (bytes(built) == data) == (name not in NOT_BUILT), NOT_BUILT.get(name)


# ---- bad vectors ------------------------------------------------------------------------------

# A client's batch that has to be refused with an error of another kind than `CorruptDataError`.
REFUSED_BY_A_RULE = {
    "bad_second_batch_bad_crc": InvalidRecordError,
    "bad_second_batch_torn": InvalidRecordError,
    "bad_good_bad_good": InvalidRecordError,
    "bad_trailing_garbage_10": InvalidRecordError,
    "bad_trailing_zeros": InvalidRecordError,
    "bad_magic_0": UnsupportedFormatError,
    "bad_magic_1": UnsupportedFormatError,
    "bad_magic_3": UnsupportedFormatError,
    "bad_magic_127": UnsupportedFormatError,
    "bad_magic_minus_1": UnsupportedFormatError,
}


def is_sound_framing(name):
    """What a recovery scan keeps whole, by the recommended verdict."""
    vector = BAD[name]
    scan = vector["expect"]["recovery_scan"]
    verdict = vector["recommended_for_new_implementation"]
    return (
        scan["result"] == "accept"
        and not verdict.startswith(("reject: magic", "reject everywhere"))
        and name not in ("bad_count_negative", "bad_count_huge")
    )


@pytest.mark.parametrize("name", BAD)
def test_bad_vector_is_refused_from_a_client(name, tmp_path):
    data = vector_bytes(name)
    with open_log(tmp_path, cleanup_policy="compact") as log:
        log.append(b"before", b"key")
        files = {path: path.read_bytes() for path in (tmp_path / "orders-0").glob("*.log")}
        with pytest.raises(REFUSED_BY_A_RULE.get(name, (CorruptDataError, InvalidRecordError))):
            log.append_as_leader(data)
        assert {path: path.read_bytes() for path in files} == files
        assert log.append(b"after", b"key") == 1


def test_a_batch_that_claims_a_time_of_append_is_refused(tmp_path):
    data = vector_bytes("bad_log_append_time_from_client")
    with (
        open_log(tmp_path, message_timestamp_type="LogAppendTime") as log,
        pytest.raises(InvalidTimestampError),
    ):
        log.append_as_leader(data)


def test_null_key_is_fine_where_nothing_is_compacted(tmp_path):
    with open_log(tmp_path) as log:
        assert log.append_as_leader(vector_bytes("bad_null_key_on_compacted_topic")) == range(2)


@pytest.mark.parametrize("name", [name for name in BAD if is_sound_framing(name)])
def test_sound_framing_survives_recovery_and_fails_when_decoded(name, tmp_path):
    """A CRC that matches is no unfinished write: the batch stays, and reading it says what is wrong."""
    data = vector_bytes(name)
    place(tmp_path, data)
    with open_log(tmp_path) as log:
        assert log.recovery_report.cut_bytes == 0
        assert log.size_bytes == len(data)
        is_control = name == "bad_control_from_client"  # never shown
        decodes = BAD[name]["expect"]["decode_records"].startswith("decodes") and not is_control
        if decodes:
            assert list(log.read())
        elif is_control or name == "bad_count_zero":
            assert list(log.read()) == []
        elif name != "bad_lz4_linked_blocks":
            with pytest.raises(CorruptDataError):
                list(log.read())


def place(tmp_path, data):
    directory = tmp_path / "orders-0"
    directory.mkdir()
    (directory / f"{0:020d}.log").write_bytes(data)


@pytest.mark.parametrize("name", [name for name in BAD if not is_sound_framing(name)])
def test_recovery_keeps_what_is_sound_and_cuts_or_refuses_the_rest(name, tmp_path):
    data = vector_bytes(name)
    valid_bytes = 0
    if BAD[name]["recommended_for_new_implementation"].startswith("keep first batch"):
        valid_bytes = BAD[name]["expect"]["recovery_scan"]["valid_bytes"]
    place(tmp_path, data)
    path = tmp_path / "orders-0" / f"{0:020d}.log"
    with open_log(tmp_path) as log:
        if log.damage is None:
            assert path.stat().st_size == valid_bytes
            # Zeros to the end are room that was filled ahead: cut as well, but nothing that anybody would miss.
            expected = len(data) - valid_bytes if any(data[valid_bytes:]) else 0
            assert log.recovery_report.cut_bytes == expected
            assert len(list(log.read())) == (10 if valid_bytes else 0)
            assert log.append(b"next") == log.log_end_offset - 1
        else:
            # All bytes are there, or sound ones follow: no crash leaves that, so nothing is cut.
            assert path.read_bytes() == data
            assert log.damage.path == str(path)
            assert log.damage.position >= valid_bytes
            with pytest.raises(CorruptDataError):
                log.append(b"next")
        refused = log.damage is not None
    assert refused == (name in REFUSED_TO_WRITE)


# Damage that no unfinished write explains (docs/durability.md).
REFUSED_TO_WRITE = {
    "bad_control_key_short",
    "bad_control_value_short",
    "bad_count_huge",
    "bad_count_negative",
    "bad_good_bad_good",
    "bad_last_offset_delta_negative",
    "bad_magic_0",
    "bad_magic_1",
    "bad_magic_127",
    "bad_magic_3",
    "bad_magic_minus_1",
}
