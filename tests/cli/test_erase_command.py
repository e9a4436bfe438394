"""`erase`, as its user sees it."""

import base64

import logstore


def keys(run, *arguments) -> list[str]:
    return [record["key"] for record in run.json("consume", "orders", *arguments)]


def test_a_key_goes_and_the_rest_stays(run):
    before = run.json("consume", "orders")
    counted = run("erase", "orders", "--key", "key-3", "--dry-run")
    assert "would erase 4 records" in counted.stderr
    assert keys(run).count("key-3") == 4
    text = run("erase", "orders", "--key", "key-3", "--yes").stdout
    assert "erased 4 records, rewrote 1 segment" in text
    assert "again, and none has the key" in text
    assert run.json("consume", "orders") == [record for record in before if record["key"] != "key-3"]
    assert sum(one["records"] for one in run.json("erase", "orders", "-k", "key-3", "--dry-run")) == 0
    assert "ok" in run("verify", "orders").stdout


def test_it_counts_before_it_asks(run):
    asked = run("erase", "orders", "-k", "key-3", input="n\n", code=1).stderr
    assert "Erase 4 records with the key 'key-3' from orders?" in asked
    assert keys(run).count("key-3") == 4
    assert "give --yes" in run("erase", "orders", "-k", "key-3", code=2).stderr
    run("erase", "orders", "-k", "key-3", input="y\n")
    assert "key-3" not in keys(run)
    assert "no record of orders has the key" in run("erase", "orders", "-k", "key-3").stderr


def test_the_report_as_json(run):
    reports = run.json("erase", "orders", "-k", "key-5", "-y")
    assert [report["partition"] for report in reports] == [0, 1, 2]
    assert sum(report["records_erased"] for report in reports) == 4
    assert sum(report["records_scanned"] for report in reports) == 26
    assert all(report["records_found"] == 0 for report in reports)


def test_keys_that_are_no_text_and_one_partition(run):
    with logstore.open(run.path) as broker:
        broker.topic("orders").partition(2).append(b"x", key=b"\xff\x00")
    text = base64.b64encode(b"\xff\x00").decode()
    assert run.json("erase", "orders", "-k", text, "--base64", "-p", "1", "-y")[0]["records_erased"] == 0
    (report,) = run.json("erase", "orders", "-k", text, "--base64", "-p", "2", "-y")
    assert report["records_erased"] == 1


def test_mistakes(run):
    assert "is no base64" in run("erase", "orders", "-k", "!", "--base64", "-y", code=2).stderr
    assert "Missing option '-k'" in run("erase", "orders", code=2).stderr
    assert "no partition 9" in run("erase", "orders", "-k", "a", "-p", "9", "-y", code=3).stderr
    with logstore.open(run.path):
        assert "would erase 4 records" in run("erase", "orders", "-k", "key-3", "--dry-run").stderr
        assert "erase_key" in run("erase", "orders", "-k", "key-3", "-y", code=4).stderr


def test_a_proof_that_fails_is_an_exit_code(run, monkeypatch):
    from logstore.storage.log import Log

    whole = Log.erase_key
    monkeypatch.setattr(Log, "erase_key", lambda log, key, **rest: whole(log, key, **rest)._replace(records_found=1))
    assert "1 still with the key" in run("erase", "orders", "-k", "key-3", "-y", code=1).stdout
