"""Batches as producers with an id send them."""

from __future__ import annotations

from logstore._native.record_batch import RecordBatch
from logstore._native.record_batch_builder import RecordBatchBuilder

START_MS = 1_700_000_000_000


def produced(
    producer_id: int, sequence: int, count: int = 1, *, epoch: int = 0, transactional: bool = False,
    base_offset: int = 0, timestamp: int = START_MS, codec: int = 0, size: int = 0, **fields: int,
) -> RecordBatch:  # fmt: skip
    """One batch; each value names its producer and sequence."""
    builder = RecordBatchBuilder()
    for i in range(count):
        builder.append(b"%d/%d/%d" % (producer_id, epoch, (sequence + i) & 0x7FFFFFFF) + bytes(size), timestamp=timestamp)
    return builder.build(
        producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence, transactional=transactional,
        base_offset=base_offset, codec=codec, **fields,
    )  # fmt: skip
