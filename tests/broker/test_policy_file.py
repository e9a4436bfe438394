"""The policy file: patterns, what they change, and that it is all or nothing."""

import pytest

import logstore
from logstore.broker.policy_file import policy_changes, read_policy, read_policy_file
from logstore.errors import InvalidConfigError
from logstore.storage.config import TopicConfig

TEXT = """
[topics."*"]
retention.ms = "7d"

[topics."audit-*"]
retention.ms = -1
"retention.bytes" = "1GiB"
cleanup_policy = ["compact", "delete"]
segment.ms = "default"
"""


def test_later_patterns_win_and_default_goes_back():
    policy = read_policy(TEXT, "policy.toml")
    topics = {"audit-1": TopicConfig(segment_ms="1h", flush_ms=5), "orders": TopicConfig(retention="7d")}
    changes = policy_changes(policy, topics)
    assert [(change.topic, change.setting, change.before, change.after, change.pattern) for change in changes] == [
        ("audit-1", "cleanup.policy", None, "compact,delete", "audit-*"),
        ("audit-1", "retention.bytes", None, 1 << 30, "audit-*"),
        ("audit-1", "retention.ms", None, -1, "audit-*"),
        ("audit-1", "segment.ms", 3_600_000, None, "audit-*"),
    ]
    after = topics["audit-1"].with_changes({change.setting: change.after for change in changes})
    assert after == TopicConfig(cleanup_policy="compact,delete", retention_bytes="1GiB", retention=-1, flush_ms=5)
    assert policy_changes(policy, {"audit-1": after, "orders": topics["orders"]}) == []
    assert policy.unmatched(["orders"]) == ["audit-*"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("retention.ms = 1", "found retention"),
        ("", "found none"),
        ("topics = 3", 'needs tables named [topics."PATTERN"]'),
        ("[topics]\norders = 3", '[topics."orders"] is no table'),
        ("[topics.a]\nretention.msx = 1", "did you mean retention.ms?"),
        ("[topics.a]\nretention.ms = 'soon'", '[topics."a"]: retention.ms must be'),
        ("[topics.a\n", "is no TOML"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text, place):
    with pytest.raises(InvalidConfigError) as caught:
        read_policy(text, "policy.toml")
    assert str(caught.value).startswith("policy.toml")
    assert place in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InvalidConfigError, match="there is no policy file"):
        read_policy_file(tmp_path / "none.toml")


def test_settings_that_contradict_name_the_topic():
    policy = read_policy('[topics."*"]\nmin.compaction.lag.ms = "2h"', "policy.toml")
    with pytest.raises(InvalidConfigError, match=r"topic orders: min\.compaction\.lag\.ms must not exceed"):
        policy_changes(policy, {"orders": TopicConfig(max_compaction_lag_ms="1h")})


def test_all_topics_change_or_none(tmp_path):
    with logstore.open(tmp_path / "data") as broker:
        broker.create_topic("a")
        broker.create_topic("b", max_compaction_lag_ms="1h")
        with pytest.raises(InvalidConfigError):
            broker.alter_topics({"a": {"retention.ms": 1}, "b": {"min.compaction.lag.ms": "2h"}})
        with pytest.raises(logstore.UnknownTopicOrPartitionError):
            broker.alter_topics({"a": {"retention.ms": 1}, "c": {}})
        assert broker.topic("a").config == TopicConfig()
        broker.alter_topics({"a": {"retention.ms": "1h"}, "b": {"max.compaction.lag.ms": None}})
        assert broker.topic("a").logs[0].config["retention.ms"] == 3_600_000
    with logstore.open(tmp_path / "data", read_only=True) as reader:
        assert reader.topic("a").config == TopicConfig(retention="1h")
        assert reader.topic("b").config == TopicConfig()
