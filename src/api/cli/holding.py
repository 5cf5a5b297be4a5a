"""Holds one deliberation from its submission to its end, also when Ctrl-C or SIGTERM makes that come early."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import aclosing

from api.cli.deliberations import Deliberations, Document
from api.cli.interruption import Interruption
from api.cli.progress import Progress, QuietProgress
from domain.errors.conclave_error import ConclaveError
from domain.errors.deliberation import DeliberationEndedError
from domain.errors.dependency import DependencyUnavailableError

__all__ = ["LeftUnfinishedError", "hold_deliberation", "wait_for_end"]

_WIND_UP_S = 15.0
_LISTEN_EVERY_S = 0.4
_HTTP_CONFLICT = 409


class LeftUnfinishedError(DependencyUnavailableError):
    """Whatever keeps the deliberation went away before it ended; `document` is what is known of it."""

    def __init__(self, away: DependencyUnavailableError, document: Document) -> None:
        super().__init__(
            dependency=away.dependency,
            problem=away.problem,
            remedy=away.remedy,
            retry_after_s=away.retry_after_s,
            told=away.told,
        )
        self.document = document


async def hold_deliberation(
    deliberations: Deliberations, body: Document, *, progress: Progress, interruption: Interruption
) -> Document:
    """The deliberation as it ended, or as it stands 15 s after a signal asked for its end.

    Raises `LeftUnfinishedError` where it was accepted, and then its store or its server went away for too long.
    """
    with interruption.winding_up():
        accepted = await deliberations.submit(body)
        progress.begin(accepted)
        deliberation_id = str(accepted["id"])
        following = asyncio.create_task(_follow(deliberations, deliberation_id, progress))
        watching = asyncio.create_task(interruption.wait())
        listening = asyncio.create_task(_listen(deliberations, deliberation_id, progress))
        try:
            await asyncio.wait({following, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                progress.say("cancelling, once more leaves at once")
                await _cancel(deliberations, deliberation_id)
                await asyncio.wait({following}, timeout=_WIND_UP_S)
            if following.done():
                following.result()
            ended = await deliberations.get(deliberation_id)
            return await _with_control(deliberations, ended, progress)
        except DependencyUnavailableError as error:
            raise LeftUnfinishedError(error, await _as_known(deliberations, accepted)) from error
        finally:
            tasks = {following, watching, listening}
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def _as_known(deliberations: Deliberations, accepted: Document) -> Document:
    """As it stands where that can be read, else as it was accepted."""
    try:
        return await deliberations.get(str(accepted["id"]))
    except ConclaveError:
        return accepted


async def _with_control(deliberations: Deliberations, ended: Document, progress: Progress) -> Document:
    """The same once its control has ended too, which nobody else would work on here."""
    control = ended.get("control") or {}
    if ended.get("status") != "completed" or control.get("status") not in {"queued", "running"}:
        return ended
    progress.say("waiting for the control")
    limit = float((ended.get("limits") or {}).get("deadline_s") or _WIND_UP_S)
    await wait_for_end(deliberations, str(control["deliberation_id"]), timeout_s=limit)
    return await deliberations.get(str(ended["id"]))


async def _follow(deliberations: Deliberations, deliberation_id: str, progress: Progress) -> None:
    async with aclosing(deliberations.events(deliberation_id)) as events:
        async for event in events:
            if event is not None:
                progress.note(event)


async def _listen(deliberations: Deliberations, deliberation_id: str, progress: Progress) -> None:
    """Fetch what was said so far, now and then, for as long as somebody watches; it is only for show."""
    while progress.wants_outputs:
        await asyncio.sleep(_LISTEN_EVERY_S)
        # Whoever follows the events meets the same failure, and reports it.
        with contextlib.suppress(ConclaveError):
            progress.hear(await deliberations.outputs(deliberation_id))


async def _cancel(deliberations: Deliberations, deliberation_id: str) -> None:
    try:
        await deliberations.cancel(deliberation_id)
    except DeliberationEndedError:
        return
    except ConclaveError as error:
        if getattr(error, "http_status", 0) != _HTTP_CONFLICT:
            raise


async def wait_for_end(deliberations: Deliberations, deliberation_id: str, *, timeout_s: float) -> Document:
    """The deliberation once its last event is there, or as it stands after `timeout_s` seconds."""
    following = asyncio.create_task(_follow(deliberations, deliberation_id, QuietProgress()))
    try:
        await asyncio.wait({following}, timeout=timeout_s)
        return await deliberations.get(deliberation_id)
    finally:
        following.cancel()
        await asyncio.wait({following})
