"""Where the commands find deliberations: in this process, or behind the REST of a server."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from api.cli.quiet_log import keep_log_quiet
from api.cli.terminal import complain

if TYPE_CHECKING:
    from api.conclave import Conclave
    from domain.models.deliberation import Deliberation

__all__ = ["Access", "Deliberations", "Document", "LocalDeliberations", "find_by_prefix", "open_deliberations"]

Document = Mapping[str, Any]
"""A JSON object of the public contract."""

_BEGINNING = re.compile(r"[0-9a-f-]{6,35}")
_SHORT_BEGINNING = re.compile(r"[0-9a-f-]{1,5}")
_PREFIX_PAGES = 3
_PAGE = 200


class Access(StrEnum):
    """What a command is about to do: ask agents, or only read and cancel."""

    ASK = "ask"
    READ = "read"


class Deliberations(Protocol):
    """The use cases of deliberations, in documents of the contract, section 1.

    Every call may raise a `ConclaveError`; `DependencyUnavailableError` says that the store or the server is away.
    """

    @property
    def notices(self) -> Sequence[str]:
        """What a reader of new answers has to know about whoever gives them."""
        ...

    async def submit(self, body: Document) -> Document:
        """Accept the request of `POST /v1/deliberations`; the deliberation, stored."""
        ...

    async def get(self, deliberation_id: str) -> Document:
        """The deliberation as it stands."""
        ...

    async def page(
        self,
        *,
        status: str | None,
        limit: int,
        cursor: str | None,
        origin: str | None = None,
        search: Mapping[str, str] | None = None,
    ) -> Document:
        """`{"items": [...], "next_cursor"}`, newest first; `search` are further parameters of `GET /v1/deliberations` by their names."""
        ...

    async def outputs(self, deliberation_id: str) -> Sequence[Document]:
        """Every committed outcome of every agent, in all rounds."""
        ...

    async def minutes(self, deliberation_id: str) -> str:
        """The procedural record as Markdown, from the witnessed entries and their disclosures alone."""
        ...

    async def recount(self, deliberation_id: str, rule: Document) -> Document:
        """What another rule makes of the recorded ballots, once that is recorded too."""
        ...

    async def resolve(self, deliberation_id: str, answer: object) -> Document:
        """Everybody's score against how the question turned out, once that is recorded."""
        ...

    async def track_record(self) -> Document:
        """Who was right where the truth is known."""
        ...

    async def bundle(self, deliberation_id: str) -> Document:
        """The offline verification bundle."""
        ...

    async def checkpoint(self) -> str:
        """The signed checkpoint of the log that they are recorded in (C2SP)."""
        ...

    async def cancel(self, deliberation_id: str) -> Document:
        """Ask for its end; the deliberation as it stands then."""
        ...

    def events(self, deliberation_id: str) -> AsyncGenerator[Document | None, None]:
        """Every event from the first to the terminal one; None now and then while nothing happens."""
        ...


class LocalDeliberations:
    """The deliberations of an open service in this process."""

    def __init__(self, conclave: Conclave) -> None:
        self._conclave = conclave

    @property
    def notices(self) -> Sequence[str]:
        """What the open service says about its orchestrator."""
        return self._conclave.notices

    async def submit(self, body: Document) -> Document:
        """Accept and store it."""
        from api.documents import deliberation_document
        from api.requests import DeliberationRequest

        rosters = self._conclave.rosters
        specification = DeliberationRequest.read(dict(body), rosters).specification(rosters)
        self._conclave.require_models(specification, key_name=None)
        return deliberation_document(await self._conclave.deliberations.submit(specification))

    async def get(self, deliberation_id: str) -> Document:
        """The committed deliberation."""
        from api.shown import shown_deliberation

        found = await self._conclave.deliberations.get(deliberation_id)
        return await shown_deliberation(self._conclave, found)

    async def page(
        self,
        *,
        status: str | None,
        limit: int,
        cursor: str | None,
        origin: str | None = None,
        search: Mapping[str, str] | None = None,
    ) -> Document:
        """One page. Raises `InvalidSpecificationError` when there is no such status, or for a search that cannot be made."""
        from api.cli.searching import search_of_options
        from api.documents import deliberation_document
        from api.hindsight_document import topics_document
        from domain.errors.deliberation import InvalidSpecificationError
        from domain.models.deliberation import DeliberationStatus

        known = {member.value: member for member in DeliberationStatus}
        if status is not None and status not in known:
            raise InvalidSpecificationError.at("/status", f"is none of {', '.join(known)}")
        page = await self._conclave.deliberations.page(
            status=None if status is None else known[status],
            key_name=None,
            limit=limit,
            cursor=cursor,
            origin=origin,
            search=search_of_options(search or {}),
        )
        shares = await self._conclave.topics.look()
        topics = {} if shares is None else {"topics": topics_document(shares)}
        items = [deliberation_document(item) for item in page.items]
        return {"items": items, "next_cursor": page.next_cursor, **topics}

    async def outputs(self, deliberation_id: str) -> Sequence[Document]:
        """The records that match what was committed. Raises `RecordMismatchError`."""
        from api.documents import output_document

        return [output_document(record) for record in await self._conclave.outputs.outputs(deliberation_id)]

    async def minutes(self, deliberation_id: str) -> str:
        """Written anew from the log. Raises `LogUnverifiedError`."""
        # They carry a checkpoint, and nothing is signed of a log that was not compared with what was signed before.
        await self._conclave.witness.check_at_start()
        return await self._conclave.witness.minutes(deliberation_id)

    async def recount(self, deliberation_id: str, rule: Document) -> Document:
        """Counted here, and recorded."""
        from api.hindsight_document import recount_document
        from api.requests import RecountRequest

        asked = RecountRequest.read({"rule": dict(rule)})
        found = await self._whole(deliberation_id)
        counted = await self._conclave.recounts.recount(
            found, asked.rule.of(found.specification.counted_answers), key_name=None
        )
        return recount_document(counted)

    async def resolve(self, deliberation_id: str, answer: object) -> Document:
        """Scored here, and recorded."""
        from api.hindsight_document import resolution_document
        from api.requests import ResolutionRequest

        asked = ResolutionRequest.read({"answer": answer})
        found = await self._whole(deliberation_id)
        return resolution_document(await self._conclave.resolutions.resolve(found, asked.answer, key_name=None))

    async def track_record(self) -> Document:
        """The record of those who are asked without a key."""
        from api.hindsight_document import track_record_document

        return track_record_document(await self._conclave.record.of(key_name=None))

    async def bundle(self, deliberation_id: str) -> Document:
        """Made anew from the log. Raises `LogUnverifiedError`."""
        await self._conclave.witness.check_at_start()
        return await self._conclave.witness.bundle(deliberation_id)

    async def checkpoint(self) -> str:
        """Signed anew where the log has grown. Raises `LogUnverifiedError`."""
        await self._conclave.witness.check_at_start()
        return await self._conclave.witness.checkpoint()

    async def _whole(self, deliberation_id: str) -> Deliberation:
        # Nothing is added to a log that was not compared with what was signed of it.
        await self._conclave.witness.check_at_start()
        return await self._conclave.deliberations.get(deliberation_id)

    async def cancel(self, deliberation_id: str) -> Document:
        """Ask whoever works on it to stop."""
        from api.documents import deliberation_document

        return deliberation_document(await self._conclave.deliberations.cancel(deliberation_id))

    async def events(self, deliberation_id: str) -> AsyncGenerator[Document | None, None]:
        """The committed events. Ends without a terminal one when the work in this process broke.

        Raises `DependencyUnavailableError` where that was because the store stayed away.
        """
        from api.documents import event_document

        service = self._conclave.deliberations
        idle = False
        async for event in service.events(deliberation_id):
            if event is not None:
                yield event_document(event)
                continue
            # Work that ended has announced its last event, so a second idle heartbeat means that there will be none.
            if idle and service.is_idle:
                if service.last_outage is not None:
                    raise service.last_outage
                return
            idle = service.is_idle
            yield None


@asynccontextmanager
async def open_deliberations(server: str | None, access: Access) -> AsyncIterator[Deliberations]:
    """The deliberations behind `server`, or those of this machine's data folder.

    Raises `ConfigurationError`, and `DependencyUnavailableError` when the store is away.
    """
    from api.bootstrap import Purpose, configure_logging, load_settings, open_conclave

    settings = load_settings()
    configure_logging(settings)
    keep_log_quiet(settings)
    if server is not None:
        from api.cli.remote import RemoteDeliberations

        remote = RemoteDeliberations(server, key=settings.api_key.get_secret_value() if settings.api_key else None)
        if remote.sends_key_in_the_clear:
            complain(f"the key in CONCLAVE_API_KEY travels to {remote.address.host} unencrypted: use https")
        yield remote
        return
    purpose = Purpose.ASK if access is Access.ASK else Purpose.READ
    async with open_conclave(settings, purpose=purpose) as conclave:
        yield LocalDeliberations(conclave)


async def find_by_prefix(deliberations: Deliberations, given: str) -> Document:
    """The deliberation with that id, or the only recent one whose id begins so (at least 6 characters).

    Raises `DeliberationNotFoundError`, and `InvalidSpecificationError` when several begin so, or it is shorter.
    """
    from domain.errors.deliberation import DeliberationNotFoundError, InvalidSpecificationError

    if _SHORT_BEGINNING.fullmatch(given.lower()):
        raise InvalidSpecificationError.at("ID", f"{given!r} is too short: give at least 6 characters of the id")
    if not _BEGINNING.fullmatch(given.lower()):
        return await deliberations.get(given)
    found: list[str] = []
    cursor: str | None = None
    for _ in range(_PREFIX_PAGES):
        page = await deliberations.page(status=None, limit=_PAGE, cursor=cursor)
        found += [item["id"] for item in page["items"] if str(item["id"]).startswith(given.lower())]
        cursor = page.get("next_cursor")
        if cursor is None:
            break
    if len(found) > 1:
        raise InvalidSpecificationError.at("ID", f"{len(found)} deliberations begin with {given!r}: give more of it")
    if not found:
        raise DeliberationNotFoundError(deliberation_id=given)
    return await deliberations.get(found[0])
