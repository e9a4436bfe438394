"""``logstore transaction``: what is open, since when, whom it holds up, and ending it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from logstore.cli.group_lag import format_lag_seconds
from logstore.cli.invocation import Command, CommandGroup, Invocation, pass_invocation
from logstore.cli.output import Table, confirm, format_count, format_time, say, write_json
from logstore.errors import InvalidTxnStateError, TransactionalIdNotFoundError

if TYPE_CHECKING:
    import logstore
    from logstore.broker_api import TransactionDescription

__all__ = ["command"]

_STATES = ("Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort")
_OPEN_STATES = ("Ongoing", "PrepareCommit", "PrepareAbort")


@click.group("transaction", cls=CommandGroup)
def command() -> None:
    """Transactions of producers: which are open, since when, and whom they hold up.

    list and describe work beside a program that has the directory open; abort needs to be the one writer.
    """


def _complete_id(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    invocation = ctx.ensure_object(Invocation)
    try:
        with invocation.open_for_reading() as broker:
            names = [listing.transactional_id for listing in broker.transactions()]
    except Exception:  # completion has nobody to tell
        return []
    return [name for name in names if name.startswith(incomplete)]


id_argument = click.argument("transactional_id", metavar="TRANSACTIONAL_ID", shell_complete=_complete_id)


def _described(broker: logstore.Broker, transactional_id: str) -> TransactionDescription:
    """One that exists; where there is none, the error names the nearest there is."""
    try:
        return broker.describe_transaction(transactional_id)
    except TransactionalIdNotFoundError:
        import difflib

        names = [listing.transactional_id for listing in broker.transactions()]
        near = difflib.get_close_matches(transactional_id, names, n=1)
        advice = f"did you mean {near[0]!r}?" if near else "`logstore transaction list` shows what there is"
        raise TransactionalIdNotFoundError(
            f"no producer of {broker.path} has transactional_id {transactional_id!r}; {advice}"
        ) from None


def _open_seconds(found: TransactionDescription) -> float | None:
    """How long it is open; None where nothing is."""
    if found.state not in _OPEN_STATES or found.start_timestamp < 0:
        return None
    return max(time.time() - found.start_timestamp / 1000, 0.0)


def _open_for(found: TransactionDescription) -> str:
    seconds = _open_seconds(found)
    return "-" if seconds is None else format_lag_seconds(seconds)


def _summary(found: TransactionDescription) -> dict[str, Any]:
    return {
        "transactional_id": found.transactional_id,
        "state": found.state,
        "producer_id": found.producer_id,
        "producer_epoch": found.producer_epoch,
        "timeout_ms": found.timeout_ms,
        "start_timestamp": None if found.start_timestamp < 0 else found.start_timestamp,
        "update_timestamp": found.update_timestamp,
        "partitions": len(found.partitions),
    }


# ---- looking --------------------------------------------------------------------------------------------


@command.command("list", cls=Command)
@click.option(
    "--state", "states", multiple=True, type=click.Choice(_STATES, case_sensitive=False), metavar="STATE",
    help=f"Only those in this state; may be repeated. One of {', '.join(_STATES)}.",
)  # fmt: skip
@click.option("--open", "only_open", is_flag=True, help="Only those that are open, or decided and not through yet.")
@pass_invocation
def list_transactions(invocation: Invocation, states: tuple[str, ...], only_open: bool) -> None:
    """Show all transactional ids: their states, and how long a transaction is open."""
    wanted = {*states, *(_OPEN_STATES if only_open else ())} or None
    with invocation.open_for_reading() as broker:
        found = [broker.describe_transaction(listing.transactional_id) for listing in broker.transactions(states=wanted)]
    if invocation.json:
        write_json(*map(_summary, found))
        return
    if not found:
        say(f"no {'such ' if wanted else ''}transactions in {invocation.directory}")
        return
    table = Table("transactional id", "state", "producer>", "epoch>", "partitions>", "open for>", "timeout>", "last change")
    for each in found:
        table.add(
            each.transactional_id,
            each.state,
            str(each.producer_id),
            str(each.producer_epoch),
            format_count(len(each.partitions)),
            _open_for(each),
            format_lag_seconds(each.timeout_ms / 1000),
            format_time(each.update_timestamp, "seconds"),
        )
    table.show()


class _Touched(NamedTuple):
    """A partition that an open transaction has written in."""

    topic: str
    partition: int
    first_offset: int | None
    held_back: int  # offsets that readers of committed records can't see yet


def _touched(broker: logstore.Broker, found: TransactionDescription) -> list[_Touched]:
    """Where it has written, from which offset on, and what waits behind it."""
    places = []
    for name, number in found.partitions:
        try:
            log = broker.topic(name).partition(number)
        except LookupError:  # the topic was deleted
            continue
        opened = {each.producer_id: each.first_offset for each in log.open_transactions()}
        first_offset = opened.get(found.producer_id)
        held_back = 0 if first_offset is None else log.log_end_offset - log.last_stable_offset
        places.append(_Touched(name, number, first_offset, held_back))
    return places


@command.command("describe", cls=Command)
@id_argument
@pass_invocation
def describe(invocation: Invocation, transactional_id: str) -> None:
    """Show one transactional id, where its open transaction has written, and how much it holds back.

    HELD BACK counts the offsets that readers of committed records do not see before it ends.
    """
    with invocation.open_for_reading() as broker:
        found = _described(broker, transactional_id)
        places = _touched(broker, found)
    if invocation.json:
        write_json({**_summary(found), "partitions": [each._asdict() for each in places]})
        return
    say(f"transaction {found.transactional_id}: {found.state}, producer {found.producer_id} in epoch {found.producer_epoch}")
    last_change = format_time(found.update_timestamp, "seconds")
    if _open_seconds(found) is None:
        say(f"nothing is open; last change {last_change}")
    else:
        say(
            f"open for {_open_for(found)} since {format_time(found.start_timestamp, 'seconds')}, last change {last_change}; "
            f"timeout {format_lag_seconds(found.timeout_ms / 1000)}"
        )
    if places:
        table = Table("topic", "partition>", "first offset>", "held back>")
        for place in places:
            first_offset = "-" if place.first_offset is None else str(place.first_offset)
            table.add(place.topic, str(place.partition), first_offset, format_count(place.held_back))
        table.show()


# ---- ending ---------------------------------------------------------------------------------------------


@command.command("abort", cls=Command)
@id_argument
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_invocation
def abort(invocation: Invocation, transactional_id: str, yes: bool) -> None:
    """Abort a transaction that was left open, and shut its producer out.

    No producer outlives the program that had the directory open. So whoever opens it next to write, this command
    included, ends every transaction that is still open there; those are named before.
    """
    with invocation.open_for_reading() as broker:
        found = _described(broker, transactional_id)
        others = [
            listing.transactional_id for listing in broker.transactions(states=["Ongoing"])
            if listing.transactional_id != transactional_id
        ]
    if found.state == "PrepareCommit":
        raise InvalidTxnStateError(
            f"the transaction of {transactional_id!r} is committed, which can't be taken back; whoever opens the directory "
            "next to write carries it out"
        )
    is_open = found.state in _OPEN_STATES
    if is_open:
        invocation.refuse_if_locked(owner_does="abort")  # before anything is asked
        if others and not invocation.json:
            say(f"these are open as well, and end with it: {', '.join(others)}")
        if not yes:
            confirm(
                f"Abort the transaction of {transactional_id!r}, open for {_open_for(found)}, in "
                f"{_partitions(len(found.partitions))}?", what="abort", refused="nothing aborted",
            )  # fmt: skip
        with invocation.open_for_writing(housekeeping=False, owner_does="abort") as broker:
            broker.abort_transaction(transactional_id)
            found = _described(broker, transactional_id)
    if invocation.json:
        write_json({"transactional_id": transactional_id, "aborted": is_open, "state": found.state})
    elif is_open:
        say(f"aborted the transaction of {transactional_id}; none of it is seen by readers of committed records")
    else:
        say(f"nothing is open under {transactional_id}: its state is {found.state}")


def _partitions(count: int) -> str:
    return "1 partition" if count == 1 else f"{count} partitions"
