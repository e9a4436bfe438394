"""A transaction over three partitions and an offset commit, killed before, and half way through, each file operation: all
of it is there afterwards, or nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import shim

import logstore
from logstore.broker.transaction_coordinator import TransactionCoordinator

STRIDE = int(os.environ.get("LOGSTORE_CRASH_STRIDE", "3"))
PROGRAM = textwrap.dedent("""
    import os, shutil, sys
    import logstore
    from shim import Shim
    start, work, calls, action = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    shim = Shim()
    n = 0
    while True:
        n += 1
        folder = os.path.join(work, str(n))
        shutil.copytree(start, folder)
        child = os.fork()
        if child == 0:
            broker = logstore.open(folder, durability="flushed")
            producer = broker.producer(transactional_id="x", linger_ms="1h")
            producer.init_transactions()
            shim.arm(folder, calls, n, action)
            with producer.transaction() as transaction:
                for partition in range(3):
                    transaction.send("t", b"new%d" % partition, partition=partition)
                transaction.send_offsets({("in", 0): 9}, "g")
            open(folder + ".committed", "w").close()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) == 0:
            break
        assert os.waitstatus_to_exitcode(status) == 42, status
    print(n)
""")


def state_of(folder: Path) -> tuple[list[bytes], int]:
    with logstore.open(folder) as broker:
        values = sorted(record.value for record in broker.topic("t").read(isolation_level="read_committed"))
        assert [log.open_transactions() for log in broker.logs()] == [[]] * len(list(broker.logs()))
        with broker.producer(transactional_id="x") as producer, producer.transaction() as transaction:
            transaction.send("t", b"later", partition=1)
        assert b"later" in [record.value for record in broker.topic("t").read(isolation_level="read_committed")]
        return values, broker.coordinator.committed_offsets("g")["in", 0].offset


@pytest.mark.parametrize("action", [shim.KILL, shim.KILL_HALF_WAY])
@pytest.mark.fault(42, "producers sent twice, transactions cut short")
def test_all_or_nothing_whenever_it_is_killed(library: Path, work: Path, action: int) -> None:
    start = work / "start"
    with logstore.open(start) as broker:
        broker.create_topic("t", partitions=3)
        broker.create_topic("in")
        with broker.producer(transactional_id="x") as producer, producer.transaction() as transaction:
            transaction.send("t", b"old", partition=0)
            transaction.send_offsets({("in", 0): 4}, "g")
    states = work / f"states{action}"
    states.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, start, states, "ocwstrum" if action == shim.KILL else "w", str(action)],
        env=shim.environment(library), check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    count = int(done.stdout)
    everything, nothing = ([b"new0", b"new1", b"new2", b"old"], 9), ([b"old"], 4)
    seen = []
    for number in range(1, count + 1):
        folder = states / str(number)
        seen.append(state_of(folder))
        assert seen[-1] in (everything, nothing), number
        if (states / f"{number}.committed").exists():
            assert seen[-1] == everything
        shutil.rmtree(folder)
    assert seen[0] == nothing
    assert seen[-1] == everything
    assert seen == sorted(seen, key=lambda state: state == everything), "once decided, it stays so"
    print(f"{count} states, {seen.count(nothing)} of them without the transaction")
    assert count >= (10 if action == shim.KILL else 5)


OPENING = textwrap.dedent("""
    import os, shutil, sys
    import logstore
    from shim import Shim
    start, work, stride = sys.argv[1], sys.argv[2], int(sys.argv[3])
    shim = Shim()
    n = 1 - stride
    while True:
        n += stride
        folder = os.path.join(work, str(n))
        shutil.copytree(start, folder)
        child = os.fork()
        if child == 0:
            shim.arm(folder, "cwstrum", n, -1)
            logstore.open(folder)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) == 0:
            break
        assert os.waitstatus_to_exitcode(status) == 42, status
    print(n)
""")


@pytest.mark.fault(42, "producers sent twice, transactions cut short")
@pytest.mark.parametrize("is_whole", [True, False])
def test_what_a_crash_left_is_settled_whenever_that_is_killed(
    library: Path, work: Path, is_whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit without its markers; where a log has lost the records that it speaks of, it does not count."""
    real = TransactionCoordinator._mark
    left = work / "left"

    def mark(coordinator: TransactionCoordinator, *arguments: Any) -> None:
        if values_sent and not left.exists():  # before the first of the second transaction
            shutil.copytree(work / "start", left)
        real(coordinator, *arguments)

    values_sent: list[bytes] = []
    monkeypatch.setattr(TransactionCoordinator, "_mark", mark)
    with logstore.open(work / "start") as broker:
        broker.create_topic("t", partitions=3)
        broker.create_topic("in")
        with broker.producer(transactional_id="x") as producer:
            with producer.transaction() as transaction:
                transaction.send("t", b"old", partition=0)
                transaction.send_offsets({("in", 0): 4}, "g")
            size_bytes = broker.topic("t").partition(2).segments[-1].size_bytes
            with producer.transaction() as transaction:
                for partition in range(3):
                    values_sent.append(b"new%d" % partition)
                    transaction.send("t", values_sent[-1], partition=partition)
                transaction.send_offsets({("in", 0): 9}, "g")
    if not is_whole:
        os.truncate(left / "t-2" / f"{0:020d}.log", size_bytes)
    states = work / "states"
    states.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", OPENING, left, states, str(STRIDE)],
        env=shim.environment(library), check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    count = int(done.stdout)
    for number in range(1, count + 1, STRIDE):
        values, offset = state_of(states / str(number))
        assert (values, offset) == (([*sorted(values_sent), b"old"], 9) if is_whole else ([b"old"], 4)), number
        shutil.rmtree(states / str(number))
    print(f"{len(range(1, count + 1, STRIDE))} states")
    assert count > 8
