"""What housekeeping did is known to other processes, and after the broker was closed."""

from __future__ import annotations

import json

import pytest

import logstore
from logstore.broker.housekeeping_record import read_record


@pytest.fixture
def directory(tmp_path):
    broker = logstore.open(tmp_path / "data", housekeeping=False)
    topic = broker.create_topic("orders", config={"retention.bytes": 0, "segment.bytes": 1024})
    for _ in range(10):
        topic.append(b"v" * 400)
    assert broker.housekeeping.recorded() is None
    broker.housekeeping.run_now()
    broker.close()
    return tmp_path / "data"


def test_a_reader_sees_what_was_done(directory):
    with logstore.open(directory, read_only=True) as broker:
        record = broker.housekeeping.recorded()
    assert record["last_retention_ms"] > 0
    assert record["bytes_freed"] > 4000
    (result,) = [result for result in record["results"] if result["task"] == "retention"]
    assert (result["topic"], result["partition"], result["failed"]) == ("orders", 0, False)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\\xff\\xfe", b'{"version": 1}'])
def test_a_damaged_record_is_none(directory, content):
    assert read_record(str(directory)) is not None
    (directory / "logstore.housekeeping").write_bytes(content)
    assert read_record(str(directory)) is None


def test_each_part_is_looked_at(directory):
    path = directory / "logstore.housekeeping"
    whole = json.loads(path.read_text())
    for name in whole:
        path.write_text(json.dumps({**whole, name: "7"}))
        assert read_record(str(directory)) is None, name


def test_info_says_so(directory):
    from click.testing import CliRunner

    from logstore.cli.application import cli

    def info(*options):
        return CliRunner(env={"LOGSTORE_DIR": str(directory)}).invoke(cli, ["info", *options]).output

    assert "housekeeping: retention last ran 20" in info()
    assert " retention of orders-0: " in info()
    assert json.loads(info("--json"))["housekeeping"]["bytes_freed"] > 4000
    (directory / "logstore.housekeeping").unlink()
    assert "housekeeping: never ran" in info()
