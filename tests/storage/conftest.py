from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from logstore.storage.config import TopicConfig
from logstore.storage.log import Log

OpenLog = Callable[..., Log]


@pytest.fixture
def open_log(tmp_path: Path) -> Iterator[OpenLog]:
    """Opens ``orders-0`` below the test's directory; settings in snake_case. Closed at the end."""
    logs = []

    def open_one(*, name: str = "orders-0", durability: str = "appended", **arguments: object) -> Log:
        own = {"read_only", "lock", "scheduler", "clock"}
        config = {key: value for key, value in arguments.items() if key not in own}
        given = {key: value for key, value in arguments.items() if key in own}
        log = Log(tmp_path / name, TopicConfig(**config), durability=durability, **given)
        logs.append(log)
        return log

    yield open_one
    for log in logs:
        log.close()
