"""A producer's settings, checked once, here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypedDict

from logstore.errors import InvalidConfigError
from logstore.model import Durability
from logstore.quantities import bytes_from, ms_from

__all__ = ["ProducerOptions", "ProducerSettings", "producer_settings"]

INT32_MAX = 2**31 - 1

DeliveryCallback = Callable[[Any, Any], object]
PartitionChoice = Callable[[bytes | None, int], int]


class ProducerSettings(NamedTuple):
    """What a producer goes by; see `logstore.clients.producer.Producer` for the meaning."""

    linger_ms: int = 5
    batch_size: int = 64 << 10
    codec: int | None = None
    codec_level: int | None = None
    is_flushed: bool | None = None
    partitioner: str | PartitionChoice = "murmur2"
    buffer_memory: int = 32 << 20
    max_block: float = 60.0
    delivery_timeout: float = 120.0
    retry_backoff: float = 0.1
    max_request_size: int = INT32_MAX
    client_id: str | None = None
    on_delivery: DeliveryCallback | None = None
    clock: Callable[[], int] | None = None
    enable_idempotence: bool = True
    transactional_id: str | None = None
    transaction_timeout: float = 60.0


class ProducerOptions(TypedDict, total=False):
    """Keywords of `Broker.producer`."""

    acks: Literal[0, 1, -1, "all"] | None
    batch_size: int | str
    buffer_memory: int | str
    client_id: str | None
    clock: Callable[[], int] | None
    compression: str | None
    compression_level: int | None
    compression_type: str | None
    delivery_timeout: float | str
    durability: Durability | None
    enable_idempotence: bool
    linger_ms: int | str
    max_block: float | str
    max_request_size: int | str | None
    on_delivery: DeliveryCallback | None
    partitioner: str | PartitionChoice
    retry_backoff: float | str
    transaction_timeout: float | str
    transactional_id: str | None


_NAMES = tuple(name for name in ProducerOptions.__annotations__ if name != "compression")
_ALIASES = {"compression": "compression_type"}


def producer_settings(given: Mapping[str, Any]) -> ProducerSettings:
    """Checks keywords of `Broker.producer`.

    Raises
    ------
    InvalidConfigError
        An unknown keyword (the message suggests the nearest), a value out of range, or two that contradict.
    """
    values: dict[str, Any] = {}
    for key, value in given.items():
        name = _ALIASES.get(key, key)
        if name not in _NAMES:
            raise _unknown(key)
        if name in values:
            raise InvalidConfigError(f"{name} is given twice, once as {key}")
        values[name] = value
    checked: dict[str, Any] = {}
    if "linger_ms" in values:
        checked["linger_ms"] = _within(ms_from(values["linger_ms"], "linger_ms"), 0, INT32_MAX, "linger_ms")
    for name, least in (("batch_size", 0), ("buffer_memory", 1), ("max_request_size", 1)):
        if values.get(name) is not None:
            most = 2**62 if name == "buffer_memory" else INT32_MAX
            checked[name] = _within(bytes_from(values[name], name), least, most, name)
    for name in ("max_block", "delivery_timeout", "retry_backoff", "transaction_timeout"):
        if name in values:
            checked[name] = _seconds(values[name], name)
    checked["codec"], checked["codec_level"] = _codec(values.get("compression_type"), values.get("compression_level"))
    checked["is_flushed"] = _is_flushed(values.get("acks"), values.get("durability"))
    partitioner = values.get("partitioner")
    if partitioner is not None:
        if not callable(partitioner) and partitioner not in ("murmur2", "crc32", "round_robin"):
            raise InvalidConfigError(
                "partitioner must be 'murmur2', 'crc32', 'round_robin', or a callable (key, partition_count) -> partition, "
                f"not {partitioner!r}"
            )
        checked["partitioner"] = partitioner
    for name in ("on_delivery", "clock"):
        if values.get(name) is not None and not callable(values[name]):
            raise InvalidConfigError(f"{name} is called, which {type(values[name]).__name__} can't be")
        checked[name] = values.get(name)
    checked.update(_identity(values.get("enable_idempotence", True), values.get("transactional_id")))
    client_id = values.get("client_id")
    if client_id is not None and not isinstance(client_id, str):
        raise InvalidConfigError(f"client_id must be a str, not {client_id!r}")
    return ProducerSettings(**checked, client_id=client_id)


def _identity(enable_idempotence: object, transactional_id: object) -> dict[str, Any]:
    if not isinstance(enable_idempotence, bool):
        raise InvalidConfigError(f"enable_idempotence must be True or False, not {enable_idempotence!r}")
    if transactional_id is not None and (not isinstance(transactional_id, str) or not transactional_id):
        raise InvalidConfigError(f"transactional_id must be a text of at least one character, not {transactional_id!r}")
    if transactional_id is not None and not enable_idempotence:
        raise InvalidConfigError("transactions rest on idempotence; leave out enable_idempotence=False")
    return {"enable_idempotence": enable_idempotence, "transactional_id": transactional_id}


def _unknown(key: str) -> InvalidConfigError:
    import difflib

    near = difflib.get_close_matches(key, [*_NAMES, *_ALIASES], n=1, cutoff=0.5)
    advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(_NAMES)}"
    return InvalidConfigError(f"a producer has no setting {key!r}; {advice}")


def _within(number: int, least: int, most: int, name: str) -> int:
    if not least <= number <= most:
        raise InvalidConfigError(f"{name} must be in [{least}, {most}], not {number}")
    return number


def _seconds(value: object, name: str) -> float:
    if isinstance(value, str):
        value = ms_from(value, name) / 1000
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise InvalidConfigError(f"{name} must be seconds, 0 or more, or a text such as '30s', not {value!r}")
    return min(float(value), 1e9)


def _codec(name: object, level: object) -> tuple[int | None, int | None]:
    if name is None:
        if level is not None:
            raise InvalidConfigError("compression_level needs compression_type")
        return None, None
    from logstore.records.codecs import check_level, codec_id

    if not isinstance(name, str) or (level is not None and not isinstance(level, int)):
        raise InvalidConfigError(f"compression_type is a name and compression_level a number, not {name!r} and {level!r}")
    codec = codec_id(name)
    check_level(codec, level)
    return codec, level


def _is_flushed(acks: object, durability: object) -> bool | None:
    """Whether an acknowledgement waits for the disk; None for what the topic says.

    A producer's records are batched before anything else, so ``buffered`` promises no less than ``appended`` once the
    offset is known, and is the same here.
    """
    if acks is not None and durability is not None:
        raise InvalidConfigError("acks and durability say the same; give one of them")
    if durability is not None:
        if durability not in ("flushed", "appended", "buffered"):
            raise InvalidConfigError(f"durability must be 'flushed', 'appended' or 'buffered', not {durability!r}")
        return bool(durability == "flushed")
    if acks is None:
        return None
    if isinstance(acks, bool) or acks not in (0, 1, -1, "0", "1", "-1", "all"):
        raise InvalidConfigError(f"acks must be 0, 1 or 'all', not {acks!r}")
    return str(acks) in ("-1", "all")
