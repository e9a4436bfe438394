"""``logstore backup`` and ``logstore restore``."""

from __future__ import annotations

import os
from time import perf_counter

import click

from logstore.cli.invocation import Command, Invocation, pass_invocation
from logstore.cli.output import format_counted, say, write_json
from logstore.cli.progress import Progress
from logstore.quantities import format_bytes

__all__ = ["command", "restore_command"]


@click.command("backup", cls=Command)
@click.argument("backup", metavar="BACKUP", type=click.Path(file_okay=False))
@click.argument("topics", nargs=-1, metavar="[TOPIC]...")
@click.option("--keep", default=7, show_default=True, type=click.IntRange(min=1), help="How many backups stay there.")
@pass_invocation
def command(invocation: Invocation, backup: str, topics: tuple[str, ...], keep: int) -> None:
    """Copy all topics, or some, to the directory BACKUP; programs may go on writing.

    Each partition's copy is a prefix of it: whole batches, every CRC checked. Segments that an earlier backup in BACKUP has
    are not copied again. Committed offsets of groups are part of it.
    """
    from logstore.broker.backup import backup_directory

    directory = invocation.require_directory()
    started = perf_counter()
    with Progress("backup", None) as progress:

        def report(done: int, total: int) -> None:
            progress.total = total
            progress.update(done)

        result = backup_directory(directory, backup, topics, keep=keep, progress=report)
    if invocation.json:
        write_json(result._asdict())
        return
    click.echo(os.path.basename(result.manifest).removesuffix(".manifest"))
    say(
        f"{format_counted(result.partitions, 'partition')}, {format_bytes(result.size_bytes)}, of which "
        f"{format_bytes(result.copied_bytes)} were new, in {perf_counter() - started:.1f} s"
    )


@click.command("restore", cls=Command)
@click.argument("backup", metavar="BACKUP", type=click.Path(exists=True, file_okay=False))
@click.argument("topics", nargs=-1, metavar="[TOPIC]...")
@click.option("--at", metavar="TIME", help="Which backup: how its name begins, such as 2026-11-22; else the latest.")
@click.option("--list", "only_list", is_flag=True, help="List the backups there are, oldest first.")
@pass_invocation
def restore_command(
    invocation: Invocation, backup: str, topics: tuple[str, ...], at: str | None, only_list: bool
) -> None:
    """Build the directory (-d) anew from a backup, and verify every byte.

    The directory must not exist yet, or be empty. It appears when all of it is there and sound.
    """
    from logstore.broker.backup import list_backups, restore_directory

    if only_list:
        for path in list_backups(backup):
            name = os.path.basename(path).removesuffix(".manifest")
            if invocation.json:
                write_json({"name": name, "manifest": path})
            else:
                click.echo(name)
        return
    directory = invocation.require_directory(existing=False)
    started = perf_counter()
    with Progress("restore", None) as progress:

        def report(done: int, total: int) -> None:
            progress.total = total
            progress.update(done)

        result = restore_directory(backup, directory, topics, at=at, progress=report)
    if invocation.json:
        write_json(result._asdict())
        return
    name = os.path.basename(result.manifest).removesuffix(".manifest")
    say(
        f"{directory}: {format_counted(result.partitions, 'partition')}, {format_bytes(result.size_bytes)}, as of {name}, "
        f"every byte verified, in {perf_counter() - started:.1f} s"
    )
