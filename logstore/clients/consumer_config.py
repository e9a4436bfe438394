"""What a consumer can be told when it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypedDict

from logstore.errors import InvalidConfigError, InvalidGroupIdError
from logstore.model import IsolationLevel
from logstore.quantities import bytes_from

__all__ = ["ConsumerConfig", "ConsumerOptions", "OffsetReset", "consumer_config"]

OffsetReset = Literal["earliest", "latest", "none"]


class ConsumerOptions(TypedDict, total=False):
    """Keywords of `logstore.Broker.consumer`; see there."""

    group: str | None
    group_instance_id: str | None
    client_id: str | None
    auto_offset_reset: OffsetReset
    enable_auto_commit: bool
    auto_commit_interval: float
    max_poll_records: int
    max_poll_interval: float
    session_timeout: float
    heartbeat_interval: float
    partition_assignment_strategy: Sequence[Any]
    fetch_max_bytes: int | str
    max_partition_fetch_bytes: int | str
    isolation_level: IsolationLevel
    consumer_timeout: float | None
    clock: Callable[[], float] | None


class ConsumerConfig(NamedTuple):
    """`ConsumerOptions`, checked and complete. Times are in seconds."""

    group: str | None = None
    group_instance_id: str | None = None
    client_id: str = "logstore"
    auto_offset_reset: OffsetReset = "earliest"
    enable_auto_commit: bool = True
    auto_commit_interval: float = 5.0
    max_poll_records: int = 500
    max_poll_interval: float = 300.0
    session_timeout: float = 45.0
    heartbeat_interval: float = 3.0
    partition_assignment_strategy: tuple[Any, ...] = ("cooperative-sticky",)
    fetch_max_bytes: int = 50 << 20
    max_partition_fetch_bytes: int = 1 << 20
    isolation_level: IsolationLevel = "read_uncommitted"
    consumer_timeout: float | None = None
    clock: Callable[[], float] | None = None


def consumer_config(options: Mapping[str, Any]) -> ConsumerConfig:
    """Checks what was asked for.

    Raises
    ------
    InvalidConfigError
        An unknown option (the message names the nearest), or a value out of range.
    InvalidGroupIdError
    """
    known = ConsumerConfig._fields
    for name in options:
        if name not in known:
            import difflib

            near = difflib.get_close_matches(name, known, n=1)
            advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise InvalidConfigError(f"a consumer has no option {name!r}; {advice}")
    given = {name: value for name, value in options.items() if value is not None}
    for name in ("fetch_max_bytes", "max_partition_fetch_bytes"):
        if name in given:
            given[name] = bytes_from(given[name], name)
    if "partition_assignment_strategy" in given:
        given["partition_assignment_strategy"] = _strategies(given["partition_assignment_strategy"])
    if given.get("group") is not None:
        given.setdefault("isolation_level", "read_committed")
    config = ConsumerConfig(**given)
    if config.group is not None and (not isinstance(config.group, str) or not config.group):
        raise InvalidGroupIdError(f"group must be a string of at least one character, not {config.group!r}")
    if config.group_instance_id is not None and config.group is None:
        raise InvalidConfigError("group_instance_id= is for members of a group; give group= as well")
    if config.auto_offset_reset not in ("earliest", "latest", "none"):
        raise InvalidConfigError(
            f"auto_offset_reset must be 'earliest', 'latest' or 'none', not {config.auto_offset_reset!r}"
        )
    if config.isolation_level not in ("read_uncommitted", "read_committed"):
        raise InvalidConfigError(
            f"isolation_level must be 'read_uncommitted' or 'read_committed', not {config.isolation_level!r}"
        )
    for name in ("max_poll_records", "fetch_max_bytes", "max_partition_fetch_bytes"):
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidConfigError(f"{name} must be a whole number of at least 1, not {value!r}")
    for name in ("auto_commit_interval", "max_poll_interval", "session_timeout", "heartbeat_interval"):
        _check_seconds(name, getattr(config, name), least=0.001)
    if config.consumer_timeout is not None:
        _check_seconds("consumer_timeout", config.consumer_timeout, least=0.0)
    return config


def _check_seconds(name: str, value: object, least: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= least:
        raise InvalidConfigError(f"{name} must be seconds, {least} or more, not {value!r}")


def _strategies(value: object) -> tuple[Any, ...]:
    is_one = isinstance(value, str) or hasattr(value, "assign")
    strategies = (value,) if is_one else tuple(value) if isinstance(value, (list, tuple)) else ()
    if not strategies:
        raise InvalidConfigError(
            f"partition_assignment_strategy must name at least one assignor, not {value!r}"
        )
    return strategies
