"""Whole batches from elsewhere: what a leader and a follower check before they append them (log-format, 1.11)."""

from __future__ import annotations

from collections.abc import Iterator

from logstore._native.record_batch import RecordBatch, batch_positions, stamp_timestamps
from logstore.errors import CorruptDataError, InvalidRecordError, InvalidTimestampError, RecordTooLargeError
from logstore.storage.config import INT64_MAX, TopicConfig

__all__ = ["checked_for_leader", "split_for_follower"]


def checked_for_leader(batch: bytes | RecordBatch, config: TopicConfig, now_ms: int, topic: str) -> bytearray:
    """A copy of a client's batch that may be stamped and appended.

    Raises
    ------
    CorruptDataError
        CRC, structure, codec or records are wrong.
    InvalidRecordError, InvalidTimestampError, RecordTooLargeError
        The batch is sound but a rule of the topic or of the protocol refuses it.
    """
    data = bytes(batch)
    limit = min(config["max.message.bytes"], config["segment.bytes"])
    checked = RecordBatch.validated(data, topic=topic)
    if checked.size_bytes != len(data):
        raise InvalidRecordError(
            f"a leader takes exactly one batch; {len(data) - checked.size_bytes} bytes stand behind the first"
        )
    if checked.base_offset != 0:
        raise InvalidRecordError(f"a client's batch has base offset 0, not {checked.base_offset}")
    if checked.size_bytes > limit:
        raise RecordTooLargeError(f"a batch of {checked.size_bytes} bytes is over the limit of {limit} bytes of {topic}")
    if checked.records_count != checked.last_offset_delta + 1 or checked.records_count == 0:
        raise InvalidRecordError(
            f"a client's batch has as many records as offsets; this one has {checked.records_count} and "
            f"{checked.last_offset_delta + 1}"
        )
    if checked.is_control:
        raise InvalidRecordError("a client may not write control batches")
    if checked.producer_id >= 0 and (checked.base_sequence < 0 or checked.producer_epoch < 0):
        raise InvalidRecordError("a batch with a producer id has an epoch and a sequence")
    if checked.timestamp_type == "LogAppendTime":
        if config["message.timestamp.type"] == "LogAppendTime":
            raise InvalidTimestampError("a client's batch may not claim a time of append")
        raise InvalidRecordError("a client's batch has timestamps of creation")
    try:
        max_timestamp, null_key_index = checked.check_produced()
    except CorruptDataError as error:
        raise InvalidRecordError(f"the batch's records are malformed: {error}") from error
    if config.is_compacted and null_key_index >= 0:
        raise InvalidRecordError(f"{topic} is compacted, and record {null_key_index} of the batch has no key")
    stamped = bytearray(data)
    if config["message.timestamp.type"] == "LogAppendTime":
        stamp_timestamps(stamped, True, now_ms)
        return stamped
    _check_timestamps(checked, config, now_ms, topic)
    if max_timestamp != checked.max_timestamp:
        stamp_timestamps(stamped, False, max_timestamp)
    return stamped


def _check_timestamps(batch: RecordBatch, config: TopicConfig, now_ms: int, topic: str) -> None:
    before, after = config["message.timestamp.before.max.ms"], config["message.timestamp.after.max.ms"]
    if before == INT64_MAX and batch.max_timestamp - now_ms <= after:
        return
    for index, record in enumerate(batch):
        late = now_ms - record.timestamp
        if record.timestamp != -1 and (late > before or -late > after):
            raise InvalidTimestampError(
                f"record {index} of the batch is {late} ms old; {topic} allows {before} ms before now and {after} after"
            )


def split_for_follower(batches: bytes | RecordBatch) -> Iterator[bytearray]:
    """Copies of the batches of another log, each validated.

    Raises
    ------
    CorruptDataError
        At the first that is not; offsets that do not rise count as damage.
    """
    data = bytes(batches)
    previous_last = -1
    for position, size_bytes, base_offset, last_offset in batch_positions(data):
        if base_offset <= previous_last:
            raise CorruptDataError("<memory>", position, "base offset does not rise", previous_last + 1, base_offset, "")
        previous_last = last_offset
        yield bytearray(data[position : position + size_bytes])
