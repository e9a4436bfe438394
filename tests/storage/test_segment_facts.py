"""What retention knows of segments is the same, whether they are looked at one by one or all at once."""

from __future__ import annotations

import os

import pytest

from logstore._native.segment_facts import learn_facts
from logstore.storage.segment_deletion import log_facts

SEGMENTS = 40


@pytest.fixture
def make_log(open_log):
    def make(**settings):
        log = open_log(**settings)
        for number in range(SEGMENTS):
            timestamp = -1 if number == 7 else 1_700_000_000_000 - 1_000 * (number % 5)
            log.append(b"v" * (number + 1), b"k", timestamp=timestamp)
            log.roll()
        return log

    return make


def one_by_one(log):
    return [tuple(segment.facts()) for segment in log.segments]


def all_at_once(log):
    return [segment[2:] for segment in log_facts(log).segments]


def test_the_facts_are_the_same(make_log, open_log):
    log = make_log()
    log.close()
    log = open_log()
    expected = one_by_one(log)
    assert len(expected) == SEGMENTS + 1
    log.close()
    for read_only in (False, True):
        log = open_log(read_only=read_only)
        assert all_at_once(log) == expected
        log.close()
    # Without digests, and with those of other files, each is looked at by itself.
    with open(os.path.join(log.path, "logstore.digests"), "r+b") as file:
        file.truncate(0)
    log = open_log(read_only=True)
    assert all_at_once(log) == expected


def test_digests_of_known_files_spare_opening_their_indexes(make_log, open_log, monkeypatch):
    make_log().close()
    log = open_log(read_only=True)
    learn_facts(log.segments, log.path, log._digests.entries())
    for segment in log.segments[:-1]:
        os.unlink(segment.path.removesuffix(".log") + ".timeindex")
        os.unlink(segment.path)
    assert [segment.facts()[0] > 0 for segment in log.segments[:-1]] == [True] * SEGMENTS


def test_a_digest_of_another_size_counts_for_nothing(make_log, open_log):
    make_log().close()
    log = open_log(read_only=True)
    wrong = {
        base: entry._replace(max_timestamp=5, size_bytes=entry.size_bytes + (base % 2), is_growing=base % 4 == 0)
        for base, entry in log._digests.entries().items()
    }
    learn_facts(log.segments, log.path, wrong)
    for segment in log.segments[:-1]:
        assert (segment.facts()[1] == 5) == (segment.base_offset % 4 == 2)
