"""Batches of producers and transaction coordinators, appended to a log as a follower takes them."""

from __future__ import annotations

import struct
from collections import defaultdict

from logstore._native.record_batch_builder import RecordBatchBuilder

ABORT, COMMIT = 0, 1


class BatchWriter:
    """Appends at the log's end; keeps each producer's sequence."""

    def __init__(self, log):
        self.log = log
        self._sequences = defaultdict(int)

    def _append(self, builder: RecordBatchBuilder, **fields) -> int:
        offset = self.log.log_end_offset
        self.log.append_as_follower(builder.build(base_offset=offset, partition_leader_epoch=0, **fields))
        return offset

    def data(self, producer_id: int, epoch: int, records, *, transactional: bool | None = None, codec: int = 0) -> int:
        """Records of (key, value); those of a producer belong to a transaction unless told otherwise."""
        builder = RecordBatchBuilder()
        for key, value in records:
            builder.append(value, key, timestamp=self.log._now_ms())
        if producer_id < 0:
            return self._append(builder, codec=codec)
        sequence = self._sequences[producer_id, epoch]
        self._sequences[producer_id, epoch] += len(records)
        return self._append(
            builder, codec=codec, producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence,
            transactional=transactional is not False,
        )

    def marker(self, producer_id: int, epoch: int, *, commit: bool) -> int:
        key = struct.pack(">hh", 0, COMMIT if commit else ABORT)
        return self.control(
            key, struct.pack(">hi", 0, 0), producer_id=producer_id, producer_epoch=epoch, transactional=True
        )

    def control(self, key: bytes, value: bytes, **fields) -> int:
        builder = RecordBatchBuilder()
        builder.append(value, key, timestamp=self.log._now_ms())
        return self._append(builder, control=True, **fields)
