"""What ``start=`` and ``stop=`` mean."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from logstore.errors import InvalidRequestError
from logstore.positions import resolve_position

NOW_MS = 1_700_000_000_000


@pytest.mark.parametrize(
    ("position", "resolved"),
    [
        (0, ("offset", 0)),
        (17, ("offset", 17)),
        ("earliest", ("earliest", 0)),
        ("latest", ("latest", 0)),
        ("-1h", ("timestamp", NOW_MS - 3_600_000)),
        ("-1h30m", ("timestamp", NOW_MS - 5_400_000)),
        ("-1000000d", ("timestamp", 0)),
        (datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC), ("timestamp", NOW_MS)),
        (datetime(2023, 11, 14, 22, 13, 20, 999_999, tzinfo=UTC), ("timestamp", NOW_MS + 999)),
        (datetime(2023, 11, 15, 0, 13, 20, tzinfo=timezone(timedelta(hours=2))), ("timestamp", NOW_MS)),
        (datetime(1950, 1, 1, tzinfo=UTC), ("timestamp", 0)),
        ("2023-11-14T22:13:20Z", ("timestamp", NOW_MS)),
        ("2023-11-15 00:13:20+02:00", ("timestamp", NOW_MS)),
    ],
)
def test_positions(position, resolved):
    assert resolve_position(position, "start", NOW_MS) == resolved


@pytest.mark.parametrize(
    ("position", "words"),
    [
        (-1, "-1h"),
        (True, "start"),
        (1.0, "offset"),
        (None, "offset"),
        ("yesterday", "earliest"),
        ("-1x", "units are"),
        ("-", "start"),
        ("1h", "-1h"),
        ("", "start"),
        (datetime(2023, 1, 1), "time zone"),
        ("2023-01-01T00:00:00", "time zone"),
        (b"earliest", "offset"),
    ],
)
def test_what_is_no_position(position, words):
    with pytest.raises(InvalidRequestError, match=words):
        resolve_position(position, "start", NOW_MS)
