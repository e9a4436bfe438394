"""What `python -m tests.crash` can do for as long as one likes. Each takes a `Run`, and counts into it."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import flips
import ledger
import operations
import power_loss
import shim
import test_io_errors
import test_kill_at_call

if TYPE_CHECKING:
    from long_runs import Run

NESTED_EVERY = 200  # states after which one is opened under the shim, and cut again
MODELS = {
    "log_machine": "LogMachine",
    "test_compaction_model": "CompactedLog",
    "test_retention_machine": "RetentionMachine",
    "test_producer_state_model": "ProducerMachine",
    "test_consumer_model": "ConsumerMachine",
}


def states(run: Run) -> None:
    """Power cuts at any moment of each operation: the states a disk may be in, opened and held against the ledger."""
    library = shim.build(run.folder)
    recorded = {}
    for name in operations.OPERATIONS:
        folder = run.folder / name
        folder.mkdir()
        subprocess.run(
            [sys.executable, shim.HERE / "operations.py", "record", name, folder],
            env=shim.environment(library), check=True, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        recorded[name] = (power_loss.read_calls(folder / "calls"), (folder / "ledger").read_text().splitlines())
    seed = run.seed
    seen: set[bytes] = set()
    while not run.is_over:
        for name, (calls, lines) in recorded.items():
            chance = random.Random(f"{seed} {name}")
            for moment in power_loss.moments(run.folder / name / "start", calls, lines, chance, 1):
                if run.is_over:
                    return
                if moment.identity in seen:
                    continue
                seen.add(moment.identity)
                place = run.folder / "state"
                power_loss.write_state(place, moment.state)
                nested = len(seen) % NESTED_EVERY == 0
                if nested:
                    shutil.copytree(place, run.folder / "nested-start")
                try:
                    ledger.check_promises(place, ledger.Ledger(moment.lines))
                    run.count("crash states")
                    if nested:
                        for _ in nested_states(run.folder, library, moment.lines, chance):
                            run.count("crash states in recovery")
                except Exception as error:
                    error.add_note(f"{name}, seed {seed}, {moment.description}")
                    run.broken(error)
                finally:
                    for left in ("state", "nested-start", "nested"):
                        shutil.rmtree(run.folder / left, ignore_errors=True)
        seed += 1


def nested_states(folder: Path, library: Path, lines: Iterable[str], chance: random.Random) -> Iterator[None]:
    """Power is cut again, at any moment of opening ``nested-start``."""
    nested = folder / "nested"
    nested.mkdir()
    subprocess.run(
        [sys.executable, shim.HERE / "operations.py", "record_recovery", folder / "nested-start", nested],
        env=shim.environment(library), check=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for moment in power_loss.moments(folder / "nested-start", power_loss.read_calls(nested / "calls"), lines, chance, 0):
        power_loss.write_state(nested / "state", moment.state)
        ledger.check_promises(nested / "state", ledger.Ledger(lines))
        shutil.rmtree(nested / "state")
        yield


def kills(run: Run) -> None:
    """kill -9: before each file operation and half-way through each write of each operation, then at random moments."""
    library = shim.build(run.folder)
    for name in operations.OPERATIONS:
        for calls, action in ((test_kill_at_call.CHANGES, shim.KILL), ("w", shim.KILL_HALF_WAY)):
            if run.elapsed_seconds > run.seconds / 2:
                break
            work = run.folder / f"{name}{action}"
            work.mkdir()
            try:
                run.count("kills at a call", test_kill_at_call.run_and_check(library, work, name, calls, action))
            except Exception as error:
                run.broken(error)
            shutil.rmtree(work)
    left = max(run.seconds - run.elapsed_seconds, 1)
    process = subprocess.Popen(
        [sys.executable, shim.HERE / "random_kills.py", "1000000", str(left), str(run.seed), run.folder],
        env=shim.environment(None), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        for _ in process.stdout:
            run.count("kills at a random moment")
        said = process.stderr.read()
    if process.returncode:
        run.broken(AssertionError(said))


def io_faults(run: Run) -> None:
    """File operations that fail, one after the other: EIO, ENOSPC, EDQUOT, EMFILE, EINTR, short; once, and for ever."""
    library = shim.build(run.folder)
    chance = random.Random(run.seed)
    todo = [(error, False, name) for error in test_io_errors.CALLS for name in operations.OPERATIONS]
    todo += [
        (error, True, name) for error in test_io_errors.CALLS_FOR_EVER if error != "EINTR"  # which is never for ever
        for name in operations.OPERATIONS
    ]  # fmt: skip
    chance.shuffle(todo)
    for number, (error, for_ever, name) in enumerate(todo):
        if run.is_over:
            break
        work = run.folder / str(number)
        work.mkdir()
        try:
            found = test_io_errors.outcomes(library, work, name, error, for_ever=for_ever)
            run.count("I/O faults for ever" if for_ever else "I/O faults once", len(found))
        except Exception as failure:
            run.broken(failure)
        shutil.rmtree(work)


def bit_flips(run: Run) -> None:
    """One bit of every byte of every file, read-only and writable; the next bits of each if there is time."""
    flipped = flips.Flipped(run.folder)
    every = list(flips.flips_of(flipped.pristine, bits=8))
    # All bytes once, in an order that reaches every file early; then their other bits.
    random.Random(run.seed).shuffle(every)
    every.sort(key=lambda flip: (flip.bit - flip.position) % 8)
    for flip in every:
        for read_only in (True, False):
            if run.is_over:
                return
            try:
                answer = flipped.examine(flip, read_only=read_only)
            except AssertionError as error:
                run.broken(error)
                answer = "SILENT"
            run.count("bits flipped")
            run.count(f"  {answer}")


def model(run: Run) -> None:
    """Programs of random steps against plain models: logs, compaction, retention, producers, consumers."""
    import importlib

    from hypothesis import HealthCheck, settings
    from hypothesis.stateful import run_state_machine_as_test

    limits = settings(
        max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    while not run.is_over:
        for module, name in MODELS.items():
            machine = getattr(importlib.import_module(module), name)

            class Counted(machine):
                def __init__(self) -> None:
                    super().__init__()
                    run.count("model programs")

            try:
                run_state_machine_as_test(Counted, settings=limits)
            except Exception as error:
                run.broken(error)
            if run.is_over:
                break


def fuzz(run: Run) -> None:
    """The C decoders under a coverage-guided fuzzer and sanitizers, from the kept corpora; needs clang."""
    csrc = shim.HERE.parents[1] / "csrc"
    targets = len(list((csrc / "fuzz").glob("fuzz_*.c")))
    if not any(map(shutil.which, ("clang", "clang-19", "clang-16", "clang-15", "clang-14"))):
        run.not_tested = "NOT TESTED: the fuzzers; clang is not here"
        return
    done = subprocess.run(
        ["make", "-s", "-C", csrc, "fuzz", "CC=clang", f"FUZZ_SECONDS={max(int(run.seconds / targets), 1)}"],
        capture_output=True, text=True,
    )  # fmt: skip
    for executions in re.findall(r"number_of_executed_units: +(\d+)", done.stdout + done.stderr):
        run.count("fuzz executions", int(executions))
    if done.returncode:
        run.broken(AssertionError((done.stdout + done.stderr)[-3000:]))


CAMPAIGNS: dict[str, Callable[[Run], None]] = {
    "states": states,
    "kills": kills,
    "io-faults": io_faults,
    "bit-flips": bit_flips,
    "model": model,
    "fuzz": fuzz,
}
