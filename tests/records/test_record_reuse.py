"""Records are used again once nobody holds them: what somebody does hold, whole or in part, never changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_logs import MadeLog, Row, encode, make_rows

from logstore._native.log_cursor import LogCursor
from logstore._native.record_batch import Record, RecordBatch, stamp_timestamps
from logstore._native.record_reader import RecordReader
from logstore.errors import CorruptDataError

# Few sizes, so that records in a row often have equal ones, as those that are used again must.
sizes = st.sampled_from([None, 0, 1, 2, 16, 16, 16, 100])


def made_bytes(size: int | None, i: int) -> bytes | None:
    return None if size is None else (b"%d" % i).rjust(size, b".")[:size]


def parts(record: Record) -> tuple[object, ...]:
    return record.offset, record.timestamp, record.key, record.value, record.headers, hash(record.key), hash(record.value)


def expected(row: Row) -> tuple[object, ...]:
    return row.offset, row.timestamp, row.key, row.value, row.headers, hash(row.key), hash(row.value)


@given(
    rows=st.lists(st.tuples(sizes, sizes, st.booleans()), min_size=1, max_size=40),
    kept=st.lists(st.sampled_from(["record", "key", "value", "view", "nothing"]), min_size=40, max_size=40),
)
def test_what_is_held_stays_what_it_was(rows, kept):
    made = [
        Row(i, 1000 + i, made_bytes(key, i), made_bytes(value, i), [("h", b"%d" % i)] if with_header else [])
        for i, (key, value, with_header) in enumerate(rows)
    ]
    held = []
    for record, row, what in zip(RecordBatch.validated(encode(made)), made, kept, strict=False):
        assert parts(record) == expected(row)
        if what == "record":
            held.append((record, row))
        elif what == "view":
            held.append((None if record.value is None else memoryview(record.value), row.value))
        elif what != "nothing":
            held.append((getattr(record, what), getattr(row, what)))
    for thing, wanted in held:
        if isinstance(thing, Record):
            assert parts(thing) == expected(wanted)
        else:
            assert thing == wanted


def test_records_that_nobody_holds_are_used_again():
    rows = make_rows(0, 100)
    seen = set()
    for record in RecordBatch.validated(encode(rows)):
        seen.add(id(record))
    assert len(seen) == 2


def test_fields_are_read_only_and_described():
    record = next(iter(RecordBatch.validated(encode(make_rows(0, 1)))))
    for name in ("key", "value"):
        with pytest.raises(AttributeError):
            setattr(record, name, b"")
        with pytest.raises(AttributeError):
            delattr(record, name)
        assert getattr(Record, name).__doc__


@given(
    batches=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3), st.booleans()), min_size=1, max_size=6),
    data=st.data(),
)
def test_a_bounded_read_is_exact_over_gaps_and_control_batches(batches, data, tmp_path_factory):
    log = MadeLog(tmp_path_factory.mktemp("log"))
    rows: list[Row] = []
    next_offset = 0
    for count, gap, control in batches:
        next_offset += gap
        made = [Row(next_offset + i, 1000, b"\0\0\0\1", b"\0\0\0\0\0\0") for i in range(count)]
        log.add_rows(made, control=control)
        next_offset += count
        if not control:
            rows += made
    log.publish()
    log.state._publish(contiguous=False)
    start = data.draw(st.integers(0, next_offset))
    stop = data.draw(st.integers(start, next_offset))
    reader = RecordReader([LogCursor(log.state, start, stop)])
    found = []
    for record in reader:
        found.append(record.offset)
        assert reader.positions[("orders", 0)] == record.offset + 1
    assert found == [row.offset for row in rows if start <= row.offset < stop]


def test_damage_behind_sound_records_is_named_where_it_is(tmp_path):
    rows = make_rows(0, 20)
    data = bytearray(encode(rows))
    victim = data.index(rows[12].value) - 1  # its length
    data[victim] = 0x7F  # says null, so that the value's bytes are taken for something else
    stamp_timestamps(data, False, max(row.timestamp for row in rows))  # the CRC is right again
    log = MadeLog(tmp_path)
    log.add(bytes(data), 20)
    log.publish()
    found = []
    reader = RecordReader([LogCursor(log.state, 0)])
    with pytest.raises(CorruptDataError) as caught:
        found.extend(record.offset for record in reader)
    assert found == list(range(12))
    assert data.index(rows[11].value) < caught.value.position <= victim + 1
