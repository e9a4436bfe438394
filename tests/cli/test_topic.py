import logstore
from logstore.storage.config import SETTINGS


def test_create_makes_the_directory_and_the_settings(run, tmp_path):
    run("-d", tmp_path / "new", "topic", "create", "a", "-p", "2", "--retention", "7d", "-c", "segment.bytes=1MiB")
    with logstore.open(tmp_path / "new", read_only=True) as broker:
        assert broker.topic("a").partitions == 2
        assert broker.topic("a").config.overrides() == {"retention.ms": 604_800_000, "segment.bytes": 1 << 20}


def test_an_existing_topic_is_refused_unless_accepted(run):
    assert "--exist-ok" in run("topic", "create", "orders", code=2).stderr
    assert run.json("topic", "create", "orders", "--exist-ok")[0]["created"] is False


def test_create_help_names_every_setting(run):
    text = run("topic", "create", "--help").stdout
    assert [name for name in SETTINGS if name not in text] == []
    assert "time records are kept" in text
    assert "[7d]" in text


def test_an_unknown_setting_suggests_the_nearest(run):
    assert "segment.bytes" in run("topic", "create", "a", "-c", "segment.byte=1", code=2).stderr
    assert "KEY=VALUE" in run("topic", "create", "a", "-c", "segment.bytes", code=2).stderr
    assert "same setting" in run("topic", "create", "a", "-c", "retention.ms=1", "--retention", "7d", code=2).stderr


def test_list(run, tmp_path):
    assert [(row["topic"], row["partitions"], row["records"]) for row in run.json("topic", "list")] == [
        ("orders", 3, 30),
        ("plain", 1, 100),
    ]
    lines = run("topic", "list").stdout.splitlines()
    assert lines[0].split() == ["TOPIC", "PARTITIONS", "RECORDS", "SIZE"]
    assert lines[2].split()[:3] == ["plain", "1", "100"]
    (tmp_path / "none").mkdir()
    empty = run("-d", tmp_path / "none", "topic", "list")
    assert (empty.stdout, "no topics" in empty.stderr) == ("", True)


def test_describe(run):
    (described,) = run.json("topic", "describe", "plain")
    assert described["config"] == {"index.interval.bytes": 100, "segment.bytes": 2048}
    assert len(described["id"]) == 22
    (all_,) = run.json("topic", "describe", "plain", "--all")
    assert set(all_["all_config"]) == set(SETTINGS)
    assert "2.0 KiB" in run("topic", "describe", "plain").stdout
    assert "index.interval" not in run("topic", "describe", "orders").stdout


def test_alter(run):
    (altered,) = run.json("topic", "alter", "plain", "-p", "2", "-c", "retention.ms=1h", "--unset", "segment.bytes")
    assert altered["partitions"] == 2
    assert altered["config"] == {"index.interval.bytes": 100, "retention.ms": 3_600_000}
    assert "Nothing to change" in run("topic", "alter", "plain", code=2).stderr
    assert "can only rise" in run("topic", "alter", "orders", "-p", "1", code=2).stderr


def test_delete_asks(run):
    assert "--yes" in run("topic", "delete", "plain", input="", code=2).stderr
    assert "nothing deleted" in run("topic", "delete", "plain", input="n\n", code=1).stderr
    assert len(run.json("topic", "list")) == 2
    assert "100 records" in run("topic", "delete", "plain", input="y\n").stderr
    assert [row["topic"] for row in run.json("topic", "list")] == ["orders"]


def test_delete_takes_all_or_none(run):
    assert run("topic", "delete", "-y", "plain", "missing", code=3)
    assert len(run.json("topic", "list")) == 2
    assert [row["deleted"] for row in run.json("topic", "delete", "-y", "plain", "orders")] == [True, True]
