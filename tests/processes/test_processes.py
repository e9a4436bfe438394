"""Several processes and one directory: one writes, others read along, children don't touch what their parent has open."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

import logstore


class Program:
    """A Python program in a process of its own, spoken to by lines."""

    def __init__(self, text: str, *arguments: object):
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(text), *map(str, arguments)], text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@pytest.fixture
def run() -> Iterator:
    programs: list[Program] = []

    def start(text: str, *arguments: object) -> Program:
        programs.append(Program(text, *arguments))
        return programs[-1]

    yield start
    for program in programs:
        program.end()


WRITER = """
    import sys, logstore
    broker = logstore.open(sys.argv[1])
    topic = broker.create_topic("t", segment_bytes=4096, exist_ok=True)
    print("open", flush=True)
    for line in sys.stdin:
        print(topic.append(line.strip().encode()), flush=True)
"""


@pytest.mark.fault(19, "two writers")
def test_a_second_writer_is_refused_by_name(run, tmp_path: Path) -> None:
    writer = run(WRITER, tmp_path / "data")
    assert writer.says() == "open"
    with pytest.raises(logstore.DataDirLockedError, match=f"process {writer.process.pid} on .* since"):
        logstore.open(tmp_path / "data")
    writer.tell("still mine")
    assert writer.says() == "0"


@pytest.mark.fault(19, "two writers")
def test_a_second_writer_in_the_same_process_is_refused(tmp_path: Path) -> None:
    with logstore.open(tmp_path / "data") as broker:
        broker.create_topic("t").append(b"x")
        with pytest.raises(logstore.DataDirLockedError, match="this process"):
            logstore.open(tmp_path / "data")
        broker.topic("t").append(b"y")
    with logstore.open(tmp_path / "data") as broker:
        assert len(list(broker.topic("t").read())) == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.fault(1, "kill -9 in an append")
def test_a_writer_that_dies_leaves_the_lock_free_and_its_records(run, number: int, tmp_path: Path) -> None:
    writer = run(WRITER, tmp_path / "data")
    assert writer.says() == "open"
    writer.tell("kept")
    assert writer.says() == "0"
    writer.process.send_signal(number)
    writer.process.wait(120)
    with logstore.open(tmp_path / "data") as broker:
        assert [record.value for record in broker.topic("t").read()] == [b"kept"]
        assert broker.topic("t").append(b"more") == 1


def test_a_reader_follows_a_live_writer_across_rolls(run, tmp_path: Path) -> None:
    with logstore.open(tmp_path / "data") as broker:
        topic = broker.create_topic("t", segment_bytes=4096)
        reader = run("""
            import sys, time, logstore
            with logstore.open(sys.argv[1], read_only=True) as broker:
                print("open", flush=True)
                for record in broker.topic("t").read(follow=True):
                    print(record.offset, time.monotonic_ns() - int(record.value.split()[0]), flush=True)
        """, tmp_path / "data")
        assert reader.says() == "open"
        time.sleep(0.3)
        delays = []
        for number in range(150):
            topic.append(b"%d %s" % (time.monotonic_ns(), b"x" * 100), durability="appended")
            offset, delay = reader.says().split()
            assert int(offset) == number
            delays.append(int(delay) / 1e6)
        assert len(topic.partition(0).segments) > 3
    print(f"another process reads a record {median(delays):.2f} ms (median) after it was appended")
    assert median(delays) < 50


def test_readers_of_another_process_see_new_topics_and_what_goes(run, tmp_path: Path) -> None:
    with logstore.open(tmp_path / "data") as broker:
        broker.create_topic("first").append(b"1")
        with logstore.open(tmp_path / "data", read_only=True) as reader:
            assert reader.topics() == ["first"]
            broker.create_topic("second").append(b"2")
            assert reader.topics() == ["first", "second"]
            assert [record.value for record in reader.topic("second").read()] == [b"2"]
            log = broker.topic("first").partition(0)
            log.append_many([b"x"] * 10)
            log.advance_log_start_offset(5)
            assert [record.offset for record in reader.topic("first").read()] == list(range(5, 11))
            with pytest.raises(logstore.ReadOnlyError):
                reader.topic("first").append(b"no")


@pytest.mark.fault(20, "fork after open")
def test_a_forked_child_leaves_the_parents_log_alone(tmp_path: Path) -> None:
    with logstore.open(tmp_path / "data") as broker:
        topic = broker.create_topic("t")
        topic.append(b"before")
        topic.append(b"open batch", durability="buffered")
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            outcome = []
            for step in (lambda: topic.append(b"child"), lambda: broker.create_topic("u"), lambda: list(topic.read()),
                         topic.partition(0).flush, lambda: topic.append_many([b"child"])):
                try:
                    step()
                    outcome.append("done")
                except logstore.ClosedError:
                    outcome.append("closed")
                except BaseException as error:
                    outcome.append(repr(error))
            broker.close()
            os.write(tell, " ".join(outcome).encode())
            os._exit(0)
        os.waitpid(child, 0)
        os.close(tell)
        with open(told) as pipe:
            assert pipe.read() == "closed closed closed closed closed"
        assert topic.append(b"parent") == 2
        with pytest.raises(logstore.DataDirLockedError):
            logstore.open(tmp_path / "data")
    with logstore.open(tmp_path / "data") as broker:
        assert [record.value for record in broker.topic("t").read()] == [b"before", b"open batch", b"parent"]


@pytest.mark.fault(19, "two writers")
@pytest.mark.fault(20, "fork after open")
def test_a_child_that_outlives_its_parent_does_not_keep_the_lock(run, tmp_path: Path) -> None:
    parent = run("""
        import os, sys, time, logstore
        broker = logstore.open(sys.argv[1])
        broker.create_topic("t").append(b"x")
        if os.fork() == 0:
            time.sleep(10)
            os._exit(0)
        print("forked", flush=True)
        time.sleep(30)
    """, tmp_path / "data")
    assert parent.says() == "forked"
    time.sleep(0.1)
    parent.process.kill()
    parent.process.wait(120)
    with logstore.open(tmp_path / "data") as broker:
        assert len(list(broker.topic("t").read())) == 1


@pytest.mark.fault(26, "end of the interpreter")
def test_leaving_the_interpreter_writes_what_was_buffered(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys, logstore\ntopic = logstore.open(sys.argv[1]).create_topic('t')\n"
         "for n in range(500): topic.append(b'%d' % n, durability='buffered')", tmp_path / "data"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True,
    )
    assert done.returncode == 0
    assert done.stderr == ""
    with logstore.open(tmp_path / "data") as broker:
        assert [record.value for record in broker.topic("t").read()] == [b"%d" % number for number in range(500)]
        assert not broker.recovery_reports, "closed in good order"


def _state_of(folder: Path) -> dict[str, tuple[int, int, bytes | None]]:
    state = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        about = path.stat()
        state[str(path)] = (about.st_mtime_ns, about.st_mode, path.read_bytes() if path.is_file() else None)
    return state


@pytest.mark.parametrize("end", ["closed", "torn"])
@pytest.mark.fault(32, "no permission, read-only media")
def test_reading_only_writes_nothing(end: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with logstore.open(folder) as broker:
        topic = broker.create_topic("t", segment_bytes=4096)
        topic.append_many([b"%d" % number * 30 for number in range(200)])
        last = topic.partition(0).segments[-1].path
    if end == "torn":
        with open(last, "ab") as file:
            file.write(bytes(7) + b"\x01" * 80)
    paths = [folder, *folder.rglob("*")]
    modes = {path: path.stat().st_mode for path in paths}
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        before = _state_of(folder)
        with logstore.open(folder, read_only=True) as broker:
            assert broker.topics() == ["t"]
            values = [record.value for record in broker.topic("t").read()]
            assert broker.topic("t").offset_for_timestamp(0).offset == 0
        assert values == [b"%d" % number * 30 for number in range(200)]
        assert _state_of(folder) == before
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


@pytest.mark.fault(32, "no permission, read-only media")
def test_read_only_media_say_so(tmp_path: Path) -> None:
    """A file system mounted read-only; needs root."""
    folder = tmp_path / "data"
    with logstore.open(folder) as broker:
        broker.create_topic("t").append(b"x")
    mounted = subprocess.run(["mount", "--bind", folder, folder], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("NOT TESTED: read-only media; mounting needs root")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        with logstore.open(folder, read_only=True) as broker:
            assert [record.value for record in broker.topic("t").read()] == [b"x"]
        with pytest.raises(logstore.StorageFailureError, match="read_only=True"):
            logstore.open(folder)
    finally:
        broker = None
        gc.collect()  # readers may use a log's files after it is closed: they go with the last reference
        subprocess.run(["umount", folder], check=True)
