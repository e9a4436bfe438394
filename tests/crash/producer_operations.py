"""Producers with an id, and their transactions, cut short: operations for `operations.py`, and what must hold afterwards.

    python producer_operations.py kill OPERATION CALLS ACTION FOLDER

Ledger lines of its own: ``sending NAME SEQUENCE COUNT``, ``sent NAME SEQUENCE COUNT OFFSET``, ``ending NAME``,
``ended NAME committed|aborted OFFSET``; a name is ``PRODUCER/EPOCH``.
"""

from __future__ import annotations

import time

import operations
from operations import SETTINGS

import logstore
from logstore._native.record_batch_builder import RecordBatchBuilder

PADDING = bytes(150)
NOW_MS = time.time_ns() // 1_000_000


def produced(name: str, sequence: int, count: int, transactional: bool):
    producer_id, epoch = map(int, name.split("/"))
    builder = RecordBatchBuilder()
    for i in range(count):
        builder.append(f"{name}/{sequence + i}".encode() + PADDING, timestamp=NOW_MS)
    return builder.build(
        producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence, transactional=transactional
    )


class Producers:
    """Sends and says so."""

    def __init__(self, book, log):
        self.book, self.log = book, log
        self.sequences: dict[str, int] = {}

    def send(self, name: str, count: int, transactional: bool = True) -> None:
        sequence = self.sequences.get(name, 0)
        self.book.say(f"sending {name} {sequence} {count}")
        offset, _ = self.log.append_built(produced(name, sequence, count, transactional), durability="flushed")
        self.book.say(f"sent {name} {sequence} {count} {offset}")
        self.sequences[name] = sequence + count

    def end(self, name: str, commit: bool) -> None:
        producer_id, epoch = map(int, name.split("/"))
        self.book.say(f"ending {name}")
        offset = self.log.append_marker(producer_id, epoch, commit, durability="flushed")
        self.book.say(f"ended {name} {'committed' if commit else 'aborted'} {offset}")


def start_with_a_topic(book, folder: str) -> None:
    with logstore.open(folder) as broker:
        broker.create_topic("t", **SETTINGS)


def transactions(book, broker) -> None:
    """Over several segments: aborted, committed, open at the end; a roll and a snapshot within each."""
    log = broker.topic("t").partition(0)
    producers = Producers(book, log)
    producers.send("3/0", 1)
    for turn in range(4):
        producers.send("1/0", 3)
        producers.send("2/0", 2, transactional=False)
        producers.send("1/0", 2)
        log.roll()
        producers.send("1/0", 1)
        producers.end("1/0", turn % 2 == 1)
    producers.end("3/0", False)
    producers.send("1/0", 2)


def deletion(book, broker) -> None:
    """The records go, what is known of their producers stays."""
    log = broker.topic("t").partition(0)
    producers = Producers(book, log)
    for _ in range(3):
        producers.send("1/0", 3)
        producers.send("2/0", 2, transactional=False)
        producers.end("1/0", False)
        log.roll()
    offset = log.log_end_offset
    book.say(f"advancing t {offset}")
    log.advance_log_start_offset(offset)
    producers.send("2/0", 2, transactional=False)


operations.OPERATIONS["transactions"] = (start_with_a_topic, transactions)
operations.OPERATIONS["deletion"] = (start_with_a_topic, deletion)

if __name__ == "__main__":
    operations.main()
