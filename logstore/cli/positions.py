"""Positions in a topic as the command line takes them: an offset, a time, an age, ``earliest`` or ``latest``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from logstore.errors import InvalidRequestError, UnknownTopicOrPartitionError
from logstore.positions import Position, resolve_position

if TYPE_CHECKING:
    import logstore

__all__ = ["POSITION", "check_partition"]


class _PositionType(click.ParamType):  # type: ignore[type-arg]
    name = "position"

    def convert(self, value: Any, parameter: click.Parameter | None, ctx: click.Context | None) -> Position:
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]
        text = value.strip()
        if text.isascii() and text.isdigit():
            return int(text)
        if text in ("earliest", "latest"):
            return text
        if text.startswith("-"):
            # Made a time here, once: every partition counts from the same moment.
            try:
                _, timestamp_ms = resolve_position(text, "the position")
            except InvalidRequestError:
                self.fail(f"{value!r} is no age such as -90s, -1h or -7d", parameter, ctx)
            return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=timestamp_ms)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail(
                f"{value!r} is no offset (120), time (2013-01-15 or 2013-01-15T08:30:00Z; UTC unless it says "
                "otherwise), age (-1h), 'earliest' or 'latest'",
                parameter,
                ctx,
            )
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


POSITION = _PositionType()


def check_partition(topic: logstore.Topic, partition: int | None, *positions: Position) -> None:
    """Refuse a partition the topic does not have, and offsets where it is not clear which partition's.

    Raises
    ------
    UnknownTopicOrPartitionError
    click.UsageError
    """
    if partition is not None and not 0 <= partition < topic.partitions:
        raise UnknownTopicOrPartitionError(
            f"topic {topic.name!r} has no partition {partition}: they are 0 to {topic.partitions - 1}"
        )
    if partition is None and topic.partitions > 1:
        for position in positions:
            if isinstance(position, int):
                raise click.UsageError(
                    f"Offset {position} of which of the {topic.partitions} partitions? Give --partition as well."
                )
