"""The root command: global options, commands loaded when used, and every error as one line and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from logstore._version import __version__
from logstore.cli.exit_codes import EXIT_CODES, INTERNAL, INTERRUPTED, OK, exit_code_for
from logstore.cli.invocation import Invocation, directory_option, json_option
from logstore.errors import LogstoreError

__all__ = ["cli", "run"]


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one when it is used, so that ``--help`` stays quick."""

    def __init__(self, *args: Any, modules: dict[str, tuple[str, str]], **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.modules:
            return None
        command = importlib.import_module(self.modules[cmd_name][0]).command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.modules and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], self.modules, n=1)
            advice = f"did you mean {near[0]!r}?" if near else "see 'logstore --help'."
            raise click.UsageError(f"No such command {args[0]!r}; {advice}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, short) for name, (_, short) in self.modules.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in EXIT_CODES.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # here, where a closed pipe is still an exception that can be handled
            return result
        except (click.ClickException, click.exceptions.Exit):
            raise
        except click.Abort:  # a prompt was left by Ctrl-C
            code = INTERRUPTED
        except KeyboardInterrupt:
            code = INTERRUPTED
            _drop_output()
        except BrokenPipeError:
            code = OK
            _drop_output()
        except Exception as error:
            code = _report(error, ctx.ensure_object(Invocation).debug)
        ctx.exit(code)


def _drop_output() -> None:
    """Let the interpreter's last flush of a closed pipe go nowhere."""
    try:
        sys.stdout.flush()
    except OSError:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _report(error: Exception, debug: bool) -> int:
    """Say on stderr what went wrong."""
    code = exit_code_for(error)
    expected = isinstance(error, (LogstoreError, OSError))
    if debug or not expected:
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    if expected:
        click.echo(f"Error: {_one_line(error)}", err=True)
    if code == INTERNAL:
        click.echo("Error: this is a fault of logstore; please report it with the lines above.", err=True)
    return code


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, LogstoreError):
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    return " ".join(str(error).split())


_COMMANDS = {
    "topic": ("logstore.cli.topic", "Create, list, describe, alter, trim and delete topics."),
    "produce": ("logstore.cli.produce", "Append records read from standard input."),
    "consume": ("logstore.cli.consume", "Print records, from any offset or time; follow new ones."),
    "tail": ("logstore.cli.tail", "Follow several topics at once."),
    "group": ("logstore.cli.group", "Consumer groups: who reads what, how far behind, and from where next."),
    "transaction": ("logstore.cli.transaction", "Transactions: which are open, since when, whom they hold up."),
    "import": ("logstore.cli.import_file", "Append the rows of a CSV or JSON lines file."),
    "export": ("logstore.cli.export", "Write records to JSON lines, CSV or Parquet."),
    "info": ("logstore.cli.info", "Show offsets, sizes and time spans of every partition."),
    "retention": ("logstore.cli.retention", "See and decide what is deleted, when and why."),
    "compact": ("logstore.cli.compact", "See and run compaction, and why it does not."),
    "verify": ("logstore.cli.verify", "Check all files; name every damaged range of offsets."),
    "repair": ("logstore.cli.repair", "Make damaged partitions writable again; say what is lost."),
    "index": ("logstore.cli.index", "Derive index files again."),
    "erase": ("logstore.cli.erase", "Erase every record of one key, and prove it."),
    "backup": ("logstore.cli.backup", "Copy topics while programs go on; only what is new."),
    "restore": ("logstore.cli.restore", "Build a directory from a backup, every byte verified."),
    "doctor": ("logstore.cli.doctor", "What about this machine and directory would bite, with advice."),
    "segment": ("logstore.cli.segment", "List, dump and verify segment files."),
    "demo": ("logstore.cli.demo", "Play an order service with groups of readers, and check the outcome."),
}


@click.group(
    cls=LazyGroup,
    modules=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@directory_option
@json_option
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="logstore", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Kafka's log in a directory: durable, replayable topics with no server.

    Data goes to standard output, everything else to standard error.
    """
    ctx.ensure_object(Invocation).debug = debug


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit code."""
    try:
        result = cli.main(
            None if arguments is None else list(arguments),
            prog_name="logstore",
            standalone_mode=False,
        )
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    return result if isinstance(result, int) else OK
