"""What the global options say, and the option and command classes that all commands share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from logstore.errors import DataDirLockedError, UnknownTopicOrPartitionError

if TYPE_CHECKING:
    from collections.abc import Callable

    import logstore

__all__ = [
    "Command",
    "InputError",
    "Invocation",
    "directory_option",
    "group_options",
    "json_option",
    "pass_invocation",
    "topic_argument",
    "topic_of",
]


@dataclass
class Invocation:
    """The global options of one run."""

    directory: str | None = None
    json: bool = False
    debug: bool = False

    def require_directory(self, *, existing: bool = True) -> str:
        """The directory, or a usage error that says how to give one."""
        if self.directory is None:
            raise click.UsageError("Which directory? Give -d DIR, or set LOGSTORE_DIR.")
        if existing and not os.path.isdir(self.directory):
            raise UnknownTopicOrPartitionError(
                f"there is no directory {self.directory!r}; `logstore -d DIR topic create` makes one"
            )
        return self.directory

    def open_for_reading(self) -> logstore.Broker:
        """The broker, read-only: works beside a writer."""
        import logstore

        return logstore.open(self.require_directory(), read_only=True)

    def open_for_writing(
        self,
        *,
        create: bool = False,
        housekeeping: bool = True,
        owner_does: str = "",
        config: dict[str, Any] | None = None,
    ) -> logstore.Broker:
        """The broker as the directory's one writer.

        Parameters
        ----------
        create : bool
            Makes the directory if need be.
        housekeeping : bool
            Whether retention and compaction run in the background meanwhile.
        owner_does : {"", "retention", "compaction", "trim", "erase", "settings", "abort"}
            What the process can do that has the directory open, for the message where there is one.
        config : dict, optional
            Settings of the broker.
        """
        import logstore

        try:
            return logstore.open(
                self.require_directory(existing=not create), housekeeping=housekeeping, config=config
            )
        except logstore.DataDirLockedError as error:
            if owner_does in _OWNER_ADVICE:
                raise _with_advice(error, _OWNER_ADVICE[owner_does]) from None
            raise

    def refuse_if_locked(self, *, owner_does: str) -> None:
        """Fails as `open_for_writing` would, where another process has the directory open; before a question is asked."""
        from logstore.storage.directory_lock import lock_owner

        directory = self.require_directory()
        if (owner := lock_owner(directory)) is not None:
            raise DataDirLockedError(f"{directory} is open for writing by {owner}. {_OWNER_ADVICE[owner_does]}")


_ROUND = "That process does this by itself in the background, or at once by broker.housekeeping.run_now()."
_OWNER_ADVICE = {
    "retention": f"{_ROUND} `logstore retention plan` works beside it.",
    "compaction": f"{_ROUND} `logstore compact plan` works beside it.",
    "erase": "That process has to do it: log.erase_key(...) of each partition. With --dry-run this works beside it.",
    "trim": "That process has to do it: broker.delete_records(...). With --dry-run this works beside it.",
    "settings": "That process has to change settings: broker.alter_topics(...). With --dry-run this works beside it.",
    "abort": "That process has to do it: broker.abort_transaction(...). `logstore transaction describe` works beside it.",
}


def _with_advice(error: logstore.DataDirLockedError, advice: str) -> logstore.DataDirLockedError:
    error.args = (f"{error} {advice}",)
    return error


def topic_of(broker: logstore.Broker, name: str) -> logstore.Topic:
    """A topic by name; where there is none, the error names the nearest there is."""
    try:
        return broker.topic(name)
    except UnknownTopicOrPartitionError:
        import difflib

        names = broker.topics()
        near = difflib.get_close_matches(name, names, n=1)
        advice = f"did you mean {near[0]!r}?" if near else "`logstore topic list` shows what there is"
        raise UnknownTopicOrPartitionError(f"there is no topic {name!r} in {broker.path}; {advice}") from None


class InputError(click.ClickException):
    """Input that is not what it should be; the message says where."""

    exit_code = 2


pass_invocation = click.make_pass_decorator(Invocation, ensure=True)


def _set_directory(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(Invocation).directory = value


def _set_json(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Invocation).json = True


def _directory_option(**settings: Any) -> Callable[..., Any]:
    return click.option(
        "-d",
        "--dir",
        metavar="DIR",
        type=click.Path(file_okay=False),
        expose_value=False,
        callback=_set_directory,
        **settings,
    )


directory_option = _directory_option(
    envvar="LOGSTORE_DIR",
    help="The directory that holds the topics; LOGSTORE_DIR where not given.",
)
json_option = click.option(
    "--json",
    is_flag=True,
    expose_value=False,
    callback=_set_json,
    help="Machine output: JSON lines, or one object.",
)


def group_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """``-d`` and ``--json`` for a group of commands that does something without one."""
    wrapped: Callable[..., Any] = _directory_option(help="As before the command.")(json_option(function))
    return wrapped


class Command(click.Command):
    """A command that takes ``-d`` and ``--json`` behind its name, too."""

    def __init__(self, *args: Any, **settings: Any):
        super().__init__(*args, **settings)
        carrier = _directory_option(help="As before the command.")(json_option(lambda: None))
        self.params.extend(reversed(carrier.__click_params__))


class CommandGroup(click.Group):
    """A group of commands. Its help says all of the first sentence of each."""

    def __init__(self, *args: Any, **settings: Any):
        super().__init__(*args, context_settings={"help_option_names": ["-h", "--help"]}, **settings)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        commands = [(name, self.commands[name]) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(limit=200)) for name, command in commands])


def _complete_topic(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    from logstore.storage.layout import split_partition_directory_name

    directory = ctx.ensure_object(Invocation).directory or os.environ.get("LOGSTORE_DIR", "")
    try:
        found = {split_partition_directory_name(name) for name in os.listdir(directory)}
    except OSError:
        return []
    topics = {split[0] for split in found if split is not None}
    return sorted(name for name in topics if name.startswith(incomplete))


def topic_argument(**settings: Any) -> Callable[..., Any]:
    """The TOPIC argument, completed by the shell where that is set up."""
    return click.argument("topic", metavar="TOPIC", shell_complete=_complete_topic, **settings)
