"""``logstore erase``: remove every record of one key, now and for good, and say what shows that it is gone."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

import click

from logstore.cli.exit_codes import CHECK_FAILED
from logstore.cli.invocation import Command, Invocation, pass_invocation, topic_argument, topic_of
from logstore.cli.output import Table, confirm, format_count, say, write_json
from logstore.cli.positions import check_partition
from logstore.cli.progress import Progress

if TYPE_CHECKING:
    from logstore.storage.erasure import ErasureReport
    from logstore.storage.log import Log

__all__ = ["command"]


@click.command("erase", cls=Command)
@topic_argument()
@click.option("-k", "--key", required=True, metavar="KEY", help="The key, as text.")
@click.option("--base64", "is_base64", is_flag=True, help="KEY is base64, for bytes that are no text.")
@click.option("-p", "--partition", type=click.IntRange(0), help="One partition alone; else all of them are searched.")
@click.option("--dry-run", is_flag=True, help="Count the records, and erase none.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_invocation
def command(
    invocation: Invocation,
    topic: str,
    key: str,
    is_base64: bool,
    partition: int | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Erase every record that has a key, whatever the topic's settings say.

    Offsets of other records do not change. Afterwards everything is read again, and the command says how many records of
    the key were found: none, or it ends with 1. Records of the key in other topics are not touched.
    """
    wanted = _key_bytes(key, is_base64)
    opened = (
        invocation.open_for_reading() if dry_run
        else invocation.open_for_writing(housekeeping=False, owner_does="erase")
    )
    with opened as broker:
        found = topic_of(broker, topic)
        check_partition(found, partition)
        logs = list(found.logs) if partition is None else [found.partition(partition)]
        if dry_run or not yes:
            counts = _count(logs, wanted)
            if dry_run:
                _show_counts(invocation, topic, counts)
                return
            if not sum(counts.values()):
                if invocation.json:
                    _show_counts(invocation, topic, counts)
                say(f"no record of {topic} has the key {key!r}")
                return
            confirm(f"Erase {_records(sum(counts.values()))} with the key {key!r} from {topic}?")
        reports = []
        for log in logs:
            reports.append((log.partition, _erase(log, wanted)))
    for number, report in reports:
        if invocation.json:
            write_json({"topic": topic, "partition": number, **report._asdict(), "key": key})
        else:
            _say_report(f"{topic}-{number}", report)
    if any(report.records_found for _, report in reports):
        raise click.exceptions.Exit(CHECK_FAILED)


def _key_bytes(key: str, is_base64: bool) -> bytes:
    if not is_base64:
        return key.encode("utf-8", "surrogateescape")
    try:
        return base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        raise click.UsageError(f"--key {key!r} is no base64.") from None


def _count(logs: list[Log], key: bytes) -> dict[int, int]:
    from logstore.storage.erasure import count_key

    counts = {}
    for log in logs:
        with Progress(f"counting in {log.topic}-{log.partition}", log.size_bytes) as progress:
            counts[log.partition] = count_key(log, key, progress=progress.update)
    return counts


def _erase(log: Log, key: bytes) -> ErasureReport:
    # Each segment is read, those with the key once more to be rewritten, and all of it again at the end.
    with Progress(f"erasing in {log.topic}-{log.partition}", 2 * log.size_bytes) as progress:
        return log.erase_key(key, progress=lambda done_bytes, _: progress.update(done_bytes))


def _show_counts(invocation: Invocation, topic: str, counts: dict[int, int]) -> None:
    if invocation.json:
        write_json(*({"topic": topic, "partition": at, "records": count} for at, count in counts.items()))
        return
    table = Table("topic", "partition>", "records>")
    for at, count in counts.items():
        table.add(topic, str(at), format_count(count))
    table.show()
    say(f"would erase {_records(sum(counts.values()))}")


def _say_report(place: str, report: ErasureReport) -> None:
    rewritten = len(report.segments_rewritten)
    click.echo(
        f"{place}: erased {_records(report.records_erased)}, rewrote {rewritten} "
        f"{'segment' if rewritten == 1 else 'segments'}; read {_records(report.records_scanned)} below offset "
        f"{report.up_to_offset} again, and "
        + (f"{format_count(report.records_found)} still with the key" if report.records_found else "none has the key")
    )
    for name in report.files_removed:
        click.echo(f"{place}: removed {name}, which held older bytes")
    for name in report.files_left:
        say(f"{place}: {name} is left of an unfinished write and may hold the key; delete it by hand if nobody needs it")


def _records(count: int) -> str:
    return "1 record" if count == 1 else f"{format_count(count)} records"
