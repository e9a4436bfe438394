"""``logstore consume --group``: what is printed is committed, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from logstore.cli.output import data_output
from logstore.positions import Position

if TYPE_CHECKING:
    import logstore

__all__ = ["consume_as_group"]

_JOIN_SECONDS = 0.05
_RECORDS = 500


def consume_as_group(
    broker: logstore.Broker,
    topic: str,
    group: str,
    start: Position | None,
    count: int | None,
    follow: bool,
    render: Callable[[logstore.Record], bytes],
) -> None:
    """Prints a group's records: those there are now, or also all to come. Ctrl-C commits what was printed until then."""
    out = data_output()
    printed: dict[tuple[str, int], int] = {}
    ends: dict[logstore.TopicPartition, int] = {}

    def assigned(partitions: list[logstore.TopicPartition]) -> None:
        ends.update(consumer.end_offsets(partitions))
        for partition in partitions:
            if start is not None and consumer.committed(partition) is None:
                consumer.seek(partition, start)

    def commit() -> None:
        out.flush()
        if printed:
            consumer.commit(printed)
            printed.clear()

    consumer = broker.consumer(group=group, enable_auto_commit=False, client_id="logstore-consume")
    with consumer:
        consumer.subscribe(topic, on_partitions_assigned=assigned)
        left = _RECORDS if count is None else count
        try:
            while left > 0:
                wait = None if follow and ends else _JOIN_SECONDS
                records = consumer.poll(timeout=wait, max_records=min(left, _RECORDS))
                for record in records:
                    out.write(render(record))
                    printed[record.topic, record.partition] = record.offset + 1
                    if count is not None:
                        left -= 1
                commit()
                if not records and not follow and ends and _is_done(consumer, ends):
                    break
        finally:
            commit()


def _is_done(consumer: logstore.Consumer, ends: dict[logstore.TopicPartition, int]) -> bool:
    return all(consumer.position(partition) >= ends[partition] for partition in consumer.assignment())
