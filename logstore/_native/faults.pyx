"""From status codes to exceptions, in one table."""

from logstore._native.core cimport (
    LS_CORRUPT,
    LS_DISK_FULL,
    LS_END,
    LS_FULL,
    LS_INVALID_ARGUMENT,
    LS_IO,
    LS_NO_DESCRIPTOR,
    LS_NO_MEMORY,
    LS_OK,
    LS_OUT_OF_RANGE,
    LS_STATUS_COUNT,
    LS_TOO_LARGE,
    LS_TORN,
    LS_UNSUPPORTED,
    ls_fault,
    ls_status,
    ls_status_name,
)

from logstore.errors import (
    CorruptDataError,
    DiskFullError,
    InvalidRequestError,
    LogstoreError,
    OffsetOutOfRangeError,
    RecordTooLargeError,
    StorageFailureError,
    UnsupportedFormatError,
)

# LS_END is not an error, and LS_FULL is answered by a hand-over or a roll before it reaches a user; both stand here
# so that a mistake of ours has a name instead of a crash.
_CLASSES = {
    LS_END: LogstoreError,
    LS_TORN: CorruptDataError,
    LS_CORRUPT: CorruptDataError,
    LS_UNSUPPORTED: UnsupportedFormatError,
    LS_INVALID_ARGUMENT: InvalidRequestError,
    LS_TOO_LARGE: RecordTooLargeError,
    LS_FULL: LogstoreError,
    LS_OUT_OF_RANGE: OffsetOutOfRangeError,
    LS_NO_MEMORY: MemoryError,
    LS_IO: StorageFailureError,
    LS_DISK_FULL: DiskFullError,
    LS_NO_DESCRIPTOR: StorageFailureError,
}


def status_classes():
    """The exception class of every status but OK, by the status's name.

    Returns
    -------
    dict[str, type[Exception]]
    """
    return {ls_status_name(<ls_status>status).decode(): _CLASSES[status] for status in range(1, LS_STATUS_COUNT)}


cdef int raise_fault(const ls_fault *fault, object path) except -1:
    cdef str reason = fault.reason.decode("utf-8", "replace") if fault.reason != NULL else "unknown"
    status = <int>fault.status
    if status == LS_OK:
        raise AssertionError("raise_fault on LS_OK")
    cls = _CLASSES[status]
    if cls is CorruptDataError:
        raise CorruptDataError(path, fault.position, reason, fault.expected, fault.actual)
    if cls is StorageFailureError or cls is DiskFullError:
        raise cls(path, reason, fault.os_errno)
    if cls is MemoryError:
        raise MemoryError(f"{path}: {reason}")
    if cls is UnsupportedFormatError:
        raise UnsupportedFormatError(
            f"{path}: {reason} at byte {fault.position} (expected {fault.expected}, found {fault.actual}). "
            "Open it with the version that wrote it."
        )
    raise cls(f"{path}: {reason} (limit or expected {fault.expected}, found {fault.actual})")
