"""`retention` and `topic trim`, as their user sees them."""

import json
import os
import time

import pytest

import logstore

NOW_MS = time.time_ns() // 1_000_000
DAY_MS = 86_400_000


@pytest.fixture
def logs(run):
    """Beside the fixture's topics: `days`, five segments a day apart, and `young`."""
    with logstore.open(run.path, housekeeping=False) as broker:
        days = broker.create_topic("days", segment_bytes="2KiB", retention="30d")
        for day in range(5):
            days.append_many([bytes(100)] * 18, timestamps=[NOW_MS - (5 - day) * DAY_MS] * 18)
        broker.create_topic("young", segment_bytes="2KiB", retention="7d").append_many([bytes(1000)] * 10)
        for name in ("orders", "plain"):
            broker.alter_topic(name, retention="7d")
    return run


def rows_of(text: str) -> dict[str, list[list[str]]]:
    """A table's rows by topic."""
    found: dict[str, list[list[str]]] = {}
    for line in text.split("\n\n")[0].splitlines()[1:]:
        found.setdefault(line.split()[0], []).append(line.split())
    return found


def test_the_plan_is_the_default(logs):
    text = logs("retention").stdout
    assert text == logs("retention", "plan").stdout
    rows = rows_of(text)
    assert set(rows) == {"orders", "plain", "days", "young"}
    assert rows["plain"][0][5:8] == ["KiB", "goes", "retention.ms"] or "goes" in rows["plain"][0]
    (days,) = rows["days"]
    assert days[2:4] == ["0..90", "5"]
    assert days[6:8] == ["stays", "retention.ms"]
    assert "(in 24d 23h)" in text
    assert "the next round frees" in text
    assert "`logstore retention run` does it now" in text


def test_the_plan_of_one_topic_by_segment_later(logs):
    rows = rows_of(logs("retention", "plan", "days", "--segments", "--at", "27d12h").stdout)["days"]
    assert [row[6] for row in rows] == ["goes", "goes", "goes", "stays", "stays"]
    assert rows[0][2] == "0..18"


def test_check_is_for_scripts(logs):
    logs("retention", "plan", "--check", code=1)
    logs("retention", "plan", "days", "--check")
    assert logs.json("retention", "plan", "days", "--check")[0]["bytes_freed"] == 0


def test_the_plan_as_json(logs):
    plans = {(plan["topic"], plan["partition"]): plan for plan in logs.json("retention")}
    assert len(plans) == 6
    days = plans["days", 0]
    assert [segment["base_offset"] for segment in days["segments"]] == [0, 18, 36, 54, 72]
    assert days["next_change_ms"] == NOW_MS - 5 * DAY_MS + 30 * DAY_MS + 1 == days["segments"][0]["due_ms"]
    plain = plans["plain", 0]
    assert plain["bytes_freed"] == plain["size_bytes"] > 0
    assert plain["rolls_active"] is True
    assert {segment["reason"] for segment in plain["segments"]} == {"retention.ms"}


def test_looking_changes_nothing(logs):
    def files():
        return sorted((path, os.stat(os.path.join(path, name)).st_mtime_ns, name)
                      for path, _, names in os.walk(logs.path) for name in names)  # fmt: skip

    before = files()
    for command in (
        "retention", "retention show", "retention explain plain", "retention run --dry-run",
        "retention set days --time 1d --dry-run", "topic trim days --keep-records 1 --dry-run",
    ):  # fmt: skip
        logs(*command.split())
    assert files() == before


def test_run_does_what_the_plan_says(logs):
    planned = {(plan["topic"], plan["partition"]): plan for plan in logs.json("retention")}
    done = logs.json("retention", "run", "plain")
    assert [(one["topic"], one["bytes_freed"]) for one in done] == [("plain", planned["plain", 0]["bytes_freed"])]
    assert not [name for name in os.listdir(logs.path / "plain-0") if name.endswith(".deleted")]
    rest = logs("retention", "run")
    assert "orders-0: 1 segment of" in rest.stdout
    assert "by retention.ms; the log then starts at offset" in rest.stdout
    assert "freed" in rest.stderr
    assert "nothing had to go" in logs("retention", "run").stderr
    with logstore.open(logs.path, read_only=True) as broker:
        assert len(list(broker.topic("days").read())) == 90
        assert [log.size_bytes for log in broker.topic("plain").logs] == [0]


def test_explain(logs):
    text = " ".join(logs("retention", "explain", "days").stdout.split())
    assert text.startswith("days-0 It holds offsets 0 to 90 in 5 segments")
    assert "Segments go that are older than retention.ms = 30d." in text
    assert "The oldest segment (offsets 0 to 18) stays: its newest record is of" in text
    assert len(logs.json("retention", "explain", "orders")) == 3
    assert [one["partition"] for one in logs.json("retention", "explain", "orders", "-p", "1")] == [1]
    assert "did you mean 'days'" in logs("retention", "explain", "dayz", code=3).stderr


def test_explain_names_what_shields_a_log(logs):
    with logstore.open(logs.path, housekeeping=False) as broker:
        skewed = broker.create_topic("skewed", segment_bytes="2KiB", message_timestamp_after_max_ms="9999d", retention="7d")
        for age in (-40, 9, 0):
            skewed.append_many([bytes(100)] * 18, timestamps=[NOW_MS - age * DAY_MS] * 18)
    assert "a timestamp in the future" in logs("retention").stderr
    text = " ".join(logs("retention", "explain", "skewed").stdout.split())
    assert "in the future, and keeps itself and all behind it until" in text
    assert "logstore.retention.cap.timestamps=true" in text
    assert "It shields" in text


def test_explain_names_the_groups_that_hold(logs):
    with logstore.open(logs.path, housekeeping=False) as broker:
        broker.alter_topic("plain", logstore_retention_groups="billing,reports")
        place = logstore.TopicPartition("plain", 0)
        broker.coordinator.commit_offsets("billing", {place: logstore.OffsetAndMetadata(40)})
    assert "logstore.retention.groups: billing, reports" in logs("retention", "plan", "plain").stdout
    text = " ".join(logs("retention", "explain", "plain").stdout.split())
    assert "billing is at offset 40" in text
    assert "reports has committed no offset here" in text
    assert "logstore.retention.groups.max.ms" in text
    (plan,) = logs.json("retention", "plan", "plain")
    assert plan["held_by_groups"] == ["billing", "reports"]


def test_show(logs):
    rows = rows_of(logs("retention", "show").stdout)
    assert rows["days"][0][:3] == ["days", "delete", "30d"]
    assert "segment.bytes=2.0" in rows["days"][0][5]
    rows = rows_of(logs("retention", "show", "days").stdout)["days"]
    assert ["days", "retention.ms", "30d", "yes"] in [row[:4] for row in rows]
    (one,) = logs.json("retention", "show", "days")
    assert one["config"]["retention.ms"] == 30 * DAY_MS
    assert one["set"] == ["retention.ms", "segment.bytes"]


def test_set(logs):
    dry = logs("retention", "set", "days", "--time", "2d", "--records", "50", "--dry-run")
    assert "would change 2 settings of 1 topic" in dry.stderr
    assert "would free" in dry.stderr
    assert logs.json("retention", "show", "days")[0]["config"]["retention.ms"] == 30 * DAY_MS
    done = logs("retention", "set", "days", "young", "--time", "2d", "--size", "1MiB", "--unset", "segment_bytes")
    assert "days" in done.stdout
    assert "30d" in done.stdout
    config = logs.json("retention", "show", "days")[0]
    assert (config["config"]["retention.ms"], config["set"]) == (2 * DAY_MS, ["retention.bytes", "retention.ms"])
    assert logs.json("retention", "plan", "days")[0]["segments_freed"] == 4
    assert "already" in logs("retention", "set", "days", "--time", "2d").stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["days"], "Nothing to change"),
        (["days", "retention.ms=1h"], "--config retention.ms=1h"),
        ([], "Which topics?"),
        (["--file", "x", "days"], "Which topics?"),
        (["--file", "x", "--time", "1d"], "the file says what changes"),
        (["days", "--time", "soon"], "retention.ms"),
        (["days", "--time", "1d", "-c", "retention.ms=1"], "given twice"),
        (["days", "--time", "1d", "--unset", "retention"], "set and unset"),
        (["days", "--unset", "retention.msx"], "did you mean retention.ms"),
        (["--file", "no-such-file"], "no policy file"),
    ],
)
def test_set_wrongly(logs, arguments, words):
    assert words in logs("retention", "set", *arguments, code=2).stderr


def test_set_by_file(logs, tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text(
        '[topics."*"]\nretention.ms = "14d"\n[topics."d*"]\nretention.bytes = "1MiB"\n[topics."x*"]\nflush.ms = 1\n'
    )
    dry = logs("retention", "set", "--file", path, "--dry-run")
    assert "would change 5 settings of 4 topics" in dry.stderr
    assert 'no topic matches "x*"' in dry.stderr
    changes = logs.json("retention", "set", "--file", path)
    assert [(change["topic"], change["setting"]) for change in changes][:2] == [
        ("days", "retention.bytes"), ("days", "retention.ms")]  # fmt: skip
    assert all(change["applied"] for change in changes)
    assert logs.json("retention", "set", "--file", path) == []
    path.write_text("[topics.days]\nretention.ms = 'soon'")
    assert "[topics.\"days\"]: retention.ms" in logs("retention", "set", "--file", path, code=2).stderr


def test_what_needs_the_writer_says_who_can(logs):
    with logstore.open(logs.path):
        assert "stays" in logs("retention").stdout
        logs("retention", "explain", "days")
        logs("retention", "set", "days", "--time", "1d", "--dry-run")
        assert "broker.housekeeping.run_now()" in logs("retention", "run", code=4).stderr
        assert "broker.alter_topics" in logs("retention", "set", "days", "--time", "1d", code=4).stderr
        assert "broker.delete_records" in logs("topic", "trim", "days", "--keep-records", "1", "-y", code=4).stderr


# ---- trim ---------------------------------------------------------------------------------------------


def offsets(run, topic: str) -> list[int]:
    return [record["offset"] for record in run.json("consume", topic)]


def test_trim(logs):
    with logstore.open(logs.path, housekeeping=False) as broker:
        place = logstore.TopicPartition("days", 0)
        broker.coordinator.commit_offsets("billing", {place: logstore.OffsetAndMetadata(30)})
    dry = logs("topic", "trim", "days", "--keep-records", "50", "--dry-run")
    assert "billing (10)" in dry.stdout
    assert "would delete 40 records" in dry.stderr
    assert "deleted 40 records" in logs("topic", "trim", "days", "--keep-records", "50", "--yes").stderr
    assert offsets(logs, "days") == list(range(40, 90))
    (one,) = logs.json("topic", "trim", "days", "--before", "45", "--yes")
    assert (one["log_start_offset"], one["new_log_start_offset"], one["records"]) == (40, 45, 5)
    logs("topic", "trim", "days", "--keep-last", "2d12h", "-y")
    assert offsets(logs, "days") == list(range(54, 90))
    assert "nothing to trim" in logs("topic", "trim", "days", "--before", "3", "-y").stderr
    assert "days-0 ends at offset 90" in logs("topic", "trim", "days", "--before", "91", "-y", code=3).stderr
    logs("topic", "trim", "days", "--before", "latest", "-y")
    assert offsets(logs, "days") == []


def test_trim_asks(logs):
    assert "Delete 40 records" in logs("topic", "trim", "days", "--keep-records", "50", input="n\n", code=1).stderr
    assert len(offsets(logs, "days")) == 90
    logs("topic", "trim", "days", "--keep-records", "50", input="y\n")
    assert len(offsets(logs, "days")) == 50
    assert "give --yes" in logs("topic", "trim", "days", "--keep-records", "5", code=2).stderr


def test_trim_of_one_partition(logs):
    plans = logs.json("topic", "trim", "orders", "--keep-records", "0", "--dry-run")
    ends = {one["partition"]: one["log_end_offset"] for one in plans}
    logs("topic", "trim", "orders", "--before", "2", "-p", "1", "-y")
    assert sorted({record["partition"] for record in logs.json("consume", "orders")}) == [at for at in ends if ends[at]]
    assert min(record["offset"] for record in logs.json("consume", "orders", "-p", "1")) == 2


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        ([], "Give one of", 2),
        (["--before", "1", "--keep-records", "1"], "Give one of", 2),
        (["--keep-last", "soon"], "--keep-last", 2),
        (["--keep-last", "-1d"], "--keep-last", 2),
        (["--before", "2"], "Give --partition", 2),
        (["--before", "2", "-p", "7"], "no partition 7", 3),
    ],
)
def test_trim_wrongly(logs, arguments, words, code):
    assert words in logs("topic", "trim", "orders", *arguments, "-y", code=code).stderr


def test_trim_of_a_compacted_topic_is_refused(logs):
    logs("topic", "create", "prices", "-c", "cleanup.policy=compact")
    assert "each key keeps its last record" in logs("topic", "trim", "prices", "--before", "0", "-y", code=2).stderr


def test_json_of_settings_is_whole(logs):
    text = logs("retention", "show", "--json").stdout
    assert [json.loads(line)["topic"] for line in text.splitlines()] == ["days", "orders", "plain", "young"]
