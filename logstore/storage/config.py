"""Topic settings under Kafka's names (log-format, section 8.1), checked once, here.

Keys are given as Kafka writes them (``{"retention.ms": 604800000}``) or as snake_case keywords
(``retention_ms=...``); ``retention`` is short for ``retention.ms``. Texts such as ``"7d"`` and ``"512MiB"`` are
understood wherever a number of ms or bytes is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from logstore.errors import InvalidConfigError
from logstore.quantities import bytes_from, ms_from

__all__ = ["CODEC_NUMBERS", "SETTINGS", "Setting", "TopicConfig", "kafka_name"]

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1

CODEC_NUMBERS = {"uncompressed": 0, "none": 0, "producer": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


class Setting(NamedTuple):
    """One setting: its Kafka name, default, how a value is read, and what it means."""

    name: str
    default: Any
    read: Callable[[object, str], Any]
    meaning: str


def _number(parse: Callable[[object, str], int], least: int, most: int) -> Callable[[object, str], int]:
    def read(value: object, name: str) -> int:
        number = parse(value, name)
        if not least <= number <= most:
            raise InvalidConfigError(f"{name} must be in [{least}, {most}], not {number}")
        return number

    return read


def _plain(value: object, name: str) -> int:
    if isinstance(value, str) and value.strip().lstrip("+-").isdigit():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise InvalidConfigError(f"{name} must be a whole number, not {value!r}")


def _ratio(value: object, name: str) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = -1.0
    if not 0.0 <= number <= 1.0:
        raise InvalidConfigError(f"{name} must be in [0, 1], not {value!r}")
    return number


def _percent(value: object, name: str) -> float:
    try:
        number = float(str(value).strip().removesuffix("%"))
    except ValueError:
        number = -1.0
    if isinstance(value, bool) or not 0.0 <= number < 100.0:
        raise InvalidConfigError(f"{name} must be in [0, 100), not {value!r}")
    return number


def _text(value: object, name: str) -> str:
    if isinstance(value, str):
        return value
    raise InvalidConfigError(f"{name} must be a text, not {value!r}")


def _names(value: object, name: str) -> str:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
        raise InvalidConfigError(f"{name} must be names separated by commas, not {value!r}")
    return ",".join(dict.fromkeys(part.strip() for part in parts if part.strip()))


def read_boolean(value: object, name: str) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise InvalidConfigError(f"{name} must be true or false, not {value!r}")


def _one_of(*choices: str) -> Callable[[object, str], str]:
    def read(value: object, name: str) -> str:
        if value in choices:
            return str(value)
        raise InvalidConfigError(f"{name} must be one of {', '.join(choices)}, not {value!r}")

    return read


def _cleanup_policy(value: object, name: str) -> str:
    parts = value.split(",") if isinstance(value, str) else list(value) if isinstance(value, (list, tuple)) else []
    policies = sorted({str(part).strip() for part in parts})
    if not policies or not set(policies) <= {"compact", "delete"}:
        raise InvalidConfigError(f"{name} must be delete, compact, or compact,delete, not {value!r}")
    return ",".join(policies)


def _setting(name: str, default: Any, read: Callable[[object, str], Any], meaning: str) -> tuple[str, Setting]:
    return name, Setting(name, default, read, meaning)


SETTINGS: dict[str, Setting] = dict(
    [
        _setting("cleanup.policy", "delete", _cleanup_policy, "what housekeeping does with old records"),
        _setting("compression.gzip.level", -1, _number(_plain, -1, 9), "level where compression.type is gzip"),
        _setting("compression.lz4.level", 9, _number(_plain, 1, 17), "level where compression.type is lz4"),
        _setting("compression.type", "producer", _one_of("producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"),
                 "codec of batches; producer keeps the producer's own"),
        _setting("compression.zstd.level", 3, _number(_plain, -131072, 22), "level where compression.type is zstd"),
        _setting("delete.retention.ms", 86_400_000, _number(ms_from, 0, INT64_MAX), "how long tombstones are kept"),
        _setting("file.delete.delay.ms", 60_000, _number(ms_from, 0, INT64_MAX), "between rename and unlink"),
        _setting("flush.messages", INT64_MAX, _number(_plain, 1, INT64_MAX), "records between forced flushes"),
        _setting("flush.ms", 1_000, _number(ms_from, 0, INT64_MAX),
                 "longest time a record stays unflushed; Kafka's default is never"),
        _setting("index.interval.bytes", 4096, _number(bytes_from, 0, INT32_MAX), "bytes between index entries"),
        _setting("logstore.batch.bytes", 65_536, _number(bytes_from, 64, INT32_MAX),
                 "where an open batch is handed over"),
        _setting("logstore.durability", None, _one_of("flushed", "appended", "buffered"),
                 "what an acknowledgement means; the broker's where unset"),
        _setting("logstore.expiry.header", "", _text,
                 "header of a record that says when it expires: ms since 1970, or 90s, 12h, 7d from its timestamp on"),
        _setting("logstore.linger.ms", 5, _number(ms_from, 0, INT64_MAX),
                 "longest time a buffered record stays in the open batch"),
        _setting("logstore.open.batch.mapped", True, read_boolean,
                 "whether a burst of appended records goes through a mapped file instead of a system call each"),
        _setting("logstore.retention.cap.timestamps", False, read_boolean,
                 "whether a segment counts as no newer than its last write, whatever timestamps it holds"),
        _setting("logstore.retention.disk.free.percent", 0, _percent,
                 "share of the disk kept free by deleting the oldest sealed segments; 0 for none"),
        _setting("logstore.retention.groups", "", _names,
                 "consumer groups whose unread records are not deleted, separated by commas"),
        _setting("logstore.retention.groups.max.bytes", -1, _number(bytes_from, -1, INT64_MAX),
                 "size of a partition up to which unread records are held for groups; -1 for any"),
        _setting("logstore.retention.groups.max.ms", -1, _number(ms_from, -1, INT64_MAX),
                 "age up to which unread records are held for groups; -1 for any"),
        _setting("logstore.retention.records", -1, _number(_plain, -1, INT64_MAX),
                 "offsets kept per partition, exactly; -1 for all"),
        _setting("max.compaction.lag.ms", INT64_MAX, _number(ms_from, 1, INT64_MAX), "latest compaction of a record"),
        _setting("max.message.bytes", 1_048_588, _number(bytes_from, 0, INT32_MAX), "largest record batch"),
        _setting("message.timestamp.after.max.ms", 3_600_000, _number(ms_from, 0, INT64_MAX),
                 "how far in the future a timestamp may be"),
        _setting("message.timestamp.before.max.ms", INT64_MAX, _number(ms_from, 0, INT64_MAX),
                 "how old a timestamp may be"),
        _setting("message.timestamp.type", "CreateTime", _one_of("CreateTime", "LogAppendTime"),
                 "whose clock timestamps a record"),
        _setting("min.cleanable.dirty.ratio", 0.5, _ratio, "share of uncompacted bytes that starts compaction"),
        _setting("min.compaction.lag.ms", 0, _number(ms_from, 0, INT64_MAX), "earliest compaction of a record"),
        _setting("preallocate", True, read_boolean,
                 "gives a segment file zeros, or blocks, ahead of its end while records are flushed one after the other"),
        _setting("retention.bytes", -1, _number(bytes_from, -1, INT64_MAX), "size kept per partition; -1 for all"),
        # Kafka's default is 7 days. Here nothing is deleted that nobody has asked to delete.
        _setting("retention.ms", -1, _number(ms_from, -1, INT64_MAX), "time records are kept; -1 for ever"),
        _setting("segment.bytes", 1_073_741_824, _number(bytes_from, 1024, INT32_MAX), "size of a segment"),
        _setting("segment.index.bytes", 10_485_760, _number(bytes_from, 24, INT32_MAX), "largest index of a segment"),
        _setting("segment.jitter.ms", 0, _number(ms_from, 0, INT64_MAX), "random spread of rolls by time"),
        _setting("segment.ms", 604_800_000, _number(ms_from, 1, INT64_MAX), "time after which a segment is rolled"),
    ]
)

# Kafka has them; one machine does not need them, or not yet. Named, so that the refusal can say why.
_NOT_HERE = {
    "min.insync.replicas": "there are no replicas in one directory",
    "unclean.leader.election.enable": "there are no replicas in one directory",
    "remote.storage.enable": "there is no tiered storage",
    "local.retention.ms": "there is no tiered storage",
    "local.retention.bytes": "there is no tiered storage",
    "message.downconversion.enable": "Kafka 4 dropped it",
    "message.format.version": "Kafka 4 dropped it",
}
_ALIASES = {"retention": "retention.ms", "durability": "logstore.durability"}
_KEYWORDS = {name.replace(".", "_"): name for name in SETTINGS}


def kafka_name(key: str) -> str:
    """The setting that a key means: Kafka's name, snake_case, or a short form.

    Raises
    ------
    InvalidConfigError
        None; the message suggests the nearest.
    """
    name = _ALIASES.get(key, key)
    name = _KEYWORDS.get(name, name)
    if name in SETTINGS:
        return name
    dotted = key.replace("_", ".")
    if dotted in _NOT_HERE:
        raise InvalidConfigError(f"{dotted} is a setting of Kafka's that logstore does not have: {_NOT_HERE[dotted]}")
    import difflib

    near = difflib.get_close_matches(dotted, [*SETTINGS, *_ALIASES], n=1, cutoff=0.5)
    advice = f"did you mean {near[0]}?" if near else "see `logstore topic create --help` for all of them"
    raise InvalidConfigError(f"unknown setting {key!r}; {advice}")


class TopicConfig:
    """The settings of one topic: those set, over the defaults. Immutable.

    Parameters
    ----------
    config : mapping of str to value, optional
        Under Kafka's names.
    **settings
        The same in snake_case.

    Raises
    ------
    InvalidConfigError
        An unknown key (the message suggests the nearest), a value out of range, or settings that contradict.
    """

    __slots__ = ("_overrides",)

    def __init__(self, config: Mapping[str, Any] | None = None, **settings: Any):
        overrides: dict[str, Any] = {}
        for key, value in {**(config or {}), **settings}.items():
            name = kafka_name(str(key))
            if value is None:
                continue
            if name in overrides:
                raise InvalidConfigError(f"{name} is given twice")
            overrides[name] = SETTINGS[name].read(value, name)
        self._overrides = dict(sorted(overrides.items()))
        if self["min.compaction.lag.ms"] > self["max.compaction.lag.ms"]:
            raise InvalidConfigError("min.compaction.lag.ms must not exceed max.compaction.lag.ms")

    def __getitem__(self, name: str) -> Any:
        found = self._overrides.get(name)
        return SETTINGS[name].default if found is None else found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TopicConfig) and self._overrides == other._overrides

    def __hash__(self) -> int:
        return hash(tuple(self._overrides.items()))

    def __repr__(self) -> str:
        return f"TopicConfig({self._overrides!r})"

    def overrides(self) -> dict[str, Any]:
        """The settings that were given, by Kafka's name."""
        return dict(self._overrides)

    def as_dict(self) -> dict[str, Any]:
        """Every setting, by Kafka's name."""
        return {name: self[name] for name in SETTINGS}

    def with_changes(self, config: Mapping[str, Any] | None = None, **settings: Any) -> TopicConfig:
        """A copy with some settings changed; a value of None goes back to the default."""
        merged: dict[str, Any] = dict(self._overrides)
        for key, value in {**(config or {}), **settings}.items():
            name = kafka_name(str(key))
            if value is None:
                merged.pop(name, None)
            else:
                merged[name] = value
        return TopicConfig(merged)

    @property
    def is_compacted(self) -> bool:
        return "compact" in self["cleanup.policy"]

    @property
    def codec(self) -> int:
        """Number of the codec new batches get."""
        return CODEC_NUMBERS[self["compression.type"]]

    @property
    def codec_level(self) -> int | None:
        name = f"compression.{self['compression.type']}.level"
        return int(self[name]) if name in SETTINGS else None

    @property
    def roll_ms(self) -> int:
        """``segment.ms``, capped by ``max.compaction.lag.ms`` where the topic is compacted."""
        limit = self["max.compaction.lag.ms"] if self.is_compacted else INT64_MAX
        return int(min(self["segment.ms"], limit))
