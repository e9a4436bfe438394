"""A directory with records, and two ways to run the command: in this process, and as a user does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import logstore
from logstore.cli.application import cli

BASE_MS = 1_357_034_400_000  # 2013-01-01 10:00 UTC


@pytest.fixture
def directory(tmp_path):
    """`orders`: 3 partitions, 30 records with keys; `plain`: 1 partition, 100 records in batches of 10."""
    path = tmp_path / "data"
    with logstore.open(path) as broker:
        orders = broker.create_topic("orders", partitions=3)
        orders.append_many(
            [b'{"n": %d}' % n for n in range(30)],
            [b"key-%d" % (n % 7) for n in range(30)],
            timestamps=[BASE_MS + n * 60_000 for n in range(30)],
        )
        plain = broker.create_topic("plain", segment_bytes="2KiB", index_interval_bytes=100)
        for start in range(0, 100, 10):
            plain.append_many(
                [b"value-%d" % n for n in range(start, start + 10)],
                timestamps=[BASE_MS + n * 60_000 for n in range(start, start + 10)],
            )
    return path


class Command:
    """Runs `logstore -d DIR ...` in this process."""

    def __init__(self, path):
        self.path = path

    def __call__(self, *arguments, input=None, code=0):
        result = CliRunner(env={"LOGSTORE_DIR": str(self.path)}).invoke(cli, list(map(str, arguments)), input=input)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, f"{result.exit_code}: {result.stdout}\n{result.stderr}"
        assert "Traceback" not in result.stderr
        return result

    def json(self, *arguments, input=None, code=0):
        result = self(*arguments, "--json", input=input, code=code)
        return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def run(directory):
    return Command(directory)


@pytest.fixture
def spawn(directory):
    """Starts `python -m logstore` as a process of its own; those still there at the end are killed."""
    started = []
    root = str(Path(logstore.__file__).parents[1])
    environment = {**os.environ, "LOGSTORE_DIR": str(directory), "PYTHONPATH": root}

    def start(*arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE):
        process = subprocess.Popen(
            [sys.executable, "-m", "logstore", *map(str, arguments)],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=environment,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
