"""Where the commands find quotes and usage: in this process, or behind the REST of a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlencode

from api.cli.deliberations import Access
from api.cli.quiet_log import keep_log_quiet

if TYPE_CHECKING:
    from api.cli.http_exchange import HttpExchange
    from api.conclave import Conclave
    from application.ports.usage_reader import UsageBy
    from domain.errors.conclave_error import ConclaveError

__all__ = ["LocalSpending", "RemoteSpending", "Spending", "open_spending"]


class Spending(Protocol):
    """What deliberations would take and took, in documents of the contract, section 1. Every call may raise a `ConclaveError`."""

    async def quote(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the deliberation of this body would take."""
        ...

    async def usage(self, by: str) -> Mapping[str, Any]:
        """`{"items": [...]}`: what calls took. Raises `InvalidSpecificationError` for what calls are not summed up by."""
        ...


class LocalSpending:
    """That of an open service in this process."""

    def __init__(self, conclave: Conclave) -> None:
        self._conclave = conclave

    async def quote(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Foreseen by whoever would be asked here."""
        from api.documents import quote_document
        from api.requests import DeliberationRequest

        rosters = self._conclave.rosters
        specification = DeliberationRequest.read(dict(body), rosters).specification(rosters)
        return quote_document(self._conclave.quotes.quote(specification))

    async def usage(self, by: str) -> Mapping[str, Any]:
        """What everybody's calls took."""
        from api.documents import usage_item_document

        items = await self._conclave.usage.usage(_known(by), key_name=None)
        return {"items": [usage_item_document(item) for item in items]}


class RemoteSpending:
    """What a server tells the bearer of a key."""

    def __init__(self, exchange: HttpExchange) -> None:
        self._exchange = exchange

    async def quote(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Foreseen by whoever would be asked there."""
        found = await self._exchange.fetch("POST", "/v1/quotes", body)
        if not all(isinstance(found.get(name), dict) for name in ("calls", "tokens", "cost_usd")):
            raise self._foreign()
        return found

    async def usage(self, by: str) -> Mapping[str, Any]:
        """What the calls of the key took, or everybody's where it is an admin's."""
        found = await self._exchange.fetch("GET", f"/v1/usage?{urlencode({'by': _known(by).value})}")
        items = found.get("items")
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise self._foreign()
        return found

    def _foreign(self) -> ConclaveError:
        from domain.errors.dependency import DependencyUnavailableError

        return DependencyUnavailableError(
            dependency=f"the server {str(self._exchange.address)!r}",
            problem="it does not answer as Conclave does",
            remedy="Check that --server names a Conclave server.",
        )


@asynccontextmanager
async def open_spending(server: str | None, access: Access) -> AsyncIterator[Spending]:
    """That of `server`, or of this machine's data folder.

    Raises `ConfigurationError`, and `DependencyUnavailableError` when the store is away.
    """
    from api.bootstrap import Purpose, configure_logging, load_settings, open_conclave

    settings = load_settings()
    configure_logging(settings)
    keep_log_quiet(settings)
    if server is not None:
        from api.cli.remote import exchange_with

        key = settings.api_key.get_secret_value() if settings.api_key else None
        yield RemoteSpending(exchange_with(server, key=key))
        return
    purpose = Purpose.ASK if access is Access.ASK else Purpose.READ
    async with open_conclave(settings, purpose=purpose) as conclave:
        yield LocalSpending(conclave)


def _known(by: str) -> UsageBy:
    from application.ports.usage_reader import UsageBy
    from domain.errors.deliberation import InvalidSpecificationError

    known = {member.value: member for member in UsageBy}
    if by not in known:
        raise InvalidSpecificationError.at("/by", f"is none of {', '.join(known)}")
    return known[by]
