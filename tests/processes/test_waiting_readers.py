"""Readers that a writer in another process wakes by shared memory: nothing is missed, whoever dies, and whatever the file
holds."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_programs import program, says

import logstore
from logstore.storage.config import TopicConfig
from logstore.storage.directory_lock import DirectoryLock
from logstore.storage.log import Log
from logstore.storage.waiting import DirectoryWatch, open_waiting_readers, watch_directories

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: waking readers by shared memory; Linux has it")

TABLE = "logstore.waiting"
SLOTS = 32
# A flush may write the checkpoint, which is one more change.
NEVER = 2**63 - 1
# Nothing waits for so long but where something is wrong.
LONG = 20.0


def changes(watch: DirectoryWatch, seconds: float = LONG) -> dict[str, bool]:
    """What the watch tells first; a wait may return for nothing."""
    deadline = time.monotonic() + seconds
    while not (found := watch.wait(max(deadline - time.monotonic(), 0.0))):
        if time.monotonic() >= deadline:
            return {}
    return found


def settle(watch: DirectoryWatch) -> None:
    while changes(watch, 0.02):
        pass


def is_in_table(log: Log, watch: DirectoryWatch) -> bool:
    """Whether writes alone are no longer watched: the writer signals. One byte is written again as it is, and again where
    something else has come."""
    settle(watch)
    descriptor = os.open(log.segments[-1].path, os.O_RDWR)
    try:
        for _ in range(20):
            os.pwrite(descriptor, os.pread(descriptor, 1, 0), 0)
            if not changes(watch, 0.05):
                return True
            settle(watch)
        return False
    finally:
        os.close(descriptor)
        settle(watch)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Log]:
    with Log(tmp_path / "t-0", TopicConfig(flush_ms=NEVER), durability="appended") as log:
        log.append(b"0")
        if not (tmp_path / TABLE).exists():
            pytest.skip("NOT TESTED: waking readers by shared memory; this file system may need space to overwrite")
        yield log


@pytest.fixture
def reader(writer: Log) -> Iterator[Log]:
    with Log(writer.path, read_only=True) as log:
        yield log


@pytest.fixture
def watch(reader: Log) -> Iterator[DirectoryWatch]:
    watch = watch_of(reader)
    yield watch
    watch.close()


def watch_of(log: Log) -> DirectoryWatch:
    """One that has its place in the table, if there is one."""
    watch = watch_directories([log.path], os.path.dirname(log.path))
    settle(watch)
    return watch


def older_writer(monkeypatch: pytest.MonkeyPatch, directory: str) -> Log:
    """One that knows nothing of who waits."""
    with monkeypatch.context() as patch:
        patch.setattr(DirectoryLock, "waiting_readers", lambda lock: None)
        return Log(directory, durability="appended")


# ---- what is told ---------------------------------------------------------------------------------------


def test_writes_need_not_be_watched_where_the_writer_signals(writer: Log, reader: Log, watch: DirectoryWatch) -> None:
    writer.append(b"1")
    assert changes(watch) == {reader.path: False}
    assert reader.catch_up()
    for number in range(2, 30):
        writer.append(b"%d" % number)
        assert changes(watch) == {reader.path: False}
        assert reader.catch_up()
    assert reader.log_end_offset == 30
    assert is_in_table(writer, watch)


def test_more_than_appends_is_told_as_such(writer: Log, reader: Log, watch: DirectoryWatch) -> None:
    writer.append_many([b"1", b"2"])
    changes(watch)
    assert is_in_table(writer, watch)
    writer.advance_log_start_offset(1)  # in the checkpoint: none of the names changes
    while not changes(watch)[reader.path]:
        pass
    reader.refresh()
    assert reader.log_start_offset == 1


def test_logs_are_told_apart(tmp_path: Path, writer: Log) -> None:
    with logstore.open(tmp_path / "data", durability="appended") as broker:
        topic = broker.create_topic("orders", partitions=8, flush_ms=NEVER)
        paths = [topic.partition(number).path for number in range(8)]
        watch = watch_directories(paths, broker.path)
        settle(watch)
        for number in range(8):
            topic.append(b"x", partition=number)
            assert changes(watch).keys() == {paths[number]}
            settle(watch)
        watch.remove(paths[3])
        settle(watch)
        topic.append(b"x", partition=3)
        assert not changes(watch, 0.02)
        topic.append(b"x", partition=4)
        assert paths[4] in changes(watch)
        watch.close()


def test_more_readers_than_there_are_slots(writer: Log, reader: Log) -> None:
    watches = [watch_of(reader) for _ in range(SLOTS + 3)]
    for watch in watches:
        settle(watch)
    for number in range(3):
        writer.append(b"%d" % number)
        for watch in watches:
            assert reader.path in changes(watch)
    for watch in watches[:SLOTS]:
        watch.close()
    writer.append(b"again")
    for watch in watches[SLOTS:]:
        assert reader.path in changes(watch)
        watch.close()


# ---- writers that come and go ---------------------------------------------------------------------------


def test_a_writer_that_does_not_signal_is_noticed(
    writer: Log, reader: Log, watch: DirectoryWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.append(b"1")
    changes(watch)
    assert is_in_table(writer, watch)
    writer.close()
    with older_writer(monkeypatch, writer.path) as older:
        settle(watch)
        reader.refresh()
        for number in range(2, 5):
            older.append(b"%d" % number)
            assert reader.path in changes(watch)
            assert reader.refresh()
    settle(watch)
    with Log(writer.path, durability="appended") as newer:
        newer.append(b"5")
        assert reader.path in changes(watch)
        newer.append(b"6")
        assert reader.path in changes(watch)
        assert is_in_table(newer, watch)


WRITER = """
    import sys, logstore
    broker = logstore.open(sys.argv[1], durability="appended")
    topic = broker.create_topic("t", segment_bytes=16384, exist_ok=True)
    print("open", flush=True)
    for line in sys.stdin:
        topic.append(line.strip().encode())
        print("appended", flush=True)
"""


def test_a_killed_writer_is_followed_by_one_that_does_not_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with program(WRITER, tmp_path) as process:
        assert says(process) == "open"
        with Log(tmp_path / "t-0", read_only=True) as reader:
            watch = watch_of(reader)
            for number in range(3):
                print(number, file=process.stdin)
                assert reader.path in changes(watch)
                reader.catch_up()
                says(process)
            process.kill()
            process.wait()
            with older_writer(monkeypatch, reader.path) as older:
                settle(watch)
                older.append(b"3")
                while reader.refresh() or reader.log_end_offset < 4:
                    assert changes(watch)
            watch.close()


def test_another_table_in_its_place(writer: Log, reader: Log, watch: DirectoryWatch, tmp_path: Path) -> None:
    writer.append(b"1")
    changes(watch)
    assert is_in_table(writer, watch)
    (tmp_path / TABLE).unlink()
    writer.append(b"2")  # the one that is open still serves
    assert changes(watch) == {reader.path: False}
    writer.close()
    settle(watch)
    with Log(writer.path, durability="appended") as newer:
        for number in range(3):
            newer.append(b"%d" % number)
            assert reader.path in changes(watch)
        newer.append(b"last")
        assert reader.path in changes(watch)


@pytest.mark.parametrize("content", [b"", b"LSWT", b"\xff" * 8192, b"LSWT\0\1" + b"\xff" * 8186, b"\0" * 9000])
def test_whatever_stands_in_its_place(tmp_path: Path, content: bytes) -> None:
    Log(tmp_path / "t-0").close()
    (tmp_path / TABLE).write_bytes(content)
    with Log(tmp_path / "t-0", read_only=True) as reader:
        early = watch_of(reader)
        with Log(tmp_path / "t-0", durability="appended") as writer:
            late = watch_of(reader)
            settle(early)
            settle(late)
            for number in range(3):
                writer.append(b"%d" % number)
                assert reader.path in changes(early)
                assert reader.path in changes(late)
        early.close()
        late.close()


@pytest.mark.parametrize("kind", ["fifo", "directory", "link"])
def test_no_file_in_its_place(tmp_path: Path, kind: str) -> None:
    if kind == "fifo":
        os.mkfifo(tmp_path / TABLE)
    elif kind == "directory":
        (tmp_path / TABLE).mkdir()
    else:
        (tmp_path / "elsewhere").write_bytes(b"kept")
        (tmp_path / TABLE).symlink_to(tmp_path / "elsewhere")
    with Log(tmp_path / "t-0", durability="appended") as writer, Log(tmp_path / "t-0", read_only=True) as reader:
        watch = watch_of(reader)
        writer.append(b"0")
        assert reader.path in changes(watch)
        watch.close()
    assert not (tmp_path / (TABLE + ".tmp")).exists()
    assert kind != "link" or (tmp_path / "elsewhere").read_bytes() == b"kept"


def test_a_table_is_kept_by_the_next_writer(tmp_path: Path, writer: Log) -> None:
    before = os.stat(tmp_path / TABLE)
    writer.close()
    Log(writer.path).close()
    assert os.path.samestat(before, os.stat(tmp_path / TABLE))
    assert open_waiting_readers(str(tmp_path / "no such directory")) is None


# ---- readers that come and go ---------------------------------------------------------------------------

READER = """
    import sys, logstore
    with logstore.open(sys.argv[1], read_only=True) as broker:
        count = int(sys.argv[3])
        topic = broker.topic("t")
        records = iter(broker.consumer("t", auto_offset_reset="earliest")) if sys.argv[2] == "consumer" else (
            topic.read("earliest", follow=True, timeout=60))
        print("reads", flush=True)
        seen = 0
        for record in records:
            assert record.offset == seen and record.value == b"%d" % seen * 9, (record.offset, seen)
            seen += 1
            if seen % 100 == 0 or seen == count:
                print(seen, flush=True)
            if seen == count:
                break
"""


def test_a_killed_reader_costs_the_writer_nothing(tmp_path: Path) -> None:
    with logstore.open(tmp_path, durability="appended") as broker:
        topic = broker.create_topic("t")
        with program(READER, tmp_path, "read", 1_000_000) as process:
            assert says(process) == "reads"
            for number in range(100):
                topic.append(b"%d" % number * 9)
            assert says(process) == "100"
        for number in range(100, 300):
            topic.append(b"%d" % number * 9)
        with program(READER, tmp_path, "read", 301) as process:
            assert [says(process) for _ in range(4)] == ["reads", "100", "200", "300"]
            topic.append(b"300" * 9)
            assert says(process) == "301"


@pytest.mark.parametrize("how", ["read", "consumer"])
def test_every_record_arrives_in_order(tmp_path: Path, how: str) -> None:
    """In bursts and one by one, across rolls. The reader waits for the writer, and the writer at times for the reader, so
    that it is met asleep, awake, and in between."""
    with logstore.open(tmp_path, durability="appended") as broker:
        topic = broker.create_topic("t", segment_bytes=16384)
        with program(READER, tmp_path, how, 2000) as process:
            assert says(process) == "reads"
            for number in range(2000):
                topic.append(b"%d" % number * 9)
                if number % 100 == 99:
                    assert says(process) == str(number + 1)
                elif number % 7 == 0:
                    time.sleep(0.0002)
        assert len(topic.partition(0).segments) > 2


def test_a_forked_child_follows_by_itself(writer: Log, reader: Log, watch: DirectoryWatch) -> None:
    follower = reader.read("latest", follow=True, timeout=LONG)
    writer.append(b"1")
    assert next(follower).value == b"1"
    asks, answers = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover
        status = 1
        with contextlib.suppress(BaseException):
            os.write(answers, b"x")
            watch.wait(0)  # all that was the parent's is made anew
            if next(follower).value == b"2" and reader.path in changes(watch):
                status = 0
        os._exit(status)
    os.read(asks, 1)
    writer.append(b"2")
    assert next(follower).value == b"2"
    assert reader.path in changes(watch)
    for _ in range(200):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        writer.append(b"more")  # the child may have looked before it waited
        time.sleep(0.05)
    assert (ended, status) == (child, 0)
    follower.close()
    os.close(asks)
    os.close(answers)


# ---- the end of a wait ----------------------------------------------------------------------------------


def test_closing_ends_a_wait_at_once(writer: Log, watch: DirectoryWatch) -> None:
    writer.append(b"1")
    settle(watch)
    ended: list[dict[str, bool]] = []
    waiting = threading.Thread(target=lambda: ended.append(watch.wait(LONG)))
    started = time.monotonic()
    waiting.start()
    time.sleep(0.05)
    watch.close()
    waiting.join(LONG)
    assert ended == [{}]
    assert time.monotonic() - started < LONG / 2
    assert watch.wait(LONG) == {}


def test_a_wake_is_kept(writer: Log, watch: DirectoryWatch) -> None:
    started = time.monotonic()
    watch.wake()
    assert watch.wait(LONG) == {}
    assert time.monotonic() - started < LONG / 2


def test_a_timeout_is_kept_to(writer: Log, watch: DirectoryWatch) -> None:
    started = time.monotonic()
    assert changes(watch, 0.1) == {}
    assert 0.09 < time.monotonic() - started < LONG


INTERRUPTED = """
    import signal, sys, logstore
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
    broker = logstore.open(sys.argv[1], read_only=True)
    records = broker.topic("t").read("earliest", follow=True)
    try:
        while True:
            print(next(records).value.decode(), flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def test_ctrl_c_interrupts_a_wait(tmp_path: Path) -> None:
    with logstore.open(tmp_path, durability="appended") as broker:
        topic = broker.create_topic("t")
        with program(INTERRUPTED, tmp_path) as process:
            for value in ("one", "two", "three"):
                topic.append(value.encode())
                assert says(process) == value
            time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            assert says(process) == "interrupted"
