"""Background work, stepped by hand: what is done when, what is said, and how it stops."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time

import pytest

import logstore
from logstore.broker.housekeeping import Housekeeping, HousekeepingTimes
from logstore.errors import InvalidRequestError, ReadOnlyError, StorageFailureError, UnknownTopicOrPartitionError
from logstore.model import TopicPartition

NOW_MS = 1_700_000_000_000
SECOND_MS = 1000
TIMES = HousekeepingTimes(initial_delay_ms=30_000, retention_interval_ms=300_000)


class Clock:
    """A clock and a scheduler that go together: `pass_ms` runs what becomes due."""

    def __init__(self) -> None:
        self.now_ms = NOW_MS
        self.steps: list = []

    def __call__(self) -> int:
        return self.now_ms

    def schedule(self, delay_ms, step) -> None:
        self.steps.append((self.now_ms + delay_ms, step))

    def pass_ms(self, ms: int) -> int:
        until_ms = self.now_ms + ms
        ran = 0
        while due := sorted((at, index) for index, (at, _) in enumerate(self.steps) if at <= until_ms):
            at, index = due[0]
            self.now_ms = max(self.now_ms, at)
            self.steps.pop(index)[1]()
            ran += 1
        self.now_ms = until_ms
        return ran


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def broker(tmp_path):
    with logstore.open(tmp_path / "data", durability="appended", housekeeping=False) as opened:
        yield opened


@pytest.fixture
def housekeeping(broker, clock):
    made = Housekeeping(broker, clock, TIMES, clock=clock)
    yield made
    made.close()


def fill(broker, name="orders", count=40, **settings):
    topic = broker.create_topic(name, segment_bytes=1024, message_timestamp_after_max_ms="100000d", **settings)
    for number in range(count):
        topic.append(bytes(100), timestamp=NOW_MS + number * SECOND_MS)
    return topic.partition(0)


def test_rounds_come_after_a_while_and_then_regularly(broker, clock, housekeeping):
    log = fill(broker, retention_ms=60 * SECOND_MS)
    housekeeping.start()
    assert clock.pass_ms(29_999) == 0
    assert housekeeping.report().next_retention_ms == NOW_MS + 30_000
    assert clock.pass_ms(1) == 2  # a round of retention, and one of compaction
    assert log.log_start_offset == 0
    assert housekeeping.report().last_retention_ms == NOW_MS + 30_000
    assert housekeeping.report().results == ()
    clock.pass_ms(300_000)
    assert log.log_start_offset == log.log_end_offset == 40
    (result,) = housekeeping.report().results
    assert (result.task, result.topic, result.partition, result.failed) == ("retention", "orders", 0, False)
    assert result.bytes_freed == housekeeping.report().bytes_freed > 4000
    assert "retention.ms" in result.summary
    assert result.started_ms == NOW_MS + 330_000


def test_off_means_off_but_run_now_works(broker, clock, housekeeping):
    log = fill(broker, retention_ms=SECOND_MS)
    clock.pass_ms(10**9)
    assert log.log_start_offset == 0
    assert housekeeping.report().state == "off"
    (result,) = housekeeping.run_now()
    assert log.log_start_offset == 40
    assert result.bytes_freed > 0
    assert housekeeping.run_now() == []


def test_pause_and_resume(broker, clock, housekeeping):
    log = fill(broker, retention_ms=SECOND_MS)
    housekeeping.start()
    housekeeping.pause()
    assert housekeeping.report().state == "paused"
    clock.pass_ms(10_000_000)
    assert log.log_start_offset == 0
    housekeeping.resume()
    clock.pass_ms(0)
    assert log.log_start_offset == 40
    assert clock.pass_ms(300_000) == 1 + 20  # one schedule of each goes on, not two
    assert housekeeping.report().state == "on"


def test_run_now_while_paused_and_for_one_topic(broker, clock, housekeeping):
    housekeeping.start()
    housekeeping.pause()
    orders = fill(broker, retention_ms=SECOND_MS)
    other = fill(broker, "other", retention_ms=SECOND_MS)
    clock.now_ms += 10**6
    seen = []
    assert [result.topic for result in housekeeping.run_now(["other"], on_result=seen.append)] == ["other"]
    assert [result.topic for result in seen] == ["other"]
    assert (orders.log_start_offset, other.log_start_offset) == (0, 40)
    with pytest.raises(UnknownTopicOrPartitionError):
        housekeeping.run_now(["othr"])


def test_the_plan_is_what_a_round_does(broker, clock, housekeeping):
    log = fill(broker, retention_ms=20 * SECOND_MS)
    clock.now_ms += 40 * SECOND_MS
    (plan,) = housekeeping.retention_plans()
    assert 0 < plan.going_count < len(log.segments)
    (result,) = housekeeping.run_now()
    assert (log.log_start_offset, result.bytes_freed) == (plan.log_start_offset, plan.bytes_freed)
    (again,) = housekeeping.retention_plans(["orders"])
    assert not again.changes_anything
    (later,) = housekeeping.retention_plans(now_ms=again.next_change_ms)
    assert later.changes_anything


def test_the_disk_setting_asks_the_disk(broker, clock):
    log = fill(broker, retention_ms=-1, logstore_retention_disk_free_percent=50)
    housekeeping = Housekeeping(broker, clock, TIMES, clock=clock, disk=lambda: (10_000, 3_000))
    (plan,) = housekeeping.retention_plans()
    assert 2000 <= plan.bytes_freed < 3100
    housekeeping.run_now()
    assert log.log_start_offset == plan.log_start_offset
    # The files are renamed and not unlinked yet: what they hold counts as free.
    assert log._deleted_files.pending_bytes > 2000
    assert not housekeeping.retention_plans()[0].changes_anything


def test_it_says_what_it_did(broker, clock, housekeeping, caplog):
    fill(broker, retention_ms=SECOND_MS)
    clock.now_ms += 10**6
    with caplog.at_level(logging.INFO, "logstore.housekeeping"):
        housekeeping.run_now()
    (record,) = caplog.records
    assert record.name == "logstore.housekeeping"
    assert "retention of orders-0" in record.message
    assert "by retention.ms; the log then starts at offset 40" in record.message


def test_a_failure_is_kept_said_and_the_others_go_on(broker, clock, housekeeping, caplog, monkeypatch):
    first = fill(broker, "first", retention_ms=SECOND_MS)
    second = fill(broker, "second", retention_ms=SECOND_MS)
    clock.now_ms += 10**6
    housekeeping.start()

    def refuse(plan, **_):
        raise StorageFailureError(first.path, "rename", errno.EIO)

    monkeypatch.setattr("logstore.storage.log.apply_retention", _refusing(first, refuse))
    with caplog.at_level(logging.ERROR, "logstore.housekeeping"):
        clock.pass_ms(30_000)
    assert (first.log_start_offset, second.log_start_offset) == (0, 40)
    report = housekeeping.report()
    assert set(report.failures) == {TopicPartition("first", 0)}
    assert "rename failed" in report.failures[TopicPartition("first", 0)]
    assert "rename failed" in caplog.text
    monkeypatch.undo()
    clock.pass_ms(300_000)
    assert first.log_start_offset == 40
    assert housekeeping.report().failures == {}


def _refusing(log, refuse):
    from logstore.storage.segment_deletion import apply_retention

    return lambda one, plan, **rest: refuse(plan) if one is log else apply_retention(one, plan, **rest)


def test_a_topic_deleted_in_between_is_no_failure(broker, clock, housekeeping, monkeypatch):
    fill(broker, "first", retention_ms=SECOND_MS)
    fill(broker, "second", retention_ms=SECOND_MS)
    clock.now_ms += 10**6
    housekeeping.run_now(on_result=lambda result: result.topic == "first" and broker.delete_topic("second"))
    assert housekeeping.report().failures == {}
    assert [result.topic for result in housekeeping.report().results] == ["first"]


def test_not_from_within_a_round(broker, clock, housekeeping):
    fill(broker, retention_ms=SECOND_MS)
    clock.now_ms += 10**6
    with pytest.raises(InvalidRequestError, match="under way in this very thread"):
        housekeeping.run_now(on_result=lambda _: housekeeping.run_now())


def test_brokers_that_only_read_look_but_do_not_touch(tmp_path, broker):
    log = fill(broker, retention_ms=SECOND_MS)
    with logstore.open(broker.path, read_only=True) as reader:
        assert reader.housekeeping.report().state == "off"
        (plan,) = reader.housekeeping.retention_plans()
        assert plan.going_count == len(log.segments)
        with pytest.raises(ReadOnlyError):
            reader.housekeeping.run_now()


def test_an_open_broker_keeps_house_by_itself_and_stops_at_once(tmp_path):
    with logstore.open(tmp_path / "data") as broker:
        assert broker.housekeeping.report().state == "on"
        assert broker.housekeeping.report().next_retention_ms > time.time_ns() // 1_000_000
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert broker.housekeeping.report().state == "closed"
    with pytest.raises(logstore.ClosedError):
        broker.housekeeping.run_now()


def test_close_waits_for_the_log_at_hand_and_no_other(tmp_path, clock):
    broker = logstore.open(tmp_path / "data", durability="appended", housekeeping=False)
    housekeeping = broker.housekeeping = Housekeeping(broker, clock, TIMES, clock=clock)
    logs = [fill(broker, f"t{number}", retention_ms=SECOND_MS) for number in range(3)]
    clock.now_ms += 10**6
    closing = []

    def close_from_elsewhere(_) -> None:
        thread = threading.Thread(target=broker.close)
        thread.start()
        closing.append(thread)
        while housekeeping.report().state != "closed":
            time.sleep(0.001)

    results = housekeeping.run_now(on_result=close_from_elsewhere)
    closing[0].join(120)
    assert not closing[0].is_alive()
    assert [result.topic for result in results] == ["t0"]
    assert [log.log_start_offset for log in logs] == [40, 0, 0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="NOT TESTED: housekeeping of a forked child; this system has no fork")
@pytest.mark.fault(20, "fork after open")
def test_a_forked_child_does_nothing(tmp_path):
    with logstore.open(tmp_path / "data") as broker:
        child = os.fork()
        if child == 0:
            os._exit(0 if broker.housekeeping.report().state == "closed" else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert broker.housekeeping.report().state == "on"


# ---- compaction ---------------------------------------------------------------------------------------


def compacted(broker, name="prices", rounds=6, **settings):
    topic = broker.create_topic(name, segment_bytes=1024, cleanup_policy="compact", **settings)
    for _ in range(rounds):
        topic.append_many([bytes(100)] * 8, [b"key-%d" % number for number in range(8)])
    return topic.partition(0)


def last_values(log) -> dict:
    return {record.key: record.value for record in log.read()}


def test_compaction_comes_in_rounds(broker, clock, housekeeping):
    log = compacted(broker)
    before, size_bytes = last_values(log), log.size_bytes
    housekeeping.start()
    clock.pass_ms(30_000)
    assert last_values(log) == before
    assert log.size_bytes < size_bytes
    (result,) = [one for one in housekeeping.report().results if one.task == "compaction"]
    assert result.bytes_freed == size_bytes - log.size_bytes
    assert "kept" in result.summary
    assert housekeeping.report().next_compaction_ms == clock.now_ms + 15_000
    clock.pass_ms(15_000)
    assert [one.task for one in housekeeping.report().results] == ["compaction"], "what is clean is left alone"


def test_the_dirtiest_log_is_first(broker, clock, housekeeping):
    compacted(broker, "clean")
    housekeeping.run_now()
    compacted(broker, "dirty")
    for number in range(60):
        broker.topic("clean").append(bytes(100), key=b"key-%d" % (number % 8))
    assert [one.topic for one in housekeeping.run_now(tasks=("compaction",))] == ["dirty", "clean"]


def test_what_is_not_due_waits_unless_all_is_asked_for(broker, clock, housekeeping):
    log = compacted(broker, min_cleanable_dirty_ratio=1.0)
    log.flush()
    ((_, plan),) = housekeeping.compaction_plans()
    assert (plan.is_due, plan.reason) == (False, "min.cleanable.dirty.ratio")
    assert housekeeping.run_now() == []
    (result,) = housekeeping.run_now(compact_all=True)
    assert (result.task, result.bytes_freed > 0) == ("compaction", True)
    assert len(last_values(log)) == 8


def test_an_idle_active_segment_is_rolled_so_that_it_can_be_compacted(broker, clock, housekeeping):
    topic = broker.create_topic("prices", cleanup_policy="compact", segment_ms="1d")
    topic.append_many([b"1", b"2", b"3"], [b"a", b"a", b"a"])
    log = topic.partition(0)
    clock.now_ms = time.time_ns() // 1_000_000 + 3_600_000
    assert housekeeping.run_now() == []
    clock.now_ms += 86_400_000
    assert [one.task for one in housekeeping.run_now()] == ["roll", "compaction"]
    assert [record.value for record in log.read()] == [b"3"]
    clock.now_ms += 86_400_000 * 2
    assert housekeeping.run_now() == [], "an empty active segment stays"


def test_a_failed_compaction_is_not_tried_again_by_itself(broker, clock, housekeeping, monkeypatch):
    log = compacted(broker)
    calls = []

    def refuse(self, **_):
        calls.append(self)
        raise StorageFailureError(self.path, "write", errno.EIO)

    monkeypatch.setattr(type(log), "compact", refuse)
    housekeeping.start()
    clock.pass_ms(30_000)
    clock.pass_ms(15_000)
    assert len(calls) == 1
    assert "compaction: " in housekeeping.report().failures[TopicPartition("prices", 0)]
    monkeypatch.undo()
    assert [one.task for one in housekeeping.run_now()] == ["compaction"]
    assert housekeeping.report().failures == {}


def test_closing_stops_a_compaction_and_leaves_the_old_state(tmp_path, clock):
    broker = logstore.open(tmp_path / "data", durability="appended", housekeeping=False)
    housekeeping = broker.housekeeping = Housekeeping(broker, clock, TIMES, clock=clock)
    log = compacted(broker)
    expected = [record.offset for record in log.read()]
    closing = []

    def close_from_elsewhere(_log, _at) -> None:
        if not closing:
            closing.append(threading.Thread(target=broker.close))
            closing[0].start()
            while housekeeping.report().state != "closed":
                time.sleep(0.001)

    (result,) = housekeeping.run_now(progress=close_from_elsewhere)
    closing[0].join(120)
    assert not closing[0].is_alive()
    assert result.summary.startswith("stopped")
    with logstore.open(tmp_path / "data", housekeeping=False) as again:
        assert [record.offset for record in again.topic("prices").read()] == expected


def test_retention_is_not_kept_waiting_by_a_long_compaction(broker, clock, housekeeping):
    log = fill(broker, retention_ms=60 * SECOND_MS)
    compacted(broker)
    housekeeping.start()
    clock.pass_ms(30_000)  # nothing is old yet
    assert log.log_start_offset == 0
    broker.topic("prices").append_many([bytes(100)] * 40, [b"key"] * 40)

    def time_passes(_log, _at) -> None:
        clock.now_ms += 300_000

    housekeeping.run_now(tasks=("compaction",), progress=time_passes)
    assert log.log_start_offset == 40
    assert housekeeping.report().next_retention_ms > clock.now_ms - 300_000


def test_compaction_can_be_switched_off(tmp_path, clock):
    with logstore.open(tmp_path / "data", housekeeping=False, log_cleaner_enable=False) as broker:
        housekeeping = Housekeeping(broker, clock, TIMES, clock=clock)
        log = compacted(broker)
        size_bytes = log.size_bytes
        housekeeping.start()
        clock.pass_ms(60_000)
        assert log.size_bytes == size_bytes
        assert housekeeping.report().next_compaction_ms == -1
        housekeeping.close()


def test_the_rate_limit_reaches_compaction(tmp_path, clock, monkeypatch):
    with logstore.open(
        tmp_path / "data", housekeeping=False,
        config={"log.cleaner.io.max.bytes.per.second": "10MiB", "log.cleaner.dedupe.buffer.size": "2MiB"},
    ) as broker:  # fmt: skip
        log = compacted(broker)
        seen = {}
        whole = type(log).compact
        monkeypatch.setattr(type(log), "compact", lambda self, **given: (seen.update(given), whole(self, **given))[1])
        Housekeeping(broker, clock, TIMES, clock=clock).run_now()
        assert (seen["bytes_per_second"], seen["memory_bytes"]) == (10 << 20, 2 << 20)


def test_expired_offsets_go_with_the_rest(broker, clock, housekeeping, monkeypatch):
    fill(broker, retention_ms=-1)
    broker.coordinator.commit_offsets("billing", {TopicPartition("orders", 0): logstore.OffsetAndMetadata(3)})
    monkeypatch.setattr(type(broker.coordinator), "expire_offsets", lambda self: 2)
    (result,) = housekeeping.run_now()
    assert (result.task, result.summary) == ("offset expiry", "2 committed offsets expired")
    with pytest.raises(InvalidRequestError, match="there is no 'sweeping'"):
        housekeeping.run_now(tasks=("sweeping",))


def test_a_log_that_cannot_be_looked_at_keeps_no_other_waiting(broker, clock, housekeeping, monkeypatch):
    first = fill(broker, "first", retention_ms=SECOND_MS)
    second = fill(broker, "second", retention_ms=SECOND_MS)
    prices = [compacted(broker, "prices-a"), compacted(broker, "prices-b")]
    clock.now_ms += 10**6

    def refuse(self, *_args, **_given):
        raise StorageFailureError(self.path, "open", errno.EMFILE)

    whole = type(first)
    monkeypatch.setattr(whole, "refresh", lambda self: refuse(self) if self is first else False)
    plan = whole.compaction_plan
    monkeypatch.setattr(whole, "compaction_plan", lambda self: refuse(self) if self is prices[0] else plan(self))
    results = housekeeping.run_now()
    assert [(one.task, one.topic) for one in results] == [("retention", "second"), ("compaction", "prices-b")]
    assert (first.log_start_offset, second.log_start_offset) == (0, 40)
    assert set(housekeeping.report().failures) == {TopicPartition("first", 0), TopicPartition("prices-a", 0)}
    with pytest.raises(StorageFailureError):
        housekeeping.retention_plans()


def test_with_real_threads(tmp_path):
    settings = {"log.initial.task.delay.ms": 5, "log.retention.check.interval.ms": 10, "log.cleaner.backoff.ms": 10}
    with logstore.open(tmp_path / "data", durability="appended", config=settings) as broker:
        log = fill(broker, retention_ms=60 * SECOND_MS, file_delete_delay_ms=0)
        prices = compacted(broker)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            left = [name for name in os.listdir(log.path) if name.endswith(".deleted")]
            tasks = {one.task for one in broker.housekeeping.report().results}
            if tasks >= {"retention", "compaction"} and log.log_start_offset == 40 and not left:
                break
            time.sleep(0.01)
        assert (log.log_start_offset, left) == (40, [])
        assert len(list(prices.read())) < 48
        assert tasks >= {"retention", "compaction"}
        broker.housekeeping.pause()
        broker.topic("orders").append(bytes(100), timestamp=NOW_MS)
        time.sleep(0.05)
        assert log.log_start_offset == 40
        broker.housekeeping.resume()
        while log.log_start_offset == 40 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert log.log_start_offset == 41
