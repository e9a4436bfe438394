"""What the process's exit code says, in one place; the guide and ``logstore --help`` show this table."""

from __future__ import annotations

from logstore.errors import (
    CorruptDataError,
    DataDirLockedError,
    GroupIdNotFoundError,
    InvalidRequestError,
    InvalidTxnStateError,
    LogstoreError,
    MissingDependencyError,
    OffsetOutOfRangeError,
    TransactionalIdNotFoundError,
    UnknownTopicOrPartitionError,
    UnsupportedFormatError,
)

__all__ = [
    "CHECK_FAILED",
    "CORRUPT",
    "EXIT_CODES",
    "INTERNAL",
    "INTERRUPTED",
    "LOCKED",
    "NOT_FOUND",
    "OK",
    "STORAGE",
    "USAGE",
    "exit_code_for",
]

OK = 0
CHECK_FAILED = 1
USAGE = 2
NOT_FOUND = 3
LOCKED = 4
STORAGE = 5
CORRUPT = 6
INTERNAL = 70
INTERRUPTED = 130

EXIT_CODES = {
    OK: "done; also when the reader of a pipe went away",
    CHECK_FAILED: "`verify` found damage, `doctor` something to warn of, `plan --check` something to do, `erase` a record "
    "that is left; or you answered no",
    USAGE: "wrong usage, an invalid setting, or input that is not what it should be",
    NOT_FOUND: "no such directory, topic, partition, offset, group or transactional id",
    LOCKED: "another process has the directory open for writing",
    STORAGE: "the operating system refused: I/O error, no permission, disk full",
    CORRUPT: "stored data that had to be read is damaged, or of a format not known here",
    INTERNAL: "a fault of logstore itself",
    INTERRUPTED: "interrupted by Ctrl-C",
}


_NOT_FOUND = (
    UnknownTopicOrPartitionError, OffsetOutOfRangeError, GroupIdNotFoundError, TransactionalIdNotFoundError
)  # fmt: skip


def exit_code_for(error: BaseException) -> int:
    """The code for an error that ended a command."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, _NOT_FOUND):
        return NOT_FOUND
    if isinstance(error, (InvalidRequestError, InvalidTxnStateError, MissingDependencyError)):
        return USAGE
    if isinstance(error, DataDirLockedError):
        return LOCKED
    if isinstance(error, (CorruptDataError, UnsupportedFormatError)):
        return CORRUPT
    if isinstance(error, (OSError, LogstoreError)):
        return STORAGE
    return INTERNAL
