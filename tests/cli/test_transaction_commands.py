"""``logstore transaction``: what is shown of transactions, and ending one that was left open."""

import json
import shutil
import time

import pytest

import logstore


@pytest.fixture
def left_open(directory, tmp_path):
    """As a kill leaves it: `paid` has committed, `invoices` and `audit` are open."""
    running = tmp_path / "running"
    shutil.move(directory, running)
    with logstore.open(running) as broker:
        with broker.producer(transactional_id="paid") as producer, producer.transaction() as transaction:
            transaction.send("plain", b"paid")
        producers = [broker.producer(transactional_id=name) for name in ("invoices", "audit")]
        for producer in producers:
            producer.begin_transaction()
            for partition in range(2):
                producer.send("orders", b"open", partition=partition).result(120)
        broker.topic("orders").append(b"behind", partition=1)
        wait_for(running, {"audit": "Ongoing", "invoices": "Ongoing", "paid": "CompleteCommit"})
        shutil.copytree(running, directory)
        for producer in producers:
            producer.abort_transaction()
            producer.close()
    return directory


def wait_for(directory, states):
    """States are noted a moment after they are reached."""
    deadline = time.monotonic() + 120
    with logstore.open(directory, read_only=True) as broker:
        while {each.transactional_id: each.state for each in broker.transactions()} != states:
            assert time.monotonic() < deadline
            time.sleep(0.005)


def json_of(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


def states(run):
    return {each["transactional_id"]: each["state"] for each in json_of(run("transaction", "list", "--json"))}


def test_no_transactions(run, directory):
    done = run("transaction", "list")
    assert done.stdout == ""
    assert "no transactions in" in done.stderr
    assert json_of(run("transaction", "list", "--json")) == []


def test_list(run, left_open):
    lines = run("transaction", "list").stdout.splitlines()
    headings = " ".join(lines[0].split())
    assert headings == "TRANSACTIONAL ID STATE PRODUCER EPOCH PARTITIONS OPEN FOR TIMEOUT LAST CHANGE"
    assert [line.split()[:2] for line in lines[1:]] == [
        ["audit", "Ongoing"], ["invoices", "Ongoing"], ["paid", "CompleteCommit"]
    ]  # fmt: skip
    assert len({line.index("m 00s") for line in lines[1:]}) == 1, "aligned"
    assert states(run) == {"audit": "Ongoing", "invoices": "Ongoing", "paid": "CompleteCommit"}
    assert len(run("transaction", "list", "--open").stdout.splitlines()) == 3
    (paid,) = json_of(run("transaction", "list", "--state", "completecommit", "--json"))
    assert (paid["transactional_id"], paid["producer_epoch"], paid["start_timestamp"]) == ("paid", 1, None)
    assert "no such transactions" in run("transaction", "list", "--state", "PrepareAbort").stderr


def test_describe(run, left_open):
    done = run("transaction", "describe", "invoices")
    assert "invoices: Ongoing, producer 1 in epoch 0" in done.stderr
    assert "timeout 1m 00s" in done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == ["TOPIC", "PARTITION", "FIRST", "OFFSET", "HELD", "BACK"]
    (found,) = json_of(run("transaction", "describe", "invoices", "--json"))
    assert [(place["topic"], place["partition"]) for place in found["partitions"]] == [("orders", 0), ("orders", 1)]
    with logstore.open(left_open, read_only=True) as broker:
        for place in found["partitions"]:
            log = broker.topic("orders").partition(place["partition"])
            assert place["held_back"] == log.log_end_offset - log.last_stable_offset == 2 + place["partition"]
            assert next(log.read(place["first_offset"])).value == b"open"
    assert "nothing is open" in run("transaction", "describe", "paid").stderr
    assert run("transaction", "describe", "paid").stdout == ""


def test_abort(run, left_open):
    with logstore.open(left_open, read_only=True) as broker:
        before = sum(1 for _ in broker.topic("orders").read(isolation_level="read_committed"))
    done = run("transaction", "abort", "invoices", "--yes")
    assert "end with it: audit" in done.stderr
    assert "aborted the transaction of invoices" in done.stderr
    assert states(run) == {"audit": "CompleteAbort", "invoices": "CompleteAbort", "paid": "CompleteCommit"}
    with logstore.open(left_open, read_only=True) as broker:
        values = [record.value for record in broker.topic("orders").read(isolation_level="read_committed")]
    assert len(values) == before + 1
    assert b"open" not in values
    assert b"behind" in values
    again = json_of(run("transaction", "abort", "invoices", "--json"))
    assert again == [{"transactional_id": "invoices", "aborted": False, "state": "CompleteAbort"}]
    assert "nothing is open under invoices" in run("transaction", "abort", "invoices").stderr


def test_abort_asks(run, left_open):
    assert "nothing aborted" in run("transaction", "abort", "invoices", input="n\n", code=1).stderr
    assert "give --yes" in run("transaction", "abort", "invoices", code=2).stderr
    assert states(run)["invoices"] == "Ongoing"
    done = run("transaction", "abort", "invoices", input="y\n")
    assert "in 2 partitions?" in done.stderr
    assert states(run)["invoices"] == "CompleteAbort"
    (left,) = json_of(run("transaction", "abort", "audit", "--yes", "--json"))
    assert left["aborted"] is False, "the first abort has ended it, too"


def test_looking_works_beside_a_writer_and_aborting_does_not(run, directory):
    with logstore.open(directory) as broker, broker.producer(transactional_id="live") as producer:
        with producer.transaction() as transaction:
            transaction.send("orders", b"1", partition=0)
        wait_for(directory, {"live": "CompleteCommit"})
        assert states(run) == {"live": "CompleteCommit"}
        producer.begin_transaction()
        producer.send("orders", b"2", partition=2).result(120)
        wait_for(directory, {"live": "Ongoing"})
        assert "Ongoing" in run("transaction", "describe", "live").stderr
        done = run("transaction", "abort", "live", "--yes", code=4)
        assert "open for writing by this process" in done.stderr
        assert "broker.abort_transaction" in done.stderr
        producer.commit_transaction()
    assert states(run) == {"live": "CompleteCommit"}


def test_what_is_committed_is_not_aborted(run, directory, tmp_path, monkeypatch):
    from logstore.broker.transaction_coordinator import TransactionCoordinator

    real = TransactionCoordinator._mark

    def mark(self, *arguments):
        if not (tmp_path / "decided").exists():
            shutil.copytree(directory, tmp_path / "decided")
        real(self, *arguments)

    monkeypatch.setattr(TransactionCoordinator, "_mark", mark)
    with logstore.open(directory) as broker, broker.producer(transactional_id="x") as producer:
        with producer.transaction() as transaction:
            transaction.send("orders", b"kept", partition=0)
    done = run("-d", tmp_path / "decided", "transaction", "abort", "x", "--yes", code=2)
    assert "can't be taken back" in done.stderr
    with logstore.open(tmp_path / "decided") as broker:
        assert b"kept" in [record.value for record in broker.topic("orders").read(isolation_level="read_committed")]


@pytest.mark.parametrize("command", ["describe", "abort"])
def test_an_id_that_nobody_has(run, left_open, command):
    assert "did you mean 'invoices'?" in run("transaction", command, "invoice", code=3).stderr
    assert "logstore transaction list" in run("transaction", command, "nothing-like-it", code=3).stderr
