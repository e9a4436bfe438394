"""``logstore group``, and reading as a group: what is shown, what is moved, what is committed."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import logstore
from logstore.cli.group_lag import format_lag_seconds


@pytest.fixture
def with_group(directory, run):
    """Group `billing` has read 12 records of `plain`."""
    done = run("consume", "plain", "--group", "billing", "-n", "12", "--values-only")
    assert len(done.stdout_bytes.splitlines()) == 12
    return directory


def json_of(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_no_groups(run, directory):
    done = run("group", "list")
    assert done.stdout == ""
    assert "no groups" in done.stderr
    assert json_of(run("group", "list", "--json")) == []


def test_list_describe_and_lag(run, with_group):
    assert run("group", "list").stdout.splitlines()[1].split() == ["billing", "Empty", "0", "1", "88", "plain"]
    described = json_of(run("group", "describe", "billing", "--json"))[0]
    assert (described["group"], described["state"], described["lag"], described["members"]) == ("billing", "Empty", 88, [])
    row = run("group", "lag", "billing").stdout.splitlines()[1].split()
    assert row[:6] == ["billing", "plain", "0", "12", "100", "88"]
    (found,) = json_of(run("group", "lag", "--json"))
    assert found["partitions"][0]["committed_offset"] == 12
    assert found["partitions"][0]["lag_s"] > 0


def test_a_group_goes_on_where_it_was(run, with_group):
    done = run("consume", "plain", "--group", "billing", "--json")
    assert [record["offset"] for record in json_of(done)] == list(range(12, 100))
    assert run("consume", "plain", "--group", "billing", "--json").stdout == ""
    assert json_of(run("group", "lag", "--json"))[0]["lag"] == 0


def test_all_partitions_are_read_by_a_group(run, directory):
    done = json_of(run("consume", "orders", "-g", "all", "--json"))
    assert len(done) == 30
    for partition in range(3):
        offsets = [record["offset"] for record in done if record["partition"] == partition]
        assert offsets == sorted(offsets)
    assert json_of(run("group", "lag", "all", "--json"))[0]["lag"] == 0


def test_from_counts_where_a_group_has_no_commit(run, with_group):
    assert [record["offset"] for record in json_of(run("consume", "plain", "-g", "new", "--from", "95", "--json"))] == [
        95, 96, 97, 98, 99
    ]  # fmt: skip
    first = json_of(run("consume", "plain", "-g", "billing", "--from", "95", "-n", "1", "--json"))[0]
    assert first["offset"] == 12


@pytest.mark.parametrize("option", [["--last", "3"], ["--to", "5"], ["-p", "0"]])
def test_a_group_says_where_to_read(run, directory, option):
    done = run("consume", "plain", "--group", "g", *option, code=2)
    assert "--group goes with none" in done.stderr


def test_seek(run, with_group):
    plan = json_of(run("group", "seek", "billing", "--by=-2", "--dry-run", "--json"))
    assert plan == [
        {"topic": "plain", "partition": 0, "before": 12, "after": 10, "asked_for": 10, "applied": False}
    ]  # fmt: skip
    assert "dry run" in run("group", "seek", "billing", "--to", "latest", "--dry-run").stderr
    assert json_of(run("group", "lag", "--json"))[0]["lag"] == 88
    assert "-12" in run("group", "seek", "billing", "plain:0", "--to", "earliest").stdout
    assert json_of(run("group", "lag", "--json"))[0]["lag"] == 100
    done = run("group", "seek", "billing", "plain", "--to", "1000")
    assert "outside of what the log holds" in done.stdout
    assert json_of(run("group", "lag", "--json"))[0]["lag"] == 0


def test_seek_makes_a_group_where_topics_are_named(run, directory):
    run("group", "seek", "new", "orders", "--to", "latest")
    assert json_of(run("group", "lag", "new", "--json"))[0]["lag"] == 0
    assert run("consume", "orders", "-g", "new").stdout == ""


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["lag", "bling"], 3, "did you mean 'billing'?"),
        (["describe", "nothing-like-it"], 3, "logstore group list"),
        (["delete", "nobody"], 3, "there is no group"),
        (["seek", "nobody", "--to", "earliest"], 3, "there is no group"),
        (["seek", "billing"], 2, "--to POSITION or --by N"),
        (["seek", "billing", "--to", "earliest", "--by", "3"], 2, "one of them"),
        (["seek", "billing", "plain:x", "--by", "3"], 2, "TOPIC:PARTITION"),
        (["seek", "billing", "plane", "--by", "3"], 3, "plane"),
        (["seek", "billing", "plain:7", "--by", "3"], 3, "7"),
    ],
)
def test_refusals(run, with_group, arguments, code, says):
    done = run("group", *arguments, code=code)
    assert says in done.stderr
    assert json_of(run("group", "lag", "billing", "--json"))[0]["lag"] == 88, "nothing has changed"


def test_delete(run, with_group):
    run("group", "delete", "billing")
    assert json_of(run("group", "list", "--json")) == []
    assert len(json_of(run("consume", "plain", "--json"))) == 100, "records are not touched"


def test_looking_works_beside_a_writer(run, with_group):
    with logstore.open(with_group) as broker, broker.consumer("orders", group="live", client_id="till") as consumer:
        while not consumer.poll(timeout=1.0, max_records=1):
            pass
        consumer.commit()
        (described,) = json_of(run("group", "describe", "live", "--json"))
        assert described["state"] == "Stable"
        assert described["members"][0]["client_id"] == "till"
        assert len(described["members"][0]["partitions"]) == 3
        assert "till" in run("group", "describe", "live").stdout
        assert "open for writing" in run("group", "seek", "billing", "--by", "1", code=4).stderr


def test_ctrl_c_commits_what_was_printed(with_group, spawn):
    process = spawn("consume", "plain", "-g", "billing", "--follow")
    lines = [process.stdout.readline() for _ in range(88)]
    assert lines[-1].startswith(b"0:99")
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130
    assert process.stderr.read() == b""
    with logstore.open(with_group, read_only=True) as broker:
        assert broker.describe_group("billing").partitions[0].lag == 0


def test_watch_shows_it_again(with_group, spawn):
    process = spawn("group", "lag", "--watch", "0.1")
    seen = [process.stdout.readline().split() for _ in range(4)]
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130
    process.stdout.read(), process.stderr.read()
    assert seen[0] == seen[2]
    assert seen[1][:3] == seen[3][:3] == [b"billing", b"plain", b"0"]


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="NOT TESTED: a watch on a terminal; there is no pseudo-terminal")
def test_watch_redraws_on_a_terminal(with_group):
    leader, follower = os.openpty()
    command = [sys.executable, "-m", "logstore", "-d", str(with_group), "group", "lag", "--watch", "0.1"]
    with subprocess.Popen(command, stdout=follower, stderr=subprocess.PIPE, env={**os.environ, "TERM": "xterm"}) as process:
        os.close(follower)
        shown = b""
        while shown.count(b"billing") < 3:
            shown += os.read(leader, 4096)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=120)
        process.stderr.read()
    os.close(leader)
    assert b"Ctrl-C ends it" in shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "?"), (0, "0"), (0.04, "0.0 s"), (59.9, "59.9 s"), (185, "3m 05s"), (7860, "2h 11m"), (273_600, "3d 4h")],
)
def test_how_old_the_oldest_unread_record_is(seconds, text):
    assert format_lag_seconds(seconds) == text


@pytest.mark.parametrize(("compression", "codec"), [("none", 0), ("gzip", 1), ("zstd", 4)])
def test_produce_compresses(run, directory, compression, codec):
    lines = b"".join(b"k%d:%d\n" % (n % 5, n) for n in range(200))
    done = run("produce", "orders", "-K", ":", "--compression", compression, "-H", "source=till", "--json", input=lines)
    assert json_of(done)[0]["records"] == 200
    with logstore.open(directory, read_only=True) as broker:
        read = [record for record in broker.topic("orders").read() if record.headers]
        last = broker.topic("orders").partition(0).fetch(broker.topic("orders").partition(0).log_end_offset - 1)[-1]
        assert last.codec == codec
    assert sorted(int(record.value) for record in read) == list(range(200))
    assert all(record.headers == [("source", b"till")] for record in read)


def test_produce_goes_where_librdkafka_would(run, directory):
    import zlib

    run("produce", "orders", "-K", ":", "--partitioner", "crc32", input=b"abc:1\n")
    with logstore.open(directory, read_only=True) as broker:
        (record,) = (record for record in broker.topic("orders").read() if record.key == b"abc")
    assert record.partition == zlib.crc32(b"abc") % 3
