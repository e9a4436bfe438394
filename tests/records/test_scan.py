"""Scans over several logs: order, bounds, repetition, damage."""

from __future__ import annotations

import pytest
from made_logs import MadeLog, Row, make_rows

from logstore._native.columns import ColumnBatch
from logstore.errors import CorruptDataError, InvalidRequestError
from logstore.records.scan import Scan


def two_logs(directory) -> tuple[list[MadeLog], list[list[Row]]]:
    logs, rows = [], []
    for partition in range(2):
        log = MadeLog(directory / str(partition), partition)
        made: list[Row] = []
        for i in range(30):
            batch = make_rows(len(made), 1 + i % 4)
            log.add_rows(batch, codec=4 if i % 10 == 9 else 0)
            made += batch
            if i == 14:
                log.roll()
        log.publish()
        logs.append(log)
        rows.append(made)
    return logs, rows


def read(scan: Scan) -> list[tuple[int, int, bytes | None, bytes | None]]:
    return [
        (batch.partition, offset, key, value)
        for batch in scan
        for offset, key, value in zip(
            batch.offsets.tolist(), batch.keys(), batch.values(), strict=True
        )
    ]


def test_one_partition_after_another_within_its_bounds(tmp_path):
    logs, rows = two_logs(tmp_path)
    scan = Scan([log.state for log in logs], [(3, 50), (10, 41)])
    assert read(scan) == [
        (partition, row.offset, row.key, row.value)
        for partition, (start, stop) in enumerate([(3, 50), (10, 41)])
        for row in rows[partition][start:stop]
    ]


def test_a_scan_can_be_read_again_and_side_by_side(tmp_path):
    logs, _ = two_logs(tmp_path)
    scan = Scan([log.state for log in logs], [(0, 73), (0, 73)])
    first, second = iter(scan), iter(scan)
    for a, b in zip(first, second, strict=True):
        assert isinstance(a, ColumnBatch)
        assert a.values() == b.values()
    assert len(read(scan)) == len(read(scan)) == 146


@pytest.mark.parametrize("bounds", [[(0, 0), (73, 73)], [(20, 20), (30, 10)]])
def test_empty_bounds(tmp_path, bounds):
    logs, _ = two_logs(tmp_path)
    assert list(Scan([log.state for log in logs], bounds)) == []


def test_no_logs():
    assert list(Scan([], [])) == []


def test_bounds_for_each_log():
    with pytest.raises(InvalidRequestError, match="not 1 for 0"):
        Scan([], [(0, 1)])


def test_records_appended_later_are_outside(tmp_path):
    log = MadeLog(tmp_path)
    log.add_rows(make_rows(0, 5))
    scan = Scan([log.publish()], [(0, log.end_offset)])
    log.add_rows(make_rows(5, 5))
    log.publish()
    assert [offset for _, offset, _, _ in read(scan)] == [0, 1, 2, 3, 4]


def test_damage_raises_while_reading(tmp_path):
    logs, _ = two_logs(tmp_path)
    damaged = logs[1]
    data = bytearray(damaged.path(1).read_bytes())
    data[-1] ^= 0xFF
    damaged.path(1).write_bytes(data)
    seen = []
    scan = Scan([log.state for log in logs], [(0, 73), (0, 73)])
    with pytest.raises(CorruptDataError) as caught:
        seen.extend((batch.partition, batch.offsets.tolist()) for batch in scan)
    assert caught.value.path == str(damaged.path(1))
    offsets = [offset for partition, part in seen if partition == 1 for offset in part]
    assert offsets == list(range(len(offsets)))
    assert len(offsets) >= 70  # all but the last batch
    assert sum(len(part) for partition, part in seen if partition == 0) == 73


def test_repr_says_what_is_scanned(tmp_path):
    logs, _ = two_logs(tmp_path)
    scan = Scan([log.state for log in logs], [(0, 73), (3, 9)])
    assert repr(scan) == "Scan(orders-0[0:73], orders-1[3:9])"
