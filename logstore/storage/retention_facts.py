"""What retention goes by: facts of segments, logs and disks, and the settings it obeys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from logstore.storage.config import TopicConfig

__all__ = ["DiskFacts", "LogFacts", "RetentionPolicy", "SegmentFacts"]


class SegmentFacts(NamedTuple):
    """What retention has to know of one segment.

    Attributes
    ----------
    base_offset, end_offset : int
        The end is the next segment's base offset; for the active one the log end offset.
    size_bytes : int
    max_timestamp : int
        Largest timestamp in ms; -1 for none.
    modified_ms : int
        When the .log file was written last.
    """

    base_offset: int
    end_offset: int
    size_bytes: int
    max_timestamp: int
    modified_ms: int


class DiskFacts(NamedTuple):
    """The file system that holds the log.

    Attributes
    ----------
    total_bytes, free_bytes : int
    pending_bytes : int
        Of deleted segments that are not unlinked yet: as good as free.
    """

    total_bytes: int
    free_bytes: int
    pending_bytes: int = 0


class LogFacts(NamedTuple):
    """What retention has to know of one log.

    Attributes
    ----------
    topic : str
    partition : int
    log_start_offset, log_end_offset : int
    segments : tuple[SegmentFacts, ...]
        Ascending; the last one is active.
    group_offsets : mapping of str to int or None
        Committed offsets of the groups that the policy names; None for a group that has committed none here.
    expired_before : int
        The first offset from the start that has not expired by its header; -1 where nobody asked.
    next_expiry_ms : int
        When that record expires; -1 for never.
    """

    topic: str
    partition: int
    log_start_offset: int
    log_end_offset: int
    segments: tuple[SegmentFacts, ...]
    group_offsets: Mapping[str, int | None] = {}
    expired_before: int = -1
    next_expiry_ms: int = -1

    @property
    def size_bytes(self) -> int:
        return sum(segment.size_bytes for segment in self.segments)


class RetentionPolicy(NamedTuple):
    """The settings that retention obeys; see docs/guide/retention.md."""

    deletes: bool = True
    retention_ms: int = -1
    retention_bytes: int = -1
    retention_records: int = -1
    disk_free_percent: float = 0.0
    groups: tuple[str, ...] = ()
    groups_max_bytes: int = -1
    groups_max_ms: int = -1
    cap_timestamps: bool = False
    expiry_header: str = ""

    @classmethod
    def of(cls, config: TopicConfig) -> RetentionPolicy:
        """The policy in a topic's settings."""
        return cls(
            deletes="delete" in config["cleanup.policy"].split(","),
            retention_ms=config["retention.ms"],
            retention_bytes=config["retention.bytes"],
            retention_records=config["logstore.retention.records"],
            disk_free_percent=config["logstore.retention.disk.free.percent"],
            groups=tuple(filter(None, config["logstore.retention.groups"].split(","))),
            groups_max_bytes=config["logstore.retention.groups.max.bytes"],
            groups_max_ms=config["logstore.retention.groups.max.ms"],
            cap_timestamps=config["logstore.retention.cap.timestamps"],
            expiry_header=config["logstore.expiry.header"],
        )

    def timestamp_of(self, segment: SegmentFacts) -> int:
        """What a segment's age counts from, in ms: its largest timestamp, or the time of its last write without one."""
        if segment.max_timestamp < 0:
            return segment.modified_ms
        if self.cap_timestamps and segment.modified_ms < segment.max_timestamp:
            return segment.modified_ms
        return segment.max_timestamp
