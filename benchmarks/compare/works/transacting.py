"""Numbered batches, transactions and readers of what is committed, each beside the same without."""

from __future__ import annotations

from benchmarks.compare import transactions
from benchmarks.compare.measure import Contestant, Work
from benchmarks.compare.targets import Target, times

__all__ = ["works"]

NUMBERED = "producer.send, idempotent"
PLAIN = "producer.send, enable_idempotence=False"
COMMITTED = "1,000 records a transaction"
STREAMED = "producer.send, no waiting"
IN_PARTS = "producer.send, 1,000 acknowledged at a time"
READ_COMMITTED = "topic.read, read_committed"
READ_ALL = "topic.read, read_uncommitted, same files"
READ_PLAIN = "topic.read of records outside of transactions"


def works() -> list[Work]:
    """What is asked of them is a share of the plain rate, at the same durability."""
    return [
        Work(
            "idempotence",
            "Send one record a call, each batch numbered, all appended at the end",
            "records",
            (
                Contestant(NUMBERED, "logstore", transactions.send("appended")),
                Contestant(PLAIN, "logstore", transactions.send("appended", enable_idempotence=False)),
            ),
            targets=(Target(NUMBERED, times(0.97, PLAIN)),),
        ),
        Work(
            "transactions-appended",
            "Send one record a call, 1,000 of them committed at a time, appended",
            "records",
            (
                Contestant(COMMITTED, "logstore", transactions.commit("appended")),
                Contestant(STREAMED, "logstore", transactions.send("appended")),
                Contestant(IN_PARTS, "logstore", transactions.send("appended", in_parts=True)),
            ),
            targets=(Target(COMMITTED, times(0.7, STREAMED)),),
        ),
        Work(
            "transactions-flushed",
            "Send one record a call, 1,000 of them committed at a time, on disk before the next",
            "records",
            (
                Contestant(COMMITTED, "logstore", transactions.commit("flushed")),
                Contestant(IN_PARTS, "logstore", transactions.send("flushed", in_parts=True)),
                Contestant(STREAMED, "logstore", transactions.send("flushed")),
            ),
            records=lambda count: max(1, count // 4),
            targets=(Target(COMMITTED, times(0.7, IN_PARTS)),),
        ),
        Work(
            "read-committed",
            "Iterate over records of committed transactions, taking each key and value",
            "records",
            (
                Contestant(READ_COMMITTED, "logstore", transactions.iterate("read_committed", committed=True)),
                Contestant(READ_ALL, "logstore", transactions.iterate("read_uncommitted", committed=True)),
                Contestant(READ_PLAIN, "logstore", transactions.iterate("read_uncommitted", committed=False)),
            ),
            targets=(Target(READ_COMMITTED, times(0.9, READ_PLAIN)),),
        ),
    ]
