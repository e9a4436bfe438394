"""A data directory that has one of every kind of file, and what can be read of it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

import logstore

SMALL = {"segment_bytes": 1024, "index_interval_bytes": 200}
GROUP = "g"
KEYS = 7


def make(folder: Path) -> None:
    """Aborted and committed transactions with offsets of a group; a compacted topic; a log start that has moved. Closed in
    good order."""
    with logstore.open(folder) as broker:
        topic = broker.create_topic("t", **SMALL)
        compacted = broker.create_topic("k", cleanup_policy="compact", **SMALL)
        with broker.producer(transactional_id="x") as producer:
            for turn in range(9):
                with contextlib.suppress(_Abort), producer.transaction() as transaction:
                    for number in range(3):
                        transaction.send("t", b"%d/%d" % (turn, number) + b"x" * 60)
                    transaction.send_offsets({("t", 0): 3 * turn}, GROUP)
                    if turn % 3 == 1:
                        raise _Abort
        for number in range(40):
            compacted.append(b"value %d" % number * 5, b"key %d" % (number % KEYS))
        compacted.partition(0).roll()
        assert compacted.partition(0).compact().outcome == "compacted"
        compacted.append(b"last", b"key 0")
        topic.partition(0).advance_log_start_offset(2)


class _Abort(Exception):
    pass


class Seen(NamedTuple):
    """What a reader of committed records finds.

    Attributes
    ----------
    records : dict of (topic, offset) to value
    committed : int or None
        The group's offset; None where nothing is known of it.
    complaints : list of LogstoreError
        What was raised, and the damages the broker names.
    """

    records: dict[tuple[str, int], bytes | None]
    committed: int | None
    complaints: list[logstore.LogstoreError]


def look(folder: Path, *, read_only: bool) -> Seen:
    records: dict[tuple[str, int], bytes | None] = {}
    complaints: list[logstore.LogstoreError] = []
    committed = None
    try:
        with logstore.open(folder, read_only=read_only) as broker:
            complaints += broker.damages.values()
            for name in ("t", "k"):
                if name in broker:
                    log = broker.topic(name).partition(0)
                    offset = log.log_start_offset
                    while offset < log.log_end_offset:
                        try:
                            for record in log.read(offset, isolation_level="read_committed"):
                                records[name, record.offset] = record.value
                            break
                        except logstore.LogstoreError as error:
                            complaints.append(error)
                            offset = max([offset, *(at + 1 for topic, at in records if topic == name)]) + 1
            try:
                found = broker.coordinator.committed_offsets(GROUP)
                committed = found["t", 0].offset if ("t", 0) in found else None
            except logstore.LogstoreError as error:
                complaints.append(error)
    except logstore.LogstoreError as error:
        complaints.append(error)
    return Seen(records, committed, complaints)


def what_is_wrong(sound: Seen, seen: Seen) -> str:
    """Why what was seen is a wrong answer that nobody was told of; empty where it is none."""
    for place, value in seen.records.items():
        if place not in sound.records:
            # Deleted, compacted away or aborted: never to be seen, whatever is reported beside it.
            return f"{place} is not to be seen: {value!r}"
        if value != sound.records[place]:
            return f"{place} is {value!r}, was {sound.records[place]!r}"
    if seen.complaints:
        return ""
    if missing := sound.records.keys() - seen.records.keys():
        return f"missing without a word: {sorted(missing)}"
    if seen.committed != sound.committed:
        return f"the group's offset was {sound.committed}, is {seen.committed}, without a word"
    return ""
