"""Appends on condition that the log ends at an offset; and batches that are taken over as they are."""

from __future__ import annotations

import threading

import pytest

import logstore
from logstore._native.record_batch_builder import RecordBatchBuilder
from logstore.storage.config import TopicConfig
from logstore.storage.log import Log


@pytest.fixture
def log(tmp_path):
    with Log(tmp_path / "orders-0", TopicConfig(logstore_linger_ms="1h"), durability="appended") as log:
        yield log


def test_an_append_at_the_expected_offset_succeeds_and_others_change_nothing(log):
    assert log.append(b"a", expected_offset=0) == 0
    for wrong in (0, 2, 1 << 40):
        with pytest.raises(logstore.UnexpectedOffsetError, match=f"ends at offset 1, not at {wrong}") as caught:
            log.append(b"b", expected_offset=wrong)
        assert (caught.value.expected_offset, caught.value.log_end_offset) == (wrong, 1)
    assert log.append_many([b"b", b"c"], expected_offset=1) == range(1, 3)
    for values in ([b"x"], []):
        with pytest.raises(logstore.UnexpectedOffsetError):
            log.append_many(values, expected_offset=1)
    assert log.append_many([], expected_offset=3) == range(3, 3)
    assert [record.value for record in log.read()] == [b"a", b"b", b"c"]


def test_records_in_the_open_batch_count(log):
    assert log.append(b"a", durability="buffered", expected_offset=0) == 0
    assert log.log_end_offset == 0
    with pytest.raises(logstore.UnexpectedOffsetError):
        log.append(b"b", expected_offset=0)
    assert log.append(b"b", durability="buffered", expected_offset=1) == 1


@pytest.mark.parametrize("wrong", [-1, "0", 1.0, 1 << 63])
def test_what_is_no_offset_is_refused(log, wrong):
    for append in (lambda: log.append(b"x", expected_offset=wrong), lambda: log.append_many([b"x"], expected_offset=wrong)):
        with pytest.raises(logstore.InvalidRequestError, match="0 or more"):
            append()
    assert log.log_end_offset == 0


def test_topics_need_a_partition_for_it(tmp_path):
    with logstore.open(tmp_path / "data", durability="appended") as broker:
        one = broker.create_topic("one")
        assert one.append(b"x", expected_offset=0) == 0
        assert one.append_many([b"x", b"y"], expected_offset=1) == {0: range(1, 3)}
        two = broker.create_topic("two", partitions=2)
        for append in (
            lambda **where: two.append(b"x", b"k", expected_offset=0, **where),
            lambda **where: two.append_many([b"x"], [b"k"], expected_offset=0, **where),
        ):
            with pytest.raises(logstore.InvalidRequestError, match="needs partition="):
                append()
        assert two.append(b"x", b"k", partition=1, expected_offset=0) == 0
        assert two.append_many([b"y"], partition=1, expected_offset=1) == {1: range(1, 2)}
        with pytest.raises(logstore.UnexpectedOffsetError, match="two-1 ends at offset 2"):
            two.append_many([], partition=1, expected_offset=1)


def test_of_several_threads_one_wins_each_offset(log):
    wins: list[int] = []

    def compete(number):
        for offset in range(100):
            try:
                wins.append(log.append(b"%d" % number, expected_offset=offset, durability=levels[number % 2]))
            except logstore.UnexpectedOffsetError as error:
                assert error.log_end_offset > offset

    levels = ("buffered", "appended")
    threads = [threading.Thread(target=compete, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(wins) == list(range(100))


# ---- whole batches ---------------------------------------------------------------------------------


def built(*values, **how):
    builder = RecordBatchBuilder()
    for value in values:
        builder.append(value, b"k", timestamp=1000)
    return builder.build(**how)


def test_batches_of_others_are_checked_and_not_changed(log):
    log.append(b"open", durability="buffered")
    batch = built(b"a", b"b")
    before = bytes(batch)
    assert log.append_built(batch) == (1, -1)
    assert log.append_built(batch, expected_offset=3) == (3, -1)
    with pytest.raises(logstore.UnexpectedOffsetError):
        log.append_built(batch, expected_offset=3)
    assert bytes(batch) == before
    assert [record.value for record in log.read()] == [b"open", b"a", b"b", b"a", b"b"]
    with pytest.raises(logstore.InvalidRecordError):
        log.append_built(built(b"a", base_offset=7))
    assert log.log_end_offset == 5


def test_batches_get_the_time_of_append_where_the_topic_says_so(tmp_path):
    config = TopicConfig(message_timestamp_type="LogAppendTime")
    with Log(tmp_path / "orders-0", config, durability="appended", clock=lambda: 5000) as log:
        assert log.append_built(built(b"a")) == (0, 5000)
        (record,) = log.read()
    assert (record.timestamp, record.timestamp_type) == (5000, "LogAppendTime")


def test_a_producers_batches_stand_in_the_log_as_if_appended(tmp_path):
    """Taken over in place: base offset, leader epoch and CRC are those of a batch that was validated."""
    from logstore._native.record_batch import batch_positions

    with logstore.open(tmp_path / "data", durability="appended") as broker:
        topic = broker.create_topic("t", segment_bytes=4096)
        with broker.producer(batch_size=1000, compression="zstd") as zipped, broker.producer(batch_size=1000) as plain:
            for number in range(300):
                (zipped if number % 7 == 0 else plain).send("t", b"%05d" % number * 20)
                if number % 50 == 0:
                    topic.append(b"own %d" % number, durability="buffered")
        assert len(topic.logs[0].segments) > 3
    data = b"".join(path.read_bytes() for path in sorted((tmp_path / "data" / "t-0").glob("*.log")))
    found = batch_positions(data)
    assert [base for _, _, base, _ in found] == [0, *(last + 1 for _, _, _, last in found[:-1])]
    with logstore.open(tmp_path / "data") as broker:
        assert not broker.recovery_reports
        values = [record.value for record in broker.topic("t").read()]
    assert sorted(values) == sorted(
        [b"%05d" % number * 20 for number in range(300)] + [b"own %d" % number for number in range(0, 300, 50)]
    )
