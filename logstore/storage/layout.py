"""Names of directories and files, as Kafka has them (log-format, section 2)."""

from __future__ import annotations

import re

from logstore.errors import InvalidRequestError

__all__ = [
    "CHECKPOINT_FILE",
    "CLEANER_OFFSET_FILE",
    "CLEAN_SHUTDOWN_FILE",
    "DIGESTS_FILE",
    "HOUSEKEEPING_FILE",
    "INTERNAL_TOPICS",
    "LEADER_EPOCH_FILE",
    "LOCK_FILE",
    "LOG_START_FILE",
    "METADATA_FILE",
    "META_PROPERTIES_FILE",
    "OPEN_BATCH_FILE",
    "PARTITION_METADATA_FILE",
    "PRODUCER_IDS_FILE",
    "RECOVERY_POINT_FILE",
    "REPAIR_FILE",
    "WAITING_FILE",
    "check_topic_name",
    "is_deleted_directory",
    "partition_directory_name",
    "segment_file_name",
    "segment_offset",
    "split_partition_directory_name",
]

LOCK_FILE = ".lock"
CLEAN_SHUTDOWN_FILE = ".kafka_cleanshutdown"
META_PROPERTIES_FILE = "meta.properties"
RECOVERY_POINT_FILE = "recovery-point-offset-checkpoint"
LOG_START_FILE = "log-start-offset-checkpoint"
CLEANER_OFFSET_FILE = "cleaner-offset-checkpoint"
PARTITION_METADATA_FILE = "partition.metadata"
LEADER_EPOCH_FILE = "leader-epoch-checkpoint"
# Ours; Kafka ignores files it does not know.
METADATA_FILE = "logstore.topics"
CHECKPOINT_FILE = "logstore.checkpoint"
DIGESTS_FILE = "logstore.digests"
HOUSEKEEPING_FILE = "logstore.housekeeping"
OPEN_BATCH_FILE = "logstore.open-batch"
REPAIR_FILE = "logstore.repair"
PRODUCER_IDS_FILE = "logstore.producer-ids"
WAITING_FILE = "logstore.waiting"

INTERNAL_TOPICS = frozenset(
    {"__consumer_offsets", "__transaction_state", "__share_group_state", "__cluster_metadata"}
)

_TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_LOG_FILE = re.compile(r"([0-9]{20})\.log")
_DELETED = re.compile(r"\S+-\d+\.[0-9a-f]{32}-delete")
_VARIANT = re.compile(r"(\S+)-(\S+)\.(\S+)-(delete|future|stray)")


def check_topic_name(name: str) -> str:
    """The name, if a topic may have it.

    Raises
    ------
    InvalidRequestError
        It is empty, longer than 249 characters, ``.`` or ``..``, or has characters outside of ``[a-zA-Z0-9._-]``.
    """
    if not isinstance(name, str) or not _TOPIC_NAME.fullmatch(name) or name in (".", ".."):
        raise InvalidRequestError(
            f"{name!r} is no topic name: 1 to 249 of the characters a-z A-Z 0-9 . _ - are, except '.' and '..'"
        )
    return name


def partition_directory_name(topic: str, partition: int) -> str:
    """``orders`` and 2 give ``orders-2``."""
    return f"{topic}-{partition}"


def split_partition_directory_name(name: str) -> tuple[str, int] | None:
    """Topic and partition of a directory's name; None where it is no partition's, or one that Kafka is deleting,
    building or has set aside."""
    topic, dash, number = name.rpartition("-")
    if not dash or not topic or not number.isascii() or not number.isdigit() or len(number) > 10:
        return None
    if _VARIANT.fullmatch(name) or not _TOPIC_NAME.fullmatch(topic) or str(int(number)) != number:
        return None
    return topic, int(number)


def is_deleted_directory(name: str) -> bool:
    """Whether a directory is a partition whose deletion has begun: ``orders-2.<32 hex digits>-delete``."""
    return _DELETED.fullmatch(name) is not None


def segment_file_name(base_offset: int, suffix: str = ".log") -> str:
    """``00000000000000001234.log``."""
    return f"{base_offset:020d}{suffix}"


def segment_offset(file_name: str) -> int | None:
    """Base offset of a ``.log`` file's name; None for any other name."""
    match = _LOG_FILE.fullmatch(file_name)
    if match is None or int(match.group(1)) >= 2**63:
        return None
    return int(match.group(1))
