"""The transaction index: look-ups against a search of all entries, files that are missing, damaged or stale."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_batches import START_MS, produced
from reference_files import decode_producer_snapshot, decode_transaction_index

from logstore.storage.producer_state import NONE_OPEN, AbortedTransaction
from logstore.storage.segment_digests import SegmentDigests
from logstore.storage.transaction_index import TransactionIndex, decode_entries, encode_entries


def made_log(steps):
    """Aborted transactions, and where segments begin, from (producer, what) steps; offsets count steps."""
    opened: dict[int, int] = {}
    entries: list[AbortedTransaction] = []
    bases, oldest = [0], {0: NONE_OPEN}
    for offset, (producer_id, what) in enumerate(steps):
        if what == "roll":
            bases.append(offset)
            oldest[offset] = min(opened.values(), default=NONE_OPEN)
        elif what == "data":
            opened.setdefault(producer_id, offset)
        elif producer_id in opened:
            first = opened.pop(producer_id)
            if what == "abort":
                stable = min([*opened.values(), offset + 1])
                entries.append(AbortedTransaction(producer_id, first, offset, stable))
    return entries, bases, oldest


STEPS = st.lists(
    st.tuples(st.integers(1, 3), st.sampled_from(["data", "data", "data", "abort", "commit", "roll"])), max_size=60
)


@given(steps=STEPS, start=st.integers(0, 60), size=st.integers(1, 30), knows=st.booleans())
def test_look_ups_find_what_a_search_of_all_entries_finds(steps, start, size, knows):
    entries, bases, oldest = made_log(steps)
    index = TransactionIndex(
        "/nowhere", lambda base, below: [], lambda base: oldest[base] if knows else None, writable=False, is_possible=True
    )
    for number, base in enumerate(bases):
        end = bases[number + 1] if number + 1 < len(bases) else len(steps)
        index.live(base).extend(entry for entry in entries if base <= entry.last_offset < end)
    found = index.overlapping(bases, start, start + size)
    least = {entry for entry in entries if entry.first_offset < start + size and entry.last_offset >= start}
    # Entries whose transactions begin in range, and no others that matter.
    assert least == set(found)
    assert len(found) == len(set(found))


@given(steps=STEPS)
def test_bytes_are_those_of_the_reference(steps):
    entries, _, _ = made_log(steps)
    data = encode_entries(entries)
    assert decode_transaction_index(data, 0) == [tuple(entry) for entry in entries]
    assert decode_entries(data) == entries


def aborted(log, producer_id, turns):
    for turn in range(turns):
        log.append_as_leader(produced(producer_id, turn, transactional=True, size=200))
        log.append_marker(producer_id, 0, False)


@pytest.fixture
def log(open_log):
    """Closed in good order: several segments, in each of them aborted transactions."""
    made = open_log(segment_bytes=1024, clock=lambda: START_MS)
    aborted(made, 1, 12)
    made.append(b"seen")
    assert len(made.segments) > 3
    made.close()
    return made


def indexes(tmp_path):
    return sorted((tmp_path / "orders-0").glob("*.txnindex"))


def test_files_decode_with_the_reference(log, tmp_path):
    entries = []
    for path in indexes(tmp_path):
        entries += decode_transaction_index(path.read_bytes(), int(path.stem))
    assert entries == [(1, offset, offset + 1, offset + 2) for offset in range(0, 24, 2)]
    for path in (tmp_path / "orders-0").glob("*.snapshot"):
        ((producer_id, *_),) = decode_producer_snapshot(path.read_bytes())
        assert producer_id == 1


@pytest.mark.parametrize("damage", ["removed", "cut", "garbage", "stale", "empty"])
@pytest.mark.parametrize("which", ["all", "first", "last"])
@pytest.mark.fault(14, "index missing, damaged, stale")
def test_damaged_files_are_derived_anew(log, open_log, tmp_path, damage, which):
    paths = indexes(tmp_path)
    kept = {path: path.read_bytes() for path in paths}
    for path in {"all": paths, "first": paths[:1], "last": paths[-1:]}[which]:
        data = path.read_bytes()
        if damage == "removed":
            path.unlink()
        elif damage == "stale":
            if path != paths[-1]:
                continue  # nobody cuts a sealed segment
            path.write_bytes(data + encode_entries([AbortedTransaction(9, 24, 999, 1000)]))
        else:
            path.write_bytes({"cut": data[:-5], "garbage": b"\1" + data[1:], "empty": b"?"}[damage])
    for read_only in (True, False):
        again = open_log(segment_bytes=1024, read_only=read_only)
        assert [record.value for record in again.read(isolation_level="read_committed")] == [b"seen"]
        if not read_only:
            aborted(again, 2, 1)
            again.append(b"seen, too")
            again.flush()
        again.close()
    last = open_log(segment_bytes=1024)
    assert [record.value for record in last.read(isolation_level="read_committed")] == [b"seen", b"seen, too"]
    last.close()
    for path, data in kept.items():
        assert path.read_bytes()[: len(data)] == data


def test_a_log_that_never_had_a_transaction_looks_for_none(open_log, monkeypatch):
    log = open_log(segment_bytes=1024)
    for sequence in range(12):
        log.append_as_leader(produced(1, sequence, size=200))
    log.close()
    again = open_log(segment_bytes=1024)
    monkeypatch.setattr(again, "_aborted_between", lambda *range: pytest.fail("looked up"))
    assert len(list(again.read(isolation_level="read_committed"))) == 12


@pytest.fixture
def interleaved(open_log):
    """Closed in good order: transactions of two producers that overlap, aborted and committed, over two segments."""
    made = open_log(clock=lambda: START_MS)

    def data(producer_id, sequence):
        made.append_as_leader(produced(producer_id, sequence, transactional=True, size=20))

    for turn in range(2):
        data(1, 3 * turn)
        data(2, 2 * turn)
        data(1, 3 * turn + 1)
        made.append_marker(1, 0, False)
        made.append_marker(2, 0, False)
        data(2, 2 * turn + 1)
        made.append_marker(2, 0, True)
        made.append(b"seen")
        data(1, 3 * turn + 2)
        if turn == 0:
            made.roll()
        made.append_marker(1, 0, turn == 1)
    made.close()
    return made


def committed(log):
    return [record.offset for record in log.read(isolation_level="read_committed")]


def no_derivation(*_):
    pytest.fail("an index that is as it was written was derived")


def test_sound_files_are_taken_as_they_are(interleaved, open_log, tmp_path, monkeypatch):
    assert len(indexes(tmp_path)) == 2
    with open_log() as log:
        expected = committed(log)
    assert expected
    for read_only in (True, False):
        with open_log(read_only=read_only) as log:
            assert log.last_stable_offset == log.log_end_offset  # which loads what is known of transactions
            monkeypatch.setattr(log._aborted, "_derive", no_derivation)
            assert committed(log) == expected


@pytest.mark.fault(14, "index missing, damaged, stale")
def test_no_flipped_bit_gives_other_entries(interleaved, open_log, tmp_path, caplog):
    directory = str(tmp_path / "orders-0")
    paths = indexes(tmp_path)
    sound = {int(path.stem): decode_entries(path.read_bytes()) for path in paths}
    assert sum(map(len, sound.values())) > 3
    derived = []

    def derive(base, below):
        derived.append(base)
        return list(sound[base])

    def look(bases=tuple(sound)):
        index = TransactionIndex(
            directory, derive, lambda base: None, digests=SegmentDigests(directory), writable=False, is_possible=True
        )
        return {base: index.entries(base) for base in bases}

    assert look() == sound
    assert derived == []
    for path in paths:
        base = int(path.stem)
        whole = path.read_bytes()
        for at in range(len(whole)):
            for bit in range(8):
                changed = bytearray(whole)
                changed[at] ^= 1 << bit
                path.write_bytes(changed)
                caplog.clear()
                assert look([base])[base] == sound[base], (path, at, bit)
                assert derived == [base], (path, at, bit)
                assert "is damaged" in caplog.text
                derived.clear()
        path.write_bytes(whole[: -len(encode_entries(sound[0][:1]))])  # the last one is gone
        assert look() == sound
        assert derived == [base]
        derived.clear()
        path.write_bytes(whole)


@pytest.mark.parametrize("read_only", [True, False], ids=["read_only", "writable"])
@pytest.mark.fault(14, "index missing, damaged, stale")
def test_no_flipped_bit_shows_or_hides_a_record(read_only, interleaved, open_log, tmp_path):
    with open_log(read_only=True) as log:
        expected = committed(log)
    for path in indexes(tmp_path):
        whole = path.read_bytes()
        for at in range(read_only, len(whole), 2):
            changed = bytearray(whole)
            changed[at] ^= 1 << at // 2 % 8
            path.write_bytes(changed)
            with open_log(read_only=read_only) as log:
                assert committed(log) == expected, (path, at)
        path.write_bytes(whole)


def test_a_damaged_file_of_a_sealed_segment_is_written_anew(interleaved, open_log, tmp_path):
    path = indexes(tmp_path)[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:9] + b"\7" + whole[10:])
    with open_log() as log:
        committed(log)
    assert path.read_bytes() == whole


def test_what_no_checksum_is_known_of_is_derived_and_known_from_then_on(interleaved, open_log, tmp_path, monkeypatch):
    (tmp_path / "orders-0" / "logstore.digests").unlink()
    with open_log() as log:
        expected = committed(log)
    with open_log() as log:
        monkeypatch.setattr(log._aborted, "_derive", no_derivation)
        entries = log._aborted.entries(0)
        assert entries == decode_entries(indexes(tmp_path)[0].read_bytes())
        assert expected
