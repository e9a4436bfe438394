"""The Arrow stream, read by pyarrow, polars and duckdb, and by hand through its C interface."""

from __future__ import annotations

import ctypes
import datetime
import gc
import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import polars
import pyarrow
import pyarrow.parquet
import pytest
from made_logs import MadeLog, Row, make_rows

from logstore._native.arrow_stream import stream_capsule
from logstore.errors import InvalidRequestError
from logstore.records.scan import Scan

UTC = datetime.UTC
HEADER = pyarrow.struct(
    [pyarrow.field("key", pyarrow.utf8(), nullable=False), pyarrow.field("value", pyarrow.binary())]
)
SCHEMA = pyarrow.schema(
    [
        pyarrow.field("partition", pyarrow.int32(), nullable=False),
        pyarrow.field("offset", pyarrow.int64(), nullable=False),
        pyarrow.field("timestamp", pyarrow.timestamp("ms", tz="UTC")),
        pyarrow.field("key", pyarrow.binary()),
        pyarrow.field("value", pyarrow.binary()),
        pyarrow.field(
            "headers",
            pyarrow.list_(pyarrow.field("item", HEADER, nullable=False)),
            nullable=False,
        ),
    ]
)


def expected(rows: list[Row], partition: int = 0) -> list[dict]:
    return [
        {
            "partition": partition,
            "offset": row.offset,
            "timestamp": None
            if row.timestamp == -1
            else datetime.datetime.fromtimestamp(row.timestamp // 1000, UTC)
            + datetime.timedelta(milliseconds=row.timestamp % 1000),
            "key": row.key,
            "value": row.value,
            "headers": [{"key": key, "value": value} for key, value in row.headers],
        }
        for row in rows
    ]


def one_log(directory: Path, counts: list[int], codecs: tuple[int, ...] = (0,)) -> tuple:
    log = MadeLog(directory)
    rows: list[Row] = []
    for i, count in enumerate(counts):
        batch = make_rows(len(rows), count)
        log.add_rows(batch, codec=codecs[i % len(codecs)])
        rows += batch
    return log, Scan([log.publish()], [(0, len(rows))]), rows


@pytest.fixture
def mixed(tmp_path):
    return one_log(tmp_path, [1, 300, 2, 40, 40, 1, 500], (0, 0, 4, 1))


class Limited:
    """A scan's stream with other limits on its record batches."""

    def __init__(self, scan: Scan, **limits: int) -> None:
        self.scan, self.limits = scan, limits

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return stream_capsule(self.scan._parts, requested_schema, **self.limits)


def test_pyarrow_reads_every_value(mixed):
    _, scan, rows = mixed
    table = pyarrow.table(scan)
    table.validate(full=True)
    assert table.schema == SCHEMA
    assert pyarrow.schema(scan) == SCHEMA
    assert table.to_pylist() == expected(rows)
    assert pyarrow.table(scan).equals(table)


def test_polars_reads_every_value(mixed):
    _, scan, rows = mixed
    read = polars.from_arrow(scan)  # a series of structs in some versions of polars
    unpacked = read.struct.unnest() if isinstance(read, polars.Series) else read
    for frame in (polars.DataFrame(scan), unpacked):
        assert frame.schema["timestamp"] == polars.Datetime("ms", "UTC")
        assert frame.schema["headers"] == polars.List(
            polars.Struct({"key": polars.String, "value": polars.Binary})
        )
        assert frame.to_dicts() == expected(rows)


def test_duckdb_reads_every_value(mixed):
    _, scan, rows = mixed  # noqa: RUF059  (duckdb finds it by its name)
    assert duckdb.sql("select count(*) from scan").fetchall() == [(len(rows),)]
    found = duckdb.sql(
        'select partition, "offset", epoch_ms(timestamp), key, value, headers from scan'
    ).fetchall()
    assert found == [
        (0, row.offset, None if row.timestamp == -1 else row.timestamp, row.key, row.value,
         [{"key": key, "value": value} for key, value in row.headers])
        for row in rows
    ]  # fmt: skip
    total = duckdb.sql('select sum(octet_length(value)) from scan where "offset" >= 700')
    assert total.fetchall() == [(sum(len(row.value or b"") for row in rows[700:]),)]


def test_several_partitions(tmp_path):
    states, rows = [], []
    for partition in range(3):
        log = MadeLog(tmp_path / str(partition), partition)
        made = make_rows(0, 20 * partition)
        if made:
            log.add_rows(made)
        states.append(log.publish())
        rows.append(made)
    scan = Scan(states, [(0, 20 * partition) for partition in range(3)])
    assert pyarrow.table(scan).to_pylist() == [
        row for partition, made in enumerate(rows) for row in expected(made, partition)
    ]


def test_parquet_keeps_every_value(mixed, tmp_path):
    _, scan, rows = mixed
    path = tmp_path / "out.parquet"
    reader = pyarrow.RecordBatchReader.from_stream(scan)
    with pyarrow.parquet.ParquetWriter(path, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
    assert pyarrow.parquet.read_table(path).to_pylist() == expected(rows)


def test_empty_scans(tmp_path):
    log = MadeLog(tmp_path)
    log.add_rows(make_rows(0, 3))
    for scan in (Scan([log.publish()], [(2, 2)]), Scan([], [])):
        table = pyarrow.table(scan)
        assert table.num_rows == 0
        assert table.schema == SCHEMA
        assert polars.DataFrame(scan).height == 0
        assert duckdb.sql("select count(*) from scan").fetchall() == [(0,)]


def test_bounds(tmp_path):
    log, _, rows = one_log(tmp_path, [4, 4, 4], (0, 4))
    for start in range(12):
        for stop in range(start, 13):
            table = pyarrow.table(Scan([log.state], [(start, stop)]))
            assert table.to_pylist() == expected(rows[start:stop])


def test_thousands_of_small_batches_make_few_arrow_batches(tmp_path):
    _, scan, rows = one_log(tmp_path, [1] * 6000)
    batches = list(pyarrow.RecordBatchReader.from_stream(scan))
    assert len(batches) == 1
    assert batches[0].to_pylist() == expected(rows)


@pytest.mark.parametrize(
    "limits",
    [
        {"rows_max": 1},
        {"rows_max": 7},
        {"bytes_max": 0},
        {"bytes_max": 200},
        {"rows_max": 64, "bytes_max": 900},
    ],
)
def test_limits_of_arrow_batches(mixed, limits):
    _, scan, rows = mixed
    batches = list(pyarrow.RecordBatchReader.from_stream(Limited(scan, **limits)))
    for batch in batches:
        batch.validate(full=True)
        assert 1 <= batch.num_rows <= limits.get("rows_max", 1 << 30)
        if "bytes_max" in limits and batch.num_rows > 1:
            headers = batch.column(5).flatten()
            used = sum(
                sum(len(item) for item in column.to_pylist() if item is not None)
                for column in (batch.column(3), batch.column(4), *headers.flatten())
            )
            assert used <= limits["bytes_max"]
    assert pyarrow.Table.from_batches(batches).to_pylist() == expected(rows)
    if limits.get("rows_max") == 7:
        assert {batch.num_rows for batch in batches[:-1]} == {7}


def test_columns_without_nulls_have_no_bitmap(tmp_path):
    log = MadeLog(tmp_path)
    log.add_rows([Row(i, i, b"k", b"v", [("h", b"w")]) for i in range(9)])
    (batch,) = pyarrow.RecordBatchReader.from_stream(Scan([log.publish()], [(0, 9)]))
    assert [column.null_count for column in batch.columns] == [0] * 6
    assert all(column.buffers()[0] is None for column in batch.columns)


def test_header_keys_that_are_not_utf8(tmp_path):
    """Appending refuses them, so they are put in behind its back; the CRC is made right again."""
    from logstore._native.checksum import crc32c

    log = MadeLog(tmp_path)
    log.add_rows([Row(0, 1, b"k", b"v", [("abcd", b"w")])])
    data = log.segments[0][1]
    at = data.index(b"abcd")
    data[at : at + 4] = b"\xffa\xe2\x82"
    data[17:21] = crc32c(bytes(data[21:])).to_bytes(4, "big")
    scan = Scan([log.publish()], [(0, 1)])
    wanted = b"\xffa\xe2\x82".decode("utf-8", "replace")
    table = pyarrow.table(scan)
    table.validate(full=True)
    assert table.to_pylist()[0]["headers"] == [{"key": wanted, "value": b"w"}]
    assert polars.DataFrame(scan).to_dicts()[0]["headers"] == [{"key": wanted, "value": b"w"}]


def damaged_scan(directory: Path) -> tuple[MadeLog, Scan]:
    log, scan, _ = one_log(directory, [100] * 3)
    data = bytearray(log.path().read_bytes())
    data[-1] ^= 1
    log.path().write_bytes(data)
    return log, scan


def test_damage_arrives_with_its_text(tmp_path):
    log, scan = damaged_scan(tmp_path)
    for read in (pyarrow.table, polars.DataFrame):
        with pytest.raises(Exception, match="CRC") as caught:
            read(scan)
        assert str(log.path()) in str(caught.value)
        assert "CorruptDataError" in str(caught.value)
    with pytest.raises(duckdb.Error, match="CRC"):
        duckdb.sql("select count(*) from scan").fetchall()


def test_requested_schema(mixed):
    _, scan, rows = mixed
    wider = SCHEMA.set(4, pyarrow.field("value", pyarrow.large_binary()))
    assert pyarrow.table(scan, schema=wider).column("value").to_pylist() == [r.value for r in rows]
    scan.__arrow_c_stream__(SCHEMA.__arrow_c_schema__())
    with pytest.raises(InvalidRequestError, match="offset"):
        scan.__arrow_c_stream__(pyarrow.schema([("value", pyarrow.binary())]).__arrow_c_schema__())
    with pytest.raises(ValueError):
        scan.__arrow_c_stream__("schema")


@pytest.mark.fault(23, "views that outlive their log")
def test_a_stream_outlives_its_scan(tmp_path):
    log, scan, rows = one_log(tmp_path, [50] * 4)
    reader = pyarrow.RecordBatchReader.from_stream(Limited(scan, rows_max=30))
    first = reader.read_next_batch()
    del scan
    gc.collect()
    rest = list(reader)
    log.path().unlink()
    log.state._publish(is_open=False, segments=())
    del reader, log
    gc.collect()
    assert pyarrow.Table.from_batches([first, *rest]).to_pylist() == expected(rows)


def test_a_closed_log_ends_the_stream_with_an_error(tmp_path):
    log, scan, _ = one_log(tmp_path, [50] * 4)
    reader = pyarrow.RecordBatchReader.from_stream(Limited(scan, rows_max=300))
    log.state._publish(is_open=False)
    with pytest.raises(Exception, match="ClosedError"):
        list(reader)


class ArrowArray(ctypes.Structure):
    pass


ArrowArray._fields_ = [
    ("length", ctypes.c_int64), ("null_count", ctypes.c_int64), ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64), ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(ArrowArray))), ("dictionary", ctypes.c_void_p),
    ("release", ctypes.CFUNCTYPE(None, ctypes.POINTER(ArrowArray))),
    ("private_data", ctypes.c_void_p),
]  # fmt: skip


class ArrowStream(ctypes.Structure):
    pass


# CFUNCTYPE lets the GIL go for the call, as native readers do.
ArrowStream._fields_ = [
    ("get_schema", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ArrowStream), ctypes.c_void_p)),
    ("get_next", ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(ArrowStream), ctypes.POINTER(ArrowArray))),
    ("get_last_error", ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.POINTER(ArrowStream))),
    ("release", ctypes.CFUNCTYPE(None, ctypes.POINTER(ArrowStream))),
    ("private_data", ctypes.c_void_p),
]  # fmt: skip

get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
get_pointer.restype = ctypes.c_void_p
get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


def open_stream(capsule: object) -> ctypes.POINTER(ArrowStream):
    return ctypes.cast(get_pointer(capsule, b"arrow_array_stream"), ctypes.POINTER(ArrowStream))


def test_the_c_interface_from_another_thread(tmp_path):
    """Read and released without the GIL by a thread that did not make it; children moved out are
    released last."""
    _, scan, rows = one_log(tmp_path, [50] * 4)
    capsules = [Limited(scan, rows_max=80).__arrow_c_stream__()]
    lengths, moved, problems = [], [], []

    def consume() -> None:
        try:
            stream = open_stream(capsules[0])
            while True:
                array = ArrowArray()
                assert stream.contents.get_next(stream, ctypes.byref(array)) == 0
                if not array.release:
                    break
                lengths.append(array.length)
                values = array.children[4].contents
                child = ArrowArray.from_buffer_copy(values)
                values.release = type(values.release)()
                moved.append(child)
                array.release(ctypes.byref(array))
                assert not array.release
            assert not stream.contents.get_last_error(stream)
            stream.contents.release(stream)
            assert not stream.contents.release
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=consume)
    thread.start()
    thread.join()
    assert problems == []
    assert lengths == [80, 80, 40]
    first = moved[0]
    offsets = ctypes.cast(first.buffers[1], ctypes.POINTER(ctypes.c_int32))
    assert ctypes.string_at(first.buffers[2] + offsets[1], offsets[2] - offsets[1]) == rows[1].value
    for child in moved:
        child.release(ctypes.byref(child))
    capsules.clear()  # released already: the capsule frees its shell alone


def test_errors_through_the_c_interface(tmp_path):
    log, scan = damaged_scan(tmp_path)
    capsule = scan.__arrow_c_stream__()
    stream = open_stream(capsule)
    array = ArrowArray()
    for _ in range(2):
        assert stream.contents.get_next(stream, ctypes.byref(array)) != 0
        assert not array.release
        text = stream.contents.get_last_error(stream).decode()
        assert text.startswith("CorruptDataError: ")
        assert str(log.path()) in text


def test_nothing_leaks(tmp_path):
    """Whole reads, broken-off reads, unread capsules and errors, many times over."""
    code = f"""
import gc, resource, sys, tracemalloc
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
import pyarrow
from made_logs import MadeLog, Row
from logstore.records.scan import Scan
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
log = MadeLog(Path({str(tmp_path)!r}))
for i in range(40):
    rows = [
        Row(i * 500 + j, 1, b"k" * 16, b"v" * 200, [("a", b"b")] * (j % 2)) for j in range(500)
    ]
    log.add_rows(rows, codec=4 if i % 4 == 0 else 0)
state = log.publish()
scan = Scan([state], [(0, log.end_offset)])
broken = Scan([state], [(log.end_offset + 5, log.end_offset + 9)])
def all_ways():
    assert sum(batch.num_rows for batch in pyarrow.RecordBatchReader.from_stream(scan)) == 20000
    pyarrow.RecordBatchReader.from_stream(scan).read_next_batch()
    scan.__arrow_c_stream__(); scan.__arrow_c_schema__(); pyarrow.schema(scan)
    for batch in scan:
        batch.offsets, batch.buffer
    try:
        pyarrow.table(broken)
    except Exception as error:
        assert "OffsetOutOfRange" in str(error)
    else:
        raise AssertionError
for _ in range(8):
    all_ways()
gc.collect()
tracemalloc.start()
before, objects = resident(), len(gc.get_objects())
start = tracemalloc.take_snapshot()
for _ in range(30):
    all_ways()
gc.collect()
grown = sum(entry.size_diff for entry in tracemalloc.take_snapshot().compare_to(start, "filename"))
print(resident() - before, len(gc.get_objects()) - objects, grown)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    resident, objects, python_bytes = map(int, done.stdout.split())
    assert resident < 20 << 20  # 30 leaked reads would be 130 MB
    assert objects < 50
    assert python_bytes < 200_000
