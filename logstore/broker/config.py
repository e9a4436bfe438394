"""Settings of a broker under Kafka's names (log-format, section 8.2), checked once, here.

Given to `logstore.open` as Kafka writes them (``config={"offsets.retention.minutes": 1440}``) or as keywords in snake_case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from logstore.errors import InvalidConfigError
from logstore.quantities import bytes_from, ms_from
from logstore.storage.config import INT32_MAX, INT64_MAX, Setting, read_boolean

__all__ = ["BROKER_SETTINGS", "BrokerConfig"]


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


def _minutes(value: object, name: str) -> int:
    """A number of minutes, or a text with a unit."""
    if isinstance(value, str) and not value.strip().lstrip("+-").isdigit():
        milliseconds = ms_from(value, name)
        if milliseconds % 60_000:
            raise InvalidConfigError(f"{name} counts in minutes; {value!r} is not a whole number of them")
        return milliseconds // 60_000
    return _plain(value, name)


BROKER_SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting("group.initial.rebalance.delay.ms", 0, _number(ms_from, 0, INT32_MAX),
                "how long the first member of a group waits for others; Kafka's default is 3 s"),
        Setting("group.max.session.timeout.ms", 1_800_000, _number(ms_from, 1, INT32_MAX), "longest session timeout"),
        Setting("group.max.size", INT32_MAX, _number(_plain, 1, INT32_MAX), "most members of a group"),
        Setting("group.min.session.timeout.ms", 6_000, _number(ms_from, 1, INT32_MAX), "shortest session timeout"),
        Setting("log.cleaner.backoff.ms", 15_000, _number(ms_from, 0, INT32_MAX),
                "how long compaction rests where nothing is due"),
        Setting("log.cleaner.dedupe.buffer.size", 134_217_728, _number(bytes_from, 1_048_576, INT32_MAX),
                "memory for the keys of a compaction"),
        Setting("log.cleaner.enable", True, read_boolean, "whether housekeeping compacts"),
        Setting("log.cleaner.io.max.bytes.per.second", INT64_MAX, _number(bytes_from, 1, INT64_MAX),
                "most bytes that compaction reads and writes in a second"),
        Setting("log.initial.task.delay.ms", 30_000, _number(ms_from, 0, INT32_MAX),
                "when housekeeping begins after opening"),
        Setting("log.retention.check.interval.ms", 300_000, _number(ms_from, 1, INT32_MAX),
                "time between two rounds of retention"),
        Setting("logstore.scrub.bytes.per.second", 8_388_608, _number(bytes_from, 0, INT64_MAX),
                "how fast sealed segments are verified in the background; 0 for never"),
        Setting("logstore.scrub.interval.ms", 604_800_000, _number(ms_from, 1, INT64_MAX),
                "how often each sealed segment is verified"),
        Setting("offset.metadata.max.bytes", 4_096, _number(bytes_from, 0, 8_191),
                "longest text with a committed offset, in characters"),
        Setting("offsets.retention.check.interval.ms", 600_000, _number(ms_from, 1, INT64_MAX),
                "time between two searches for expired offsets"),
        Setting("offsets.retention.minutes", 10_080, _number(_minutes, 1, INT32_MAX),
                "how long the offsets of a group without members are kept"),
        Setting("offsets.topic.num.partitions", 1, _number(_plain, 1, 10_000),
                "partitions of __consumer_offsets where it does not exist yet; Kafka's default is 50"),
        Setting("offsets.topic.segment.bytes", 104_857_600, _number(bytes_from, 1024, INT32_MAX),
                "segment.bytes of __consumer_offsets where it does not exist yet"),
        Setting("transaction.max.timeout.ms", 900_000, _number(ms_from, 1, INT32_MAX),
                "longest transaction_timeout a producer may ask for"),
        Setting("transaction.state.log.num.partitions", 1, _number(_plain, 1, 10_000),
                "partitions of __transaction_state where it does not exist yet; Kafka's default is 50"),
        Setting("transaction.state.log.segment.bytes", 104_857_600, _number(bytes_from, 1024, INT32_MAX),
                "segment.bytes of __transaction_state where it does not exist yet"),
        Setting("transactional.id.expiration.ms", 604_800_000, _number(ms_from, 1, INT64_MAX),
                "how long a transactional id is remembered after its last transaction"),
    )
}

_KEYWORDS = {name.replace(".", "_"): name for name in BROKER_SETTINGS}


def _kafka_name(key: str) -> str:
    name = _KEYWORDS.get(key, key)
    if name in BROKER_SETTINGS:
        return name
    import difflib

    near = difflib.get_close_matches(key.replace("_", "."), BROKER_SETTINGS, n=1, cutoff=0.5)
    advice = f"did you mean {near[0]}?" if near else "docs/guide/settings.md lists all of them"
    raise InvalidConfigError(f"unknown setting {key!r} of a broker; {advice}")


class BrokerConfig:
    """The settings of one broker: those given, over the defaults. Immutable.

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

    __slots__ = ("_values",)

    def __init__(self, config: Mapping[str, Any] | None = None, **settings: Any):
        given: dict[str, Any] = {}
        for key, value in [*(config or {}).items(), *settings.items()]:
            name = _kafka_name(str(key))
            if name in given:
                raise InvalidConfigError(f"{name} is given twice")
            if value is not None:
                given[name] = BROKER_SETTINGS[name].read(value, name)
        self._values = {name: given.get(name, setting.default) for name, setting in BROKER_SETTINGS.items()}
        if self["group.min.session.timeout.ms"] > self["group.max.session.timeout.ms"]:
            raise InvalidConfigError("group.min.session.timeout.ms must not exceed group.max.session.timeout.ms")

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __repr__(self) -> str:
        changed = {name: value for name, value in self._values.items() if value != BROKER_SETTINGS[name].default}
        return f"BrokerConfig({changed!r})"

    def as_dict(self) -> dict[str, Any]:
        """Every setting, by Kafka's name."""
        return dict(self._values)
