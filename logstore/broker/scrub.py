"""Reading what nobody reads: sealed segments are verified in the background, at a limited rate, again and again.

A bit that flips on a disk is noticed when it is read, which may be too late for a backup. Each segment's turn comes once
in ``logstore.scrub.interval.ms``; when it was last is kept with its digest, over restarts.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from logstore._native.checksum import crc32c
from logstore._native.verification import SegmentVerifier
from logstore.errors import LogstoreError
from logstore.model import TopicPartition
from logstore.storage.flush_scheduler import FlushScheduler

if TYPE_CHECKING:
    from logstore._native.segment import Segment
    from logstore.storage.log import Log
    from logstore.storage.segment_digests import SegmentDigest
    from logstore.storage.segment_verification import SegmentVerification

__all__ = ["Scrub", "ScrubDamage"]

STEP_BYTES = 1 << 20
TICK_MS = 1000
_REST_MS_MAX = 3_600_000


class ScrubDamage(NamedTuple):
    """A damaged segment, as the scrub found it.

    Attributes
    ----------
    path : str
    found_ms : int
    summary : str
        Offsets and reasons, in a line.
    """

    path: str
    found_ms: int
    summary: str


class _Turn(NamedTuple):
    """A segment and when it is due."""

    due_ms: int
    log: Log
    segment: Segment


class Scrub:
    """Verifies sealed segments bit by bit. Thread-safe.

    Parameters
    ----------
    logs : callable
        Gives the logs there are.
    bytes_per_second, interval_ms : int
        How fast; 0 for never. And how often each segment.
    scheduler : FlushScheduler, optional
        Its thread does the work, after `start`.
    clock : callable, optional
        Gives the time in ms; for tests.
    """

    def __init__(
        self,
        logs: Callable[[], Iterable[Log]],
        *,
        bytes_per_second: int,
        interval_ms: int,
        scheduler: FlushScheduler | None = None,
        is_paused: Callable[[], bool] = lambda: False,
        clock: Callable[[], int] | None = None,
    ):
        self._logs = logs
        self._bytes_per_second = bytes_per_second
        self._interval_ms = interval_ms
        self._scheduler = scheduler
        self._is_paused = is_paused
        self._clock = clock or (lambda: time.time_ns() // 1_000_000)
        self._lock = threading.Lock()
        self._closed = False
        self._queue: deque[_Turn] = deque()
        self._current: tuple[_Turn, SegmentVerifier, int] | None = None
        self._damages: dict[tuple[TopicPartition, int], ScrubDamage] = {}
        self._begun_ms: dict[str, int] = {}  # by path: what is damaged waits for its next turn like all others
        self.verified_bytes = 0

    # ---- on and off ---------------------------------------------------------------------------------

    def start(self, delay_ms: int) -> None:
        """Begins in the background, after a delay."""
        if self._scheduler is not None and self._bytes_per_second > 0:
            self._scheduler.schedule(delay_ms, self._tick)

    def _tick(self) -> None:
        if self._closed or self._scheduler is None:
            return
        delay_ms = TICK_MS
        try:
            if not self._is_paused() and self.step(self._bytes_per_second) == 0:
                delay_ms = min(max(self.next_due_ms() - self._clock(), TICK_MS), _REST_MS_MAX)
        except LogstoreError as error:
            _logger().error("the scrub failed: %s", error)
            delay_ms = _REST_MS_MAX
        if not self._closed:
            self._scheduler.schedule(delay_ms, self._tick)

    def close(self) -> None:
        """Ends it; a segment that is half verified begins anew at the next opening. Idempotent."""
        self._closed = True
        with self._lock:
            self._current = None
            self._queue.clear()

    def forked(self) -> None:
        """In a forked child, where the thread does not exist."""
        self._closed = True
        self._lock = threading.Lock()

    # ---- what it has found --------------------------------------------------------------------------

    @property
    def damages(self) -> dict[TopicPartition, list[ScrubDamage]]:
        """Segments found damaged since the broker was opened, by partition."""
        found: dict[TopicPartition, list[ScrubDamage]] = {}
        for (place, _), damage in sorted(self._damages.items()):
            found.setdefault(place, []).append(damage)
        return found

    def next_due_ms(self) -> int:
        """When the next segment is due; far in the future where there is none."""
        with self._lock:
            turns = self._queue or self._turns()
            return min((turn.due_ms for turn in turns), default=self._clock() + _REST_MS_MAX)

    # ---- doing --------------------------------------------------------------------------------------

    def step(self, budget_bytes: int) -> int:
        """Verifies the next bytes that are due.

        Parameters
        ----------
        budget_bytes : int
            It returns when so many are done, or a little more.

        Returns
        -------
        int
            How many were; 0 where nothing is due.

        Raises
        ------
        StorageFailureError
        """
        done = 0
        with self._lock:
            while done < budget_bytes and not self._closed:
                if self._current is None and not self._next_segment():
                    break
                done += self._advance(min(budget_bytes - done, STEP_BYTES))
            self.verified_bytes += done
        return done

    def _next_segment(self) -> bool:
        now_ms = self._clock()
        if not self._queue:
            self._queue.extend(sorted((turn for turn in self._turns() if turn.due_ms <= now_ms), key=lambda turn: turn[0]))
        while self._queue:
            turn = self._queue.popleft()
            if not _is_sealed(turn):
                continue  # deleted, compacted or truncated since
            generation = turn.log._digests.generation
            self._begun_ms[turn.segment.path] = now_ms
            try:
                verifier = SegmentVerifier(
                    turn.segment.path, turn.segment.base_offset, turn.segment.next_offset,
                    contiguous=turn.log.contiguous,
                )
            except LogstoreError as error:
                if os.path.exists(turn.segment.path):
                    self._note(turn, " ".join(str(error).split()))
                continue
            self._current = (turn, verifier, generation)
            return True
        return False

    def _turns(self) -> list[_Turn]:
        turns = []
        begun: dict[str, int] = {}
        for log in self._logs():
            if not log.is_open or log.read_only:
                continue
            known = log._digests.entries()
            for segment in log.segments[:-1]:
                if segment.next_offset > log.flushed_offset:
                    break
                digest = known.get(segment.base_offset)
                try:
                    written_ms = os.stat(segment.path).st_mtime_ns // 1_000_000
                except OSError:
                    written_ms = 0
                verified_ms = digest.verified_ms if digest is not None and not digest.is_growing else 0
                begun_ms = begun[segment.path] = self._begun_ms.get(segment.path, 0)
                turns.append(_Turn(max(verified_ms, written_ms, begun_ms) + self._interval_ms, log, segment))
        self._begun_ms = begun
        return turns

    def _advance(self, budget_bytes: int) -> int:
        assert self._current is not None
        turn, verifier, generation = self._current
        before = verifier.position
        fault = verifier.step(budget_bytes, deep=True)
        done = int(verifier.position - before)
        if fault is None and not verifier.is_done:
            return done
        self._current = None
        digest = turn.log._digests.get(turn.segment.base_offset)
        as_sealed = digest is None or digest.is_growing or digest.digest == verifier.digest
        indexes = _index_checksums(turn.segment.path)
        if fault is None and as_sealed and (digest is None or digest.is_growing or indexes == digest[5:7]):
            self._verified(turn, verifier, indexes, generation)
        else:
            self._look_closer(turn, generation)
        return max(done, 1)

    def _verified(
        self, turn: _Turn, verifier: SegmentVerifier, indexes: tuple[tuple[int, int], tuple[int, int]], generation: int
    ) -> None:
        from logstore.storage.segment_digests import SegmentDigest

        log, segment = turn.log, turn.segment
        digest = SegmentDigest(
            segment.base_offset, verifier.next_offset, verifier.size_bytes, verifier.max_timestamp, verifier.digest,
            *indexes, self._clock(),
        )
        log._digests.record([digest], generation=generation, log_start_offset=log.log_start_offset)
        self._damages.pop((TopicPartition(log.topic, log.partition), segment.base_offset), None)

    def _look_closer(self, turn: _Turn, generation: int) -> None:
        """Finds out what exactly is wrong, unless the segment has been replaced meanwhile."""
        from logstore.storage.segment_verification import verify_segment

        log, segment = turn.log, turn.segment
        known: SegmentDigest | None = log._digests.get(segment.base_offset)
        try:
            found = verify_segment(segment.path, segment.next_offset, contiguous=log.contiguous, digest=known)
        except LogstoreError as error:
            if os.path.exists(segment.path):
                self._note(turn, " ".join(str(error).split()))
            return
        if not found.is_sound and log._digests.generation == generation and _is_sealed(turn):
            self._note(turn, _summary(found))

    def _note(self, turn: _Turn, summary: str) -> None:
        place = TopicPartition(turn.log.topic, turn.log.partition)
        key = place, turn.segment.base_offset
        if key not in self._damages:
            _logger().error(
                "%s-%d: %s is damaged: %s. A backup may have what is lost; `logstore verify` and `logstore repair` say more",
                *place, turn.segment.path, summary,
            )
        self._damages[key] = ScrubDamage(turn.segment.path, self._clock(), summary)


def _is_sealed(turn: _Turn) -> bool:
    """Whether there is still such a segment, however often it was opened since."""
    return any(
        segment.base_offset == turn.segment.base_offset and segment.next_offset == turn.segment.next_offset
        for segment in turn.log.segments[:-1]
    )


def _index_checksums(path: str) -> tuple[tuple[int, int], tuple[int, int]]:
    found = []
    for suffix in (".index", ".timeindex"):
        try:
            with open(path.removesuffix(".log") + suffix, "rb") as file:
                content = file.read()
        except OSError:
            content = b""
        found.append((len(content), crc32c(content)))
    return found[0], found[1]


def _summary(found: SegmentVerification) -> str:
    ranges = [f"offsets {damage.first_offset} to {damage.end_offset - 1}: {damage.reason}" for damage in found.ranges]
    faults = [f"{os.path.basename(fault.path)}: {fault.reason}" for fault in found.faults]
    return "; ".join([*ranges, *faults])


def _logger() -> Any:
    import logging

    return logging.getLogger("logstore.scrub")
