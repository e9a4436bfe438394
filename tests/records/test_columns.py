"""Column batches against the records that went in, the golden vectors, and rules of memory."""

from __future__ import annotations

import gc
import json
import random
import resource
import subprocess
import sys
import threading
from pathlib import Path

import numpy
import pytest
from made_logs import MadeLog, Row, encode, make_rows

import logstore.records  # noqa: F401  (hands the codecs to the native layer)
from logstore._native.columns import ColumnBatch, ColumnCursor
from logstore._native.record_batch import RecordBatch
from logstore.errors import (
    ClosedError,
    CorruptDataError,
    LogstoreError,
    OffsetOutOfRangeError,
)

VECTORS = Path(__file__).parents[1] / "vectors"
INDEX = json.loads((VECTORS / "index.json").read_text())


def rows_of(batch: ColumnBatch) -> list[Row]:
    """What a batch holds, by way of its single-record accessors."""
    return [
        Row(
            int(batch.offsets[i]),
            int(batch.timestamps[i]),
            batch.key(i),
            batch.value(i),
            batch.headers(i),
        )
        for i in range(len(batch))
    ]


def scan(state, start=0, stop=None, chunk_bytes=0) -> list[Row]:
    return [
        row for batch in ColumnCursor(state, start, stop, chunk_bytes) for row in rows_of(batch)
    ]


def by_arrays(batch: ColumnBatch, starts: numpy.ndarray, sizes: numpy.ndarray) -> list:
    data = batch.buffer.tobytes()
    return [
        None if size < 0 else data[start : start + size]
        for start, size in zip(starts.tolist(), sizes.tolist(), strict=True)
    ]


def mixed_log(directory: Path) -> tuple[MadeLog, list[Row]]:
    """Batches of all sizes over three segments, every codec among them."""
    log = MadeLog(directory)
    rows: list[Row] = []
    rng = random.Random(7)
    for number in range(60):
        if number in (20, 41):
            log.roll()
        batch = make_rows(len(rows), rng.choice([1, 1, 2, 17, 300]), rng.choice([3, 50, 200]))
        log.add_rows(batch, codec=rng.choice([0, 0, 0, 1, 2, 3, 4]))
        rows += batch
    return log, rows


@pytest.mark.parametrize("chunk_bytes", [0, 1, 100, 5000])
def test_every_record_comes_back(tmp_path, chunk_bytes):
    log, rows = mixed_log(tmp_path)
    assert scan(log.publish(), chunk_bytes=chunk_bytes) == rows


@pytest.mark.parametrize("codec", [0, 4])
def test_arrays_and_lists_agree_with_the_records(tmp_path, codec):
    log = MadeLog(tmp_path, partition=3)
    rows = make_rows(0, 500)
    log.add_rows(rows, codec=codec)
    (batch,) = ColumnCursor(log.publish(), 0)
    assert batch.partition == 3
    assert batch.topic == "orders"
    assert len(batch) == 500
    assert batch.offsets.tolist() == [row.offset for row in rows]
    assert batch.timestamps.tolist() == [row.timestamp for row in rows]
    assert batch.keys() == [row.key for row in rows]
    assert batch.values() == [row.value for row in rows]
    assert by_arrays(batch, batch.key_starts, batch.key_bytes) == [row.key for row in rows]
    assert by_arrays(batch, batch.value_starts, batch.value_bytes) == [row.value for row in rows]
    assert batch.headers_counts.tolist() == [len(row.headers) for row in rows]
    for name in ("offsets", "timestamps"):
        assert getattr(batch, name).dtype == numpy.int64
    for name in ("key_starts", "key_bytes", "value_starts", "value_bytes", "headers_starts"):
        assert getattr(batch, name).dtype == numpy.int32
    assert batch.buffer.dtype == numpy.uint8


def test_arrays_are_read_only_and_made_once(tmp_path):
    log = MadeLog(tmp_path)
    log.add_rows(make_rows(0, 3))
    (batch,) = ColumnCursor(log.publish(), 0)
    for name in ("offsets", "timestamps", "key_starts", "key_bytes", "value_starts", "value_bytes",
                 "headers_starts", "headers_counts", "buffer"):  # fmt: skip
        array = getattr(batch, name)
        assert getattr(batch, name) is array
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
        with pytest.raises(ValueError):
            array.flags.writeable = True


def test_records_are_reached_from_both_ends(tmp_path):
    log = MadeLog(tmp_path)
    log.add_rows(make_rows(0, 10))
    (batch,) = ColumnCursor(log.publish(), 2)
    assert batch.value(0) == make_rows(2, 1)[0].value
    assert batch.key(-1) == make_rows(9, 1)[0].key
    for i in (8, -9):
        with pytest.raises(IndexError):
            batch.value(i)
    assert "first_offset=2, last_offset=9, records=8" in repr(batch)
    with pytest.raises(TypeError):
        ColumnBatch()


def test_bounds_are_exact_to_the_record(tmp_path):
    log = MadeLog(tmp_path)
    rows: list[Row] = []
    for number, count in enumerate([1, 4, 2, 1, 6]):
        batch = make_rows(len(rows), count)
        log.add_rows(batch, codec=4 if number in (1, 4) else 0)
        rows += batch
        if number == 2:
            log.roll()
    state = log.publish()
    for start in range(len(rows) + 1):
        for stop in range(len(rows) + 1):
            assert scan(state, start, stop) == rows[start:stop], (start, stop)
        assert scan(state, start, None) == rows[start:]


def test_offset_gaps_are_stepped_over(tmp_path):
    log = MadeLog(tmp_path)
    kept = [make_rows(5, 3), make_rows(20, 1), make_rows(100, 2)]
    for rows in kept:
        log.add_rows(rows)
    state = log.publish()
    rows = [row for batch in kept for row in batch]
    for start in range(103):
        assert scan(state, start) == [row for row in rows if row.offset >= start]
        assert scan(state, 0, start) == [row for row in rows if row.offset < start]


def test_deleted_and_future_offsets_are_refused(tmp_path):
    log = MadeLog(tmp_path)
    log.add_rows(make_rows(0, 10))
    state = log.publish(log_start_offset=4)
    assert [row.offset for row in scan(state, 4)] == list(range(4, 10))
    with pytest.raises(OffsetOutOfRangeError):
        scan(state, 3)
    with pytest.raises(OffsetOutOfRangeError):
        scan(state, 11)


def test_control_batches_are_left_out(tmp_path):
    log = MadeLog(tmp_path)
    marker = encode(
        [Row(2, 1, b"\x00\x00\x00\x01", b"\x00\x00\x00\x00\x00\x00")],
        control=True, transactional=True, producer_id=1, producer_epoch=0,
    )  # fmt: skip
    log.add_rows(make_rows(0, 2))
    log.add(marker, 3)
    log.add_rows(make_rows(3, 2))
    state = log.publish()
    assert scan(state) == make_rows(0, 2) + make_rows(3, 2)
    assert len(list(ColumnCursor(state, 0))) == 1
    assert scan(state, 2, 3) == []


def test_a_log_that_ends_in_control_batches_ends(tmp_path):
    log = MadeLog(tmp_path)
    marker = encode(
        [Row(0, 1, b"\x00\x00\x00\x01", b"\x00\x00\x00\x00\x00\x00")],
        control=True, transactional=True, producer_id=1, producer_epoch=0,
    )  # fmt: skip
    log.add(marker, 1)
    assert scan(log.publish()) == []


def test_small_batches_share_columns(tmp_path):
    log = MadeLog(tmp_path)
    rows = make_rows(0, 5000)
    for row in rows:
        log.add_rows([row])
    batches = list(ColumnCursor(log.publish(), 0))
    assert [row for batch in batches for row in rows_of(batch)] == rows
    assert len(batches) < 10


def test_append_time_is_every_records_timestamp(tmp_path):
    log = MadeLog(tmp_path)
    log.add_rows(make_rows(0, 5), log_append_timestamp=1_800_000_000_123)
    (batch,) = ColumnCursor(log.publish(), 0)
    assert set(batch.timestamps.tolist()) == {1_800_000_000_123}


def decoded(cell: dict | None) -> bytes | None:
    if cell is None:
        return None
    return bytes.fromhex(cell["hex"])


GOOD = [
    vector for vector in INDEX["vectors"]
    if vector["kind"] == "batch" and vector["valid"] and "hex" in json.dumps(vector.get("records"))
    and not vector["header"]["attributes_decoded"]["control"]
]  # fmt: skip


@pytest.mark.parametrize("vector", GOOD, ids=lambda vector: vector["name"])
def test_golden_vectors(tmp_path, vector):
    data = (VECTORS / vector["file"]).read_bytes()
    batch = RecordBatch.validated(data)
    log = MadeLog(tmp_path)
    log.add(data, batch.last_offset + 1)
    rows = scan(log.publish(), batch.base_offset)
    assert len(rows) == len(vector["records"]) > 0
    # Records one by one are tested against the vectors elsewhere; columns have to agree with them.
    assert rows == [
        Row(record.offset, record.timestamp, record.key, record.value, record.headers)
        for record in batch
    ]
    for row, wanted in zip(rows, vector["records"], strict=True):
        assert (row.offset, row.timestamp) == (wanted["offset"], wanted["timestamp"])


def test_there_are_golden_vectors():
    assert len(GOOD) > 40
    assert len(BAD) > 20


def test_damage_is_met_after_the_sound_records_before_it(tmp_path):
    log = MadeLog(tmp_path)
    first, second, third = make_rows(0, 4), make_rows(4, 4), make_rows(8, 4)
    log.add_rows(first)
    position = len(log.segments[0][1])
    for rows in (second, third):
        log.add_rows(rows)
    log.segments[0][1][position + 70] ^= 1
    cursor = ColumnCursor(log.publish(), 0)
    assert rows_of(next(cursor)) == first
    for _ in range(2):  # asked again, it says the same
        with pytest.raises(CorruptDataError, match="CRC") as caught:
            next(cursor)
        assert caught.value.position == position + 17  # where the CRC stands
        assert caught.value.path == str(log.path())


def refused_by_its_records(vector: dict) -> bool:
    try:
        batch = RecordBatch.validated((VECTORS / vector["file"]).read_bytes())
    except LogstoreError:
        return False
    try:
        list(batch)
    except CorruptDataError:
        return True
    return False


BAD = [vector for vector in INDEX["vectors"] if refused_by_its_records(vector)]


@pytest.mark.parametrize("vector", BAD, ids=lambda vector: vector["name"])
@pytest.mark.fault(28, "hostile lengths and counts")
def test_records_that_do_not_parse_under_a_right_crc(tmp_path, vector):
    data = bytearray((VECTORS / vector["file"]).read_bytes())
    batch = RecordBatch.validated(bytes(data))
    log = MadeLog(tmp_path)
    log.add_rows(make_rows(0, 2))
    position = len(log.segments[0][1])
    data[:8] = (2).to_bytes(8, "big")
    log.add(bytes(data), 2 + batch.last_offset - batch.base_offset + 1)
    cursor = ColumnCursor(log.publish(), 0)
    assert rows_of(next(cursor)) == make_rows(0, 2)
    with pytest.raises(CorruptDataError) as caught:
        next(cursor)
    with pytest.raises(CorruptDataError) as by_record:
        list(RecordBatch.validated(bytes(data)))
    assert caught.value.path == str(log.path())
    assert caught.value.reason == by_record.value.reason
    assert caught.value.position == position + by_record.value.position


def test_the_position_of_a_bad_record_is_where_it_stands(tmp_path):
    """Length -1 in the first record of a batch: its first byte, behind a header of 61."""
    vector = next(vector for vector in BAD if vector["name"] == "bad_record_length_negative")
    log = MadeLog(tmp_path)
    log.add((VECTORS / vector["file"]).read_bytes(), 1)
    with pytest.raises(CorruptDataError) as caught:
        list(ColumnCursor(log.publish(), 0))
    assert caught.value.position == 61


@pytest.mark.fault(24, "a file cut or unreadable under a reader")
def test_a_cut_off_file_raises(tmp_path):
    log = MadeLog(tmp_path)
    log.add_rows(make_rows(0, 4))
    log.add_rows(make_rows(4, 400))
    state = log.publish()
    with log.path().open("r+b") as file:
        file.truncate(len(log.segments[0][1]) - 10)
    with pytest.raises(CorruptDataError):
        scan(state)


@pytest.mark.fault(23, "views that outlive their log")
def test_a_closed_log_is_refused_but_what_was_read_stays(tmp_path):
    log = MadeLog(tmp_path)
    rows = make_rows(0, 40_000)
    for i in range(0, len(rows), 100):
        log.add_rows(rows[i : i + 100])
    state = log.publish()
    cursor = ColumnCursor(state, 0)
    batch = next(cursor)
    offsets, buffer = batch.offsets, batch.buffer
    expected = rows[: len(batch)]
    seen = buffer.tobytes()
    state._publish(is_open=False, segments=())
    with pytest.raises(ClosedError):
        next(cursor)
    values = batch.values()
    del cursor, batch, state
    log.path().unlink()
    gc.collect()
    assert values == [row.value for row in expected]
    assert offsets.tolist() == [row.offset for row in expected]
    assert buffer.tobytes() == seen


def test_memory_in_use_is_never_written_again(tmp_path):
    """Each kind of view alone has to keep its memory from being reused by the same cursor."""
    log = MadeLog(tmp_path)
    rows = make_rows(0, 20_000)
    for i in range(0, len(rows), 50):
        log.add_rows(rows[i : i + 50], codec=4 if i % 1000 == 0 else 0)
    state = log.publish()
    kept = []
    for number, batch in enumerate(ColumnCursor(state, 0, None, 10_000)):
        first = batch.offsets[0]
        match number % 5:
            case 0:
                kept.append((batch.offsets[::2], batch.offsets[::2].tolist()))
            case 1:
                kept.append((memoryview(batch.value_bytes), batch.value_bytes.tolist()))
            case 2:
                kept.append((batch.buffer[5:], batch.buffer[5:].tolist()))
            case 3:
                assert rows_of(batch) == rows[first : first + len(batch)]
                kept.append((batch, None))
    assert len(kept) > 50
    for view, expected in kept:
        if expected is not None:
            assert view.tolist() == expected
        else:
            first = view.offsets[0]
            assert rows_of(view) == rows[first : first + len(view)]


def test_memory_nobody_refers_to_is_used_again(tmp_path):
    log = MadeLog(tmp_path)
    rows = [Row(offset, 1, b"0123456789abcdef", b"v" * 100) for offset in range(2000)]
    batch = b""
    for _ in range(60):
        offset = log.end_offset
        if not batch:
            batch = encode(rows)
        moved = offset.to_bytes(8, "big") + batch[8:]
        log.add(moved, offset + 2000)
    state = log.publish()
    sum(map(len, ColumnCursor(state, 0)))
    addresses = set()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for columns in ColumnCursor(state, 0):
        addresses.add(columns.buffer.ctypes.data)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    assert len(addresses) <= 8  # of some 80 chunks: two take turns once reads have grown
    assert faults < 1500  # 15 MB touched once would be 3,700


def test_threads_scan_one_log_side_by_side(tmp_path):
    log, rows = mixed_log(tmp_path)
    state = log.publish()
    seen: list[list[Row]] = []
    threads = [
        threading.Thread(target=lambda size=size: seen.append(scan(state, 0, None, size)))
        for size in (0, 1000, 4000, 9000)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [rows] * 4


def test_a_cursor_goes_on_where_the_log_grew(tmp_path):
    log = MadeLog(tmp_path)
    log.add_rows(make_rows(0, 3))
    cursor = ColumnCursor(log.publish(), 1)
    assert rows_of(next(cursor)) == make_rows(1, 2)
    assert next(cursor, None) is None
    log.roll()
    log.add_rows(make_rows(3, 2), codec=4)
    log.publish()
    assert rows_of(next(cursor)) == make_rows(3, 2)
    assert next(cursor, None) is None


def test_batches_behind_the_log_end_offset_are_not_read(tmp_path):
    """A writer publishes a segment's size before the log end offset that covers it."""
    log = MadeLog(tmp_path)
    log.add_rows(make_rows(0, 3))
    log.add_rows(make_rows(3, 3))
    state = log.publish()
    state._publish(log_end_offset=3)
    cursor = ColumnCursor(state, 0)
    assert rows_of(next(cursor)) == make_rows(0, 3)
    assert next(cursor, None) is None
    state._publish(log_end_offset=6)
    assert rows_of(next(cursor)) == make_rows(3, 3)


@pytest.mark.fault(28, "hostile lengths and counts")
def test_hostile_counts_allocate_nothing(tmp_path):
    """Two billion records are claimed under a right CRC; the bytes can't hold them."""
    code = f"""
import resource, struct, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from made_logs import MadeLog, encode, make_rows
from logstore._native.checksum import crc32c
from logstore._native.columns import ColumnCursor
from logstore.errors import CorruptDataError
batch = bytearray(encode(make_rows(0, 3)))
batch[23:27] = struct.pack(">i", 2**31 - 1)
batch[57:61] = struct.pack(">i", 2**31 - 1)
batch[17:21] = struct.pack(">I", crc32c(bytes(batch[21:])))
log = MadeLog(Path({str(tmp_path)!r}))
log.add(bytes(batch), 2**31)
state = log.publish()
soft = 1 << 30
resource.setrlimit(resource.RLIMIT_AS, (soft, soft))
try:
    list(ColumnCursor(state, 0))
except CorruptDataError as error:
    print("refused", error.reason)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("refused"), done.stderr


def test_numpy_loads_with_the_first_array(tmp_path):
    log = MadeLog(tmp_path)
    log.add_rows(make_rows(0, 3))
    log.publish()
    code = f"""
import sys
from logstore._native.segment import Segment
from logstore._native.log_state import LogState
from logstore._native.columns import ColumnCursor
segment = Segment.sealed({str(log.path())!r}, 0, 3, index_interval_bytes=4096, index_bytes=4096)
state = LogState()
state._publish(segments=(segment,), log_start_offset=0, log_end_offset=3)
(batch,) = ColumnCursor(state, 0)
batch.values(), batch.keys(), len(batch)
assert "numpy" not in sys.modules
batch.offsets
assert "numpy" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
