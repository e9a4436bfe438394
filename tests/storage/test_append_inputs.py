"""What `append` and `append_many` take: bytes of every kind, lists, numpy and Arrow arrays."""

from __future__ import annotations

import array
import sys
import threading
from collections.abc import Iterator

import numpy
import polars
import pyarrow
import pytest

from logstore.errors import InvalidRequestError, UnknownTopicOrPartitionError

VALUES = [b"", b"a", b"\0b\0", b"a longer value of thirty bytes", None, b"last"]
WHOLE = [value if value is not None else b"" for value in VALUES]


def values_of(log):
    return [record.value for record in log.read()]


class Exporter:
    """Only the Arrow interface, as another library has it."""

    def __init__(self, made):
        self.made = made

    def __arrow_c_array__(self, requested_schema=None):
        return self.made.__arrow_c_array__(requested_schema)


class StreamExporter:
    def __init__(self, made):
        self.made = made

    def __arrow_c_stream__(self, requested_schema=None):
        return self.made.__arrow_c_stream__(requested_schema)


def test_single_values(open_log):
    log = open_log()
    given = [b"bytes", bytearray(b"array"), memoryview(b"view")[1:3], array.array("H", [258]), None]
    for value in given:
        log.append(value, key=value)
    expected = [None if value is None else bytes(value) for value in given]
    assert values_of(log) == expected
    assert [record.key for record in log.read()] == expected


@pytest.mark.parametrize(
    ("value", "words"),
    [("text", "encode"), (1, "int"), (memoryview(b"abcdef")[::2], "contiguous"), ([b"a"], "list")],
)
def test_single_values_of_the_wrong_type(open_log, value, words):
    log = open_log()
    with pytest.raises(InvalidRequestError, match=words):
        log.append(value)
    with pytest.raises(InvalidRequestError, match=words):
        log.append(b"value", key=value)
    assert log.append(b"next") == 0


class OwnList(list):
    """A list that gives something else than it holds."""

    def __iter__(self):
        return iter([b"own"] * len(self))


class OwnTuple(tuple):
    __slots__ = ()


@pytest.mark.parametrize("container", [list, tuple, OwnTuple])
def test_lists_of_anything_that_has_bytes(open_log, container):
    """Odd ones among the usual, at the ends as well; nothing is kept once they are in the log."""
    log = open_log()
    odd = [bytearray(b"array"), memoryview(b"view")[1:3], array.array("H", [258]), None, bytes(bytearray(b"own"))]
    given = [*odd, *(b"one %d" % i for i in range(30)), *odd, *(b"two %d" % i for i in range(30)), *odd]
    counted = [value for value in given if value is not None]  # which everybody refers to
    references = [sys.getrefcount(value) for value in counted]
    log.append_many(container(given), keys=container(reversed(given)))
    assert [sys.getrefcount(value) for value in counted] == references
    expected = [None if value is None else bytes(value) for value in given]
    assert values_of(log) == expected
    assert [record.key for record in log.read()] == expected[::-1]


def test_a_list_with_a_wrong_value_is_refused_and_let_go(open_log):
    log = open_log()
    for at in (0, 1, 19):
        given = [b"value %d" % i for i in range(20)]
        given[at] = f"text {at}"
        references = [sys.getrefcount(value) for value in given]
        with pytest.raises(InvalidRequestError, match="encode"):
            log.append_many(given)
        assert [sys.getrefcount(value) for value in given] == references
    assert log.append_many([]) == log.append_many(()) == range(0)
    assert log.append_many(OwnList([b"a", b"b"])) == range(2)
    assert values_of(log) == [b"own", b"own"]


def test_values_may_be_taken_out_of_a_list_while_they_are_appended(open_log):
    log = open_log(logstore_batch_bytes=1000)
    stop = threading.Event()
    given: list[bytes] = []

    def change():
        while not stop.is_set():
            given[:] = [b"%d" % i * 40 for i in range(500)]
            given.clear()

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(100):
            log.append_many(given)
    finally:
        stop.set()
        thread.join()
    values = values_of(log)
    assert len(values) % 500 == 0
    assert values == [b"%d" % (i % 500) * 40 for i in range(len(values))]


ARRAYS = {
    "list": VALUES,
    "tuple": tuple(VALUES),
    "generator": (value for value in VALUES),
    "object array": numpy.array(VALUES, dtype=object),
    "arrow binary": pyarrow.array(VALUES, pyarrow.binary()),
    "arrow large binary": pyarrow.array(VALUES, pyarrow.large_binary()),
    "arrow binary view": pyarrow.array(VALUES, pyarrow.binary_view()),
    "arrow string": pyarrow.array([v if v is None else v.decode() for v in VALUES], pyarrow.string()),
    "arrow large string": pyarrow.array([v if v is None else v.decode() for v in VALUES], pyarrow.large_string()),
    "arrow string view": pyarrow.array([v if v is None else v.decode() for v in VALUES], pyarrow.string_view()),
    "arrow slice": pyarrow.array([b"before", None, *VALUES, b"after"], pyarrow.binary())[2:-1],
    "arrow view slice": pyarrow.array([b"x" * 20, *VALUES, b"y" * 20], pyarrow.binary_view())[1:-1],
    "arrow chunks": pyarrow.chunked_array([VALUES[:2], [], VALUES[2:]], pyarrow.binary()),
    "array interface alone": Exporter(pyarrow.array(VALUES, pyarrow.binary())),
    "stream interface alone": StreamExporter(pyarrow.chunked_array([VALUES[:3], VALUES[3:]], pyarrow.binary())),
    "polars binary": polars.Series(VALUES, dtype=polars.Binary),
    "polars string": polars.Series([v if v is None else v.decode() for v in VALUES]),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_many_values(open_log, name):
    log = open_log()
    made = ARRAYS[name]
    if isinstance(made, Iterator):
        made = tuple(VALUES)
    assert log.append_many(made, made) == range(len(VALUES))
    assert values_of(log) == VALUES
    assert [record.key for record in log.read()] == VALUES


def test_generator_is_taken(open_log):
    log = open_log()
    log.append_many(value for value in VALUES)
    assert values_of(log) == VALUES


def test_fixed_size_binary(open_log):
    log = open_log()
    made = pyarrow.array([b"abcd", None, b"ijkl", b"mnop"], pyarrow.binary(4))
    log.append_many(made)
    log.append_many(made[1:3])
    assert values_of(log) == [b"abcd", None, b"ijkl", b"mnop", None, b"ijkl"]


def test_bytes_dtype_loses_trailing_zeros_as_numpy_does(open_log):
    log = open_log()
    made = numpy.array([b"a", b"", b"b\0c", b"d\0\0"], dtype="S4")
    log.append_many(made)
    assert values_of(log) == list(made)


def test_rows_of_bytes(open_log):
    log = open_log()
    made = numpy.arange(12, dtype=numpy.uint8).reshape(3, 4)
    log.append_many(made, made[:, ::-1])
    assert values_of(log) == [bytes(row) for row in made]
    assert [record.key for record in log.read()] == [bytes(row[::-1]) for row in made]


@pytest.mark.parametrize("dtype", ["int64", ">i4", "float32", "V3"])
def test_elements_give_their_bytes(open_log, dtype):
    log = open_log()
    made = numpy.zeros(4, dtype=dtype) if dtype == "V3" else numpy.arange(4).astype(dtype)
    log.append_many(made)
    assert values_of(log) == [made[i : i + 1].tobytes() for i in range(4)]


def test_strided_array(open_log):
    log = open_log()
    made = numpy.arange(10, dtype=numpy.int64)[::3]
    log.append_many(made)
    assert values_of(log) == [element.tobytes() for element in made]


@pytest.mark.parametrize("made", [[], (), numpy.zeros(0, "S3"), pyarrow.array([], pyarrow.binary()),
                                  pyarrow.chunked_array([], pyarrow.binary())])  # fmt: skip
def test_nothing(open_log, made):
    log = open_log()
    log.append(b"first")
    assert log.append_many(made) == range(1, 1)
    assert log.log_end_offset == 1


@pytest.mark.parametrize(
    "made",
    [
        b"bytes",
        "text",
        1,
        ["text"],
        [b"good", 1],
        numpy.array(["text"]),
        numpy.array([1], dtype="datetime64[ms]"),
        numpy.zeros((2, 2, 2), numpy.uint8),
        numpy.zeros((2, 2), numpy.int32),
        numpy.array(b"scalar"),
        pyarrow.array([1, 2]),
        pyarrow.array([[b"a"]]),
        pyarrow.chunked_array([[1]], pyarrow.int32()),
    ],
)
def test_wrong_arrays_append_nothing(open_log, made):
    log = open_log()
    with pytest.raises(InvalidRequestError):
        log.append_many(made)
    with pytest.raises(InvalidRequestError):
        log.append_many([b"a"] * 2, made)
    assert log.append(b"next") == 0


def test_counts_must_agree(open_log):
    log = open_log()
    with pytest.raises(InvalidRequestError, match="2 keys for 3 values"):
        log.append_many([b"a"] * 3, [b"k"] * 2)
    with pytest.raises(InvalidRequestError, match="2 timestamps for 3 values"):
        log.append_many([b"a"] * 3, timestamps=[1, 2])
    assert log.log_end_offset == 0


TIMES = [1_700_000_000_000, 0, -1]


@pytest.mark.parametrize(
    "made",
    [
        TIMES,
        tuple(TIMES),
        numpy.array(TIMES),
        numpy.array([*TIMES, *TIMES])[::2][[0, 2, 1]],
        array.array("q", TIMES),
        pyarrow.array(TIMES),
        polars.Series(TIMES),
    ],
)
def test_timestamps(open_log, made):
    log = open_log()
    log.append_many([b"a"] * 3, timestamps=made)
    assert [record.timestamp for record in log.read()] == TIMES


def test_datetimes_as_timestamps(open_log):
    log = open_log()
    for unit in ("s", "ms", "us", "ns"):
        log.append_many([b"a"], timestamps=numpy.array([1_700_000_000], "M8[s]").astype(f"M8[{unit}]"))
    assert {record.timestamp for record in log.read()} == {1_700_000_000_000}


@pytest.mark.parametrize("made", [[1.5], ["1"], [2**63], [None], numpy.array([1.5]),
                                  numpy.array(["x"]), numpy.array([2**63], "u8"), 7])  # fmt: skip
def test_wrong_timestamps(open_log, made):
    log = open_log()
    with pytest.raises(InvalidRequestError):
        log.append_many([b"a"], timestamps=made)
    assert log.log_end_offset == 0


@pytest.mark.parametrize("timestamp", ["1", 1.5, 2**63, -2])
def test_wrong_timestamp_of_one(open_log, timestamp):
    log = open_log()
    with pytest.raises(InvalidRequestError):
        log.append(b"a", timestamp=timestamp)
    assert log.log_end_offset == 0


@pytest.mark.parametrize("headers", [[], [("a", b"1"), ("a", None), ("", b"")], {"a": b"1"}, (("ä", b"x"),)])
def test_headers(open_log, headers):
    log = open_log()
    log.append(b"one", headers=headers)
    log.append_many([b"two", b"three"], headers=headers)
    expected = list(headers.items()) if isinstance(headers, dict) else list(headers)
    assert [record.headers for record in log.read()] == [expected] * 3


@pytest.mark.parametrize("headers", [5, ["a"], [(b"a", b"1")], [("a", "1")], [("a",)], [("a", b"1", 2)]])
def test_wrong_headers(open_log, headers):
    log = open_log()
    for append in (log.append, lambda value, headers: log.append_many([value], headers=headers)):
        with pytest.raises(InvalidRequestError):
            append(b"a", headers=headers)
    assert log.log_end_offset == 0


def test_partition_is_named_when_it_is_wrong(tmp_path):
    import logstore

    with logstore.open(tmp_path) as broker:
        topic = broker.create_topic("orders", partitions=2)
        for partition in (2, -1, "0", 1.0):
            with pytest.raises(UnknownTopicOrPartitionError, match="it has 0 to 1"):
                topic.append(b"a", partition=partition)
            with pytest.raises(UnknownTopicOrPartitionError, match="it has 0 to 1"):
                topic.append_many([b"a"], partition=partition)
