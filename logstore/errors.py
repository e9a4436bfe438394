"""Every exception logstore raises, in one tree.

Each message says what happened, where, and what to do next. ``retriable`` is a class attribute: ``True`` means the
same call may succeed later without anything being changed by hand.

Four kinds are never mixed: you asked wrongly (`InvalidRequestError`), the stored bytes are damaged
(`CorruptDataError`), they are newer than this version (`UnsupportedFormatError`), or the operating system refused
(`StorageFailureError`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = [
    "ClosedError",
    "CommitFailedError",
    "ConcurrentTransactionsError",
    "CorruptDataError",
    "DataDirLockedError",
    "DeliveryFailedError",
    "DiskFullError",
    "FencedInstanceIdError",
    "GroupError",
    "GroupIdNotFoundError",
    "GroupMaxSizeReachedError",
    "GroupSubscribedToTopicError",
    "IllegalGenerationError",
    "InconsistentGroupProtocolError",
    "InvalidConfigError",
    "InvalidGroupIdError",
    "InvalidProducerEpochError",
    "InvalidRecordError",
    "InvalidRequestError",
    "InvalidSessionTimeoutError",
    "InvalidTimestampError",
    "InvalidTransactionTimeoutError",
    "InvalidTxnStateError",
    "LogTruncatedError",
    "LogstoreError",
    "MemberIdRequiredError",
    "MissingDependencyError",
    "NoOffsetForPartitionError",
    "NonEmptyGroupError",
    "OffsetMetadataTooLargeError",
    "OffsetOutOfRangeError",
    "OutOfOrderSequenceError",
    "ProducerFencedError",
    "ReadOnlyError",
    "RebalanceInProgressError",
    "RecordTooLargeError",
    "RequestTimeoutError",
    "StorageFailureError",
    "TopicAlreadyExistsError",
    "TransactionAbortedError",
    "TransactionCoordinatorFencedError",
    "TransactionalIdNotFoundError",
    "UnexpectedOffsetError",
    "UnknownMemberIdError",
    "UnknownTopicOrPartitionError",
    "UnstableOffsetCommitError",
    "UnsupportedFormatError",
]


class LogstoreError(Exception):
    """Base of all errors raised by logstore."""

    retriable: ClassVar[bool] = False


class InvalidRequestError(LogstoreError, ValueError):
    """The caller asked for something impossible; nothing has changed."""


class InvalidConfigError(InvalidRequestError):
    """A setting is unknown, or its value is out of range."""


class InvalidRecordError(InvalidRequestError):
    """A record or a foreign batch breaks a rule of the topic or of the format; nothing of it was appended."""


class InvalidTimestampError(InvalidRecordError):
    """A record's timestamp is outside of ``message.timestamp.before.max.ms`` / ``after.max.ms``."""


class RecordTooLargeError(InvalidRequestError):
    """A record's batch would be larger than ``max.message.bytes``, or an append larger than ``segment.bytes``."""


class UnknownTopicOrPartitionError(InvalidRequestError, LookupError):
    """There is no such topic, or no such partition in it."""


class TopicAlreadyExistsError(InvalidRequestError):
    """A topic of this name exists; pass ``exist_ok=True`` to accept it."""


class MissingDependencyError(LogstoreError, ImportError):
    """An optional package is needed for this and is not installed; the message names the extra to install."""


class OffsetOutOfRangeError(LogstoreError, LookupError):
    """The offset is before the log start offset or past the log end offset.

    Attributes
    ----------
    offset : int
        What was asked for.
    log_start_offset, log_end_offset : int
        What is there: ``[log_start_offset, log_end_offset)``.
    """

    def __init__(self, message: str, *, offset: int = -1, log_start_offset: int = -1, log_end_offset: int = -1):
        super().__init__(message)
        self.offset = offset
        self.log_start_offset = log_start_offset
        self.log_end_offset = log_end_offset


class NoOffsetForPartitionError(OffsetOutOfRangeError):
    """A consumer with ``auto_offset_reset="none"`` has no committed offset to begin at."""


class LogTruncatedError(OffsetOutOfRangeError):
    """The log was truncated below the reader's position: what it read last is no longer part of the log.

    Attributes
    ----------
    truncation_offset : int
        The lowest offset the log was cut to: what stands there now has not been read.
    """

    def __init__(
        self,
        message: str,
        *,
        offset: int = -1,
        log_start_offset: int = -1,
        log_end_offset: int = -1,
        truncation_offset: int = -1,
    ):
        super().__init__(message, offset=offset, log_start_offset=log_start_offset, log_end_offset=log_end_offset)
        self.truncation_offset = truncation_offset


class CorruptDataError(LogstoreError):
    """Stored bytes are damaged. Nothing was changed, and everything around the damage can still be read.

    Attributes
    ----------
    path : str
        The file; ``"<memory>"`` for bytes that were passed in.
    position : int
        Byte position of the damage in the file; -1 where there is none.
    reason : str
        The rule that is broken.
    expected, actual : int or None
        What the rule asks for and what is there.
    """

    def __init__(
        self,
        path: str,
        position: int,
        reason: str,
        expected: int | str | None = None,
        actual: int | str | None = None,
        advice: str = "Reads around it work; `logstore verify --deep` names all damage, `logstore repair` what helps.",
    ):
        self.path = path
        self.position = position
        self.reason = reason
        self.expected = expected
        self.actual = actual
        self.advice = advice
        text = f"{path}: {reason} at byte {position}" if position >= 0 else f"{path}: {reason}"
        if expected is not None or actual is not None:
            text += f" (expected {expected}, found {actual})"
        super().__init__(f"{text}. {advice}" if advice else text)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.path, self.position, self.reason, self.expected, self.actual, self.advice))


class UnsupportedFormatError(LogstoreError):
    """The data is in a format this version does not know: older than magic 2, or newer than this release."""


class StorageFailureError(LogstoreError, OSError):
    """The operating system refused a file operation.

    After a failed fsync or write the log is closed for writing (a retry would prove nothing); reads go on.

    Attributes
    ----------
    path, operation : str
        What was refused, and on which file.
    errno : int
        The operating system's error number.
    """

    def __init__(self, path: str, operation: str, errno: int, advice: str = ""):
        self.advice = advice
        text = f"{path}: {operation} failed: {os.strerror(errno) if errno else 'unknown error'}"
        OSError.__init__(self, errno, f"{text}. {advice}" if advice else text)
        self.path = path
        self.operation = operation

    def __str__(self) -> str:
        return str(self.args[1])

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.path, self.operation, self.errno, self.advice))


class DiskFullError(StorageFailureError):
    """No space left. Nothing of the refused append is in the log; it works again once there is space."""

    retriable = True

    def __init__(self, path: str, operation: str, errno: int, advice: str = ""):
        super().__init__(
            path, operation, errno, advice or "Free space and append again; nothing was appended by this call."
        )


class DataDirLockedError(LogstoreError):
    """Another broker has this directory open for writing; the message names it."""

    retriable = True


class ReadOnlyError(InvalidRequestError):
    """The broker or log was opened with ``read_only=True``, or its damage forbids writing."""


class ClosedError(LogstoreError):
    """The object was closed, or belongs to the parent of a forked process."""


class UnexpectedOffsetError(InvalidRequestError):
    """A conditional append: the log does not end where the caller expected; nothing was appended.

    Attributes
    ----------
    expected_offset, log_end_offset : int
    """

    def __init__(self, message: str, *, expected_offset: int = -1, log_end_offset: int = -1):
        super().__init__(message)
        self.expected_offset = expected_offset
        self.log_end_offset = log_end_offset


class OutOfOrderSequenceError(LogstoreError):
    """An idempotent producer's batch does not continue its last one: batches before it are missing, or it is an old one.

    Nothing was appended. What the producer sent before is lost or was written twice by somebody else's hand; a new
    producer id starts clean.

    Attributes
    ----------
    producer_id, expected_sequence, sequence : int
    """

    def __init__(self, message: str, *, producer_id: int = -1, expected_sequence: int = -1, sequence: int = -1):
        super().__init__(message)
        self.producer_id = producer_id
        self.expected_sequence = expected_sequence
        self.sequence = sequence


class InvalidProducerEpochError(LogstoreError):
    """A newer instance of the same producer has taken over; nothing was appended.

    Attributes
    ----------
    producer_id, producer_epoch : int
        The epoch that was given.
    current_epoch : int
        The one that is known.
    """

    def __init__(self, message: str, *, producer_id: int = -1, producer_epoch: int = -1, current_epoch: int = -1):
        super().__init__(message)
        self.producer_id = producer_id
        self.producer_epoch = producer_epoch
        self.current_epoch = current_epoch


class ProducerFencedError(InvalidProducerEpochError):
    """Another producer with the same ``transactional_id`` has taken over; this one must stop."""


class InvalidTxnStateError(LogstoreError):
    """What was asked does not fit the state of the producer's transaction; nothing was appended."""


class ConcurrentTransactionsError(LogstoreError):
    """The producer's last transaction is being ended still; the same call works when that is done."""

    retriable = True


class TransactionAbortedError(LogstoreError):
    """The record's transaction was aborted before the record was handed over; it is not in the log."""


class InvalidTransactionTimeoutError(InvalidRequestError):
    """``transaction_timeout`` is longer than ``transaction.max.timeout.ms`` of the broker."""


class TransactionalIdNotFoundError(InvalidRequestError, LookupError):
    """No producer has used this ``transactional_id``, or not for ``transactional.id.expiration.ms``."""


class UnstableOffsetCommitError(LogstoreError):
    """A transaction that has not ended yet has committed offsets for these partitions; wait for its end."""

    retriable = True


class TransactionCoordinatorFencedError(LogstoreError):
    """A transaction marker comes from a coordinator that has been replaced since; nothing was appended."""


class RequestTimeoutError(LogstoreError, TimeoutError):
    """Something did not happen in the time given; the message says what, and what has become of the records."""

    retriable = True


class DeliveryFailedError(LogstoreError):
    """Records that a producer took were not delivered, and nobody has asked their futures why.

    Attributes
    ----------
    counts : dict[TopicPartition, int]
        How many records, by partition.
    first_error : LogstoreError
        Why the first of them was not delivered; also the ``__cause__``.
    """

    def __init__(self, counts: Mapping[Any, int], first_error: BaseException | None):
        self.counts = dict(counts)
        self.first_error = first_error
        places = [f"{topic}-{partition}: {count}" for (topic, partition), count in sorted(self.counts.items())]
        if len(places) > 10:
            places[10:] = [f"and {len(places) - 10} more partitions"]
        super().__init__(
            f"{sum(self.counts.values())} records were not delivered ({', '.join(places)}); the first error: {first_error}"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.counts, self.first_error))


class GroupError(LogstoreError):
    """A consumer group refused: unknown member, stale generation, rebalance in progress."""


class InvalidGroupIdError(GroupError, InvalidRequestError):
    """A group id is a string of at least one character."""


class GroupIdNotFoundError(GroupError, LookupError):
    """There is no such group."""


class NonEmptyGroupError(GroupError):
    """The group has members, so its offsets can't be reset and it can't be deleted; stop them first."""


class GroupSubscribedToTopicError(GroupError):
    """The group's members are subscribed to this topic, so its offsets can't be deleted."""


class GroupMaxSizeReachedError(GroupError):
    """The group has ``group.max.size`` members."""


class InconsistentGroupProtocolError(GroupError):
    """The members of the group have no assignor in common."""


class InvalidSessionTimeoutError(GroupError, InvalidRequestError):
    """The session timeout is outside of ``group.min.session.timeout.ms`` to ``group.max.session.timeout.ms``."""


class MemberIdRequiredError(GroupError):
    """A member of the wire protocol has to join again with the member id it was given."""

    retriable = True


class UnknownMemberIdError(GroupError):
    """The group does not know this member: its session has ended, or it has left."""


class IllegalGenerationError(GroupError):
    """The group has rebalanced since: this generation's owners own nothing any more."""


class RebalanceInProgressError(GroupError):
    """The group is rebalancing; poll to join it again."""

    retriable = True


class FencedInstanceIdError(GroupError):
    """Another member has joined with the same ``group_instance_id``."""


class OffsetMetadataTooLargeError(GroupError, InvalidRequestError):
    """The metadata of a committed offset are longer than ``offset.metadata.max.bytes``."""


class CommitFailedError(GroupError):
    """The offsets were not committed: the group has given the partitions to others.

    The records will be handed to their new owners. Poll more often, or raise ``max_poll_interval``.
    """
