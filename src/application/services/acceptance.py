"""Accepts a request to deliberate once, however often its caller sends it under the same idempotency key."""

from __future__ import annotations

from collections.abc import Callable

from application.ports.deliberation_repository import DeliberationReader, RememberedKey
from application.ports.idempotency import IdempotencyKey
from application.services.deliberation_service import DeliberationService
from application.services.requests_in_progress import RequestsInProgress
from domain.errors.idempotency import IdempotencyKeyReusedError, IdempotencyKeyTakenError
from domain.models.deliberation import Deliberation, Specification

__all__ = ["Acceptance"]


class Acceptance:
    """One deliberation for each key, whatever number of processes are asked at once and whichever answers were lost.

    A key is remembered with its deliberation, in the same commit: a request that was refused leaves none behind, and one whose
    answer never arrived is answered with what was accepted. Belongs to one event loop.
    """

    def __init__(self, *, deliberations: DeliberationService, reader: DeliberationReader) -> None:
        self._deliberations = deliberations
        self._reader = reader
        self._in_progress = RequestsInProgress()

    async def accept(
        self,
        specify: Callable[[], Specification],
        *,
        key_name: str | None = None,
        idempotency: IdempotencyKey | None = None,
    ) -> Deliberation:
        """The deliberation as `specify` describes it, or the one that the key stands for, as it is by now.

        The latter is answered in every state of the service (halted, full, stopping), and `specify` is not called then, because
        the roster that was named may be gone. Raises what `specify` and `DeliberationService.submit` raise,
        `IdempotencyKeyReusedError` when the key came with another body, and `IdempotencyInProgressError` while this process is
        accepting a request under the same key, the outcome of which nobody knows yet.
        """
        if idempotency is None:
            return await self._deliberations.submit(specify(), key_name=key_name)
        remembered = await self._reader.remembered(idempotency.scope, idempotency.key)
        if remembered is not None:
            return await self._replay(remembered, idempotency)
        with self._in_progress.only(idempotency):
            try:
                return await self._deliberations.submit(specify(), key_name=key_name, idempotency=idempotency)
            except IdempotencyKeyTakenError as taken:
                # Another process was faster, or a try of the same caller that was cut off before its outcome was known.
                return await self._replay(RememberedKey(taken.deliberation_id, taken.body_sha256), idempotency)

    async def _replay(self, remembered: RememberedKey, idempotency: IdempotencyKey) -> Deliberation:
        # Of an erased deliberation nobody knows any more what was asked, so every body is taken for it.
        if remembered.body_sha256 not in {"", idempotency.body_sha256}:
            raise IdempotencyKeyReusedError(deliberation_id=remembered.deliberation_id)
        return await self._deliberations.get(remembered.deliberation_id)
