"""``logstore topic``: create, list, describe, alter, delete; ``trim`` is in a file of its own."""

from __future__ import annotations

from typing import Any

import click

from logstore.cli.invocation import Command, CommandGroup, Invocation, pass_invocation, topic_argument, topic_of
from logstore.cli.output import Table, confirm, format_count, say, write_json
from logstore.cli.settings import config_option, read_settings, retention_option, setting_text
from logstore.cli.trim import trim
from logstore.errors import TopicAlreadyExistsError
from logstore.quantities import format_bytes
from logstore.storage.config import SETTINGS

__all__ = ["command"]


@click.group("topic", cls=CommandGroup)
def command() -> None:
    """Create, list, describe, alter, trim and delete topics."""


class _CommandWithSettings(Command):
    """Its help ends with every topic setting."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Settings (--config KEY=VALUE), with their defaults"):
            formatter.write_dl(
                [
                    (name, f"{setting.meaning} [{setting_text(name, setting.default)}]")
                    for name, setting in SETTINGS.items()
                ]
            )
        with formatter.section("Values"):
            formatter.write_text(
                "Times are ms or texts such as 90s, 12h, 7d; sizes are bytes or texts such as 64KiB, 1GiB."
            )


@command.command("create", cls=_CommandWithSettings)
@topic_argument()
@click.option("-p", "--partitions", type=click.IntRange(1), default=1, show_default=True)
@config_option
@retention_option
@click.option("--exist-ok", is_flag=True, help="Accept a topic that is there already.")
@pass_invocation
def create(
    invocation: Invocation,
    topic: str,
    partitions: int,
    config: tuple[str, ...],
    retention: str | None,
    exist_ok: bool,
) -> None:
    """Create a topic; the directory, too, if need be."""
    settings = read_settings(config, retention)
    with invocation.open_for_writing(create=True) as broker:
        there = topic in broker.topics()
        if there and not exist_ok:
            raise TopicAlreadyExistsError(f"topic {topic!r} is there already; --exist-ok accepts it")
        created = broker.create_topic(topic, partitions, settings, exist_ok=exist_ok)
        if invocation.json:
            write_json(
                {
                    "topic": topic,
                    "id": created.id,
                    "partitions": created.partitions,
                    "created": not there,
                }
            )
        elif there:
            say(f"topic {topic} is there already, with {_partitions(created.partitions)}")
        else:
            say(f"created topic {topic} with {_partitions(created.partitions)} in {broker.path}")


@command.command("list", cls=Command)
@pass_invocation
def list_topics(invocation: Invocation) -> None:
    """List the topics."""
    with invocation.open_for_reading() as broker:
        topics = [broker.topic(name) for name in broker.topics()]
        table = Table("topic", "partitions>", "records>", "size>")
        for topic in topics:
            records = sum(log.log_end_offset - log.log_start_offset for log in topic.logs)
            size_bytes = sum(log.size_bytes for log in topic.logs)
            if invocation.json:
                write_json(
                    {
                        "topic": topic.name,
                        "id": topic.id,
                        "partitions": topic.partitions,
                        "records": records,
                        "size_bytes": size_bytes,
                    }
                )
            table.add(topic.name, str(topic.partitions), format_count(records), format_bytes(size_bytes))
        if invocation.json:
            return
        if topics:
            table.show()
        else:
            say(f"no topics in {broker.path}; `logstore -d {broker.path} topic create NAME` makes one")


@command.command("describe", cls=Command)
@topic_argument()
@click.option("-a", "--all", "show_all", is_flag=True, help="Settings at their defaults, too.")
@pass_invocation
def describe(invocation: Invocation, topic: str, show_all: bool) -> None:
    """Show a topic's id, partitions and settings."""
    with invocation.open_for_reading() as broker:
        found = topic_of(broker, topic)
        overrides = found.config.overrides()
        values = found.config.as_dict()
        if invocation.json:
            described: dict[str, Any] = {
                "topic": found.name,
                "id": found.id,
                "partitions": found.partitions,
                "config": overrides,
            }
            if show_all:
                described["all_config"] = values
            write_json(described)
            return
        facts = Table("topic", "id", "partitions>")
        facts.add(found.name, found.id, str(found.partitions))
        facts.show()
        shown = values if show_all else overrides
        if not shown:
            say("every setting is at its default; --all shows them")
            return
        settings = Table("setting", "value", "set", "meaning")
        for name, value in shown.items():
            mark = "yes" if name in overrides else ""
            settings.add(name, setting_text(name, value), mark, SETTINGS[name].meaning)
        click.echo()
        settings.show()


@command.command("alter", cls=_CommandWithSettings)
@topic_argument()
@click.option("-p", "--partitions", type=click.IntRange(1), help="The new number; never fewer.")
@config_option
@retention_option
@click.option("--unset", metavar="KEY", multiple=True, help="Back to the default; may be repeated.")
@pass_invocation
def alter(
    invocation: Invocation,
    topic: str,
    partitions: int | None,
    config: tuple[str, ...],
    retention: str | None,
    unset: tuple[str, ...],
) -> None:
    """Change settings, or add partitions."""
    settings: dict[str, str | None] = {**read_settings(config, retention), **dict.fromkeys(unset)}
    if not settings and partitions is None:
        raise click.UsageError("Nothing to change: give --config, --retention, --unset or --partitions.")
    with invocation.open_for_writing() as broker:
        topic_of(broker, topic)
        more = {} if partitions is None else {"partitions": partitions}
        altered = broker.alter_topic(topic, settings, **more)
        if invocation.json:
            write_json(
                {
                    "topic": altered.name,
                    "partitions": altered.partitions,
                    "config": altered.config.overrides(),
                }
            )
            return
        say(f"topic {topic} has {_partitions(altered.partitions)} and {_settings(altered.config.overrides())}")


@command.command("delete", cls=Command)
@topic_argument(nargs=-1, required=True)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_invocation
def delete(invocation: Invocation, topic: tuple[str, ...], yes: bool) -> None:
    """Delete topics and all their records."""
    with invocation.open_for_writing() as broker:
        for name in topic:
            topic_of(broker, name)  # all of them are there, or none is deleted
        for name in topic:
            found = broker.topic(name)
            records = sum(log.log_end_offset - log.log_start_offset for log in found.logs)
            what = f"topic {name} with {format_count(records)} records"
            if not yes:
                confirm(f"Delete {what}?")
            broker.delete_topic(name)
            if invocation.json:
                write_json({"topic": name, "deleted": True, "records": records})
            else:
                say(f"deleted {what}")


command.add_command(trim)


def _partitions(count: int) -> str:
    return "1 partition" if count == 1 else f"{count} partitions"


def _settings(overrides: dict[str, Any]) -> str:
    if not overrides:
        return "every setting at its default"
    return ", ".join(f"{name}={setting_text(name, value)}" for name, value in overrides.items())
