"""A flipped bit in files of every kind: transactions, groups, compaction, digests, snapshots. ``LOGSTORE_CRASH_FLIP_STRIDE``
says every how many bytes one is flipped (61 if unset), ``LOGSTORE_CRASH_SEED`` where to begin."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from flips import Flip, Flipped, flips_of

STRIDE = int(os.environ.get("LOGSTORE_CRASH_FLIP_STRIDE", "61"))
SEED = int(os.environ.get("LOGSTORE_CRASH_SEED", "1"))


@pytest.fixture(scope="module")
def flipped(tmp_path_factory: pytest.TempPathFactory) -> Flipped:
    return Flipped(tmp_path_factory.mktemp("flipped"))


@pytest.mark.fault(11, "a bit flipped in a record")
@pytest.mark.fault(12, "a bit flipped where no CRC is")
@pytest.mark.fault(14, "index missing, damaged, stale")
@pytest.mark.fault(16, "checkpoint or metadata damaged")
@pytest.mark.fault(42, "producers sent twice, transactions cut short")
def test_no_flipped_bit_gives_another_answer(flipped: Flipped) -> None:
    answers: Counter[str] = Counter()
    names = set()
    for number, flip in enumerate(flips_of(flipped.pristine, stride=STRIDE, first=SEED)):
        answers[flipped.examine(flip, read_only=number % 2 == 0)] += 1
        names.add(flip.name.rsplit("/", 1)[-1].split(".", 1)[-1])
    assert answers["told"] > 20
    assert answers["harmless"] > 20, "what can be made anew is"
    assert {"log", "index", "timeindex", "txnindex", "snapshot", "digests", "checkpoint", "topics"} <= names


@pytest.mark.parametrize("read_only", [True, False], ids=["read_only", "writable"])
@pytest.mark.fault(12, "a bit flipped where no CRC is")
def test_the_last_offset_of_a_log_with_gaps(read_only: bool, flipped: Flipped) -> None:
    """No neighbour contradicts it, but the log is known to end before."""
    last = max((flipped.pristine / "k-0").glob("*.log"))
    for at, bit in ((7, 7), (7, 3), (4, 0), (0, 6)):
        assert flipped.examine(Flip(f"k-0/{last.name}", at, bit), read_only=read_only) == "told"
