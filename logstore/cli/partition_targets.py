"""``TOPIC[:PARTITION]`` on a directory that no broker opens: for the tools that work on files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import click

from logstore.errors import UnknownTopicOrPartitionError
from logstore.storage.files import refusals
from logstore.storage.layout import split_partition_directory_name

__all__ = ["PartitionDirectory", "partition_directories", "targets_argument"]


class PartitionDirectory(NamedTuple):
    """A partition's directory."""

    topic: str
    partition: int
    path: str

    @property
    def name(self) -> str:
        return f"{self.topic}-{self.partition}"


def targets_argument() -> Callable[..., Any]:
    """The arguments ``[TOPIC[:PARTITION]]...``."""
    return click.argument("targets", nargs=-1, metavar="[TOPIC[:PARTITION]]...")


def partition_directories(directory: str, targets: Sequence[str]) -> list[PartitionDirectory]:
    """The partitions that targets name; all there are where none is given.

    Raises
    ------
    UnknownTopicOrPartitionError
    StorageFailureError
    """
    with refusals(directory, "list"):
        names = [entry.name for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
    there = sorted(
        PartitionDirectory(*place, os.path.join(directory, name))
        for name in names
        if (place := split_partition_directory_name(name)) is not None
    )
    if not targets:
        return there
    found: dict[PartitionDirectory, None] = {}
    for target in targets:
        topic, colon, number = target.partition(":")
        chosen = [place for place in there if place.topic == topic]
        if not chosen:
            raise UnknownTopicOrPartitionError(f"there is no topic {topic!r} in {directory}; {_advice(topic, there)}")
        if colon:
            numbers = [place for place in chosen if str(place.partition) == number]
            if not numbers:
                raise UnknownTopicOrPartitionError(
                    f"topic {topic!r} has no partition {number!r}: they are {chosen[0].partition} to {chosen[-1].partition}"
                )
            chosen = numbers
        found.update(dict.fromkeys(chosen))
    return list(found)


def _advice(topic: str, there: list[PartitionDirectory]) -> str:
    import difflib

    near = difflib.get_close_matches(topic, {place.topic for place in there}, n=1)
    return f"did you mean {near[0]!r}?" if near else "`logstore topic list` shows what there is"
