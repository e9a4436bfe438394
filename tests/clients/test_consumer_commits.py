"""What a consumer commits, and when: what was dealt with, never what is still in hand."""

from __future__ import annotations

import asyncio

import pytest

import logstore
from logstore import InvalidRequestError, OffsetAndMetadata, TopicPartition, UnknownTopicOrPartitionError
from logstore._native.record_batch_builder import RecordBatchBuilder

PLACE = TopicPartition("orders", 0)


class Clock:
    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds


class HandlerFailedError(Exception):
    pass


@pytest.fixture
def broker(tmp_path):
    with logstore.open(tmp_path / "data", durability="appended") as opened:
        topic = opened.create_topic("orders")
        topic.append_many([b"%d" % number for number in range(20)])
        yield opened


def made(broker, assigned, **options):
    """A consumer in a group: by subscription, or with partitions assigned by hand."""
    if not assigned:
        return broker.consumer("orders", group="billing", **options)
    consumer = broker.consumer(group="billing", **options)
    consumer.assign([PLACE])
    return consumer


def committed(broker):
    found = broker.coordinator.committed_offsets("billing", [PLACE]).get(PLACE)
    return None if found is None else found.offset


by_hand = pytest.mark.parametrize("assigned", [False, True], ids=["subscribed", "assigned"])


@by_hand
def test_a_handler_that_raises_gets_its_record_again(broker, assigned):
    with pytest.raises(HandlerFailedError), made(broker, assigned) as consumer:  # noqa: PT012
        for record in consumer:
            if record.offset == 7:
                raise HandlerFailedError
    assert committed(broker) == 7
    with made(broker, assigned) as consumer:
        assert next(consumer).offset == 7


@by_hand
def test_a_handler_of_a_batch_that_raises_gets_it_again(broker, assigned):
    with pytest.raises(HandlerFailedError), made(broker, assigned, max_poll_records=5) as consumer:  # noqa: PT012
        while records := consumer.poll(timeout=120):
            if records[0].offset == 10:
                raise HandlerFailedError
    assert committed(broker) == 10


@by_hand
def test_a_handler_of_columns_that_raises_gets_them_again(broker, assigned):
    with pytest.raises(HandlerFailedError), made(broker, assigned) as consumer:  # noqa: PT012
        assert len(consumer.poll(timeout=120, max_records=3)) == 3
        assert consumer.fetch_columns(timeout=5)[0].offsets.tolist() == list(range(3, 20))
        raise HandlerFailedError
    assert committed(broker) == 3


@by_hand
def test_leaving_the_loop_confirms_the_record_in_hand(broker, assigned):
    with made(broker, assigned) as consumer:
        for record in consumer:
            if record.offset == 7:
                break
    assert committed(broker) == 8


def test_close_in_a_finally_tells_success_from_failure(broker):
    consumer = broker.consumer("orders", group="billing")
    with pytest.raises(HandlerFailedError):  # noqa: PT012
        try:
            for record in consumer:
                if record.offset == 4:
                    raise HandlerFailedError
        finally:
            consumer.close()
    assert committed(broker) == 4
    try:
        raise HandlerFailedError
    except HandlerFailedError:
        consumer = broker.consumer("orders", group="billing")  # made by a handler: that exception is not in flight
        assert next(consumer).offset == 4
        consumer.close()
    assert committed(broker) == 5


def test_an_async_handler_that_raises_gets_its_record_again(broker):
    async def read():
        async with broker.consumer("orders", group="billing") as consumer:
            async for record in consumer:
                if record.offset == 7:
                    raise HandlerFailedError

    with pytest.raises(HandlerFailedError):
        asyncio.run(read())
    assert committed(broker) == 7


def test_a_cancelled_task_gets_its_record_again(broker):
    async def read(holding):
        async with broker.consumer("orders", group="billing") as consumer:
            async for record in consumer:
                if record.offset == 7:
                    holding.set()
                    await asyncio.sleep(60)

    async def run():
        holding = asyncio.Event()
        task = asyncio.create_task(read(holding))
        await asyncio.wait_for(holding.wait(), 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert committed(broker) == 7


@by_hand
def test_auto_commit_commits_what_is_confirmed_when_it_is_due(broker, assigned):
    clock = Clock()
    with made(broker, assigned, clock=clock, max_poll_records=5, auto_commit_interval=10) as consumer:
        while not (records := consumer.poll()):
            pass
        assert len(records) == 5
        clock.seconds += 9
        assert len(consumer.poll()) == 5
        assert committed(broker) is None
        clock.seconds += 2
        assert len(consumer.poll()) == 5
        assert committed(broker) == 10  # not what this poll hands out
        clock.seconds += 9
        assert len(consumer.poll()) == 5
        assert committed(broker) == 10


def test_auto_commit_works_while_iterating(broker):
    clock = Clock()
    broker["orders"].append_many([b"x" * 1000] * 1000)
    with broker.consumer("orders", group="billing", clock=clock, auto_commit_interval=10) as consumer:
        for record in consumer:
            clock.seconds += 1
            if record.offset == 900:
                break
        assert 800 <= committed(broker) <= 900


@by_hand
def test_without_auto_commit_nothing_is_committed_but_by_commit(broker, assigned):
    with made(broker, assigned, enable_auto_commit=False) as consumer:
        assert len(consumer.poll(timeout=120, max_records=6)) == 6
        consumer.poll(max_records=1)
    assert committed(broker) is None
    with made(broker, assigned, enable_auto_commit=False) as consumer:
        assert len(consumer.poll(timeout=120, max_records=6)) == 6
        consumer.commit()
        assert consumer.committed(PLACE).offset == 6
        consumer.poll()
    assert committed(broker) == 6


@by_hand
def test_commit_covers_the_record_in_hand(broker, assigned):
    with made(broker, assigned, enable_auto_commit=False) as consumer:
        for record in consumer:
            consumer.commit()
            assert committed(broker) == record.offset + 1
            if record.offset == 3:
                break


@by_hand
def test_given_offsets_are_committed_with_their_metadata(broker, assigned):
    with made(broker, assigned, enable_auto_commit=False) as consumer:
        consumer.poll(timeout=120)
        consumer.commit({("orders", 0): OffsetAndMetadata(4, "half done")})
        assert consumer.committed(("orders", 0)) == OffsetAndMetadata(4, "half done")
        consumer.commit({PLACE: 6})
        assert consumer.committed(PLACE) == OffsetAndMetadata(6)
        for bad in (-1, "7", True, 1.5):
            with pytest.raises(InvalidRequestError, match="offset to commit"):
                consumer.commit({PLACE: bad})
        with pytest.raises(InvalidRequestError, match="a partition must be"):
            consumer.commit({"orders": 6})
        with pytest.raises(UnknownTopicOrPartitionError):
            consumer.commit({("orders", 7): 6})
        assert consumer.committed(PLACE) == OffsetAndMetadata(6)


def test_a_seek_is_committed_as_the_new_position(broker):
    with broker.consumer("orders", group="billing") as consumer:
        consumer.poll(timeout=120)
        consumer.seek(PLACE, 3)
    assert committed(broker) == 3


def test_without_a_group_there_is_nothing_to_commit(broker):
    with broker.consumer("orders") as consumer:
        consumer.poll()
        for call in (consumer.commit, lambda: consumer.committed(PLACE)):
            with pytest.raises(InvalidRequestError, match="no group"):
                call()


def test_what_is_committed_already_is_not_committed_again(broker):
    offsets = broker.coordinator
    with broker.consumer("orders", group="billing") as consumer:
        while not consumer.poll():
            pass
        consumer.commit()
        log = broker["__consumer_offsets"]
        before = sum(partition.log_end_offset for partition in log.logs)
        consumer.commit()
        consumer.commit()
        assert sum(partition.log_end_offset for partition in log.logs) == before
    assert offsets.committed_offsets("billing")[PLACE].offset == 20


def test_only_committed_transactions_are_handed_out_where_asked(broker):
    log = broker.create_topic("paid").partition(0)

    def append(producer_id, value):
        builder = RecordBatchBuilder()
        builder.append(value)
        log.append_as_leader(
            bytes(builder.build(transactional=True, producer_id=producer_id, producer_epoch=0, base_sequence=0))
        )

    def read(isolation_level):
        with broker.consumer("paid", consumer_timeout=0, isolation_level=isolation_level) as consumer:
            return [record.value for record in consumer], consumer.lag()[("paid", 0)].records

    append(1, b"kept")
    append(2, b"taken back")
    assert read("read_committed") == ([], 0)
    assert read("read_uncommitted") == ([b"kept", b"taken back"], 0)
    log.append_marker(2, 0, commit=False)
    log.append_marker(1, 0, commit=True)
    assert read("read_committed") == ([b"kept"], 0)
    with broker.consumer("paid", isolation_level="read_committed") as consumer:
        append(3, b"late")
        assert [record.value for record in consumer.poll()] == [b"kept"]
        assert consumer.poll() == []
        log.append_marker(3, 0, commit=True)
        assert [record.value for record in consumer.poll(timeout=120)] == [b"late"]
