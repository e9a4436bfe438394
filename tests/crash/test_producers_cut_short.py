"""The process dies at its n-th file operation, for every n, while producers with an id write: what the log knows of them
afterwards is what its batches say, and nothing acknowledged is forgotten."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import shim
from power_loss import Disk, read_calls, write_state
from producer_operations import produced

import logstore
from logstore.errors import OutOfOrderSequenceError


class Replayed:
    """What batches say, worked out in the simplest way."""

    def __init__(self, log):
        self.sequences: dict[tuple[int, int], int] = {}
        self.opened: dict[int, int] = {}
        self.aborted: list[tuple[int, int, int]] = []
        batches = list(log.cursor(log.log_start_offset))
        for batch in batches:
            if batch.is_control:
                (record,) = batch
                first = self.opened.pop(batch.producer_id, -1)
                if record.key == b"\0\0\0\0" and first >= 0:
                    self.aborted.append((batch.producer_id, first, batch.base_offset))
            elif batch.producer_id >= 0:
                self.sequences[batch.producer_id, batch.producer_epoch] = batch.base_sequence + batch.last_offset_delta
                if batch.is_transactional:
                    self.opened.setdefault(batch.producer_id, batch.base_offset)
        self.stable = min([*self.opened.values(), log.log_end_offset])
        self.committed = [
            record.offset for batch in batches if not batch.is_control and not (
                batch.is_transactional
                and any(p == batch.producer_id and f <= batch.base_offset < m for p, f, m in self.aborted)
            )
            for record in batch if record.offset < self.stable
        ]  # fmt: skip


def check(directory: Path, lines: list[str]) -> None:
    sent = [line.split()[1:] for line in lines if line.startswith("sent ")]
    ended = [line.split()[1:] for line in lines if line.startswith("ended ")]
    was_deleting = any(line.startswith("advancing ") for line in lines)
    for turn in range(2):
        with logstore.open(directory) as broker:
            assert not broker.damages
            log = broker.topic("t").partition(0)
            replayed = Replayed(log)
            assert log.last_stable_offset == replayed.stable
            assert [record.offset for record in log.read(isolation_level="read_committed")] == replayed.committed
            assert {one.producer_id: one.first_offset for one in log.open_transactions()} == replayed.opened
            known = {(one.producer_id, one.epoch): one.last_sequence for one in log.producers()}
            if not was_deleting:
                assert known == replayed.sequences
                values = {record.offset: record.value for record in log.read()}
                for name, sequence, count, offset in sent:
                    for i in range(int(count)):
                        assert values[int(offset) + i].startswith(f"{name}/{int(sequence) + i}".encode())
                for name, how, offset in ended:
                    aborted = (int(name.split("/")[0]), int(offset))
                    assert (aborted in [(p, m) for p, _, m in replayed.aborted]) == (how == "aborted")
            last: dict[str, list[str]] = {line[0]: line for line in sent}
            for name, sequence, count, offset in last.values():
                key = tuple(map(int, name.split("/")))
                assert known.get(key, -1) >= int(sequence) + int(count) - 1, "an acknowledged batch is forgotten"
                if known[key] == int(sequence) + int(count) - 1:
                    again = produced(name, int(sequence), int(count), key[0] != 2)
                    assert log.append_built(again)[0] == int(offset), "sent again, it has its first offset"
                with pytest.raises(OutOfOrderSequenceError):
                    log.append_built(produced(name, known[key] + 2, 1, key[0] != 2))
                if turn == 0:
                    end_offset = log.log_end_offset
                    assert log.append_built(produced(name, known[key] + 1, 1, key[0] != 2))[0] == end_offset
        if turn == 0:
            # Another batch each was appended, which the second open knows of.
            sent = []


@pytest.mark.parametrize("operation", ["transactions", "deletion"])
@pytest.mark.fault(42, "producers sent twice, transactions cut short")
def test_killed_before_every_call(operation: str, library: Path, work: Path) -> None:
    subprocess.run(
        [sys.executable, shim.HERE / "producer_operations.py", "kill", operation, "cwstrum", str(shim.KILL), work],
        env=shim.environment(library), check=True,
    )  # fmt: skip
    places = sorted(place for place in work.iterdir() if place.name.isdigit())
    assert len(places) > 60
    for place in places:
        text = (place / "ledger").read_text()
        try:
            check(place / "data", [line for line in text.splitlines(keepends=True) if line.endswith("\n")])
        except Exception as error:
            error.add_note(f"{operation}, killed at call {int(place.name)}")
            raise


@pytest.mark.parametrize("operation", ["transactions", "deletion"])
@pytest.mark.fault(42, "producers sent twice, transactions cut short")
def test_a_power_cut_at_any_moment(operation: str, library: Path, work: Path) -> None:
    subprocess.run(
        [sys.executable, shim.HERE / "producer_operations.py", "record", operation, work],
        env=shim.environment(library), check=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    seed = int(os.environ.get("LOGSTORE_CRASH_SEED", "1"))
    states = int(os.environ.get("LOGSTORE_CRASH_STATES", "250"))
    calls = read_calls(work / "calls")
    lines = (work / "ledger").read_text().splitlines()
    disk = Disk(work / "start")
    chance = random.Random(seed)
    changes = sum(call.kind in "cwtrum" for call in calls)
    seen: set[bytes] = set()
    for number, call in enumerate(calls):
        disk.take(call)
        if call.kind == "n":
            lines.append(call.content.decode())
        if call.kind not in "cwtrum":
            continue
        for description, state in disk.states(chance, max(states // changes, 1)):
            identity = repr((sorted(state.items()), lines)).encode()
            if identity in seen:
                continue
            seen.add(identity)
            place = work / "state"
            write_state(place, state)
            try:
                check(place, lines)
            except BaseException as error:
                error.add_note(f"{operation}, seed {seed}, cut after call {number} ({call[:5]}); {description}")
                raise
            shutil.rmtree(place)
    assert len(seen) > min(states, 250) / 5
    print(f"{operation}: {len(seen)} states")
