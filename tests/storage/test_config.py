"""Settings: names, texts, limits."""

from __future__ import annotations

import pytest

from logstore.errors import InvalidConfigError, InvalidRequestError
from logstore.quantities import bytes_from, format_bytes, format_ms, ms_from
from logstore.storage.config import SETTINGS, TopicConfig


def test_defaults_are_kafkas_but_for_flush_ms_and_retention_ms():
    config = TopicConfig()
    assert config["retention.ms"] == -1, "nothing is deleted that nobody has asked to delete"
    assert config["segment.bytes"] == 1 << 30
    assert config["max.message.bytes"] == (1 << 20) + 12
    assert config["index.interval.bytes"] == 4096
    assert config["flush.ms"] == 1000
    assert config.overrides() == {}
    assert set(config.as_dict()) == set(SETTINGS)


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"retention": "7d"}, "retention.ms", 604_800_000),
        ({"retention_ms": 5}, "retention.ms", 5),
        ({"config": {"retention.ms": "-1"}}, "retention.ms", -1),
        ({"segment_bytes": "512MiB"}, "segment.bytes", 512 << 20),
        ({"segment_bytes": "1 KiB"}, "segment.bytes", 1024),
        ({"config": {"segment.bytes": "1048576"}}, "segment.bytes", 1 << 20),
        ({"durability": "buffered"}, "logstore.durability", "buffered"),
        ({"cleanup_policy": "delete, compact"}, "cleanup.policy", "compact,delete"),
        ({"cleanup_policy": ["compact"]}, "cleanup.policy", "compact"),
        ({"segment_ms": "1h30m"}, "segment.ms", 5_400_000),
        ({"min_cleanable_dirty_ratio": "0.25"}, "min.cleanable.dirty.ratio", 0.25),
        ({"compression_type": "zstd"}, "compression.type", "zstd"),
        ({"flush_messages": "100"}, "flush.messages", 100),
    ],
)
def test_settings_are_understood(given, name, value):
    config = TopicConfig(**given)
    assert config[name] == value
    assert config.overrides() == {name: value}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"retention.s": 1}, "did you mean retention.ms"),
        ({"segment_byte": 1}, "did you mean segment.bytes"),
        ({"compresion.type": "zstd"}, "did you mean compression.type"),
        ({"durabilty": "flushed"}, "did you mean durability"),
        ({"xyzzy": 1}, "unknown setting"),
        ({"min.insync.replicas": 2}, "no replicas"),
        ({"preallocate": "perhaps"}, "preallocate"),
        ({"segment.bytes": 1023}, r"in \[1024"),
        ({"segment.bytes": 2**31}, "2147483647"),
        ({"retention.ms": -2}, r"in \[-1"),
        ({"flush.messages": 0}, r"in \[1"),
        ({"segment.bytes": "many"}, "units are"),
        ({"segment.bytes": "1 parsec"}, "units are"),
        ({"segment.bytes": 1.5}, "whole number"),
        ({"segment.bytes": True}, "number"),
        ({"compression.type": "brotli"}, "one of"),
        ({"cleanup.policy": ""}, "compact"),
        ({"cleanup.policy": "shred"}, "compact"),
        ({"message.timestamp.type": "createtime"}, "CreateTime"),
        ({"min.cleanable.dirty.ratio": 1.1}, r"\[0, 1\]"),
        ({"min.cleanable.dirty.ratio": float("nan")}, r"\[0, 1\]"),
        ({"min.compaction.lag.ms": 2, "max.compaction.lag.ms": 1}, "must not exceed"),
        ({"retention.ms": 1, "retention": 2}, "twice"),
        ({"durability": "fsynced"}, "flushed"),
    ],
)
def test_wrong_settings_are_refused(given, words):
    with pytest.raises(InvalidConfigError, match=words) as caught:
        TopicConfig(given)
    assert isinstance(caught.value, InvalidRequestError)


def test_none_is_the_default():
    assert TopicConfig(retention_ms=None).overrides() == {}
    changed = TopicConfig(retention_ms=1, segment_ms=2).with_changes(retention_ms=None, flush_ms=3)
    assert changed.overrides() == {"segment.ms": 2, "flush.ms": 3}


def test_equal_settings_are_equal():
    assert TopicConfig(retention="1d") == TopicConfig({"retention.ms": 86_400_000})
    assert hash(TopicConfig(retention="1d")) == hash(TopicConfig({"retention.ms": 86_400_000}))
    assert TopicConfig() != TopicConfig(retention="1d")


def test_codec_and_its_level():
    assert (TopicConfig().codec, TopicConfig().codec_level) == (0, None)
    config = TopicConfig(compression_type="zstd", compression_zstd_level=7)
    assert (config.codec, config.codec_level) == (4, 7)
    assert TopicConfig(compression_type="snappy").codec_level is None


def test_compacted_topics_roll_in_time_for_compaction():
    assert TopicConfig(segment_ms=100, max_compaction_lag_ms=10).roll_ms == 100
    assert TopicConfig(segment_ms=100, max_compaction_lag_ms=10, cleanup_policy="compact").roll_ms == 10


@pytest.mark.parametrize(
    ("text", "ms"),
    [("1ms", 1), ("2s", 2000), ("1.5h", 5_400_000), ("-1h", -3_600_000), ("1w2d", 777_600_000), (7, 7),
     ("15", 15), (" 3 min ", 180_000)],
)  # fmt: skip
def test_durations(text, ms):
    assert ms_from(text) == ms


@pytest.mark.parametrize("text", ["", "h", "-", "1.5", "1h30", "1x", None, 1.0, True, "1h -5m", "--1h", "\u0661s"])
def test_what_is_no_duration(text):
    with pytest.raises(InvalidConfigError):
        ms_from(text)


def test_sizes():
    assert bytes_from("1kb") == 1000
    assert bytes_from("1K") == 1024
    assert bytes_from("0.5GiB") == 1 << 29
    assert format_bytes(1536) == "1.5 KiB"
    assert format_bytes(12) == "12 B"
    assert format_ms(5_400_000) == "1h 30m"
    assert format_ms(0) == "0ms"


def test_negative_ages_with_two_units():
    assert ms_from("-1h30m") == -5_400_000
