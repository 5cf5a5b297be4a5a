"""`conclave worker`: works on what the servers accept, until it is told to stop."""

from __future__ import annotations

import logging
import signal
from typing import Annotated

import typer

from api.cli.exit_codes import ExitCode, code_of_signal
from api.cli.options import JsonOption

__all__ = ["add_to"]

_logger = logging.getLogger(__name__)


def add_to(app: typer.Typer) -> None:
    """Make the command known."""
    app.command("worker")(worker)


def worker(
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port",
            metavar="N",
            min=0,
            max=65535,
            help="Answer /metrics, /healthz, /readyz; 0 takes a free one.",
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option("--host", metavar="ADDRESS", help="Where --metrics-port listens; CONCLAVE_HOST if not given."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Work on accepted deliberations until SIGTERM or Ctrl-C; wants CONCLAVE_QUEUE=procrastinate."""
    from api.bootstrap import Purpose, configure_logging, load_settings, open_conclave, run
    from api.cli.announcing import Announcer

    settings = load_settings()
    configure_logging(settings)

    announcer = Announcer(log_format=settings.log_format, logger=_logger, as_json=as_json)

    def listening(urls: tuple[str, ...]) -> None:
        announcer.listening(urls, f"working{''.join(f', watched at {url}' for url in urls)}, Ctrl-C stops")

    async def work() -> signal.Signals | None:
        from api.main import work as work_until_signal

        async with open_conclave(settings, purpose=Purpose.WORK) as conclave:
            for notice in conclave.notices:
                announcer.warn(notice)
            return await work_until_signal(
                conclave,
                host=settings.host if host is None else host,
                metrics_port=metrics_port,
                on_listening=listening,
            )

    ended_by = run(work())
    # A worker that is told to stop by SIGTERM and does so is done.
    raise typer.Exit(code_of_signal(ended_by) if ended_by is signal.SIGINT else ExitCode.DONE)
