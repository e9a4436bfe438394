"""The command as a process: pipes, signals, a live writer, the lock, and what it loads."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import logstore
from logstore.cli.exit_codes import EXIT_CODES, exit_code_for
from logstore.errors import (
    ClosedError,
    CorruptDataError,
    DataDirLockedError,
    DiskFullError,
    InvalidConfigError,
    MissingDependencyError,
    OffsetOutOfRangeError,
    UnknownTopicOrPartitionError,
    UnsupportedFormatError,
)

SECONDS = 120


def finish(process):
    out, err = process.communicate(timeout=SECONDS)
    return process.returncode, out, err.decode()


class Lines:
    """Reads a process's lines, each within a time limit."""

    def __init__(self, process):
        self.process = process

    def next(self):
        timer = threading.Timer(SECONDS, self.process.kill)
        timer.start()
        try:
            return self.process.stdout.readline().decode().rstrip("\n")
        finally:
            timer.cancel()


def test_help_names_commands_and_exit_codes(spawn):
    code, out, err = finish(spawn("--help"))
    text = out.decode()
    assert (code, err) == (0, "")
    for word in ("topic", "produce", "consume", "import", "export", "info", "segment", *map(str, EXIT_CODES)):
        assert word in text
    assert finish(spawn("--version"))[1].decode() == f"logstore {logstore.__version__}\n"


def test_help_loads_neither_rich_nor_numpy():
    code = (
        "import sys\nfrom logstore.cli import main\nmain(['--help'])\nmain(['topic', 'create', '--help'])\n"
        "sys.exit(', '.join(sorted({'rich', 'numpy', 'pyarrow', 'zstandard', 'cramjam'} & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS)
    assert (done.returncode, done.stderr) == (0, "")


def test_import_logstore_loads_no_click():
    code = "import sys, logstore; sys.exit('click' in sys.modules or 'logstore.cli' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=SECONDS).returncode == 0


def test_a_closed_pipe_ends_it_quietly_and_well(spawn, directory):
    with logstore.open(directory) as broker:
        broker.topic("plain").append_many([b"x" * 1000] * 2000)
    process = spawn("consume", "plain", "--values-only")
    assert process.stdout.readline() == b"value-0\n"
    process.stdout.close()
    err = process.stderr.read().decode()
    assert (process.wait(SECONDS), err) == (0, "")


def test_a_full_disk_under_the_output(spawn):
    with open("/dev/full", "wb") as full:
        code, _, err = finish(spawn("consume", "plain", stdout=full))
    assert code == 5
    assert err == "Error: No space left on device\n"


def test_following_a_live_writer_until_ctrl_c(spawn, directory):
    with logstore.open(directory) as broker:
        process = spawn("consume", "orders", "--follow", "--last", "1", "--values-only")
        lines = Lines(process)
        assert lines.next() == '{"n": 29}'
        for n in range(20):
            broker.topic("orders").append(b"live %d" % n, key=b"%d" % n)
            assert lines.next() == f"live {n}"
        process.send_signal(signal.SIGINT)
        assert finish(process) == (130, b"", "")


def test_follow_starts_with_what_is_new(spawn, directory):
    with logstore.open(directory) as broker:
        process = spawn("consume", "plain", "-f", "-n", "1", "--json", "--from", "100")
        broker.topic("plain").append(b"new")
        code, out, _ = finish(process)
    assert (code, json.loads(out)["value"]) == (0, "new")


def test_a_second_writer_is_refused_by_name_and_readers_are_not(spawn, directory):
    with logstore.open(directory):
        code, out, err = finish(spawn("topic", "create", "more"))
        assert (code, out) == (4, b"")
        assert f"process {os.getpid()}" in err
        assert "Traceback" not in err
        for arguments in (
            ("info",),
            ("topic", "list"),
            ("segment", "list", "plain"),
            ("segment", "verify", "plain"),
            ("consume", "plain"),
            ("export", "plain"),
        ):
            assert finish(spawn(*arguments))[0] == 0, arguments


def test_debug_shows_the_traceback(spawn):
    assert "Traceback" in finish(spawn("--debug", "consume", "missing"))[2]
    code, _, err = finish(spawn("consume", "missing"))
    assert (code, err.count("\n")) == (3, 1)


def test_produce_appends_each_line_as_it_comes(spawn, directory):
    process = spawn("produce", "plain", stdin=subprocess.PIPE)
    follower = spawn("consume", "plain", "-f", "--from", "100", "--values-only")
    for n in range(3):
        process.stdin.write(b"line %d\n" % n)
        process.stdin.flush()
        assert Lines(follower).next() == f"line {n}"
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    # The third record can be read before it is acknowledged; only what is acknowledged is reported.
    assert code == 130
    assert err in [f"{n} records appended to plain\n  partition 0: {n} (offsets 100 to {99 + n})\n" for n in (2, 3)]


def test_an_interrupted_import_says_how_far_it_came(spawn, directory):
    process = spawn("import", "plain", "-", "--format", "csv", stdin=subprocess.PIPE)
    process.stdin.write(b"n\n" + b"".join(b"%d\n" % n for n in range(10_000)))
    process.stdin.flush()
    follower = spawn("consume", "plain", "-f", "--from", "100", "--values-only", "-n", "10000")
    assert finish(follower)[1].splitlines()[-1] == b'{"n":9999}'
    time.sleep(0.5)  # a reader sees records a moment before their append returns, and only then are they counted
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert (code, err) == (130, "of the rows before, 10,000 were appended\n")
    with logstore.open(directory, read_only=True) as broker:
        assert broker.topic("plain").partition(0).log_end_offset == 10_100


def test_output_of_one_command_is_input_of_the_next(spawn):
    first = spawn("consume", "orders", "--json")
    second = spawn("produce", "plain", "--format", "json", "--json", stdin=first.stdout)
    code, out, _ = finish(second)
    assert (code, json.loads(out)["records"]) == (0, 30)
    first.wait(SECONDS)


def test_without_a_directory(spawn, monkeypatch):
    process = subprocess.run(
        [sys.executable, "-m", "logstore", "info"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={name: value for name, value in os.environ.items() if name != "LOGSTORE_DIR"},
    )
    assert process.returncode == 2
    assert "LOGSTORE_DIR" in process.stderr


def test_a_missing_directory_and_command(run, tmp_path):
    assert "topic create" in run("-d", tmp_path / "none", "info", code=3).stderr
    assert "did you mean 'consume'?" in run("consum", "plain", code=2).stderr
    assert not (tmp_path / "none").exists()


def test_damage_met_while_reading(run, directory):
    log = directory / "plain-0" / "00000000000000000000.log"
    data = bytearray(log.read_bytes())
    data[100] ^= 1
    log.write_bytes(data)
    result = run("consume", "plain", code=6)
    assert log.name in result.stderr
    assert result.stderr.count("\n") == 1
    assert run("consume", "plain", "--from", "10", "--values-only", "-n", "1").stdout == "value-10\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidConfigError("x"), 2),
        (MissingDependencyError("x"), 2),
        (UnknownTopicOrPartitionError("x"), 3),
        (OffsetOutOfRangeError("x"), 3),
        (DataDirLockedError("x"), 4),
        (DiskFullError("p", "write", 28), 5),
        (OSError(5, "x"), 5),
        (ClosedError("x"), 5),
        (CorruptDataError("p", 0, "x"), 6),
        (UnsupportedFormatError("x"), 6),
        (KeyError("x"), 70),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes_of_errors(error, code):
    assert exit_code_for(error) == code
    assert code in EXIT_CODES


def test_a_fault_of_our_own_shows_its_traceback_and_code(run, monkeypatch):
    from click.testing import CliRunner

    from logstore.cli.application import cli

    monkeypatch.setattr(logstore, "open", lambda *_, **__: 1 / 0)
    result = CliRunner().invoke(cli, ["-d", str(run.path), "info"])
    assert result.exit_code == 70
    assert "ZeroDivisionError" in result.stderr
    assert "fault of logstore" in result.stderr


def test_the_guide_has_the_exit_codes():
    from pathlib import Path

    guide = (Path(__file__).parents[2] / "docs" / "guide" / "command-line.md").read_text()
    for code, meaning in EXIT_CODES.items():
        assert f"| {code} | {meaning} |" in guide


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_tables_and_progress_on_a_terminal(monkeypatch):
    from logstore.cli import progress
    from logstore.cli.output import Table

    screen = _Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    table = Table("name", "size>")
    table.add("[bold]orders[/bold]", "12")
    table.show()
    assert "[bold]orders[/bold]" in screen.getvalue()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(progress, "_PATIENCE_SECONDS", 0)
    for unit in ("bytes", "records"):
        with progress.Progress(f"read {unit}", 100, unit) as bar:
            bar.update(50)
        assert f"read {unit}" in screen.getvalue()
