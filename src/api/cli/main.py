"""The command `conclave`: what it offers, and how every way of ending becomes one line and one exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from api.cli import (
    archive,
    database,
    deliberate,
    demo,
    doctor,
    halt,
    hindsight,
    mcp,
    money,
    pantheon,
    population,
    providers,
    replaying,
    serving,
    soak,
    swarm,
    webhooks,
    witness,
    worker,
)
from api.cli.exit_codes import ExitCode, code_of_error, code_of_signal
from api.cli.options import HelpOption, in_words_of_the_command_line, want_command
from api.cli.standard_streams import open_standard_streams
from api.cli.terminal import complain, print_document

__all__ = ["build_app", "execute", "run"]


def run() -> None:
    """The console script."""
    open_standard_streams()
    sys.exit(execute(sys.argv[1:]))


def execute(arguments: Sequence[str]) -> int:
    """Run the command that these arguments name; its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # Whatever cannot be encoded is spelt out rather than a reason to fail.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _code_of(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
    except (BrokenPipeError, _ReaderLeftError):
        _drop_standard_output()
        return ExitCode.READER_LEFT
    except OSError as error:
        _drop_standard_output()
        complain(f"{error.strerror}: {error.filename or 'standard output'!r}")
        return ExitCode.ENDED_BADLY
    return code


class _ReaderLeftError(Exception):
    """Nobody reads standard output any more."""


class _Commands(TyperGroup):
    """Keeps a broken pipe from the framework, which would end it as a failure."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderLeftError from error


def build_app() -> typer.Typer:
    """Every command, known by name and help only: what a command needs is imported when it runs."""
    app = typer.Typer(
        name="conclave",
        cls=_Commands,
        help="One question to up to 72 agents at once: every one accounted for.",
        add_completion=False,
        # Help is plain text, so that rich need not be imported for it.
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_help_option=False,
    )
    app.callback(invoke_without_command=True)(conclave)
    for group in (
        deliberate,
        demo,
        money,
        serving,
        worker,
        archive,
        hindsight,
        replaying,
        halt,
        witness,
        swarm,
        pantheon,
        soak,
        population,
        database,
        doctor,
        providers,
        webhooks,
        mcp,
    ):
        group.add_to(app)
    return app


def conclave(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
    as_json: Annotated[bool, typer.Option("--json", hidden=True)] = False,
    _help: HelpOption = False,
) -> None:
    """One question to up to 72 agents at once: every one accounted for."""
    if version:
        from importlib.metadata import version as version_of

        found = version_of("archon-conclave")
        if as_json:
            print_document({"version": found})
        else:
            typer.echo(f"conclave {found}")
        raise typer.Exit
    want_command(context)
    if as_json:
        raise typer.BadParameter("--json belongs after the command")


def _code_of(arguments: Sequence[str]) -> int:
    from domain.errors.conclave_error import ConclaveError

    try:
        code = get_command(build_app()).main(list(arguments), prog_name="conclave", standalone_mode=False)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        complain(error.format_message() + (f" See: {context.command_path} --help" if context is not None else ""))
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return code_of_signal(signal.SIGINT)
    except ConclaveError as error:
        complain(in_words_of_the_command_line(str(error)))
        return code_of_error(error)
    except (OSError, _ReaderLeftError):
        raise
    except Exception as error:  # noqa: BLE001 - the last place where anything can be said about it
        return _crash(error)
    return int(code) if isinstance(code, int) else ExitCode.DONE


def _crash(error: Exception) -> int:
    # Not read through the settings, because they may be what broke.
    if os.environ.get("CONCLAVE_LOG_LEVEL", "").lower() == "debug":
        import traceback

        traceback.print_exception(error)
    hint = "this is a fault in Conclave; CONCLAVE_LOG_LEVEL=debug shows where"
    complain(f"{type(error).__name__}: {error} ({hint})")
    return ExitCode.ENDED_BADLY


def _drop_standard_output() -> None:
    """Keep the interpreter from writing what nobody reads, and from complaining about it, when it exits."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    run()
