"""The segments of a log that is written: when the next one begins, and by which settings."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from logstore._native.append_arguments import durability_level
from logstore._native.segment import Segment
from logstore.errors import StorageFailureError
from logstore.model import Durability
from logstore.storage import layout
from logstore.storage.config import TopicConfig
from logstore.storage.files import refusals
from logstore.storage.leader_epochs import LeaderEpochs
from logstore.storage.log_flushing import FlushedLog
from logstore.storage.recovery import write_indexes

__all__ = ["RolledLog"]

INT64_MAX = 2**63 - 1
# Segments that may wait for the disk; each holds a descriptor.
UNFLUSHED_SEGMENTS_MAX = 32


class RolledLog(FlushedLog):
    """What a log begins anew as it grows. `logstore.storage.log.Log` is what is used."""

    _clock: Callable[[], int] | None
    _durability: Durability
    _epochs: LeaderEpochs
    _is_clean: bool = False

    def _apply_config(self) -> None:
        config = self.config
        jitter = min(config["segment.jitter.ms"], config["segment.ms"])
        self._configure(
            level=durability_level(config["logstore.durability"] or self._durability),
            codec=config.codec,
            codec_level=config.codec_level,
            segment_bytes=config["segment.bytes"],
            segment_ms=config.roll_ms - (int.from_bytes(os.urandom(8), "big") % jitter if jitter else 0),
            batch_bytes=config["logstore.batch.bytes"],
            message_bytes_max=config["max.message.bytes"],
            timestamp_before_max_ms=config["message.timestamp.before.max.ms"],
            timestamp_after_max_ms=config["message.timestamp.after.max.ms"],
            flush_messages=config["flush.messages"],
            flush_by_time=config["flush.ms"] != INT64_MAX,
            append_time=config["message.timestamp.type"] == "LogAppendTime",
            keys_required=config.is_compacted,
            stages=config["logstore.open.batch.mapped"],
            clock=self._clock,
        )

    def reconfigure(self, config: TopicConfig) -> None:
        """Takes other settings over; segment and index sizes count from the next segment on."""
        self.config = config
        if not self.read_only:
            self._apply_config()

    # ---- steps the appender asks for; its lock is held -------------------------------------------------

    def _create_segment(self, base_offset: int) -> Segment:
        settings = self._segment_settings()
        for suffix in (".log", ".index", ".timeindex", ".txnindex"):
            leftover = os.path.join(self.path, layout.segment_file_name(base_offset, suffix))
            # Of a roll that failed half-way: a .log here that holds data would have been opened.
            if os.path.exists(leftover) and (suffix != ".log" or os.path.getsize(leftover) == 0):
                with refusals(leftover, "unlink"):
                    os.unlink(leftover)
        path = os.path.join(self.path, layout.segment_file_name(base_offset))
        segment = Segment.create(path, base_offset, **settings.as_arguments())
        segment.share_descriptor(is_synced=True)  # nothing is in it
        self._new_names = True
        return segment

    def _roll(self, base_offset: int) -> None:
        old = self.segments[-1]
        if old.size_bytes == 0 and old.base_offset == base_offset:
            return
        old.cut_ahead()  # a sealed segment ends where its file does
        try:
            new = self._create_segment(base_offset)
            if self._fills_ahead:
                new.fill_ahead(self.config["segment.bytes"])
            old.seal(INT64_MAX)  # its time index alone: where its offsets end, the new segment says
            try:
                write_indexes(old, final=True)
                self._count_unmarked(old)
            except StorageFailureError:  # the next checkpoint brings it up to date
                self._index_lags = True
            assert self._producer_state is not None
            self._freeze_producers(base_offset)
            self._snapshot_position = 0
            aborted = self._aborted.begin(base_offset, self._producer_state.first_unstable_offset)
            self._start_segment((*self._without_old_descriptors(), new), new, aborted)
        except BaseException:
            # A signal's handler may raise between any two steps. Appends go on in the old segment, and an empty file with
            # the name of a later one would seem to end it.
            if self.segments[-1] is old:
                path = os.path.join(self.path, layout.segment_file_name(base_offset))
                with contextlib.suppress(OSError):
                    if base_offset != old.base_offset and os.path.getsize(path) == 0:
                        os.unlink(path)
            raise
        self._set_mark_due(0)  # says when
        if self.config["segment.jitter.ms"]:
            self._scheduler.schedule(0, self._apply_config)
        self._scheduler.schedule(0, self._flush_in_background)

    def _without_old_descriptors(self) -> tuple[Segment, ...]:
        """The segments, with those written in this session and covered by the checkpoint as ones that open when read.

        Readers that stand in one of them keep what they have.
        """
        segments = list(self.segments)
        covered = self._checkpoint.segment_base_offset
        unflushed_count = 0
        for index in range(len(segments) - 2, -1, -1):
            segment, following = segments[index], segments[index + 1]
            if not segment.writable:
                break
            if following.base_offset <= covered:
                segments[index] = Segment.sealed(
                    segment.path, segment.base_offset, following.base_offset, **self._segment_settings().as_arguments()
                )
            else:
                unflushed_count += 1
        if unflushed_count > UNFLUSHED_SEGMENTS_MAX:
            self._flush_is_due()
        return tuple(segments)

    def _writing_begins(self) -> None:
        """The checkpoint says that the log was closed in good order: take that back before the first write."""
        self._is_clean = False
        self._checkpoint = self._checkpoint._replace(is_clean=False)
        self._checkpoint_file.write(self._checkpoint, sync=True)

    def _gap_appended(self) -> None:
        self.segments[-1].allow_gaps()
        self._checkpoint = self._checkpoint._replace(is_contiguous=False)
        self._checkpoint_file.replace(self._checkpoint)

    def _epoch_started(self, epoch: int, start_offset: int) -> None:
        if self._epochs.assign(epoch, start_offset):
            self._epochs.write()

    def roll(self) -> None:
        """Starts a new segment, unless the active one is empty."""
        if not self.is_writable:
            raise self._not_writable()
        self._locked(lambda: self._roll(self.log_end_offset))
