"""Exceptions: what they carry, how they travel, and that every native status has one."""

from __future__ import annotations

import errno
import pickle

import pytest

from logstore import errors
from logstore._native.faults import status_classes
from logstore.errors import (
    CorruptDataError,
    DeliveryFailedError,
    DiskFullError,
    LogstoreError,
    LogTruncatedError,
    OffsetOutOfRangeError,
    StorageFailureError,
)
from logstore.storage.files import file_failure

CLASSES = [getattr(errors, name) for name in errors.__all__]


def test_every_status_of_the_core_has_a_class():
    classes = status_classes()
    assert len(classes) == len(set(classes)) > 5
    for name, cls in classes.items():
        assert issubclass(cls, (LogstoreError, MemoryError)), name
    assert CorruptDataError in classes.values()
    assert DiskFullError in classes.values()


def test_one_tree():
    assert all(issubclass(cls, LogstoreError) for cls in CLASSES)
    assert all(isinstance(cls.retriable, bool) for cls in CLASSES)
    retriable = {cls.__name__ for cls in CLASSES if cls.retriable}
    assert retriable == {
        "ConcurrentTransactionsError", "UnstableOffsetCommitError",
        "DiskFullError", "DataDirLockedError", "RequestTimeoutError", "MemberIdRequiredError", "RebalanceInProgressError",
    }  # fmt: skip


MADE = [
    CorruptDataError("/a/b.log", 17, "CRC does not match", 1, 2),
    CorruptDataError("<memory>", -1, "missing", advice=""),
    OffsetOutOfRangeError("outside", offset=5, log_start_offset=1, log_end_offset=3),
    LogTruncatedError("cut", offset=5, log_start_offset=1, log_end_offset=3),
    StorageFailureError("/a/b.log", "fdatasync", errno.EIO, "Open it again."),
    DiskFullError("/a/b.log", "write", errno.ENOSPC),
    DeliveryFailedError({("orders", 0): 3}, None),
    *[cls("words") for cls in CLASSES
      if not issubclass(cls, (CorruptDataError, DeliveryFailedError, OffsetOutOfRangeError, StorageFailureError))],
]  # fmt: skip


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
def test_errors_travel_between_processes(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_texts_say_what_and_where():
    text = str(MADE[0])
    for part in ("/a/b.log", "CRC does not match", "byte 17", "expected 1", "found 2", "logstore verify"):
        assert part in text
    assert "Input/output error" in str(MADE[4])
    assert MADE[4].errno == errno.EIO
    assert isinstance(MADE[4], OSError)
    assert isinstance(MADE[2], LookupError)


@pytest.mark.parametrize(
    ("number", "cls", "words"),
    [
        (errno.ENOSPC, DiskFullError, "Free space"),
        (errno.EDQUOT, DiskFullError, "Free space"),
        (errno.EACCES, StorageFailureError, "read_only=True"),
        (errno.EMFILE, StorageFailureError, "ulimit"),
        (errno.EIO, StorageFailureError, "failed"),
    ],
)
def test_refusals_of_the_operating_system(number, cls, words):
    error = file_failure(OSError(number, "x"), "/a", "open")
    assert type(error) is cls
    assert words in str(error)
    assert (error.path, error.operation, error.errno) == ("/a", "open", number)
