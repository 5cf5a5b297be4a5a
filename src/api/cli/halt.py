"""`conclave halt`: whether the system is halted, and the way to halt it and to end the halt, with a server or without."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from api.cli.options import HelpOption, JsonOption, ServerOption, add_group, want_command

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from api.cli.http_exchange import HttpExchange
    from application.services.halt_service import HaltService

__all__ = ["add_to"]

ReasonOption = Annotated[
    str,
    typer.Option(
        "--reason", metavar="TEXT", help="Why. The log commits to it for ever; the text itself stays beside the log."
    ),
]


def add_to(app: typer.Typer) -> None:
    """Make the commands known."""
    add_group(app, "halt", halt, {"status": status, "set": set_halt, "clear": clear})


def halt(context: typer.Context, _help: HelpOption = False) -> None:
    """Stop the whole system, and start it again."""
    want_command(context)


def status(server: ServerOption = None, as_json: JsonOption = False) -> None:
    """Say whether the system is halted, and what each channel says.

    Exit code 0 either way: the answer is the result.
    """
    from api.bootstrap import run

    async def work() -> Mapping[str, Any]:
        async with _open_door(server) as door:
            return await door.status()

    _show(run(work()), as_json=as_json)


def set_halt(reason: ReasonOption, server: ServerOption = None, as_json: JsonOption = False) -> None:
    """Halt the whole system, until it is cleared.

    Done once one channel holds it: without --server that works with the database away, and says which channels were not reached.
    """
    from api.bootstrap import run

    async def work() -> tuple[Mapping[str, Any], bool]:
        async with _open_door(server) as door:
            return await door.set(reason), door.leaves_unknown

    found, leaves_unknown = run(work())
    _show(found, as_json=as_json)
    _name_missing(found, is_unknown=leaves_unknown)


def clear(reason: ReasonOption, server: ServerOption = None, as_json: JsonOption = False) -> None:
    """End the halt.

    Wants every channel within reach, and the log, which witnesses it first.
    """
    from api.bootstrap import run

    async def work() -> Mapping[str, Any]:
        async with _open_door(server, checks_log=True) as door:
            return await door.clear(reason)

    _show(run(work()), as_json=as_json)


class _Door(Protocol):
    """The halt, in documents of the contract, section 1. Every call may raise a `ConclaveError`."""

    @property
    def leaves_unknown(self) -> bool:
        """Whether what a halt still lacks is forgotten with this command."""
        ...

    async def status(self) -> Mapping[str, Any]: ...

    async def set(self, reason: str) -> Mapping[str, Any]: ...

    async def clear(self, reason: str) -> Mapping[str, Any]: ...


class _LocalDoor:
    """The halt of this machine's data folder and database, whether or not a server runs on them."""

    def __init__(self, service: HaltService) -> None:
        self._service = service

    @property
    def leaves_unknown(self) -> bool:
        return self._service.knows_alone

    async def status(self) -> Mapping[str, Any]:
        from api.documents import halt_document

        return halt_document(self._service.status())

    async def set(self, reason: str) -> Mapping[str, Any]:
        from api.documents import halt_document

        return halt_document(await self._service.set(reason, key_name=None))

    async def clear(self, reason: str) -> Mapping[str, Any]:
        from api.documents import halt_document

        return halt_document(await self._service.clear(reason, key_name=None))


class _RemoteDoor:
    """The halt of a server, over its REST."""

    def __init__(self, exchange: HttpExchange) -> None:
        self._exchange = exchange

    @property
    def leaves_unknown(self) -> bool:
        return False

    async def status(self) -> Mapping[str, Any]:
        return self._checked(await self._exchange.fetch("GET", "/v1/halt"))

    async def set(self, reason: str) -> Mapping[str, Any]:
        return self._checked(await self._exchange.fetch("POST", "/v1/halt", {"reason": reason}))

    async def clear(self, reason: str) -> Mapping[str, Any]:
        return self._checked(await self._exchange.fetch("DELETE", "/v1/halt", {"reason": reason}))

    def _checked(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        from domain.errors.dependency import DependencyUnavailableError

        channels = document.get("channels")
        whole = isinstance(document.get("halted"), bool) and isinstance(channels, dict)
        if not whole or not all(isinstance(channel, dict) for channel in (channels or {}).values()):
            raise DependencyUnavailableError(
                dependency=f"the server {str(self._exchange.address)!r}",
                problem="it does not answer as Conclave does",
                remedy="Check that --server names a Conclave server.",
            )
        return document


@asynccontextmanager
async def _open_door(server: str | None, *, checks_log: bool = False) -> AsyncIterator[_Door]:
    from api.bootstrap import configure_logging, load_settings, open_halt
    from api.cli.quiet_log import keep_log_quiet

    settings = load_settings()
    configure_logging(settings)
    keep_log_quiet(settings)
    if server is None:
        async with open_halt(settings, checks_log=checks_log) as service:
            yield _LocalDoor(service)
        return
    from api.cli.remote import exchange_with

    yield _RemoteDoor(exchange_with(server, key=settings.api_key.get_secret_value() if settings.api_key else None))


def _show(found: Mapping[str, Any], *, as_json: bool) -> None:
    from api.cli.plain_text import visible
    from api.cli.terminal import print_document

    if as_json:
        print_document(found)
        return
    certain = any(channel.get("halted") and channel.get("reachable") for channel in found["channels"].values())
    state = "open" if not found["halted"] else "halted" if certain else "halted, because it is in doubt"
    since = f" since {visible(str(found['since']))}" if found.get("since") else ""
    because = f": {visible(str(found['reason']))}" if found.get("reason") else ""
    typer.echo(f"The system is {state}{since}{because}")
    for name, channel in found["channels"].items():
        says = "away" if not channel.get("reachable") else "set" if channel.get("halted") else "clear"
        typer.echo(f"  {visible(str(name))}: {says}")


def _name_missing(found: Mapping[str, Any], *, is_unknown: bool) -> None:
    from api.cli.terminal import complain

    away = [str(name) for name, channel in found["channels"].items() if not channel.get("reachable")]
    if is_unknown:
        reached = f"not reached: {', '.join(away)}; " if away else ""
        complain(f"{reached}it is not recorded, and no note of that can be kept: set it again once that can be")
    elif away:
        complain(f"not reached: {', '.join(away)}; a running server sets it there once it is back")
