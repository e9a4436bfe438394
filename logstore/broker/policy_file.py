"""Settings of many topics in one file: patterns of names, what they change, and all of it at once or nothing.

    [topics."*"]
    retention.ms = "7d"

    [topics."audit-*"]
    retention.ms = -1
    retention.bytes = "100GiB"
    segment.ms = "default"

A topic gets what each pattern that matches it says, later ones over earlier ones. ``"default"`` goes back to the default;
settings that no pattern names stay as they are.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from logstore.errors import InvalidConfigError
from logstore.storage.config import SETTINGS, TopicConfig, kafka_name
from logstore.storage.files import read_text

__all__ = ["PolicyFile", "SettingChange", "policy_changes", "read_policy", "read_policy_file"]

DEFAULT = "default"


class PolicyFile(NamedTuple):
    """Settings by pattern, in the file's order; checked, under Kafka's names, None for the default."""

    patterns: dict[str, dict[str, Any]]

    def unmatched(self, topics: Iterable[str]) -> list[str]:
        """Patterns that no topic matches."""
        names = list(topics)
        return [pattern for pattern in self.patterns if not any(fnmatch.fnmatchcase(name, pattern) for name in names)]


class SettingChange(NamedTuple):
    """One setting of one topic: its value before and after (None: the default), and the pattern that says so."""

    topic: str
    setting: str
    before: Any
    after: Any
    pattern: str


def read_policy_file(path: str | os.PathLike[str]) -> PolicyFile:
    """Reads a file.

    Raises
    ------
    InvalidConfigError
        It is not there, no TOML, or says something that no topic can have; the message names the place.
    StorageFailureError
        It can't be read.
    """
    name = os.fspath(path)
    text = read_text(name)
    if text is None:
        raise InvalidConfigError(f"there is no policy file {name}")
    return read_policy(text, name)


def read_policy(text: str, source: str) -> PolicyFile:
    """The same from a text; ``source`` is for messages."""
    import tomllib

    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfigError(f"{source} is no TOML: {error}") from None
    strange = sorted(set(content) - {"topics"})
    if strange or not isinstance(content.get("topics"), dict) or not content["topics"]:
        found = f"found {', '.join(strange)}" if strange else "found none"
        raise InvalidConfigError(f'{source} needs tables named [topics."PATTERN"] and nothing else; {found}')
    patterns: dict[str, dict[str, Any]] = {}
    for pattern, table in content["topics"].items():
        where = f'{source}, [topics."{pattern}"]'
        if not isinstance(table, dict):
            raise InvalidConfigError(f'{where} is no table of settings; a pattern with dots stands in quotes')
        settings: dict[str, Any] = {}
        for key, value in _flattened(table):
            try:
                name = kafka_name(key)
                settings[name] = None if value == DEFAULT else SETTINGS[name].read(value, name)
            except InvalidConfigError as error:
                raise InvalidConfigError(f"{where}: {error}") from None
        patterns[pattern] = settings
    return PolicyFile(patterns)


def _flattened(table: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """``retention.ms = 1`` is a table in a table to TOML."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def policy_changes(policy: PolicyFile, topics: Mapping[str, TopicConfig]) -> list[SettingChange]:
    """What a policy changes; empty where all topics are as it says already. Pure.

    Parameters
    ----------
    policy : PolicyFile
    topics : mapping of name to TopicConfig

    Raises
    ------
    InvalidConfigError
        Settings of a topic would contradict each other.
    """
    changes = []
    for topic, config in sorted(topics.items()):
        wanted: dict[str, tuple[Any, str]] = {}
        for pattern, settings in policy.patterns.items():
            if fnmatch.fnmatchcase(topic, pattern):
                wanted.update((name, (value, pattern)) for name, value in settings.items())
        before = config.overrides()
        own = [
            SettingChange(topic, name, before.get(name), value, pattern)
            for name, (value, pattern) in sorted(wanted.items())
            if before.get(name) != value
        ]
        try:
            config.with_changes({change.setting: change.after for change in own})
        except InvalidConfigError as error:
            raise InvalidConfigError(f"topic {topic}: {error}") from None
        changes += own
    return changes
