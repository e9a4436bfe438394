"""Expiry by a header of each record: what counts as expired, and that nothing else goes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logstore._native.expiry import first_unexpired
from logstore.storage.config import TopicConfig
from logstore.storage.log import Log
from logstore.storage.retention import RetentionPolicy, retention_plan
from logstore.storage.retention_explained import explain_retention, summary_of
from logstore.storage.segment_deletion import log_facts

NOW_MS = 1_700_000_000_000
SETTINGS = {"segment.bytes": 1024, "retention.ms": -1, "logstore.expiry.header": "expires"}


def expired_before(log: Log, now_ms: int) -> tuple[int, int]:
    return first_unexpired(log.cursor(log.log_start_offset, log.log_end_offset), b"expires", now_ms)


def plan_of(log: Log, now_ms: int, **groups: int):
    policy = RetentionPolicy.of(log.config)
    return retention_plan(log_facts(log, groups, expiry_header=policy.expiry_header, now_ms=now_ms), policy, now_ms)


@pytest.fixture
def log(tmp_path):
    with Log(tmp_path / "t-0", TopicConfig(SETTINGS), durability="appended", clock=lambda: NOW_MS) as made:
        yield made


@pytest.mark.parametrize(
    ("value", "after_ms"),
    [
        (b"1700000001000", 1000),
        (b"0", -NOW_MS),
        (b"250ms", 250),
        (b"90s", 90_000),
        (b"2m", 120_000),
        (b"3h", 3 * 3_600_000),
        (b"1d", 86_400_000),
        (b"1w", 7 * 86_400_000),
        (b"0s", 0),
        (b"soon", None),
        (b"", None),
        (None, None),
        (b"-1", None),
        (b"1.5h", None),
        (b" 5s", None),
        (b"5x", None),
        (b"9999999999999999999", None),
        (b"999999999999999999w", None),
    ],
)
def test_values(log, value, after_ms):
    log.append(b"x", headers=[("expires", value)], timestamp=NOW_MS)
    if after_ms is None:
        assert expired_before(log, 2**62) == (0, -1)
        return
    assert expired_before(log, NOW_MS + after_ms) == (1, -1)
    if NOW_MS + after_ms > 0:
        assert expired_before(log, NOW_MS + after_ms - 1) == (0, NOW_MS + after_ms)


def test_records_without_the_header_never_expire_and_the_last_header_counts(log):
    log.append(b"x", headers=[("expires", b"1d"), ("other", b"1"), ("expires", b"1s")], timestamp=NOW_MS)
    log.append(b"x", headers=[("expire", b"0"), ("expiress", b"0")])
    log.append(b"x", headers=[("expires", b"0")])
    assert expired_before(log, NOW_MS + 1000) == (1, -1)


def test_a_duration_needs_a_timestamp(log):
    log.append(b"x", headers=[("expires", b"1s")], timestamp=-1)
    assert expired_before(log, 2**62) == (0, -1)


@pytest.mark.parametrize("codec", ["uncompressed", "zstd", "gzip"])
def test_the_log_starts_at_the_first_that_has_not_expired(log, codec):
    log.reconfigure(log.config.with_changes(compression_type=codec))
    for number in range(40):
        log.append(bytes(100), headers=[("expires", b"%d" % (NOW_MS + number * 1000))], timestamp=NOW_MS)
    plan = plan_of(log, NOW_MS + 25_500)
    assert (plan.log_start_offset, plan.start_reason) == (26, "logstore.expiry.header")
    assert {decision.reason for decision in plan.going} == {"logstore.expiry.header"}
    assert plan.next_change_ms == NOW_MS + 26_000
    assert "by logstore.expiry.header; the log then starts at offset 26" in summary_of(plan)
    text = " ".join(explain_retention(plan, NOW_MS + 25_500))
    assert "has expired by its header 'expires'" in text
    assert "the record at offset 26 expires on" in text
    assert log.apply_retention(plan, now_ms=NOW_MS + 25_500) == plan
    assert [record.offset for record in log.read()] == list(range(26, 40))
    assert not plan_of(log, NOW_MS + 25_500).changes_anything
    assert plan_of(log, NOW_MS + 10**6).rolls_active


def test_groups_hold_expired_records_and_another_header_asks_again(log):
    log.reconfigure(log.config.with_changes({"logstore.retention.groups": "a"}))
    for _ in range(20):
        log.append(bytes(100), headers=[("expires", b"0")])
    assert plan_of(log, NOW_MS, a=7).log_start_offset == 7
    plan = plan_of(log, NOW_MS, a=20)
    log.reconfigure(log.config.with_changes({"logstore.expiry.header": "other"}))
    assert not log.apply_retention(plan, now_ms=NOW_MS).changes_anything


def test_damage_keeps_what_stands_behind_it(log):
    for _ in range(40):
        log.append(bytes(100), headers=[("expires", b"0")])
    segment = log.segments[2]
    with open(segment.path, "r+b") as file:
        file.seek(100)
        file.write(b"\xff\xff")
    assert plan_of(log, NOW_MS).log_start_offset == segment.base_offset


@settings(max_examples=40, deadline=None)
@given(
    ages=st.lists(st.one_of(st.none(), st.integers(-20, 20)), min_size=1, max_size=40),
    start=st.integers(0, 40), later=st.integers(-5, 25), batch=st.sampled_from([1, 7, 50]),
)  # fmt: skip
def test_exactly_the_expired_ones_before_the_first_that_is_not(tmp_path_factory, ages, start, later, batch):
    folder = tmp_path_factory.mktemp("expiry")
    expected = start = min(start, len(ages))
    for age in ages[start:]:
        if age is None or age > later:
            break
        expected += 1
    with Log(folder / "t-0", TopicConfig(SETTINGS), durability="buffered", clock=lambda: NOW_MS) as log:
        for number, age in enumerate(ages):
            headers = None if age is None else [("expires", b"%d" % (NOW_MS + age))]
            log.append(b"x", headers=headers, durability="appended" if number % batch == 0 else "buffered")
        log.flush()
        log.advance_log_start_offset(start)
        found, next_ms = expired_before(log, NOW_MS + later)
        assert found == expected
        stays = ages[expected] if expected < len(ages) else None
        assert next_ms == (-1 if stays is None else NOW_MS + stays)
        plan = plan_of(log, NOW_MS + later)
        assert plan.log_start_offset == expected
        log.apply_retention(plan, now_ms=NOW_MS + later)
        assert [record.offset for record in log.read()] == list(range(expected, len(ages)))
