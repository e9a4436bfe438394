"""Topic settings on the command line: ``--config KEY=VALUE``, and values as people read them."""

from __future__ import annotations

from typing import Any

import click

from logstore.quantities import format_bytes, format_ms
from logstore.storage.config import INT64_MAX, TopicConfig

__all__ = ["config_option", "read_settings", "retention_option", "setting_text"]

config_option = click.option(
    "-c",
    "--config",
    metavar="KEY=VALUE",
    multiple=True,
    help="A setting under Kafka's name; may be repeated.",
)
retention_option = click.option(
    "--retention",
    metavar="TIME",
    help="Short for --config retention.ms=TIME: 7d, 12h; -1 for ever.",
)


def read_settings(config: tuple[str, ...], retention: str | None) -> dict[str, str | None]:
    """The settings given, checked.

    Raises
    ------
    click.UsageError
        Not KEY=VALUE.
    InvalidConfigError
        An unknown setting or an invalid value.
    """
    settings: dict[str, str | None] = {}
    for text in config:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise click.UsageError(f"--config takes KEY=VALUE, not {text!r}.")
        if key in settings:
            raise click.UsageError(f"--config {key} is given twice.")
        settings[key] = value
    if retention is not None:
        if "retention.ms" in settings or "retention" in settings:
            raise click.UsageError("--retention and --config retention.ms are the same setting.")
        settings["retention.ms"] = retention
    TopicConfig(settings)
    return settings


def setting_text(name: str, value: Any) -> str:
    """A setting's value for people: ``7d``, ``1.0 GiB``, ``never``."""
    if value is None:
        return "the broker's"
    if value == INT64_MAX:
        return "no limit"
    if value == -1 and "retention." in name:
        return "for ever" if name == "retention.ms" else "no limit"
    if value == "":
        return "none"
    if name.endswith(".percent"):
        return f"{value:g}%"
    if isinstance(value, bool):
        return "true" if value else "false"
    if name.endswith(".ms"):
        return format_ms(value)
    if name.endswith(".bytes"):
        return format_bytes(value)
    return str(value)
