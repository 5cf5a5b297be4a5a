"""What the tools do: put a question and follow it, read what came of it, and verify its record."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Protocol

from api.mcp.results import Accepted, Outcome, Verification, outcome_of, standing_of
from application.pages.visible_text import visible
from application.services.verification import VerificationReport, VerifiedDeliberation, verify_bundle
from domain.errors.conclave_error import ConclaveError
from domain.errors.deliberation import InvalidSpecificationError
from domain.errors.witness import VerificationRefusedError
from domain.models.budget import Limits
from domain.witness.checkpoint import VerifierKey

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine

__all__ = ["Chamber", "Deliberations", "Report"]

_logger = logging.getLogger(__name__)

_CANCEL_S = 10.0
_MAX_DECISION_CHARACTERS = 2_000
_MAX_KEY_CHARACTERS = 1_000

Report = Callable[[int, int | None, str], Awaitable[None]]
"""Tells how far a deliberation is: agents that ended, of how many, in words."""

_PINNED = (
    "Hashes, inclusion proofs, the signature, the roll call and the outcome were computed again from the bundle and agree with the "
    "key that the operator of these tools pinned. It does not show that the agents were right, or that nothing followed the end."
)
_OWN_KEY = (
    "The bundle agrees with itself and with the key that came with it, and nobody pinned that key: whoever made the bundle could have "
    "made the key too. Start `conclave mcp` with --key VKEY, a key that you had from the server's operator by another way."
)
_NOT_FOLLOWED = "status with this id, after some seconds: the question was put, and then could not be followed"
_REFUSED = "Do not rely on this result: what was fetched is not what the key signed, or another log's."


class Deliberations(Protocol):
    """The part of the command line's own deliberations, here or behind a server, that the tools use."""

    async def submit(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Accept it; the deliberation."""
        ...

    async def get(self, deliberation_id: str) -> Mapping[str, Any]:
        """The deliberation as it stands."""
        ...

    async def bundle(self, deliberation_id: str) -> Mapping[str, Any]:
        """The verification bundle."""
        ...

    async def cancel(self, deliberation_id: str) -> Mapping[str, Any]:
        """Ask for its end."""
        ...

    def events(self, deliberation_id: str) -> AsyncGenerator[Mapping[str, Any] | None, None]:
        """Every event up to the terminal one."""
        ...


class Chamber:
    """Asks on behalf of other agents: never for more money than was allowed, and nothing is left running that nobody waits for."""

    def __init__(
        self,
        deliberations: Deliberations,
        *,
        pinned: VerifierKey | None = None,
        max_cost_usd: float | None = None,
        wait_s: float = 50.0,
        ends_what_it_began: bool = False,
    ) -> None:
        """`max_cost_usd` bounds each question, without it the default of deliberations does. With `ends_what_it_began`, `close` cancels
        what is still running, because nobody else would go on with it.
        """
        self._deliberations = deliberations
        self._pinned = pinned
        self._max_cost_usd = max_cost_usd
        self._wait_s = wait_s
        self._ends_what_it_began = ends_what_it_began
        self._begun: set[str] = set()
        self._cancelling: set[asyncio.Task[None]] = set()

    async def deliberate(
        self, body: Mapping[str, Any], *, max_cost_usd: float | None, wait_s: float | None, report: Report
    ) -> Accepted:
        """Put the question, and follow it for some seconds; as it stands then. Cancelled itself, it cancels what it put.

        Raises a `ConclaveError` for what is refused.
        """
        asked_for = {**body, **self._money(body, max_cost_usd)}
        putting = asyncio.ensure_future(self._deliberations.submit(asked_for))
        try:
            document = await asyncio.shield(putting)
        except asyncio.CancelledError:
            # It may have been accepted by now, under an id that nobody else will learn.
            self._see_to(self._cancel_once_put(putting))
            raise
        own = str(document["id"])
        self._begun.add(own)
        # Other protocols ask again, nobody knows how often.
        is_poll = (document.get("protocol") or {}).get("kind") == "poll"
        asked = (document.get("agents") or {}).get("count") if is_poll else None
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._wait_s if wait_s is None else min(wait_s, self._wait_s)):
                    await self._follow(own, asked, report)
            return await self.status(own)
        except ConclaveError as error:
            # It goes on all the same, and whoever is not told its id asks, and pays, again.
            _logger.warning("deliberation %s cannot be followed: %s", own, error)
            return standing_of(document, next_step=_NOT_FOLLOWED)
        except BaseException:
            self._cancel_later(own)
            raise

    async def status(self, deliberation_id: str) -> Accepted:
        """How it stands. Raises a `ConclaveError` where there is no such deliberation."""
        document = await self._deliberations.get(deliberation_id)
        has_ended = document["status"] not in {"queued", "running"}
        if has_ended:
            self._begun.discard(deliberation_id)
        next_step = (
            "outcome with this id for the tally and the minority report; verify for the proof"
            if has_ended
            else "status with this id, after some seconds"
        )
        return standing_of(document, next_step=next_step)

    async def outcome(self, deliberation_id: str) -> Outcome:
        """What it came to. Raises `InvalidSpecificationError` while it runs."""
        document = await self._deliberations.get(deliberation_id)
        if document["status"] in {"queued", "running"}:
            raise InvalidSpecificationError.at(
                "/deliberation_id", f"it is still {document['status']}: call status until it has ended"
            )
        self._begun.discard(deliberation_id)
        return outcome_of(document)

    async def verify(self, deliberation_id: str) -> Verification:
        """Fetch its bundle and check it, with the pinned key, else with the one that it brings. A refusal is an answer, not an error."""
        bundle = await self._deliberations.bundle(deliberation_id)
        brought = str(bundle.get("public_key"))[:_MAX_KEY_CHARACTERS]
        named = visible(brought if self._pinned is None else str(self._pinned))
        try:
            key = VerifierKey.parse(brought) if self._pinned is None else self._pinned
            # Not in the time of the event loop: a bundle has thousands of hashes.
            report, found = await asyncio.to_thread(_verified, bundle, key, deliberation_id)
        except (VerificationRefusedError, UnicodeEncodeError) as error:
            return Verification(
                deliberation_id=deliberation_id,
                verified=False,
                problem=visible(str(error), limit=_MAX_KEY_CHARACTERS),
                key=named,
                key_is_pinned=self._pinned is not None,
                worth=_REFUSED,
            )
        return Verification(
            deliberation_id=deliberation_id,
            verified=True,
            problem=None,
            key=named,
            key_is_pinned=self._pinned is not None,
            worth=_OWN_KEY if self._pinned is None else _PINNED,
            tree_size=report.tree_size,
            root_hash=report.root_hash.hex(),
            entries_checked=report.entries_checked,
            status=found.status,
            outcome_status=found.outcome_status,
            decision=visible(found.decision, limit=_MAX_DECISION_CHARACTERS)
            if isinstance(found.decision, str)
            else found.decision,
            roll_call=dict(found.roll_call),
            not_recomputed=found.not_recomputed,
            withheld=report.withheld_count,
            erased=report.erased_count,
        )

    async def close(self) -> None:
        """Finish cancelling what nobody waits for."""
        if self._ends_what_it_began:
            for own in sorted(self._begun):
                self._cancel_later(own)
        if self._cancelling:
            await asyncio.wait(self._cancelling, timeout=_CANCEL_S)
        for task in self._cancelling:
            task.cancel()

    def _money(self, body: Mapping[str, Any], asked: float | None) -> dict[str, Any]:
        most = Limits().max_cost_usd if self._max_cost_usd is None else self._max_cost_usd
        if asked is not None and asked > most:
            raise InvalidSpecificationError.at(
                "/max_cost_usd", f"is more than the {most:g} USD that the operator of these tools allows for a question"
            )
        chosen = self._max_cost_usd if asked is None else asked
        limits = dict(body.get("limits") or {}) | ({} if chosen is None else {"max_cost_usd": chosen})
        return {"limits": limits} if limits else {}

    async def _follow(self, deliberation_id: str, asked: int | None, report: Report) -> None:
        ended = 0
        async with aclosing(self._deliberations.events(deliberation_id)) as events:
            async for event in events:
                if event is None:
                    continue
                kind = str(event.get("type"))
                ended += kind == "agent.ended"
                if kind == "round.started":
                    await report(ended, asked, f"round {event.get('round', 0)} has begun")
                elif kind == "agent.ended":
                    await report(ended, asked, f"{ended} ended, the last one {event.get('state')}")

    def _cancel_later(self, deliberation_id: str) -> None:
        self._begun.discard(deliberation_id)
        self._see_to(self._cancel(deliberation_id))

    def _see_to(self, cancelling: Coroutine[Any, Any, None]) -> None:
        """In a task of its own, because whoever is being cancelled waits for nothing more."""
        task = asyncio.create_task(cancelling, name="mcp-cancel")
        self._cancelling.add(task)
        task.add_done_callback(self._cancelling.discard)

    async def _cancel_once_put(self, putting: asyncio.Future[Mapping[str, Any]]) -> None:
        try:
            document = await putting
        except ConclaveError:
            # Refused: there is nothing to cancel.
            return
        await self._cancel(str(document["id"]))

    async def _cancel(self, deliberation_id: str) -> None:
        try:
            await self._deliberations.cancel(deliberation_id)
            async with aclosing(self._deliberations.events(deliberation_id)) as events:
                async for _ in events:
                    pass
        except ConclaveError as error:
            _logger.warning("deliberation %s was not cancelled: %s", deliberation_id, error)


def _verified(
    bundle: Mapping[str, Any], key: VerifierKey, deliberation_id: str
) -> tuple[VerificationReport, VerifiedDeliberation]:
    from api.bootstrap import verification_tools

    report = verify_bundle(json.dumps(bundle, ensure_ascii=False).encode(), key=key, tools=verification_tools())
    for found in report.deliberations:
        if found.id == deliberation_id:
            return report, found
    raise VerificationRefusedError("the bundle is that of another deliberation")
