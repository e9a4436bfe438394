"""`compact`, as its user sees it; and why a topic is not compacted."""

import pytest

import logstore
from logstore.storage.compaction_explained import bytes_until_due, explain_compaction
from logstore.storage.compaction_plan import CompactionPlan
from logstore.storage.config import TopicConfig

NOW_MS = 1_800_000_000_000


@pytest.fixture
def logs(run):
    """Beside the fixture's topics: `users`, compacted, 400 records of 8 keys."""
    with logstore.open(run.path, housekeeping=False) as broker:
        users = broker.create_topic("users", segment_bytes="2KiB", cleanup_policy="compact")
        for _ in range(40):
            users.append_many([bytes(100)] * 10, [b"key-%d" % (number % 8) for number in range(10)])
        users.append(b"last", key=b"key-0")
    return run


def keys(run) -> list[str]:
    return [record["key"] for record in run.json("consume", "users")]


def test_the_plan_is_the_default(logs):
    text = logs("compact").stdout
    assert text == logs("compact", "plan").stdout
    (row,) = [line.split() for line in text.splitlines() if line.startswith("users")]
    assert "now:" in row
    assert "1 due" in text
    (plan,) = logs.json("compact")
    assert plan["topic"] == "users"
    assert plan["is_due"] is True
    assert plan["clean_bytes"] == 0 < plan["cleanable_bytes"]
    logs("compact", "--help")
    logs("compact", "plan", "--check", code=1)


def test_run_status_and_what_is_left(logs):
    before = keys(logs)
    (status,) = logs.json("compact", "status")
    assert (status["compacted_to_offset"], status["log_end_offset"]) == (0, 401)
    done = logs("compact", "run").stdout
    assert done.startswith("users-0: compacted up to offset")
    (status,) = logs.json("compact", "status")
    assert status["compacted_to_offset"] > 300
    assert set(keys(logs)) == set(before)
    assert len(keys(logs)) < 40
    assert "nothing to compact" in logs("compact", "run").stderr
    logs("compact", "plan", "--check")
    (result,) = logs.json("compact", "run", "users", "--roll")
    assert result["task"] == "compaction"
    assert sorted(keys(logs)) == sorted(set(before))
    assert "100%" in logs("compact", "status").stdout


def test_limits_and_mistakes(logs):
    assert "is not compacted" in logs("compact", "run", "plain", code=2).stderr
    assert "did you mean 'users'" in logs("compact", "run", "userz", code=3).stderr
    assert "per.second" in logs("compact", "run", "--rate", "fast", code=2).stderr
    assert "compacted up to" in logs("compact", "run", "--rate", "100MiB", "--memory", "1MiB").stdout
    assert "never: cleanup.policy" in logs("compact", "plan", "plain").stdout


def test_looking_changes_nothing_and_works_beside_a_writer(logs):
    with logstore.open(logs.path, housekeeping=False) as broker:
        broker.topic("users").append(b"x", key=b"y")
        size_bytes = broker.topic("users").partition(0).size_bytes
        logs("compact")
        logs("compact", "status")
        logs("compact", "run", "--dry-run")
        assert broker.topic("users").partition(0).size_bytes == size_bytes
        assert "`logstore compact plan` works beside it" in logs("compact", "run", code=4).stderr


def test_no_topic_is_compacted(run):
    assert "no topic is compacted" in run("compact").stderr
    assert run.json("compact") == []


def test_explain_says_why_it_is_not_compacting(logs):
    text = " ".join(logs("retention", "explain", "users").stdout.split())
    assert "It has not been compacted yet." in text
    assert "It is due: that is more than min.cleanable.dirty.ratio = 0.5." in text
    assert "the active segment never is" in text


PLAN = CompactionPlan(100, 300, "active segment", -1, 1000, 400, 50, 400 / 1400, False, "min.cleanable.dirty.ratio", -1)


def test_how_much_more_makes_it_due():
    config = TopicConfig(cleanup_policy="compact")
    more = bytes_until_due(PLAN, config)
    assert more == 601
    for grown, is_due in ((more - 1, False), (more, True)):
        dirty = PLAN.cleanable_bytes + grown
        assert (dirty / (dirty + PLAN.clean_bytes) > 0.5) is is_due
    assert bytes_until_due(PLAN, TopicConfig(cleanup_policy="compact", min_cleanable_dirty_ratio=1)) is None
    assert bytes_until_due(PLAN._replace(is_due=True), config) == 0


@pytest.mark.parametrize(
    ("plan", "settings", "words"),
    [
        (PLAN, {}, "after 601 B more in sealed segments"),
        (PLAN, {}, "29% of what would be read"),
        (PLAN, {}, "An append begins a new one"),
        (PLAN._replace(due_at_ms=NOW_MS + 3_600_000), {}, "(in 1h) by max.compaction.lag.ms"),
        (PLAN._replace(is_due=True, reason="max.compaction.lag.ms"), {"max_compaction_lag_ms": "1h"}, "It is due: a record"),
        (PLAN._replace(held_back_by="open transaction"), {}, "a transaction is open from offset 300 on"),
        (PLAN._replace(held_back_by="flushed offset"), {}, "not on disk yet"),
        (PLAN._replace(held_back_by="min.compaction.lag.ms", held_back_until_ms=NOW_MS + 60_000),
         {"min_compaction_lag_ms": "1h"}, "younger than min.compaction.lag.ms = 1h; the first of them can be at"),
        (PLAN, {"min_cleanable_dirty_ratio": 1}, "never exceeded"),
        (PLAN._replace(clean_bytes=0, cleanable_bytes=0), {}, "as soon as something can be compacted"),
        (PLAN, {"cleanup_policy": "delete"}, "cleanup.policy does not say compact"),
    ],
)  # fmt: skip
def test_sentences(plan, settings, words):
    config = TopicConfig({"cleanup_policy": "compact", **settings})
    assert words in " ".join(explain_compaction(plan, config, NOW_MS))
