"""Taking segments away from the start of a log: the log start offset first and durably, then names, then bytes.

A crash after any step leaves a log that starts where it did or where it should; what is left of segments below the start,
opening removes. Readers that hold a segment keep its bytes; a position in it is `OffsetOutOfRangeError` from the first step
on.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from logstore._native.segment import Segment
from logstore._native.segment_facts import learn_facts
from logstore.errors import CorruptDataError, OffsetOutOfRangeError, StorageFailureError
from logstore.storage import layout
from logstore.storage.files import file_failure, refusals, sync_directory
from logstore.storage.retention import (
    LogFacts,
    RetentionPlan,
    RetentionPolicy,
    SegmentFacts,
    bytes_for_the_disk,
    plan_up_to,
    retention_plan,
)

if TYPE_CHECKING:
    from logstore.storage.checkpoint import Checkpoint
    from logstore.storage.config import TopicConfig
    from logstore.storage.log import Log
    from logstore.storage.log_reading import ReadableLog

__all__ = ["DeletedFiles", "apply_retention", "delete_before", "log_facts", "remove_below_start"]

SEGMENT_SUFFIXES = (".log", ".index", ".timeindex", ".txnindex", ".snapshot")
DELETED_SUFFIX = ".deleted"
_ROUNDS_MAX = 3
_MANY_SEGMENTS = 32
_UNLINKED_ON_CLOSE = 1000  # files; large ones take a millisecond each


class Scheduler(Protocol):
    """What runs a step later; `logstore.storage.flush_scheduler.FlushScheduler` is what is used."""

    def schedule(self, delay_ms: float, step: Callable[[], None]) -> None: ...


class DeletedFiles:
    """Files of one log that lose their names, and then keep their bytes for ``file.delete.delay.ms``. Thread-safe.

    Thousands of renames take a while: they happen under a lock of their own, so that no append waits for them. Unlinking a
    large file takes a while, too; it happens on the scheduler's thread.
    """

    def __init__(self, scheduler: Scheduler):
        self._scheduler = scheduler
        self._lock = threading.Lock()
        self._pending: list[tuple[float, str, int]] = []  # when due (monotonic), path, size
        self._names_lock = threading.Lock()
        self._named: list[int] = []  # base offsets of segments below the durable start, whose files have their names yet
        self._is_closed = False

    def leave(self, base_offsets: Iterable[int]) -> None:
        """Takes segments that are gone for readers, durably; `take_names` does the rest."""
        with self._names_lock:
            self._named += base_offsets

    def take_names(self, directory: str) -> list[str]:
        """Renames the files of what was left, oldest first; those renamed. After `close`, none: the next open does it.

        Raises
        ------
        StorageFailureError
            The others are tried again with the next call.
        """
        renamed: list[str] = []
        present: set[str] | None = None
        while not self._is_closed:
            with self._names_lock:  # step by step, so that whoever closes waits for one segment alone
                if not self._named or self._is_closed:
                    break
                if present is None:
                    with refusals(directory, "delete a segment"):
                        present = set(os.listdir(directory))
                renamed += _rename_files(directory, self._named[0], present)
                del self._named[0]
        return renamed

    def close(self) -> None:
        """Frees what is pending, up to a number of files, and ends what goes on elsewhere: the rest is for the next open."""
        with self._names_lock:
            self._is_closed = True
        with contextlib.suppress(StorageFailureError):
            self.unlink(at_most=_UNLINKED_ON_CLOSE)

    @property
    def pending_bytes(self) -> int:
        """Bytes that will be free once they are unlinked."""
        return sum(size for _, _, size in self._pending)

    def add(self, paths: Iterable[str], delay_ms: int) -> None:
        """Takes files that have been renamed already; they are unlinked after the delay, or by the next open."""
        if self._is_closed:
            return
        due = time.monotonic() + delay_ms / 1000
        added = []
        for path in paths:
            with contextlib.suppress(OSError):
                added.append((due, path, os.path.getsize(path)))
        if added:
            again = {path for _, path, _ in added}  # what had such a name before was replaced by it
            with self._lock:
                self._pending = [entry for entry in self._pending if entry[1] not in again] + added
            self._scheduler.schedule(delay_ms, self._unlink_due)

    def _unlink_due(self) -> None:
        # The scheduler's word counts: by its clock the delay is over for those that came first.
        with self._lock:
            if not self._pending:
                return
            first_due = min(due for due, _, _ in self._pending)
        self.unlink(max(first_due, time.monotonic()), ends_on_close=True)

    def unlink(
        self, until: float = float("inf"), *, at_most: int | None = None, ends_on_close: bool = False
    ) -> int:
        """Unlinks what is due by a time of the monotonic clock, or all there is, up to a number of files or until the log is
        closed; bytes freed.

        Raises
        ------
        StorageFailureError
            The rest is removed when the log is opened again.
        """
        with self._lock:
            due = [entry for entry in self._pending if entry[0] <= until]
            self._pending = [entry for entry in self._pending if entry[0] > until]
        freed_bytes = 0
        for _, path, size_bytes in due[:at_most]:
            if ends_on_close and self._is_closed:
                break
            try:
                os.unlink(path)
                freed_bytes += size_bytes
            except FileNotFoundError:
                pass
            except OSError as error:
                raise file_failure(error, path, "unlink") from error
        return freed_bytes

    def forget(self) -> None:
        """In a forked child: the files belong to the parent."""
        self._lock = threading.Lock()
        self._names_lock = threading.Lock()
        self._is_closed = True
        self._pending = []


def log_facts(
    log: ReadableLog, group_offsets: dict[str, int | None] | None = None, *, expiry_header: str = "", now_ms: int = 0
) -> LogFacts:
    """What retention has to know of a log; files of sealed segments are not opened, and looked at once.

    With the name of an expiry header, records are read from the log start offset on, up to the first that has not expired.
    """
    log_end_offset = log.log_end_offset
    log_start_offset = log.log_start_offset
    segments = log.segments
    if len(segments) >= _MANY_SEGMENTS:
        learn_facts(segments, log.path, log._digests.entries())
    ends = [segment.base_offset for segment in segments[1:]]
    # A segment rolled after the end offset was read: what is in it is not counted yet.
    ends.append(max(log_end_offset, segments[-1].base_offset) if segments else 0)
    expired_before, next_expiry_ms = -1, -1
    if expiry_header:
        expired_before, next_expiry_ms = _first_unexpired(log, log_start_offset, log_end_offset, expiry_header, now_ms)
    return LogFacts(
        log.topic, log.partition, log_start_offset, max(log_end_offset, ends[-1]),
        tuple(
            SegmentFacts(segment.base_offset, end, *segment.facts()) for segment, end in zip(segments, ends, strict=True)
        ),
        group_offsets or {}, expired_before, next_expiry_ms,
    )


def _first_unexpired(log: ReadableLog, start: int, end: int, header: str, now_ms: int) -> tuple[int, int]:
    from logstore._native.expiry import first_unexpired

    cursor = log.cursor(start, end)
    try:
        return first_unexpired(cursor, header.encode(), now_ms)
    except CorruptDataError:
        return cursor.next_offset, -1  # what can't be read has not expired
    except OffsetOutOfRangeError:
        return start, -1  # trimmed meanwhile


def apply_retention(
    log: Log, plan: RetentionPlan, *, now_ms: int, group_offsets: Callable[[], dict[str, int | None]] | None = None
) -> RetentionPlan:
    """Carries a plan out, as far as it still holds.

    Parameters
    ----------
    log : Log
    plan : RetentionPlan
    now_ms : int
        The time it was made for.
    group_offsets : callable, optional
        Asks again where the groups stand; without, what the plan knows counts.

    Returns
    -------
    RetentionPlan
        What was done: the plan itself, unless the log, its settings or its groups have changed since; never more than it.

    Raises
    ------
    StorageFailureError, CorruptDataError, ReadOnlyError, ClosedError
    """
    for _ in range(_ROUNDS_MAX):
        config = log.config
        groups = dict(plan.facts.group_offsets) if group_offsets is None else group_offsets()
        # No later than planned: what has grown or aged past a limit since is for the next round.
        policy = RetentionPolicy.of(config)
        facts = log_facts(log, groups)
        if policy.expiry_header == plan.policy.expiry_header:
            facts = facts._replace(
                expired_before=plan.facts.expired_before, next_expiry_ms=plan.facts.next_expiry_ms
            )
        wanted = bytes_for_the_disk(plan) if policy.disk_free_percent > 0 else 0
        again = retention_plan(facts, policy, now_ms, bytes_wanted=wanted)
        if again.log_start_offset > plan.log_start_offset:
            again = plan_up_to(again, plan.log_start_offset)
        if not again.changes_anything:
            return again
        bases = [decision.segment.base_offset for decision in again.decisions[: again.going_count + 1]]

        def holds(done: RetentionPlan = again, config: TopicConfig = config, bases: list[int] = bases) -> bool:
            """The lock is held: whether nothing has come in between that would have made it another plan."""
            return (
                log.config is config
                and [segment.base_offset for segment in log.segments[: len(bases)]] == bases
                and (not done.rolls_active or log.log_end_offset == done.log_start_offset)
            )

        if delete_before(log, again.log_start_offset, rolls_active=again.rolls_active, holds=holds):
            return again
    return again._replace(
        decisions=(), log_start_offset=again.facts.log_start_offset, rolls_active=False, bytes_freed=0, going_count=0
    )


def delete_before(
    log: Log, offset: int, *, rolls_active: bool = False, holds: Callable[[], bool] | None = None
) -> bool:
    """Moves the log start offset up to an offset, durably, and deletes the segments that hold nothing else.

    Parameters
    ----------
    log : Log
    offset : int
    rolls_active : bool
        Starts a fresh segment first, so that the active one can go as well.
    holds : callable, optional
        Asked under the log's lock; where it says no, nothing is done.

    Returns
    -------
    bool
        Whether it was done, or there was nothing to do.

    Raises
    ------
    OffsetOutOfRangeError, StorageFailureError
    """
    if not log.is_writable:
        raise log._not_writable()
    with log._flush_lock:
        # What is deleted must not be needed to know where the log ends, or who has written to it. Appends go on while
        # the disk works.
        if log.has_producers:
            log._locked(lambda: log._freeze_producers(durable=True))
        active = log.segments[-1]
        flushed = log._state_at(active.base_offset, active.size_bytes, log.end_offset)
        log._sync()
        gone = log._locked(_move_start, log, offset, flushed, rolls_active, holds)
        if gone is None:
            return False
        log._deleted_files.leave(segment.base_offset for segment in gone.segments)
        if gone.epochs_changed:
            log._epochs.write()
        log._aborted.forget(segment.base_offset for segment in gone.segments)
    renamed = log._deleted_files.take_names(log.path)
    if renamed:
        sync_directory(log.path)
    log._deleted_files.add(renamed, log.config["file.delete.delay.ms"])
    return True


class _Gone(NamedTuple):
    segments: tuple[Segment, ...] = ()
    epochs_changed: bool = False


def _move_start(
    log: Log, offset: int, flushed: Checkpoint, rolls_active: bool, holds: Callable[[], bool] | None
) -> _Gone | None:
    """Under both locks: the checkpoint, then what readers see. None where the plan no longer holds."""
    if holds is not None and not holds():
        return None
    if offset > log.log_end_offset:
        raise OffsetOutOfRangeError(
            f"{log.topic}-{log.partition} ends at offset {log.log_end_offset}; its start can't move to {offset}",
            offset=offset, log_start_offset=log.log_start_offset, log_end_offset=log.log_end_offset,
        )
    offset = max(offset, log.log_start_offset)
    if rolls_active:
        log._roll(log.log_end_offset)
    segments = log.segments
    kept = tuple(
        segment for index, segment in enumerate(segments)
        if index == len(segments) - 1 or segments[index + 1].base_offset > offset
    )
    if offset == log.log_start_offset and len(kept) == len(segments):
        return _Gone()
    if rolls_active or flushed.segment_base_offset < kept[0].base_offset or flushed.log_end_offset < offset:
        # What was flushed before the lock was taken is about to go.
        log._freeze_producers(durable=True)
        log._sync()
        active = log.segments[-1]
        flushed = log._state_at(active.base_offset, active.size_bytes, log.end_offset)
    log._checkpoint = flushed._replace(log_start_offset=offset, is_contiguous=log._checkpoint.is_contiguous)
    log._checkpoint_file.replace(log._checkpoint)
    log._publish(log_start_offset=offset)
    log._publish(segments=kept)
    return _Gone(segments[: len(segments) - len(kept)], log._epochs.truncate_from_start(offset))


def remove_below_start(log: Log, segments: list[Segment], log_start_offset: int) -> list[Segment]:
    """When a log is opened: removes the segments that a crash left below its start. Nobody reads them any more.

    Returns
    -------
    list[Segment]
        The others.
    """
    count = 0
    while count + 1 < len(segments) and segments[count + 1].base_offset <= log_start_offset:
        count += 1
    if count:
        first = segments[count].base_offset
        if log._checkpoint.segment_base_offset < first:
            # It speaks of a segment that is about to go, which the next open would miss.
            log._checkpoint = log._checkpoint._replace(
                segment_base_offset=first, position=0, flushed_offset=first,
                log_end_offset=max(log._checkpoint.log_end_offset, first), is_clean=False,
            )
        # Read, and so perhaps in the page cache alone: a start that fell back would miss what is deleted now.
        log._checkpoint_file.replace(log._checkpoint)
    if count:
        present = set(os.listdir(log.path))
        for segment in segments[:count]:
            for path in _rename_files(log.path, segment.base_offset, present):
                with refusals(path, "unlink"), contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        sync_directory(log.path)
    return segments[count:]


def _rename_files(directory: str, base_offset: int, present: set[str]) -> list[str]:
    """Takes the files of a segment out of the log, its .log after the others: without it they are known to be left over."""
    renamed = []
    for suffix in reversed(SEGMENT_SUFFIXES):
        name = layout.segment_file_name(base_offset, suffix)
        if name not in present:
            continue
        path = os.path.join(directory, name)
        with refusals(directory, "delete a segment"), contextlib.suppress(FileNotFoundError):
            os.replace(path, path + DELETED_SUFFIX)
            renamed.append(path + DELETED_SUFFIX)
    return renamed
