"""``logstore tail``: several topics as they grow."""

import json
import signal

import pytest

import logstore


def test_the_last_records_of_all_topics_in_order_of_time(run, directory):
    done = run("tail", "-n", "5", "--timeout", "0", "--json")
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(shown) == 5
    assert [record["timestamp"] for record in shown] == sorted(record["timestamp"] for record in shown)


def test_only_the_topics_named(run, directory):
    shown = run("tail", "orders", "-n", "100", "--timeout", "0").stdout.splitlines()
    assert len(shown) == 30
    assert all(line.startswith("orders-") for line in shown)
    shown = run("tail", "--pattern", "pl.*", "-n", "3", "--timeout", "0").stdout.splitlines()
    assert [line.split()[0] for line in shown] == ["plain-0:97", "plain-0:98", "plain-0:99"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["ordres"], 3, "did you mean 'orders'?"),
        (["orders", "--pattern", "x"], 2, "one of them"),
        (["--pattern", "("], 2, "regular expression"),
    ],
)
def test_refusals(run, directory, arguments, code, says):
    done = run("tail", *arguments, "--timeout", "0", code=code)
    assert says in done.stderr


def test_new_records_are_shown_as_another_process_appends_them(directory, spawn):
    process = spawn("tail", "-n", "1")
    with logstore.open(directory) as broker:
        process.stdout.readline()
        broker.topic("orders").append(b"\x1b[31mred", key=b"k", partition=2, durability="appended")
        assert b"orders-2:" in (line := process.stdout.readline())
        assert b"\\x1b[31mred" in line, "nothing that a terminal would act on"
        broker.create_topic("later").append(b"of a topic to come", durability="appended")
        assert b"later-0:0" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 130
        process.stdout.read()
