"""Compacting one log: rounds of mapping and rewriting, each group of segments swapped in atomically.

What is compacted, and when, is `compaction_plan`'s business; the loops over records are `logstore._native.compaction`.
Readers go on throughout. Rules: log-format, section 7.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from logstore._native.compaction import Compactor, KeyOffsetMap, TransactionHistory
from logstore.errors import InvalidRequestError, LogstoreError
from logstore.storage.cleaner_checkpoint import read_cleaner_offset, write_cleaner_offset
from logstore.storage.compaction_plan import (
    INT64_MAX,
    CompactionFacts,
    CompactionPlan,
    SegmentExtent,
    compaction_plan,
    group_segments,
)
from logstore.storage.segment_swap import Replacement, prepare_swaps, remove_unfinished, swap_segments

if TYPE_CHECKING:
    from logstore._native.segment import Segment
    from logstore.storage.log import Log

__all__ = ["CompactionProgress", "CompactionReport", "compact", "gather_facts"]

MEMORY_BYTES = 128 << 20
STRETCH_BYTES = 8 << 20
THROTTLED_STRETCH_BYTES = 1 << 20
HEADER_BYTES = 61
REPORTED_COUNTS = (
    "records_read", "records_kept", "records_superseded", "records_without_key", "records_aborted", "tombstones_expired",
    "markers_dropped", "batches_emptied",
)


class CompactionProgress(NamedTuple):
    """How far a compaction is.

    Attributes
    ----------
    round : int
        From 1 on; another follows where the keys do not fit into memory at once.
    pass_name : str
        ``"map"`` or ``"rewrite"``.
    segment_base_offset : int
        The segment being read.
    done_bytes, total_bytes : int
        Read so far, and to be read, in this round.
    """

    round: int
    pass_name: str
    segment_base_offset: int
    done_bytes: int
    total_bytes: int


class CompactionReport(NamedTuple):
    """What a compaction did.

    Attributes
    ----------
    outcome : str
        ``"compacted"``; ``"nothing to compact"``; ``"stopped"`` by ``stop``; or ``"interrupted"``: records were taken away
        meanwhile by somebody else. What was swapped in before stays.
    plan : CompactionPlan
        What it went by.
    first_dirty_offset : int
        Where the next one begins.
    rounds : int
    segments_before, segments_after, bytes_before, bytes_after : int
        Of the whole log.
    bytes_read, bytes_written : int
    keys_count : int
        Most keys that were in memory at a time.
    memory_bytes : int
        What held them then: 25 to 30 bytes each, up to a quarter more (20 MiB at most) where they are many, and a bit for
        each offset: under 40 bytes a key where each has up to 16 records.
    records_read, records_kept, records_superseded, records_without_key, records_aborted, tombstones_expired : int
        Of data batches; read is the sum of the others.
    markers_dropped, batches_emptied : int
        Transaction markers gone; batches of which a header was kept.
    duration_s : float
    """

    outcome: str
    plan: CompactionPlan
    first_dirty_offset: int
    rounds: int = 0
    segments_before: int = 0
    segments_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    keys_count: int = 0
    memory_bytes: int = 0
    records_read: int = 0
    records_kept: int = 0
    records_superseded: int = 0
    records_without_key: int = 0
    records_aborted: int = 0
    tombstones_expired: int = 0
    markers_dropped: int = 0
    batches_emptied: int = 0
    duration_s: float = 0.0


class StopRequestedError(Exception):
    """Between two reads: whoever asked for the work wants it no more."""


class OpenTransactionError(Exception):
    """A transaction that is open begins below what was taken for the last stable offset."""

    def __init__(self, offset: int):
        self.offset = offset


class SegmentsChangedError(Exception):
    """Truncation or deletion took away what was being compacted."""


def gather_facts(log: Log) -> CompactionFacts:
    """The facts of one log as of now. Opens no segment."""
    config = log.config
    segments = log.segments
    cleaner_offset = read_cleaner_offset(log.path, log.topic, log.partition)
    first_dirty = cleaner_offset if cleaner_offset is not None else log.log_start_offset
    asks_oldest = config["max.compaction.lag.ms"] < INT64_MAX
    extents = []
    for index, segment in enumerate(segments):
        is_active = index == len(segments) - 1
        end_offset = log.log_end_offset if is_active else segments[index + 1].base_offset
        is_dirty = not is_active and end_offset > first_dirty
        size_bytes, max_timestamp, _ = segment.facts()
        extents.append(SegmentExtent(
            segment.base_offset, end_offset, size_bytes, max_timestamp,
            _first_batch_timestamp(segment.path) if is_dirty and asks_oldest and size_bytes else -1,
        ))
        asks_oldest = asks_oldest and not (is_dirty and size_bytes)
    return CompactionFacts(
        extents, log.log_start_offset, log.log_end_offset, log.flushed_offset, _last_stable_offset(log), cleaner_offset
    )


def _last_stable_offset(log: Log) -> int:
    return int(getattr(log, "last_stable_offset", log.log_end_offset))


def _first_batch_timestamp(path: str) -> int:
    """Largest timestamp of a segment's first batch; -1 where it can't be read."""
    try:
        with open(path, "rb") as file:
            header = file.read(HEADER_BYTES)
    except OSError:
        return -1
    return int.from_bytes(header[35:43], "big", signed=True) if len(header) == HEADER_BYTES else -1


def compact(
    log: Log,
    *,
    memory_bytes: int = MEMORY_BYTES,
    bytes_per_second: float | None = None,
    progress: Callable[[CompactionProgress], None] | None = None,
    stop: Callable[[], bool] | None = None,
    threads: int = 2,
) -> CompactionReport:
    """See `logstore.storage.log.Log.compact`."""
    if memory_bytes < 1 or threads < 1 or (bytes_per_second is not None and bytes_per_second <= 0):
        raise InvalidRequestError("memory_bytes, bytes_per_second and threads must be above 0")
    if not log.config.is_compacted:
        raise InvalidRequestError(
            f"cleanup.policy of {log.topic} is {log.config['cleanup.policy']}: compaction would lose records; "
            "set cleanup.policy=compact first"
        )
    with log._compaction_lock:
        if bytes_per_second is not None:
            threads = 1
        return _Compaction(log, memory_bytes, _Pace(bytes_per_second, stop), progress, threads).run()


class _Pace:
    """Throttling and stopping, between two reads (log-format, 7.8)."""

    def __init__(self, bytes_per_second: float | None, stop: Callable[[], bool] | None):
        self._rate = bytes_per_second
        self._stop = stop
        self._started = time.monotonic()
        self._observed_bytes = 0

    @property
    def stretch_bytes(self) -> int:
        """What may be read at a stretch: the less, the more evenly a throttled compaction goes."""
        return STRETCH_BYTES if self._rate is None else THROTTLED_STRETCH_BYTES

    def __call__(self, size_bytes: int) -> None:
        if self._stop is not None and self._stop():
            raise StopRequestedError
        if self._rate is None:
            return
        self._observed_bytes += size_bytes
        while (left := self._observed_bytes / self._rate - (time.monotonic() - self._started)) > 0.001:
            # In slices, since only `stop` is known of the one who might want it to end.
            time.sleep(min(left, 0.1))
            if self._stop is not None and self._stop():
                raise StopRequestedError


class _Compaction:
    """One call of `compact`."""

    def __init__(
        self, log: Log, memory_bytes: int, pace: _Pace, progress: Callable[[CompactionProgress], None] | None, threads: int
    ):
        self.log = log
        self.memory_bytes = memory_bytes
        self.pace = pace
        self.progress = progress
        self.threads = threads
        self.now_ms = log._now_ms()
        self.round = 0
        self.read_bytes = self.written_bytes = self.keys_count = self.map_bytes = 0
        self.done_bytes = self.total_bytes = 0
        self.where = ("map", 0)
        self.counts: dict[str, int] = {}
        self.truncations = log.truncation_count
        self.log_start_offset = log.log_start_offset
        self.history: TransactionHistory | None = None

    def run(self) -> CompactionReport:
        log = self.log
        if not log.is_writable:
            raise log._not_writable()
        started = time.monotonic()
        # What is not on disk can't be rewritten. The rest of the facts is as of then.
        log.flush_until(log.segments[-1].base_offset)
        segments_before = len(log.segments)
        bytes_before = log.size_bytes
        plan = compaction_plan(gather_facts(log), log.config, self.now_ms)
        first_dirty, end = plan.first_dirty_offset, plan.first_uncleanable_offset
        outcome = "nothing to compact"
        if first_dirty < end and plan.cleanable_bytes:
            remove_unfinished(log.path)
            prepare_swaps(log, contiguous=False)
            outcome = "compacted"
            try:
                while first_dirty < end:
                    try:
                        first_dirty = self._run_round(first_dirty, end)
                    except OpenTransactionError as error:
                        end = error.offset
                        continue
                    write_cleaner_offset(log.path, log.topic, log.partition, first_dirty)
            except StopRequestedError:
                outcome = "stopped"
            except SegmentsChangedError:
                outcome = "interrupted"
            finally:
                remove_unfinished(log.path)
        return CompactionReport(
            outcome, plan, first_dirty, rounds=self.round, segments_before=segments_before, segments_after=len(log.segments),
            bytes_before=bytes_before, bytes_after=log.size_bytes, bytes_read=self.read_bytes,
            bytes_written=self.written_bytes, keys_count=self.keys_count, memory_bytes=self.map_bytes,
            duration_s=time.monotonic() - started,
            **{name: self.counts.get(name, 0) for name in REPORTED_COUNTS},
        )

    # ---- one round ----------------------------------------------------------------------------------

    def _run_round(self, first_dirty: int, end: int) -> int:
        """Compacts the log up to where the map is full; gives that offset."""
        self.round += 1
        try:
            sources = [
                (segment, following.base_offset)
                for segment, following in zip(self.log.segments, self.log.segments[1:], strict=False)
                if segment.base_offset < end
            ]
            offset_map = KeyOffsetMap(self.memory_bytes)
            compactor = Compactor(
                offset_map, first_dirty_offset=first_dirty, first_uncleanable_offset=end, now_ms=self.now_ms,
                delete_retention_ms=self.log.config["delete.retention.ms"], stretch_bytes=self.pace.stretch_bytes,
                history=partial(self._transaction_history, end), threads=self.threads,
            )
            self.done_bytes = 0
            self.total_bytes = sum(segment.size_bytes * (1 + (stop > first_dirty)) for segment, stop in sources)
            for segment, stop in sources:
                if stop > first_dirty:
                    self.where = ("map", segment.base_offset)
                    if not compactor.map_segment(
                        segment.path, segment.size_bytes, segment.base_offset, stop, self._moved
                    ):
                        break
            extra_bytes = compactor.memory_bytes
            compactor.start_rewriting()
            mapped_end = compactor.mapped_end_offset
            if mapped_end <= first_dirty:
                raise InvalidRequestError(f"memory_bytes={self.memory_bytes} does not hold the keys of one batch; raise it")
            if len(offset_map) >= self.keys_count:
                self.keys_count = len(offset_map)
                self.map_bytes = offset_map.memory_bytes + extra_bytes
            for group in self._groups([source for source in sources if source[0].base_offset < mapped_end]):
                self._rewrite(compactor, group)
            for name, count in compactor.counts.items():
                self.counts[name] = self.counts.get(name, 0) + count
        except LogstoreError:
            if self._has_changed():
                raise SegmentsChangedError from None
            raise
        return mapped_end

    def _transaction_history(self, end_offset: int, of_transactions: bool) -> TransactionHistory:
        """What is known of producers; of transactions, once the first batch of one asks for it, from the log itself up to
        its end, since that is where fates are decided: nothing that is not covered by a CRC decides what goes."""
        log = self.log
        last_batches = [
            (producer.producer_id, producer.batches[-1].last_offset if producer.batches else -1, producer.epoch)
            for producer in log.producers()
        ]
        if not of_transactions and not log.has_transactions:
            history = TransactionHistory(partial=True)
            history.set_producers(last_batches)
            return history
        if self.history is None:
            history = TransactionHistory()
            for segment in log.segments:
                history.add_segment(segment.path, segment.size_bytes, self._moved_aside)
            history.finish()
            if history.first_open_offset < end_offset:
                raise OpenTransactionError(history.first_open_offset)
            history.set_producers(last_batches)
            self.history = history
        return self.history

    def _groups(self, sources: list[tuple[Segment, int]]) -> list[list[tuple[Segment, int]]]:
        config = self.log.config
        sizes = [
            (
                segment.base_offset, stop, segment.size_bytes, _index_bytes(segment, ".index"),
                _index_bytes(segment, ".timeindex"),
            )
            for segment, stop in sources
        ]
        return [
            [sources[position] for position in group]
            for group in group_segments(sizes, config["segment.bytes"], config["segment.index.bytes"])
        ]

    def _rewrite(self, compactor: Compactor, group: list[tuple[Segment, int]]) -> None:
        """Writes what is left of a group of segments, and swaps it in."""
        log = self.log
        replacement = Replacement(log, [segment for segment, _ in group], group[-1][1], contiguous=False)
        output = replacement.next_output(group[0][0].base_offset)
        for segment, stop in group:
            self.where = ("rewrite", segment.base_offset)
            written = compactor.rewrite_segment(
                segment.path, segment.size_bytes, segment.base_offset, stop, output, replacement.next_output, self._moved
            )
            assert written is not None
            output = written
        if any(segment.size_bytes for segment, _ in group):
            # Recovery tells by the last batch what was replaced.
            compactor.keep_last_batch(output, replacement.next_output)
        replacement.finish(compactor.take_aborted())
        # A truncation since the keys were mapped may have taken away what superseded others.
        replacement.truncation_count = self.truncations
        if not swap_segments(log, replacement):
            if not log.is_writable:
                raise log._not_writable()
            raise SegmentsChangedError

    # ---- what goes on meanwhile ----------------------------------------------------------------------

    def _has_changed(self) -> bool:
        log = self.log
        return log.truncation_count != self.truncations or log.log_start_offset != self.log_start_offset

    def _moved(self, read_bytes: int, written_bytes: int) -> None:
        self.done_bytes += read_bytes
        self._moved_aside(read_bytes, written_bytes)
        if self.progress is not None and read_bytes:
            self.progress(CompactionProgress(
                self.round, *self.where, min(self.done_bytes, self.total_bytes), self.total_bytes
            ))

    def _moved_aside(self, read_bytes: int, written_bytes: int) -> None:
        self.read_bytes += read_bytes
        self.written_bytes += written_bytes
        self.pace(read_bytes + written_bytes)


def _index_bytes(segment: Segment, suffix: str) -> int:
    try:
        return os.path.getsize(segment.path[: -len(".log")] + suffix)
    except OSError:
        return 0
