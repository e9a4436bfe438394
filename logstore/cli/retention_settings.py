"""``logstore retention show`` and ``set``: the settings that decide what is kept, of one topic or of many by a file."""

from __future__ import annotations

from typing import Any

import click

from logstore.cli.invocation import Command, Invocation, pass_invocation, topic_of
from logstore.cli.output import Table, say, write_json
from logstore.cli.settings import config_option, read_settings, setting_text
from logstore.quantities import format_bytes
from logstore.storage.config import SETTINGS, TopicConfig, kafka_name

__all__ = ["set_settings", "show"]

RETENTION_SETTINGS = (
    "cleanup.policy",
    "retention.ms",
    "retention.bytes",
    "logstore.retention.records",
    "logstore.expiry.header",
    "logstore.retention.disk.free.percent",
    "logstore.retention.groups",
    "logstore.retention.groups.max.bytes",
    "logstore.retention.groups.max.ms",
    "logstore.retention.cap.timestamps",
    "segment.ms",
    "segment.bytes",
    "file.delete.delay.ms",
    "delete.retention.ms",
    "min.compaction.lag.ms",
    "max.compaction.lag.ms",
    "min.cleanable.dirty.ratio",
)


@click.command("show", cls=Command)
@click.argument("topics", metavar="[TOPIC]...", nargs=-1)
@pass_invocation
def show(invocation: Invocation, topics: tuple[str, ...]) -> None:
    """Show what each topic keeps; of the topics named, every setting that has to do with it."""
    with invocation.open_for_reading() as broker:
        found = [topic_of(broker, name) for name in topics or broker.topics()]
        if invocation.json:
            for topic in found:
                values = {name: topic.config[name] for name in RETENTION_SETTINGS}
                overrides = sorted(set(topic.config.overrides()) & set(values))
                write_json({"topic": topic.name, "config": values, "set": overrides})
            return
        if not found:
            say(f"no topics in {broker.path}")
        elif topics:
            for number, topic in enumerate(found):
                if number:
                    click.echo()
                _show_settings(topic.name, topic.config)
        else:
            table = Table("topic", "policy", "time", "size", "also")
            for topic in found:
                config = topic.config
                also = [
                    f"{name}={setting_text(name, config[name])}"
                    for name in RETENTION_SETTINGS[3:] if name in config.overrides()
                ]  # fmt: skip
                table.add(
                    topic.name, config["cleanup.policy"], setting_text("retention.ms", config["retention.ms"]),
                    setting_text("retention.bytes", config["retention.bytes"]), " ".join(also),
                )  # fmt: skip
            table.show()


def _show_settings(topic: str, config: TopicConfig) -> None:
    table = Table("topic", "setting", "value", "set", "meaning")
    for name in RETENTION_SETTINGS:
        mark = "yes" if name in config.overrides() else ""
        table.add(topic, name, setting_text(name, config[name]), mark, SETTINGS[name].meaning)
    table.show()


@click.command("set", cls=Command)
@click.argument("topics", metavar="[TOPIC]...", nargs=-1)
@click.option("--file", "policy_path", metavar="FILE", type=click.Path(dir_okay=False),
              help="A TOML file with settings of many topics, by pattern.")
@click.option("--time", "retention_ms", metavar="TIME", help="retention.ms: 7d, 12h; -1 for ever.")
@click.option("--size", "retention_bytes", metavar="SIZE", help="retention.bytes, of each partition: 10GiB; -1 for any.")
@click.option("--records", metavar="N", help="logstore.retention.records, of each partition; -1 for all.")
@click.option("--groups", metavar="NAMES", help="logstore.retention.groups: what they have not read stays.")
@click.option("--policy", metavar="POLICY", help="cleanup.policy: delete, compact or compact,delete.")
@config_option
@click.option("--unset", metavar="KEY", multiple=True, help="Back to the default; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@pass_invocation
def set_settings(
    invocation: Invocation,
    topics: tuple[str, ...],
    policy_path: str | None,
    retention_ms: str | None,
    retention_bytes: str | None,
    records: str | None,
    groups: str | None,
    policy: str | None,
    config: tuple[str, ...],
    unset: tuple[str, ...],
    dry_run: bool,
) -> None:
    """Change what topics keep: those named, or those that the patterns of a file match.

    Shows each change. All are made in one step, or none. Nothing is deleted before the next round of retention.
    """
    from logstore.broker.policy_file import PolicyFile, policy_changes, read_policy_file

    short = {
        "retention.ms": retention_ms, "retention.bytes": retention_bytes, "logstore.retention.records": records,
        "logstore.retention.groups": groups, "cleanup.policy": policy,
    }  # fmt: skip
    own = _own_settings(short, config, unset)
    if settings := [topic for topic in topics if "=" in topic]:
        raise click.UsageError(f"A setting goes behind --config, as in --config {settings[0]}")
    if (policy_path is None) == (not topics):
        raise click.UsageError("Which topics? Name them, or give --file; not both.")
    if policy_path is not None and own:
        raise click.UsageError("With --file the file says what changes; leave the other options out.")
    if policy_path is None and not own:
        raise click.UsageError("Nothing to change: give --time, --size, --records, --groups, --policy, --config or --unset.")
    policies = PolicyFile(dict.fromkeys(topics, own)) if policy_path is None else read_policy_file(policy_path)
    opened = (
        invocation.open_for_reading() if dry_run
        else invocation.open_for_writing(housekeeping=False, owner_does="settings")
    )
    with opened as broker:
        for name in topics:
            topic_of(broker, name)
        known = {name: broker.topic(name).config for name in broker.topics()}
        changes = policy_changes(policies, known)
        if policy_path is not None:
            for pattern in policies.unmatched(known):
                say(f'{policy_path}: no topic matches "{pattern}"')
        by_topic: dict[str, dict[str, Any]] = {}
        for change in changes:
            by_topic.setdefault(change.topic, {})[change.setting] = change.after
        configs = {name: known[name].with_changes(settings) for name, settings in by_topic.items()}
        freed = [sum(one.bytes_freed for one in broker.housekeeping.retention_plans(list(configs), configs=given))
                 for given in ({}, configs)] if configs else [0, 0]  # fmt: skip
        if not dry_run and by_topic:
            broker.alter_topics(by_topic)
        if invocation.json:
            write_json(*({**change._asdict(), "applied": not dry_run} for change in changes))
            return
        table = Table("topic", "setting", "before", "after", *(["pattern"] if policy_path else []))
        for change in changes:
            table.add(
                change.topic, change.setting, _value_text(change.setting, change.before),
                _value_text(change.setting, change.after), *([change.pattern] if policy_path else []),
            )  # fmt: skip
        if changes:
            table.show()
        count = f"{len(changes)} {'setting' if len(changes) == 1 else 'settings'} of {len(by_topic)} " + (
            "topic" if len(by_topic) == 1 else "topics"
        )
        if not changes:
            say("everything is as it should be already")
        else:
            say(f"would change {count}" if dry_run else f"changed {count}")
            say(
                f"the next round of retention {'would free' if dry_run else 'frees'} {format_bytes(freed[1])} of "
                f"{'it' if len(by_topic) == 1 else 'them'}; with the settings before, {format_bytes(freed[0])}"
            )


def _own_settings(
    short: dict[str, str | None], config: tuple[str, ...], unset: tuple[str, ...]
) -> dict[str, Any]:
    """The settings given as options, checked, under Kafka's names; None for the default."""
    given = read_settings(config, None)
    for name, value in short.items():
        if value is not None and name in given:
            raise click.UsageError(f"{name} is given twice.")
        if value is not None:
            given[name] = value
    checked: dict[str, Any] = TopicConfig(given).overrides()
    for key in unset:
        name = kafka_name(key)
        if name in checked:
            raise click.UsageError(f"{name} is set and unset at once.")
        checked[name] = None
    return checked


def _value_text(name: str, value: Any) -> str:
    if value is None:
        return f"{setting_text(name, SETTINGS[name].default)} (default)"
    return setting_text(name, value)
