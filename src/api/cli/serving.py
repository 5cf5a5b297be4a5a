"""`conclave serve`: answers REST until it is told to stop."""

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
    app.command("serve")(serve)


def serve(
    host: Annotated[
        str | None,
        typer.Option("--host", metavar="ADDRESS", help="Where to listen; without CONCLAVE_API_KEYS on loopback only."),
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", metavar="N", min=0, max=65535, help="0 takes a free one.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Answer REST until SIGTERM or Ctrl-C."""
    from api.bootstrap import Purpose, configure_logging, load_settings, open_conclave, run
    from api.cli.announcing import Announcer

    settings = load_settings()
    configure_logging(settings)
    announcer = Announcer(log_format=settings.log_format, logger=_logger, as_json=as_json)

    def listening(urls: tuple[str, ...]) -> None:
        announcer.listening(urls, f"listening on {' and '.join(urls)}, Ctrl-C stops")

    async def work() -> signal.Signals | None:
        from api.main import Front
        from api.main import serve as serve_rest

        async with open_conclave(settings, purpose=Purpose.SERVE) as conclave:
            for notice in conclave.notices:
                announcer.warn(notice)
            return await serve_rest(
                conclave,
                host=settings.host if host is None else host,
                port=settings.port if port is None else port,
                front=Front(settings.tls_cert_file, settings.tls_key_file, settings.forwarded_allow_ips),
                on_listening=listening,
            )

    ended_by = run(work())
    # A server that is told to stop by SIGTERM and does so is done.
    raise typer.Exit(code_of_signal(ended_by) if ended_by is signal.SIGINT else ExitCode.DONE)
