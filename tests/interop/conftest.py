"""Kafka as the judge: every test here needs Java and, once, Maven. Without them, say so loudly."""

from __future__ import annotations

from pathlib import Path

import kafka_jars
import pytest

_REASON: pytest.StashKey[str | None] = pytest.StashKey()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the whole suite, with one reason, where Java or Maven is missing."""
    ours = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    if not ours:
        return
    try:
        kafka_jars.classpath()
    except kafka_jars.FetchFailed as problem:  # the tools are here: that is a failure, not a skip
        raise pytest.UsageError(f"INTEROP NOT RUN: {problem}") from problem
    except kafka_jars.KafkaUnavailable as problem:
        config.stash[_REASON] = str(problem)
        for item in ours:
            item.add_marker(pytest.mark.skip(reason=f"INTEROP NOT RUN: {problem}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """End with a line that nobody can take for a pass."""
    reason = terminalreporter.config.stash.get(_REASON, None)
    if reason is not None:
        terminalreporter.write_line(f"INTEROP NOT RUN: {reason}", red=True, bold=True)
