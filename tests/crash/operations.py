"""What is cut short: each operation on a small log, and the process that runs it under the shim.

    python operations.py kill OPERATION CALLS ACTION FOLDER     dies at the first call, the second, ...
    python operations.py fail OPERATION CALLS ERRNO FOLDER      the first call fails, the second, ...
    python operations.py fail_for_ever OPERATION CALLS ERRNO FOLDER     that call and all later ones, for a while
    python operations.py record_recovery START FOLDER           writes down the calls of opening START, and closing
    python operations.py record OPERATION FOLDER                runs once and writes all calls down

Each run has a folder of its own with ``data``, ``ledger`` and, for errors, ``outcome``.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from ledger import Book, records_of
from shim import EXIT_KILLED, Shim

import logstore
from logstore.storage.retention import RetentionPolicy, retention_plan
from logstore.storage.segment_deletion import log_facts

SETTINGS = {"segment_bytes": 2048, "index_interval_bytes": 256}


# ---- operations -----------------------------------------------------------------------------------
# A start, made once and without faults, leaves a closed broker or a copy of a running one; then the operation.


def _some_records(book: Book, folder: str, count: int) -> None:
    with logstore.open(folder) as broker:
        topic = broker.create_topic("t", **SETTINGS)
        book.say("creating t 1")
        book.say("created t 1")
        for _ in range(count):
            book.append(topic.partition(0))


def start_with_nothing(book: Book, folder: str) -> None:
    return


def start_with_records(book: Book, folder: str) -> None:
    _some_records(book, folder, 20)


def start_with_topics(book: Book, folder: str) -> None:
    with logstore.open(folder) as broker:
        make_topics(book, broker)


def start_torn(book: Book, folder: str) -> None:
    """As a crash leaves it: several segments, the checkpoint behind, the last batch half written."""
    running = folder + ".running"
    with logstore.open(running) as broker:
        log = broker.create_topic("t", **SETTINGS).partition(0)
        book.say("creating t 1")
        book.say("created t 1")
        for _ in range(24):
            book.append(log)
        shutil.copytree(running, folder)
        torn, position = log.segments[-1].path, log.segments[-1].size_bytes
    shutil.rmtree(running)
    with open(os.path.join(folder, os.path.relpath(torn, running)), "r+b") as file:
        batch = file.read()
        file.seek(position)
        file.write(batch[:70])


def start_half_truncated(book: Book, folder: str) -> None:
    """As a crash in a truncation leaves it: what is left of a batch stands beside the log."""
    running = folder + ".running"
    with logstore.open(running) as broker:
        log = broker.create_topic("t", **SETTINGS).partition(0)
        book.say("creating t 1")
        book.say("created t 1")
        for _ in range(3):
            offsets = book.append_many(log, 8)
        book.say(f"truncating t {offsets.start + 3}")
        from logstore.storage import truncation

        def copy_instead(directory: str, name: str) -> None:
            shutil.copytree(running, folder)
            raise KeyboardInterrupt

        finish, truncation.finish_truncation = truncation.finish_truncation, copy_instead
        try:
            log.truncate_to(offsets.start + 3)
        except KeyboardInterrupt:
            pass
        finally:
            truncation.finish_truncation = finish
    shutil.rmtree(running)


def append(book: Book, broker) -> None:
    log = broker.topic("t").partition(0)
    for _ in range(3):
        book.append(log)
    unflushed = [book.append(log, durability="appended") for _ in range(2)]
    unflushed += [book.append(log, durability="buffered") for _ in range(2)]
    log.flush()
    for offset, identity in unflushed:
        book.say(f"appended t {offset} {identity}")
    book.append_many(log, 4)


def append_runs(book: Book, broker) -> None:
    """Calls that bring more than a batch holds: several batches in one write, up to the end of a segment and behind it, and
    then writes that are large enough for the file to be given blocks ahead."""
    log = broker.topic("t").partition(0)
    log.reconfigure(log.config.with_changes(logstore_batch_bytes=400))
    book.append_many(log, 25)
    log.reconfigure(log.config.with_changes(segment_bytes=1 << 20, logstore_batch_bytes=8 << 10))
    log.roll()
    log._fill_ahead()
    book.append_many(log, 230)
    book.append(log)


# In shorter segments nothing is staged.
STAGED_SETTINGS = {"segment_bytes": 16 * 512, "logstore_batch_bytes": 512}


def burst(book: Book, broker, *, is_mapped: bool = True) -> None:
    """Records acknowledged as `appended`, fast enough to be staged, with rolls, a flush and a truncation between."""
    log = broker.topic("t").partition(0)
    log._clock = lambda: 1_700_000_000_000
    log.reconfigure(log.config.with_changes(**STAGED_SETTINGS, logstore_open_batch_mapped=is_mapped))
    for _ in range(3):
        pairs = [book.append(log, durability="appended") for _ in range(30)]
        log.flush()
        for offset, identity in pairs:
            book.say(f"appended t {offset} {identity}")
    for _ in range(20):
        book.append(log, durability="appended")
    book.truncate(log, log.log_end_offset - 3)
    for _ in range(20):
        book.append(log, durability="appended")


def burst_of_writes(book: Book, broker) -> None:
    """Each record of it written."""
    burst(book, broker, is_mapped=False)


def fill_ahead(book: Book, broker) -> None:
    """Flushed so often that the file is filled with zeros ahead of its end; rolled, cut when idle, and filled again."""
    log = broker.topic("t").partition(0)
    for _ in range(12):
        book.append(log)
    unflushed = [book.append(log, durability="appended") for _ in range(3)]
    log.roll()
    unflushed += [book.append(log, durability="appended") for _ in range(2)]
    log.flush()
    for offset, identity in unflushed:
        book.say(f"appended t {offset} {identity}")
    book.append(log)
    log._locked(log._cut_ahead)
    for _ in range(12):
        book.append(log)


def start_filled_ahead(book: Book, folder: str) -> None:
    """As a killed process leaves it: zeros behind the end."""
    running = folder + ".running"
    with logstore.open(running) as broker:
        log = broker.create_topic("t", **SETTINGS).partition(0)
        book.say("creating t 1")
        book.say("created t 1")
        for _ in range(20):
            book.append(log)
        assert log.segments[-1].filled_bytes
        shutil.copytree(running, folder)
    shutil.rmtree(running)


def roll(book: Book, broker) -> None:
    log = broker.topic("t").partition(0)
    log.roll()
    book.append(log)
    book.append_many(log, 25)
    book.append(log)


def truncate(book: Book, broker) -> None:
    log = broker.topic("t").partition(0)
    book.truncate(log, log.log_end_offset - 1)
    book.append(log)
    inside = book.append_many(log, 6)
    book.truncate(log, inside.start + 2)
    book.append(log)
    book.truncate(log, 7)
    book.append(log)
    book.truncate(log, 0)
    book.append(log)


def truncate_first_batch_of_a_segment(book: Book, broker) -> None:
    log = broker.topic("t").partition(0)
    log.roll()
    inside = book.append_many(log, 6)
    book.append(log)
    book.truncate(log, inside.start + 2)
    book.append(log)
    log.roll()
    inside = book.append_many(log, 3)
    book.truncate(log, inside.start)
    book.append(log)


def advance(book: Book, broker) -> None:
    log = broker.topic("t").partition(0)
    book.advance(log, 3)
    book.advance(log, 12)
    book.append(log)
    book.advance(log, log.log_end_offset)
    book.append(log)
    log.roll()
    book.advance(log, log.log_end_offset)


def retain(book: Book, broker) -> None:
    """Retention by size, by number and by time, the last with nothing left; then what it renamed is unlinked."""
    for settings in ({"retention_bytes": 2500}, {"logstore_retention_records": 3}, {"retention_ms": 0}):
        broker.alter_topic("t", **settings)
        log = broker.topic("t").partition(0)
        book.append(log)
        now_ms = log._now_ms() + 10
        plan = retention_plan(log_facts(log), RetentionPolicy.of(log.config), now_ms)
        assert plan.going_count or settings == {"logstore_retention_records": 3}
        book.say(f"advancing t {plan.log_start_offset}")
        assert log.apply_retention(plan, now_ms=now_ms) == plan
        book.say(f"advanced t {plan.log_start_offset}")
        book.append(log)
        log._deleted_files.unlink()


def make_topics(book: Book, broker) -> None:
    book.say("creating a 1")
    made = broker.create_topic("a", **SETTINGS)
    book.say("created a 1")
    book.append(made.partition(0), "x")
    book.say("creating b 2")
    made = broker.create_topic("b", partitions=2, **SETTINGS)
    book.say("created b 2")
    book.append(made.partition(0), "y")
    book.say("creating a 2")
    broker.alter_topic("a", partitions=2)
    book.say("created a 2")


def delete_topics(book: Book, broker) -> None:
    book.say("deleting b")
    broker.delete_topic("b")
    book.say("deleted b")
    book.say("creating b 1")
    broker.create_topic("b", **SETTINGS)
    book.say("created b 1")


def commit_offsets(book: Book, broker) -> None:
    """The first commit makes the topic for them; then a roll, a generation of a group, and a tombstone."""
    book.commit(broker, "g", 3)
    book.commit(broker, "g", 4)
    broker.topic("__consumer_offsets").partition(0).roll()
    book.commit(broker, "h", 7)
    book.commit(broker, "g", 5)
    book.join(broker, "m")
    book.commit(broker, "h", 2)
    book.delete_group(broker, "h")
    book.commit(broker, "g", 6)


def recover(book: Book, broker) -> None:
    book.append(broker.topic("t").partition(0))


def recover_truncation(book: Book, broker) -> None:
    log = broker.topic("t").partition(0)
    book.say(f"truncated t {log.log_end_offset}")
    book.append(log)


def start_with_keys(book: Book, folder: str) -> None:
    with logstore.open(folder) as broker:
        log = broker.create_topic("t", cleanup_policy="compact", **SETTINGS).partition(0)
        book.say("creating t 1")
        book.say("created t 1")
        for _ in range(6):
            book.append(log, "k")
        book.append_many(log, 14, "k")


def start_half_swapped(book: Book, folder: str) -> None:
    """As a crash in a compaction leaves it: what was rewritten stands beside the log, and takes its place from here on."""
    running = folder + ".running"
    start_with_keys(book, running)
    from logstore.storage import segment_swap

    def copy_instead(*arguments: object) -> list[str]:
        if not os.path.exists(folder):
            shutil.copytree(running, folder)
        return finish(*arguments)

    finish, segment_swap._finish = segment_swap._finish, copy_instead
    try:
        with logstore.open(running) as broker:
            log = broker.topic("t").partition(0)
            log.roll()
            book.say("compacting t")
            log.compact()
    finally:
        segment_swap._finish = finish
    shutil.rmtree(running)


def recover_swap(book: Book, broker) -> None:
    book.append(broker.topic("t").partition(0), "k")


def compact(book: Book, broker) -> None:
    log = broker.topic("t").partition(0)
    log.roll()
    book.compact(log)
    book.append(log, "k")
    log.roll()
    book.compact(log)
    book.append(log, "k")


def erase(book: Book, broker) -> None:
    log = broker.topic("t").partition(0)
    book.erase(log, b"key 3")
    book.append(log, "k")


OPERATIONS: dict[str, tuple[Callable, Callable]] = {
    "append": (start_with_records, append),
    "append_runs": (start_with_records, append_runs),
    "burst": (start_with_records, burst),
    "burst_of_writes": (start_with_records, burst_of_writes),
    "fill_ahead": (start_with_records, fill_ahead),
    "roll": (start_with_records, roll),
    "truncate": (start_with_records, truncate),
    "truncate_first_batch_of_a_segment": (start_with_records, truncate_first_batch_of_a_segment),
    "advance": (start_with_records, advance),
    "retain": (start_with_records, retain),
    "compact": (start_with_keys, compact),
    "erase": (start_with_keys, erase),
    "make_topics": (start_with_nothing, make_topics),
    "delete_topics": (start_with_topics, delete_topics),
    "commit_offsets": (start_with_records, commit_offsets),
    "recover": (start_torn, recover),
    "recover_filled_ahead": (start_filled_ahead, append),
    "recover_swap": (start_half_swapped, recover_swap),
    "recover_truncation": (start_half_truncated, recover_truncation),
}


# ---- the process under the shim -------------------------------------------------------------------


def prepare(operation: str, folder: Path) -> tuple[Path, list[str], Book]:
    """The start of an operation, its ledger so far, and the writer's book to go on with."""
    start = folder / "start"
    lines: list[str] = []
    book = Book(lines.append)
    OPERATIONS[operation][0](book, str(start))
    start.mkdir(exist_ok=True)
    return start, lines, book


def say_to(path: Path, lines: list[str]) -> Callable[[str], None]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def say(line: str) -> None:
        os.write(descriptor, (line + "\n").encode())

    for line in lines:
        say(line)
    return say


def run_each(operation: str, folder: Path, run: Callable[[int, Path, Book], int], stride: int) -> None:
    """Runs in a forked child for n = 1, 1 + stride, ... until the operation has fewer calls than that."""
    start, lines, book = prepare(operation, folder)
    n = 1 - stride
    while True:
        n += stride
        place = folder / f"{n:04d}"
        place.mkdir()
        shutil.copytree(start, place / "data")
        child = os.fork()
        if child == 0:
            status = 99
            try:
                book.say = say_to(place / "ledger", lines)
                status = run(n, place, book)
            except BaseException as error:
                import traceback

                (place / "error").write_text("".join(traceback.format_exception(error)))
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status not in (0, EXIT_KILLED):
            sys.exit(f"{operation}: run {n} ended with {status}: {(place / 'error').read_text()}")
        if status == 0 and not (place / "outcome").exists():
            return


def kill(operation: str, calls: str, action: int, folder: Path) -> None:
    shim = Shim()

    def run(n: int, place: Path, book: Book) -> int:
        book.survives = "appended"
        shim.arm(str(place / "data"), calls, n, action)
        with logstore.open(place / "data") as broker:
            OPERATIONS[operation][1](book, broker)
        return 0

    run_each(operation, folder, run, int(os.environ.get("LOGSTORE_CRASH_STRIDE", "1")))


def fail(operation: str, calls: str, action: int, folder: Path, *, sticky: bool = False) -> None:
    """Lets one call fail, or all from there on; then looks at the broker that goes on, and closes it."""
    shim = Shim()

    def run(n: int, place: Path, book: Book) -> int:
        outcome: dict[str, object] = {"n": n, "phase": "open"}
        shim.arm(str(place / "data"), calls, n, action, sticky=sticky)
        broker = None
        try:
            broker = logstore.open(place / "data")
            outcome["phase"] = "operation"
            OPERATIONS[operation][1](book, broker)
            outcome["phase"] = "close"
            broker.close()
        except logstore.LogstoreError as error:
            outcome["error"] = type(error).__name__
            outcome["errno"] = getattr(error, "errno", None)
            outcome["operation"] = getattr(error, "operation", "")
            outcome["message"] = str(error)
        hit = shim.disarm() >= n
        if broker is not None and outcome["phase"] == "operation" and "t" in broker:
            log = broker.topic("t").partition(0)
            is_whole = len(records_of(log)) == log.log_end_offset - log.log_start_offset
            # What leaves gaps is judged by the ledger.
            outcome["readable"] = is_whole or operation in ("compact", "erase", "recover_swap")
            outcome["writable"] = log.is_writable
            try:
                book.append(log, "k" if log.config.is_compacted else "w")
                outcome["appends_again"] = True
            except logstore.StorageFailureError as error:
                outcome["appends_again"] = False
                outcome["refusal"] = str(error)
        if broker is not None:
            try:
                broker.close()
            except logstore.StorageFailureError as error:
                outcome["close_error"] = str(error)
        if hit:
            (place / "outcome").write_text(json.dumps(outcome))
        return 0

    # Reads count as well here, and there are many of them.
    default = "1" if calls == "s" else "16" if sticky else "4"
    run_each(operation, folder, run, int(os.environ.get("LOGSTORE_CRASH_STRIDE", default)))


def fail_for_ever(operation: str, calls: str, action: int, folder: Path) -> None:
    fail(operation, calls, action, folder, sticky=True)


def record(operation: str, folder: Path) -> None:
    shim = Shim()
    start, lines, book = prepare(operation, folder)
    shutil.copytree(start, folder / "data")
    (folder / "ledger").write_text("".join(line + "\n" for line in lines))
    shim.record(str(folder / "data"), str(folder / "calls"))
    book.say = shim.note
    with logstore.open(folder / "data") as broker:
        OPERATIONS[operation][1](book, broker)


def record_recovery(start: Path, folder: Path) -> None:
    shim = Shim()
    shutil.copytree(start, folder / "data")
    shim.record(str(folder / "data"), str(folder / "calls"))
    with logstore.open(folder / "data"):
        pass


def main() -> None:
    what, operation, *rest, folder = sys.argv[1:]
    if what == "record":
        record(operation, Path(folder))
    elif what == "record_recovery":
        record_recovery(Path(operation), Path(folder))
    else:
        calls, action = rest
        number = int(action) if action.lstrip("-").isdigit() else getattr(errno, action)
        {"kill": kill, "fail": fail, "fail_for_ever": fail_for_ever}[what](operation, calls, number, Path(folder))


if __name__ == "__main__":
    main()
