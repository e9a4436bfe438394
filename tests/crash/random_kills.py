"""A writer that is killed with SIGKILL at a random moment, again and again on one directory; each time the directory is
held against all that was ever acknowledged.

    python random_kills.py ROUNDS SECONDS SEED FOLDER     a line for each round; stops after that many seconds (0: never)
"""

from __future__ import annotations

import os
import random
import select
import signal
import sys
import time
from pathlib import Path

from ledger import Book, Ledger, check_promises, identity_of, read_ledger, records_of
from operations import SETTINGS, STAGED_SETTINGS, say_to

import logstore

LIVES_MAX_SECONDS = 0.15


def write_without_end(directory: Path, book: Book, writer: str, seed: int) -> None:
    """Appends of both levels that survive a kill, in bursts and one by one, rolls, truncations, deletions."""
    chance = random.Random(seed)
    with logstore.open(directory) as broker:
        if "t" not in broker:
            book.say("creating t 1")
            broker.create_topic("t", **SETTINGS)
            book.say("created t 1")
        log = broker.topic("t").partition(0)
        if chance.random() < 0.7:  # half of it in a mapped file
            is_mapped = chance.random() < 0.7
            log.reconfigure(log.config.with_changes(**STAGED_SETTINGS, logstore_open_batch_mapped=is_mapped))
        book.say("ready")
        while True:
            step = chance.random()
            if step < 0.55:
                for _ in range(chance.randint(1, 60)):
                    book.append(log, writer, "appended", survives="appended")
            elif step < 0.75:
                book.append(log, writer)
            elif step < 0.93:
                book.append_many(log, chance.randint(1, 40), writer)
            elif step < 0.95:
                log.roll()
            elif step < 0.98:
                book.truncate(log, max(log.log_end_offset - chance.randint(0, 5), log.log_start_offset))
            else:
                book.advance(log, max(log.log_start_offset, log.log_end_offset - chance.randint(0, 100)))


def run_one(directory: Path, ledger_path: Path, number: int, chance: random.Random) -> int:
    """One life: its length, and what it says, are random. Gives the number of records acknowledged so far."""
    told, tell = os.pipe()
    seed, life_seconds = chance.getrandbits(32), chance.random() * LIVES_MAX_SECONDS
    child = os.fork()
    if child == 0:
        try:
            say = say_to(ledger_path, [])

            def say_and_tell(line: str) -> None:
                if line == "ready":
                    os.write(tell, b"r")
                else:
                    say(line)

            write_without_end(directory, Book(say_and_tell), f"w{number}", seed)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(tell)
    # Now and then before it is ready: in the middle of opening.
    if chance.random() < 0.8:
        select.select([told], [], [], 10)
    time.sleep(life_seconds)
    os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(told)
    assert status == -signal.SIGKILL, f"the writer ended by itself, with {status}"
    if not directory.exists():
        return 0
    ledger = read_ledger(ledger_path)
    try:
        check_promises(directory, ledger)
    except BaseException as error:
        error.add_note(f"round {number}, writer's seed {seed}, killed after {life_seconds:.4f} s")
        raise
    with open(ledger_path, "a") as file:
        settle(directory, ledger, lambda line: print(line, file=file))
    return sum(map(len, ledger.acknowledged.values()))


def settle(directory: Path, ledger: Ledger, say) -> None:
    """What was cut short has happened or not: from here on it counts as one or the other."""
    if "t" not in ledger.topics and "t" not in ledger.open_topics:
        return
    with logstore.open(directory, read_only=True) as broker:
        if "t" in ledger.open_topics:
            say("created t 1" if "t" in broker else "nothing")
        if "t" not in broker:
            return
        log = broker.topic("t").partition(0)
        say(f"advanced t {log.log_start_offset}")
        if "t" in ledger.cut:
            found = {offset: identity_of(value) for offset, value in records_of(log)}
            promised = ledger.acknowledged.get("t", {})
            gone = [at for at, identity in promised.items() if at >= ledger.cut["t"] and found.get(at) != identity]
            say(f"truncated t {min(gone, default=1 << 62)}")


def main() -> None:
    rounds, seconds, seed = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    folder = Path(sys.argv[4])
    chance = random.Random(seed)
    started = time.monotonic()
    directory, ledger_path = folder / "data", folder / "ledger"
    for number in range(rounds):
        if seconds and time.monotonic() - started > seconds:
            break
        if number % 25 == 0:  # a new one: the old log has become long
            directory, ledger_path = folder / f"data{number}", folder / f"ledger{number}"
        acknowledged = run_one(directory, ledger_path, number, chance)
        print(acknowledged, flush=True)


if __name__ == "__main__":
    main()
