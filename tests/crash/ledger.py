"""What a writer promised, line by line, and whether a directory keeps it.

A writer says a line before each step and one after it was acknowledged, so that a cut anywhere leaves a ledger that tells
what must be there, what may be, and what must not.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import logstore
from logstore.broker_api import JoinGroupRequest, SyncGroupRequest

NEWCOMER = b"new/0/"
COMMITTED = logstore.TopicPartition("t", 0)


def value_of(writer: str, number: int) -> bytes:
    """Bytes that nothing else looks like, of a length that varies."""
    return f"{writer}/{number}/".encode() + bytes([65 + number % 26]) * (number * 37 % 300)


def key_of(identity: str) -> bytes | None:
    """Records of the writer ``k`` have one of five keys, those of others none."""
    writer, number = identity.split("/")
    return b"key %d" % (int(number) % 5) if writer == "k" else None


def identity_of(value: bytes) -> str:
    """``writer/number``; asserts that the value is whole."""
    writer, number, _ = value.split(b"/", 2)
    assert value == value_of(writer.decode(), int(number)), f"a record that was never appended: {value!r}"
    return f"{writer.decode()}/{int(number)}"


class Ledger:
    """What the lines promise.

    Attributes
    ----------
    tried : set of (topic, identity)
    acknowledged : dict of topic to {offset: identity}
    removed : set of (topic, identity)
        Truncated away: must not come back.
    cut : dict of topic to offset
        A truncation that was not acknowledged: records from there on may be gone.
    start_between : dict of topic to (lowest, highest)
        Where the log may start.
    topics : dict of name to partitions
    open_topics : dict of name to partitions
        Being made, changed or deleted: may be there or not.
    committed : dict of group to list of offset or None
        What its committed offset may be: the last acknowledged one, and those tried since; None for none.
    generations : dict of group to lowest generation
    compacting : set of topic
        Records that a later one of their key supersedes may be gone.
    compacted : dict of topic to offset
        Up to here, they are gone.
    erasing : dict of topic to key
        Its records may be gone.
    erased : dict of topic to (key, offset)
        Up to here, they are gone.
    """

    def __init__(self, lines: Iterable[str]):
        self.tried: set[tuple[str, str]] = set()
        self.acknowledged: dict[str, dict[int, str]] = {}
        self.removed: set[tuple[str, str]] = set()
        self.cut: dict[str, int] = {}
        self.start_between: dict[str, tuple[int, int]] = {}
        self.topics: dict[str, int] = {}
        self.open_topics: dict[str, int] = {}
        self.compacting: set[str] = set()
        self.compacted: dict[str, int] = {}
        self.erasing: dict[str, bytes] = {}
        self.erased: dict[str, tuple[bytes, int]] = {}
        self.committed: dict[str, list[int | None]] = {}
        self.generations: dict[str, int] = {}
        for line in lines:
            getattr(self, "_" + line.split()[0])(*line.split()[1:])

    def _nothing(self) -> None:
        pass

    def _trying(self, topic: str, identity: str) -> None:
        self.tried.add((topic, identity))

    def _appended(self, topic: str, offset: str, identity: str) -> None:
        self.acknowledged.setdefault(topic, {})[int(offset)] = identity

    def _truncating(self, topic: str, offset: str) -> None:
        self.cut[topic] = int(offset)

    def _truncated(self, topic: str, offset: str) -> None:
        del self.cut[topic]
        acknowledged = self.acknowledged.setdefault(topic, {})
        for gone in [known for known in acknowledged if known >= int(offset)]:
            self.removed.add((topic, acknowledged.pop(gone)))

    def _advancing(self, topic: str, offset: str) -> None:
        self.start_between[topic] = (self.start_between.get(topic, (0, 0))[0], int(offset))

    def _advanced(self, topic: str, offset: str) -> None:
        self.start_between[topic] = (int(offset), int(offset))

    def _compacting(self, topic: str) -> None:
        self.compacting.add(topic)

    def _compacted(self, topic: str, offset: str) -> None:
        self.compacted[topic] = int(offset)

    def _erasing(self, topic: str, key: str) -> None:
        self.erasing[topic] = bytes.fromhex(key)

    def _erased(self, topic: str, offset: str) -> None:
        self.erased[topic] = self.erasing[topic], int(offset)

    def _creating(self, topic: str, partitions: str) -> None:
        self.open_topics[topic] = int(partitions)

    def _created(self, topic: str, partitions: str) -> None:
        self.topics[topic] = int(partitions)
        del self.open_topics[topic]

    def _deleting(self, topic: str) -> None:
        self.open_topics[topic] = self.topics.pop(topic)

    def _committing(self, group: str, offset: str) -> None:
        self.committed.setdefault(group, [None]).append(int(offset))

    def _committed(self, group: str, offset: str) -> None:
        self.committed[group] = [int(offset)]

    def _forgetting(self, group: str) -> None:
        self.committed[group].append(None)

    def _forgot(self, group: str) -> None:
        self.committed[group] = [None]

    def _synced(self, group: str, generation: str) -> None:
        self.generations[group] = int(generation)

    def _deleted(self, topic: str) -> None:
        del self.open_topics[topic]
        self.removed.update((topic, identity) for identity in self.acknowledged.pop(topic, {}).values())


class Book:
    """The writer's side: appends and notes; ``say`` takes a line."""

    def __init__(self, say):
        self.say = say
        self.survives = "flushed"  # the level that is promised
        self._numbers: dict[str, int] = {}

    def next_value(self, writer: str) -> tuple[str, bytes]:
        number = self._numbers[writer] = self._numbers.get(writer, -1) + 1
        return f"{writer}/{number}", value_of(writer, number)

    def append(
        self, log, writer: str = "w", durability: str = "flushed", survives: str = ""
    ) -> tuple[int, str]:
        """``survives``: the level that is promised; ``appended`` where only the process is killed."""
        identity, value = self.next_value(writer)
        self.say(f"trying {log.topic} {identity}")
        offset = log.append(value, key_of(identity), durability=durability)
        if durability in ("flushed", survives or self.survives):
            self.say(f"appended {log.topic} {offset} {identity}")
        return offset, identity

    def append_many(self, log, count: int, writer: str = "w") -> range:
        pairs = [self.next_value(writer) for _ in range(count)]
        for identity, _ in pairs:
            self.say(f"trying {log.topic} {identity}")
        offsets = log.append_many([value for _, value in pairs], [key_of(identity) for identity, _ in pairs])
        for offset, (identity, _) in zip(offsets, pairs, strict=True):
            self.say(f"appended {log.topic} {offset} {identity}")
        return offsets

    def truncate(self, log, offset: int) -> None:
        self.say(f"truncating {log.topic} {offset}")
        log.truncate_to(offset)
        self.say(f"truncated {log.topic} {offset}")

    def compact(self, log) -> None:
        self.say(f"compacting {log.topic}")
        report = log.compact()
        self.say(f"compacted {log.topic} {report.first_dirty_offset}")

    def erase(self, log, key: bytes) -> None:
        self.say(f"erasing {log.topic} {key.hex()}")
        report = log.erase_key(key)
        self.say(f"erased {log.topic} {report.up_to_offset}")

    def advance(self, log, offset: int) -> None:
        self.say(f"advancing {log.topic} {offset}")
        log.advance_log_start_offset(offset)
        self.say(f"advanced {log.topic} {offset}")


    def commit(self, broker, group: str, offset: int) -> None:
        self.say(f"committing {group} {offset}")
        broker.coordinator.commit_offsets(group, {COMMITTED: logstore.OffsetAndMetadata(offset, "x" * offset)})
        self.say(f"committed {group} {offset}")

    def delete_group(self, broker, group: str) -> None:
        self.say(f"forgetting {group}")
        broker.delete_group(group)
        self.say(f"forgot {group}")

    def join(self, broker, group: str) -> None:
        answers: list = []
        broker.coordinator.join_group(
            JoinGroupRequest(group, "", None, "client", "", 10_000, 10_000, "consumer", (("range", b""),)), answers.append
        )
        joined = answers[0]
        if joined.error is None:
            broker.coordinator.sync_group(
                SyncGroupRequest(group, joined.generation, joined.member_id, None, {joined.member_id: b"all"}),
                answers.append,
            )
        if answers[-1].error is not None:
            raise answers[-1].error
        self.say(f"synced {group} {joined.generation}")


def read_ledger(path: str | os.PathLike[str]) -> Ledger:
    """From a file; a last line that is cut off was not said."""
    with open(path) as file:
        return Ledger(line for line in file if line.endswith("\n"))


def records_of(log) -> list[tuple[int, bytes]]:
    return [(record.offset, record.value) for record in log.read()]


def check_promises(directory: str | os.PathLike[str], ledger: Ledger) -> list[logstore.RecoveryReport]:
    """Opens twice, reads all, appends; fails where a promise is broken. Returns what the first open reported."""
    kept: dict[str, list[tuple[int, bytes]]] = {}
    with logstore.open(directory) as broker:
        assert not broker.damages, broker.damages
        reports = list(broker.recovery_reports.values())
        _check_reports(reports)
        _check_topics(broker, ledger)
        _check_groups(broker, ledger)
        for log in _logs_of(broker):
            records = records_of(log)
            _check_log(log, records, ledger)
            end_offset = log.log_end_offset
            left_over = [name for name in os.listdir(log.path) if name.endswith((".cleaned", ".swap", ".deleted"))]
            assert not left_over, f"left over: {left_over}"
            assert log.append(NEWCOMER, b"new") == end_offset, "the next offset is the log end offset"
            kept[log.path] = [*records, (end_offset, NEWCOMER)]
            assert records_of(log) == kept[log.path]
    with logstore.open(directory) as broker:
        assert not broker.damages, broker.damages
        assert not any(report.cut_bytes for report in broker.recovery_reports.values()), "a second open cuts nothing"
        _check_groups(broker, ledger)
        for log in _logs_of(broker):
            assert records_of(log) == kept[log.path], "a second open shows the same"
            _check_no_leftovers(log)
    return reports


def _check_groups(broker, ledger: Ledger) -> None:
    for group, possible in ledger.committed.items():
        found = broker.coordinator.committed_offsets(group).get(COMMITTED)
        offset = None if found is None else found.offset
        assert offset in possible, f"group {group} had committed {possible}, now it is {offset}"
        assert found is None or found.metadata == "x" * found.offset
    for group, generation in ledger.generations.items():
        described = broker.coordinator.describe_group(group)
        assert described.generation >= generation
        assert [member.assignment for member in described.members] == [b"all"] or described.generation > generation


def _check_no_leftovers(log) -> None:
    names = sorted(name for name in os.listdir(log.path) if name[:20].isdigit() and not name.endswith(".torn"))
    bases = {int(name[:20]) for name in names if name.endswith(".log")}
    assert {int(name[:20]) for name in names} == bases, f"files of no segment: {names}"
    assert not [name for name in names if name.endswith((".deleted", ".cleaned", ".swap", ".truncate"))], names
    assert sum(base <= log.log_start_offset for base in bases) == 1, f"segments below {log.log_start_offset}: {names}"


def _logs_of(broker) -> Iterator:
    for name in broker.topics():
        yield from broker.topic(name).logs


def _check_topics(broker, ledger: Ledger) -> None:
    for name, partitions in ledger.topics.items():
        assert name in broker.topics(), f"topic {name} is gone"
        assert broker.topic(name).partitions >= partitions
    for name in broker.topics():
        assert name in ledger.topics or name in ledger.open_topics, f"topic {name} was not made, or deleted"
        assert broker.topic(name).partitions in (ledger.topics.get(name), ledger.open_topics.get(name))
        assert broker.topic(name).config["segment.bytes"] == 2048, f"topic {name} lost its settings"


def _check_reports(reports: list[logstore.RecoveryReport]) -> None:
    for report in reports:
        assert not report.path.endswith("logstore.open-batch"), f"no crash damages it: {report}"
        if report.cut_bytes:
            assert report.reason
            assert report.cut_offset >= 0
        if report.kept_as:
            assert os.path.getsize(report.kept_as) > 0


def _check_log(log, records: list[tuple[int, bytes]], ledger: Ledger) -> None:
    topic = log.topic
    offsets = [offset for offset, _ in records]
    expected = set(range(log.log_start_offset, log.log_end_offset))
    if topic in ledger.compacting or topic in ledger.erasing:
        expected &= set(offsets)
    assert offsets == sorted(expected), f"holes, or read twice: {offsets}, {log}"
    lowest, highest = ledger.start_between.get(topic, (0, 0))
    cut = ledger.cut.get(topic, 1 << 62)
    assert min(lowest, cut) <= log.log_start_offset <= highest, f"starts at {log.log_start_offset}"
    found = {offset: identity_of(value) for offset, value in records}
    written = [identity for identity in found.values() if identity != "new/0"]
    promised = ledger.acknowledged.get(topic, {}) if log.partition == 0 else {}
    for offset, identity in promised.items():
        if offset < log.log_start_offset <= highest:
            continue
        if offset >= cut and found.get(offset, "new/0") == "new/0":
            continue
        if offset not in found and _may_be_gone(topic, offset, ledger, found):
            continue
        assert found.get(offset) == identity, f"offset {offset} was {identity}, now it is {found.get(offset)}"
    _check_gone(topic, found, ledger)
    if log.log_end_offset < cut and promised:
        assert log.log_end_offset > min(max(promised), cut - 1)
    assert len(written) == len(set(written)), "a record is there twice"
    for identity in written:
        assert (topic, identity) in ledger.tried, f"{identity} was never appended to {topic}"
        assert (topic, identity) not in ledger.removed, f"{identity} was truncated away"
    by_writer: dict[str, list[int]] = {}
    for identity in written:
        writer, number = identity.split("/")
        by_writer.setdefault(writer, []).append(int(number))
    for writer, numbers in by_writer.items():
        assert numbers == sorted(numbers), f"records of {writer} out of order"


def _may_be_gone(topic: str, offset: int, ledger: Ledger, found: dict[int, str]) -> bool:
    """Whether a compaction or an erasure that has begun could have removed an acknowledged record."""
    promised = ledger.acknowledged[topic]
    key = key_of(promised[offset])
    if key is not None and key == ledger.erasing.get(topic):
        return True
    later = [identity for other, identity in [*promised.items(), *found.items()] if other > offset]
    return topic in ledger.compacting and key is not None and key in map(key_of, later)


def _check_gone(topic: str, found: dict[int, str], ledger: Ledger) -> None:
    """What a compaction or an erasure was acknowledged to have removed is not back."""
    end = ledger.compacted.get(topic, 0)
    keys = [key_of(identity) for offset, identity in found.items() if offset < end]
    assert len(keys) == len(set(keys)), f"superseded records are back: {found}"
    key, end = ledger.erased.get(topic, (b"", 0))
    assert key not in [key_of(identity) for offset, identity in found.items() if offset < end], "erased records are back"
