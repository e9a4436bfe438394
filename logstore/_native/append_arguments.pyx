"""What callers say of an append, as numbers: durability, timestamps, the offset they expect."""

from cpython.number cimport PyNumber_Index
from libc.stdint cimport INT64_MAX, int64_t

from logstore.errors import InvalidRequestError

cdef str BUFFERED = "buffered"
cdef str APPENDED = "appended"
cdef str FLUSHED = "flushed"


cdef int level_of(object durability, int default) except -1:
    if durability is None:
        return default
    if durability == FLUSHED:
        return LEVEL_FLUSHED
    if durability == APPENDED:
        return LEVEL_APPENDED
    if durability == BUFFERED:
        return LEVEL_BUFFERED
    raise InvalidRequestError(
        f"durability must be 'flushed', 'appended' or 'buffered', not {durability!r}"
    )


def durability_level(durability):
    """The number of a durability: 0 buffered, 1 appended, 2 flushed.

    Raises
    ------
    InvalidRequestError
    """
    return level_of(durability, -1)


cdef int64_t timestamp_of(object timestamp) except? -1:
    try:
        return PyNumber_Index(timestamp)
    except (TypeError, OverflowError):
        raise InvalidRequestError(
            f"a timestamp must be int milliseconds since the epoch, not {timestamp!r}"
        ) from None


cdef int64_t expected_of(object expected_offset) except? -2:
    """The offset that a conditional append expects; -1 for none."""
    if expected_offset is None:
        return -1
    if not isinstance(expected_offset, int) or not 0 <= expected_offset < INT64_MAX:
        raise InvalidRequestError(f"expected_offset must be an offset of 0 or more, not {expected_offset!r}")
    return expected_offset


cdef const int64_t[::1] timestamps_view(object timestamps, Py_ssize_t count):
    """Timestamps as int64, without a copy where they are already."""
    cdef const int64_t[::1] view
    if isinstance(timestamps, (list, tuple, range)):
        import array

        try:
            timestamps = array.array("q", timestamps)
        except (TypeError, OverflowError):
            raise InvalidRequestError("timestamps must be int milliseconds since the epoch") from None
    elif hasattr(timestamps, "__array_interface__") or hasattr(timestamps, "__array__"):
        import numpy

        converted = numpy.asarray(timestamps)
        if converted.dtype.kind == "M":
            converted = converted.astype("datetime64[ms]").view("int64")
        if converted.dtype.kind not in "iu":
            raise InvalidRequestError(
                f"timestamps must be integer milliseconds or datetime64, not {converted.dtype}")
        timestamps = numpy.ascontiguousarray(converted, dtype="int64")
        if converted.dtype.kind == "u" and converted.size and converted.max() > INT64_MAX:
            raise InvalidRequestError("timestamps must be int milliseconds since the epoch")
    try:
        view = timestamps
    except (TypeError, ValueError):
        raise InvalidRequestError("timestamps must be a sequence of int milliseconds, one for each value") from None
    if view.shape[0] != count:
        raise InvalidRequestError(f"{view.shape[0]} timestamps for {count} values")
    return view
