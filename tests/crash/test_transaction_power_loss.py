"""Transactions over three partitions and an offset commit, one after the other, and a power cut at any moment: each is all
there or not at all, and those that were acknowledged are there."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import shim
from power_loss import Disk, read_calls, write_state

import logstore

SEED = int(os.environ.get("LOGSTORE_CRASH_SEED", "1"))
STATES = int(os.environ.get("LOGSTORE_CRASH_STATES", "100"))
# Of each transaction: the partitions it writes in, and how it ends.
TRANSACTIONS = (
    ((0, 1, 2), "commit"), ((1,), "commit"), ((0, 2), "abort"), ((0, 1, 2), "commit"), ((2, 0), "commit"),
    ((0, 1, 2), "open"),
)  # fmt: skip
PROGRAM = textwrap.dedent("""
    import os, sys
    import logstore
    from shim import Shim
    from test_transaction_power_loss import TRANSACTIONS
    data, calls = sys.argv[1:]
    shim = Shim()
    shim.record(data, calls)
    broker = logstore.open(data)
    producer = broker.producer(transactional_id="x", linger_ms="1h")
    for number, (partitions, end) in enumerate(TRANSACTIONS):
        producer.begin_transaction()
        for partition in partitions:
            producer.send("t", b"%d" % number, partition=partition).result(120)
        producer.send_offsets_to_transaction({("in", 0): number + 1}, "g")
        if end != "open":
            shim.note(f"{end} {number}")
            getattr(producer, f"{end}_transaction")()
            shim.note(f"done {number}")
    os._exit(0)
""")


def check(directory: Path, lines: list[str]) -> tuple[int, ...]:
    """The transactions that are seen."""
    asked = {int(line.split()[1]) for line in lines if line.startswith("commit ")}
    sure = {int(line.split()[1]) for line in lines if line.startswith("done ")} & asked
    seen: tuple[int, ...] = ()
    for turn in range(2):
        with logstore.open(directory) as broker:
            found: dict[int, list[int]] = {}
            for record in broker.topic("t").read(isolation_level="read_committed"):
                if record.value != b"later":
                    found.setdefault(int(record.value), []).append(record.partition)
            for number, partitions in found.items():
                assert sorted(partitions) == sorted(TRANSACTIONS[number][0]), f"a part of transaction {number}"
            assert sure <= set(found) <= asked
            offsets = broker.coordinator.committed_offsets("g")
            assert [entry.offset for entry in offsets.values()] == ([max(found) + 1] if found else [])
            assert [log.open_transactions() for log in broker.logs()] == [[]] * len(list(broker.logs()))
            assert turn == 0 or tuple(sorted(found)) == seen, "opened again, it is as before"
            seen = tuple(sorted(found))
            with broker.producer(transactional_id="x") as producer, producer.transaction() as transaction:
                for partition in range(3):
                    transaction.send("t", b"later", partition=partition)
            values = [record.value for record in broker.topic("t").read(isolation_level="read_committed")]
            assert values.count(b"later") == 3 * (turn + 1)
    return seen


@pytest.mark.fault(42, "producers sent twice, transactions cut short")
def test_a_power_cut_at_any_moment(library: Path, work: Path) -> None:
    with logstore.open(work / "start") as broker:
        broker.create_topic("t", partitions=3)
        broker.create_topic("in")
        with broker.producer(transactional_id="x") as producer:
            producer.begin_transaction()
            producer.send_offsets_to_transaction({("in", 0): 7}, "g")
            producer.abort_transaction()
    shutil.copytree(work / "start", work / "data")
    subprocess.run(
        [sys.executable, "-c", PROGRAM, work / "data", work / "calls"], env=shim.environment(library), check=True
    )  # fmt: skip
    calls = read_calls(work / "calls")
    disk = Disk(work / "start")
    chance = random.Random(SEED)
    lines: list[str] = []
    changes = sum(call.kind in "cwtrum" for call in calls)
    per_call = max(STATES // changes, 1)
    tried: set[bytes] = set()
    outcomes: set[tuple[int, ...]] = set()
    for number, call in enumerate(calls):
        disk.take(call)
        if call.kind == "n":
            lines.append(call.content.decode())
        if call.kind not in "cwtrum":
            continue
        for description, state in disk.states(chance, per_call + 5):
            identity = repr((sorted(state.items()), lines)).encode()
            if identity in tried or len(tried) >= STATES * (number + 1) / len(calls) + 20:
                continue
            tried.add(identity)
            place = work / "state"
            write_state(place, state)
            try:
                outcomes.add(check(place, lines))
            except BaseException as error:
                error.add_note(f"seed {SEED}, cut after call {number} ({call[:5]}); {description}; {lines}")
                raise
            shutil.rmtree(place)
    print(f"{len(tried)} states, {len(outcomes)} different sets of transactions in them")
    assert len(tried) > min(STATES, 250) / 2 >= 40
    assert len(outcomes) == 1 + sum(end == "commit" for _, end in TRANSACTIONS)
