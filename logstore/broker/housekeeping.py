"""Retention and compaction in the background of an open broker: one thread, a plan at a time, and a record of what it did.

Deciding is pure (`logstore.storage.retention`, `logstore.storage.compaction_plan`); here is who is asked when, and how it
ends.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from logstore.broker.housekeeping_plans import HousekeepingPlans
from logstore.broker.housekeeping_record import HousekeepingRecord, read_record, write_record
from logstore.broker.housekeeping_report import HousekeepingReport, HousekeepingResult, HousekeepingTimes
from logstore.broker.log_cleaning import compaction_summary, is_idle, next_to_compact
from logstore.broker.offsets_topic import OFFSETS_TOPIC
from logstore.errors import ClosedError, InvalidRequestError, LogstoreError, ReadOnlyError, StorageFailureError
from logstore.model import TopicPartition
from logstore.storage.config import INT64_MAX
from logstore.storage.retention import RetentionPlan, RetentionPolicy
from logstore.storage.segment_deletion import Scheduler

if TYPE_CHECKING:
    from logstore.broker.broker import Broker
    from logstore.storage.compaction import CompactionProgress
    from logstore.storage.log import Log

__all__ = ["Housekeeping", "HousekeepingReport", "HousekeepingResult", "HousekeepingTimes"]

RESULTS_MAX = 200
WRITE_INTERVAL_MS = 60_000
TASKS = ("retention", "compaction", "offset expiry")


class Housekeeping(HousekeepingPlans):
    """The background work of one broker. Thread-safe; made with the broker, as its attribute ``housekeeping``.

    Parameters
    ----------
    broker : Broker
    scheduler : Scheduler
        Its thread is the one that works.
    times : HousekeepingTimes, optional
        The broker's settings, if not given.
    clock : callable, optional
        Gives the time in ms; for tests.
    disk : callable, optional
        Gives total and free bytes of the file system; for tests.
    """

    def __init__(
        self,
        broker: Broker,
        scheduler: Scheduler,
        times: HousekeepingTimes | None = None,
        *,
        clock: Callable[[], int] | None = None,
        disk: Callable[[], tuple[int, int]] | None = None,
    ):
        super().__init__(broker, clock=clock, disk=disk)
        self._scheduler = scheduler
        self._times = times or HousekeepingTimes.of(broker.config)
        self._working = threading.Lock()  # held over each round: one at a time
        self._worker = 0  # the thread that holds it
        self._turn = 0  # which schedule counts: one from before a pause does not
        self._state = "off"
        self._running = ""
        self._stopping = False
        self._last_retention_ms = -1
        self._last_compaction_ms = -1
        self._next_retention_ms = -1
        self._next_compaction_ms = -1
        self._uncleanable: set[str] = set()  # directories of logs whose compaction failed: not tried again by itself
        self._bytes_freed = 0
        self._written: object = None
        self._written_ms = 0
        self._results: deque[HousekeepingResult] = deque(maxlen=RESULTS_MAX)
        self._failures: dict[TopicPartition, str] = {}

    # ---- on and off ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Begins rounds in the background; the first comes after ``log.initial.task.delay.ms``."""
        if self._state == "off" and not self._broker.read_only:
            self._state = "on"
            self._schedule_retention(self._times.initial_delay_ms)
            self._schedule_compaction(self._times.initial_delay_ms)

    def pause(self) -> None:
        """Begins nothing new in the background until `resume`, and returns once nothing is under way."""
        if self._state == "on":
            self._state = "paused"
            self._stopping = True
        with self._working:
            self._stopping = self._state == "closed"

    def resume(self) -> None:
        """Takes `pause` back; what has become due meanwhile is done at once."""
        if self._state == "paused":
            self._state = "on"
            self._turn += 1
            self._schedule_retention(max(self._next_retention_ms - self._clock(), 0))
            self._schedule_compaction(max(self._next_compaction_ms - self._clock(), 0))

    def close(self) -> None:
        """Stops for good, also in the middle of a round; what is half done is left as it was. Idempotent."""
        self._state = "closed"
        self._stopping = True
        with self._working:
            self._next_retention_ms = self._next_compaction_ms = -1

    def forked(self) -> None:
        """In a forked child, where the thread does not exist."""
        self._state = "closed"
        self._working = threading.Lock()

    def report(self) -> HousekeepingReport:
        """What it is at, and what it did."""
        return HousekeepingReport(
            self._state, self._running, self._last_retention_ms, self._last_compaction_ms,
            self._next_retention_ms if self._state == "on" else -1,
            self._next_compaction_ms if self._state == "on" else -1,
            self._bytes_freed, tuple(self._results), dict(self._failures),
        )

    # ---- doing --------------------------------------------------------------------------------------

    def run_now(
        self,
        topics: list[str] | None = None,
        *,
        tasks: tuple[str, ...] = TASKS,
        compact_all: bool = False,
        on_result: Callable[[HousekeepingResult], None] | None = None,
        progress: Callable[[Log, CompactionProgress], None] | None = None,
    ) -> list[HousekeepingResult]:
        """Does what is due, in the calling thread; waits for a round that is under way. Works while paused or off.

        Parameters
        ----------
        topics : list of str, optional
            These alone.
        tasks : tuple of str
            Of ``"retention"``, ``"compaction"`` and ``"offset expiry"``, what to do.
        compact_all : bool
            Compacts all that can be compacted, due or not.
        on_result : callable, optional
            Called with each result as it comes.
        progress : callable, optional
            Called now and then while a log is compacted.

        Returns
        -------
        list[HousekeepingResult]

        Raises
        ------
        UnknownTopicOrPartitionError, ReadOnlyError, ClosedError
        InvalidRequestError
            Called from within a round, or an unknown task.
        """
        if unknown := sorted(set(tasks) - set(TASKS)):
            raise InvalidRequestError(f"housekeeping has the tasks {', '.join(TASKS)}; there is no {unknown[0]!r}")
        if self._broker.read_only:
            raise ReadOnlyError(f"{self._broker.path} is open for reading only; its owner does the housekeeping")
        for name in topics or ():
            self._broker.topic(name)
        done: list[HousekeepingResult] = []

        def note(result: HousekeepingResult) -> None:
            done.append(result)
            if on_result is not None:
                on_result(result)

        with self._round():
            if self._state == "closed":
                raise ClosedError(f"the broker of {self._broker.path} is closed; open it again")
            if "retention" in tasks:
                self._retain(topics, note)
            if "offset expiry" in tasks and topics is None:
                self._expire_offsets(note)
            if "compaction" in tasks:
                self._uncleanable.clear()
                self._compact(topics, note, compact_all=compact_all, progress=progress, threads=2)
        return done

    @contextlib.contextmanager
    def _round(self) -> Iterator[None]:
        if self._worker == threading.get_ident():
            raise InvalidRequestError("housekeeping is under way in this very thread; do this when it has ended")
        with self._working:
            try:
                self._worker = threading.get_ident()
                yield
            finally:
                self._worker = 0
                self._running = ""
                self._write_down()

    def _write_down(self) -> None:
        """For other processes: at most once a round, and once a minute where a round did nothing."""
        state = (len(self._results), self._results[-1] if self._results else None, tuple(self._failures.items()))
        now_ms = self._clock()
        if state == self._written and now_ms - self._written_ms < WRITE_INTERVAL_MS:
            return
        self._written, self._written_ms = state, now_ms
        with contextlib.suppress(StorageFailureError):  # nothing depends on it
            write_record(self._broker.path, self.report())

    def recorded(self) -> HousekeepingRecord | None:
        """What housekeeping did last in this directory, whichever process it was that had it open; None for never.

        A dict with ``last_retention_ms`` and ``last_compaction_ms`` (-1 for never), ``bytes_freed``, ``results`` and
        ``failures``.
        """
        return read_record(self._broker.path)

    def _schedule_retention(self, delay_ms: int) -> None:
        self._next_retention_ms = self._clock() + delay_ms
        turn = self._turn
        self._scheduler.schedule(delay_ms, lambda: self._retention_round(turn))

    def _retention_round(self, turn: int) -> None:
        if self._state != "on" or turn != self._turn:
            return
        try:
            with self._round():
                if self._state == "on":
                    self._retain(None, _nobody)
        except LogstoreError as error:
            _logger().error("a round of retention failed: %s", error)
        finally:
            if self._state == "on":
                self._schedule_retention(self._times.retention_interval_ms)

    def _retain(
        self, topics: list[str] | None, note: Callable[[HousekeepingResult], None], *, apart_from: Log | None = None
    ) -> None:
        now_ms = self._clock()
        for log, plan in self._plans(now_ms, {}, functools.partial(self._failed, "retention")):
            if self._stopping:
                return
            if (topics is not None and plan.topic not in topics) or not plan.changes_anything or not log.is_writable:
                continue
            if log is apart_from:
                continue

            def work(log: Log = log, plan: RetentionPlan = plan) -> tuple[int, str]:
                from logstore.storage.retention_explained import summary_of

                done = log.apply_retention(
                    plan, now_ms=now_ms, group_offsets=lambda: self._group_offsets(log, RetentionPolicy.of(log.config))
                )
                return done.bytes_freed, summary_of(done) if done.changes_anything else ""

            self._do("retention", log.topic, log.partition, work, note)
        self._last_retention_ms = self._clock()

    def _expire_offsets(self, note: Callable[[HousekeepingResult], None]) -> None:
        if OFFSETS_TOPIC not in self._broker._topics:
            return

        def work() -> tuple[int, str]:
            count = self._broker.coordinator.expire_offsets()
            return 0, f"{count:,} committed offsets expired" if count else ""

        self._do("offset expiry", OFFSETS_TOPIC, -1, work, note)

    # ---- compaction -----------------------------------------------------------------------------------

    def _schedule_compaction(self, delay_ms: int) -> None:
        if not self._broker.config["log.cleaner.enable"]:
            return
        self._next_compaction_ms = self._clock() + delay_ms
        turn = self._turn
        self._scheduler.schedule(delay_ms, lambda: self._compaction_round(turn))

    def _compaction_round(self, turn: int) -> None:
        if self._state != "on" or turn != self._turn:
            return
        try:
            with self._round():
                if self._state == "on":
                    self._compact(None, _nobody)
        except LogstoreError as error:
            _logger().error("a round of compaction failed: %s", error)
        finally:
            if self._state == "on":
                self._schedule_compaction(self._times.compaction_backoff_ms)

    def _compact(
        self,
        topics: list[str] | None,
        note: Callable[[HousekeepingResult], None],
        *,
        compact_all: bool = False,
        progress: Callable[[Log, CompactionProgress], None] | None = None,
        threads: int = 1,
    ) -> None:
        """One log after the other, the one with the largest share of uncompacted bytes first; none twice."""
        now_ms = self._clock()
        left = {
            log.path: log for topic in self._topics() for log in topic.logs
            if log.config.is_compacted and log.is_writable and (topics is None or topic.name in topics)
        }
        for log in left.values():
            if is_idle(log, now_ms):
                self._do("roll", log.topic, log.partition, functools.partial(_rolled, log), note)
            if log.path not in self._uncleanable:  # what is not on disk can't be compacted
                self._do("compaction", log.topic, log.partition, functools.partial(_flushed, log), _nobody)
        while left and not self._stopping:
            plans = []
            for log in [log for log in left.values() if log.path not in self._uncleanable and log.is_writable]:
                try:
                    plan = log.compaction_plan()
                except LogstoreError as error:
                    self._failed("compaction", log, error)
                    self._uncleanable.add(log.path)
                    continue
                plans.append((log, plan._replace(is_due=plan.cleanable_bytes > 0) if compact_all else plan))
            chosen = next_to_compact(plans)
            if chosen is None:
                break
            log = left.pop(chosen[0].path)
            work = functools.partial(self._compact_log, log, progress, threads)
            self._do("compaction", log.topic, log.partition, work, note)
            if TopicPartition(log.topic, log.partition) in self._failures:
                self._uncleanable.add(log.path)
        self._last_compaction_ms = self._clock()

    def _compact_log(
        self, log: Log, progress: Callable[[Log, CompactionProgress], None] | None, threads: int
    ) -> tuple[int, str]:
        def moved(at: CompactionProgress) -> None:
            percent = 100 * at.done_bytes // max(at.total_bytes, 1)
            self._running = f"compaction of {log.topic}-{log.partition}, {at.pass_name} {percent} %"
            if progress is not None:
                progress(log, at)
            if self._state == "on" and self._clock() >= self._next_retention_ms:
                self._retain_meanwhile(log)

        rate = self._broker.config["log.cleaner.io.max.bytes.per.second"]
        report = log.compact(
            memory_bytes=self._broker.config["log.cleaner.dedupe.buffer.size"],
            bytes_per_second=None if rate == INT64_MAX else rate,
            progress=moved,
            stop=lambda: self._stopping,
            threads=threads,
        )
        return report.bytes_before - report.bytes_after, compaction_summary(report)

    def _retain_meanwhile(self, busy: Log) -> None:
        """A long compaction does not keep the disk from being freed elsewhere."""
        self._next_retention_ms = self._clock() + self._times.retention_interval_ms
        try:
            self._retain(None, _nobody, apart_from=busy)
            for topic in self._topics():
                for log in topic.logs:
                    log._deleted_files.unlink(time.monotonic(), ends_on_close=True)
        except LogstoreError as error:
            _logger().error("a round of retention failed: %s", error)

    # ---- one task -------------------------------------------------------------------------------------

    def _do(
        self,
        task: str,
        topic: str,
        partition: int,
        work: Callable[[], tuple[int, str]],
        note: Callable[[HousekeepingResult], None],
    ) -> None:
        """Runs one task and writes down how it ended; one that had nothing to do gives an empty summary."""
        place = TopicPartition(topic, partition)
        started_ms = self._clock()
        self._running = f"{task} of {topic}-{partition}" if partition >= 0 else task
        try:
            bytes_freed, summary = work()
            failed = False
        except ClosedError:
            return  # deleted meanwhile, or the broker is closing
        except LogstoreError as error:
            bytes_freed, summary, failed = 0, _in_one_line(error), True
        finally:
            self._running = ""
        if failed:
            self._note_failure(task, place, summary)
        else:
            if self._failures.get(place, "").startswith(f"{task}: "):
                del self._failures[place]
            if not summary:
                return
            _logger().info("%s of %s-%d: %s", task, topic, partition, summary)
        self._bytes_freed += bytes_freed
        result = HousekeepingResult(
            task, topic, partition, started_ms, self._clock() - started_ms, bytes_freed, summary, failed
        )
        self._results.append(result)
        note(result)


    def _failed(self, task: str, log: Log, error: LogstoreError) -> None:
        if not isinstance(error, ClosedError):
            self._note_failure(task, TopicPartition(log.topic, log.partition), _in_one_line(error))

    def _note_failure(self, task: str, place: TopicPartition, reason: str) -> None:
        if self._failures.get(place) != f"{task}: {reason}":  # said once, not in every round
            _logger().error("%s of %s-%d failed: %s", task, *place, reason)
        self._failures[place] = f"{task}: {reason}"


def _in_one_line(error: LogstoreError) -> str:
    return " ".join(str(error).split())


def _rolled(log: Log) -> tuple[int, str]:
    log.roll()
    return 0, "its active segment was not written for segment.ms, so that a new one begins and compaction can have it"


def _flushed(log: Log) -> tuple[int, str]:
    log.flush_until(log.segments[-1].base_offset)
    return 0, ""


def _nobody(result: HousekeepingResult) -> None:
    """Nobody waits for the results of a round in the background: they are in the report."""


def _logger() -> Any:
    import logging

    return logging.getLogger("logstore.housekeeping")
