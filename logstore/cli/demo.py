"""`logstore demo`: the orders example, played in a temporary directory."""

from __future__ import annotations

import importlib
from pathlib import Path

import click

from logstore.cli.invocation import Command, Invocation, pass_invocation

__all__ = ["command"]


@click.command(cls=Command)
@click.option("--rate", type=click.FloatRange(min=1), default=500.0, show_default=True, help="Orders a second.")
@click.option(
    "--seconds", type=click.FloatRange(min=0.5), default=15.0, show_default=True, help="How long orders are placed."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Which orders.")
@pass_invocation
@click.pass_context
def command(ctx: click.Context, invocation: Invocation, rate: float, seconds: float, seed: int) -> None:
    """Play an order service and its readers: groups, a replica that dies, a service that sleeps and catches up.

    With -d DIR the records stay there, to be looked at with the other commands. The code is examples/orders in the
    source: made to be copied.
    """
    example = importlib.import_module("logstore.demo.__main__")
    directory = Path(invocation.directory) if invocation.directory is not None else None
    ctx.exit(example.run(rate, seconds, seed, directory, as_json=invocation.json))
