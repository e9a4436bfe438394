"""What a power cut leaves behind the records that were on disk: part of a write, holes, zeros, garbage, old batches."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import logstore

SYNCED = [b"synced %d" % number * 40 for number in range(6)]
LOST = [b"lost %d " % number + bytes([65 + number]) * 9000 for number in range(2)]


class Moments:
    """The directory of a writer when the records of ``SYNCED`` were on disk, and what its next two appends wrote."""

    def __init__(self, work: Path):
        self.synced = work / "synced"
        with logstore.open(work / "running") as broker:
            log = broker.create_topic("t").partition(0)
            for value in SYNCED:
                log.append(value)
            shutil.copytree(work / "running", self.synced)
            self.name = Path(log.segments[-1].path).relative_to(work / "running")
            self.writes = []
            for value in LOST:
                before = log.segments[-1].size_bytes
                log.append(value)
                self.writes.append(Path(log.segments[-1].path).read_bytes()[before:])
        self.size_bytes = (self.synced / self.name).stat().st_size
        self._images = 0

    def with_tail(self, tail: bytes) -> Path:
        """The directory with these bytes behind what was synced."""
        self._images += 1
        folder = self.synced.parent / f"image{self._images}"
        shutil.copytree(self.synced, folder)
        with open(folder / self.name, "ab") as file:
            file.write(tail)
        return folder


@pytest.fixture
def moments(work: Path) -> Moments:
    return Moments(work)


def check(folder: Path, *, may_refuse: bool = False, may_have: list[bytes] = []) -> None:  # noqa: B006
    """All that was synced is there, and then a prefix of ``may_have`` alone; new appends go on from there, and stay."""
    with logstore.open(folder) as broker:
        log = broker.topic("t").partition(0)
        if log.damage is not None:
            assert may_refuse, log.damage
            found = []
            with contextlib.suppress(logstore.CorruptDataError):
                for record in log.read():
                    found.append(record.value)
            assert found[: len(SYNCED)] == SYNCED
            assert found[len(SYNCED) :] == may_have[: len(found) - len(SYNCED)]
            with pytest.raises(logstore.CorruptDataError):
                log.append(b"x")
            return
        found = [record.value for record in log.read()]
        assert found[: len(SYNCED)] == SYNCED
        more = found[len(SYNCED) :]
        assert more == may_have[: len(more)]
        report = log.recovery_report
        assert report.cut_bytes == 0 or report.reason
        assert log.append(b"new") == len(found)
        shutil.copytree(folder, killed := folder.with_suffix(".killed"))
    for place in (folder, killed):
        with logstore.open(place) as broker:
            assert [record.value for record in broker.topic("t").read()] == [*found, b"new"]
            assert not any(report.cut_bytes for report in broker.recovery_reports.values())
        shutil.rmtree(place)


@pytest.mark.parametrize("fill", ["nothing", "zeros", "garbage"])
@pytest.mark.parametrize("unit", [512, 4096])
@pytest.mark.fault(3, "write torn at 512 or 4096 bytes")
def test_a_write_torn_between_any_two_units(unit: int, fill: str, moments: Moments) -> None:
    write = moments.writes[0]
    first = unit - moments.size_bytes % unit
    for cut in range(first, len(write), unit):
        rest = len(write) - cut
        behind = {"nothing": b"", "zeros": bytes(rest), "garbage": random.Random(cut).randbytes(rest)}[fill]
        check(moments.with_tail(write[:cut] + behind))


@pytest.mark.parametrize("fill", ["zeros", "garbage"])
@pytest.mark.parametrize("unit", [512, 4096])
@pytest.mark.fault(3, "write torn at 512 or 4096 bytes")
def test_a_write_with_any_one_unit_missing(unit: int, fill: str, moments: Moments) -> None:
    write = moments.writes[0]
    starts = [0, *range(unit - moments.size_bytes % unit, len(write), unit)]
    for start, end in zip(starts, [*starts[1:], len(write)], strict=True):
        hole = bytes(end - start) if fill == "zeros" else random.Random(start).randbytes(end - start)
        check(moments.with_tail(write[:start] + hole + write[end:]))


@pytest.mark.parametrize("unit", [512, 4096])
@pytest.mark.fault(4, "writes on disk in another order")
def test_a_later_write_that_was_on_disk_first_never_comes_back(unit: int, moments: Moments) -> None:
    """The first of two writes has a hole, the second is whole; also when the next append ends right before it."""
    first, second = moments.writes
    starts = [0, *range(unit - moments.size_bytes % unit, len(first), unit)]
    for start, end in zip(starts, [*starts[1:], len(first)], strict=True):
        # A first or last piece smaller than a sector that is gone looks like damage: refusing is right, too.
        check(moments.with_tail(first[:start] + bytes(end - start) + first[end:] + second), may_refuse=end - start < 1024)
    folder = moments.with_tail(bytes(len(first)) + second)
    with logstore.open(folder) as broker:
        log = broker.topic("t").partition(0)
        assert log.append(LOST[0]) == len(SYNCED)  # as long as the one whose place it takes
        shutil.copytree(folder, killed := folder.with_suffix(".killed"))
    with logstore.open(killed) as broker:
        assert [record.value for record in broker.topic("t").read()] == [*SYNCED, LOST[0]]


TAILS: dict[str, Callable[[Moments], bytes]] = {
    "one zero": lambda moments: b"\0",
    "zeros": lambda moments: bytes(5000),
    "ones": lambda moments: b"\xff" * 5000,
    "garbage": lambda moments: random.Random(1).randbytes(5000),
    "a byte of garbage": lambda moments: b"x",
    "garbage as long as a header": lambda moments: random.Random(2).randbytes(61),
    "a whole write, then zeros": lambda moments: moments.writes[0] + bytes(700),
    "a whole write, then garbage": lambda moments: moments.writes[0] + random.Random(3).randbytes(700),
    "a header of the largest length": lambda moments: (
        moments.writes[0][:8] + (2**31 - 1).to_bytes(4, "big") + moments.writes[0][12:]
    ),
    "a header of a negative length": lambda moments: moments.writes[0][:8] + b"\x80\0\0\0" + moments.writes[0][12:],
}
# A sound batch of other offsets is none that a crash could explain: the log may refuse to be written.
OLD_TAILS: dict[str, Callable[[Moments], bytes]] = {
    "its own first batches again": lambda moments: (moments.synced / moments.name).read_bytes(),
    "a batch from further on": lambda moments: moments.writes[1],
}


@pytest.mark.parametrize("tail", [*TAILS, *OLD_TAILS])
@pytest.mark.fault(6, "zeros or garbage behind what was synced")
def test_what_stands_behind_is_never_taken_for_records(tail: str, moments: Moments) -> None:
    content = {**TAILS, **OLD_TAILS}[tail](moments)
    check(moments.with_tail(content), may_refuse=tail in OLD_TAILS, may_have=LOST[:1])
