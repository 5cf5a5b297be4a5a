"""Starts the run that a request asks for once, however often its caller sends it under the same idempotency key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from application.ports.idempotency import IdempotencyKey
from application.ports.run_registry import RememberedRun
from application.services.requests_in_progress import RequestsInProgress
from application.services.run_service import RunService
from domain.errors.idempotency import IdempotencyKeyReusedError
from domain.errors.run import RunKeyTakenError
from domain.models.run import Run, RunKind

__all__ = ["RunAcceptance"]


class RunAcceptance:
    """One run for each key, whatever number of processes on one folder are asked at once and whichever answers were lost.

    A key is remembered with its run, as long as that is kept and a day at most: a request that was refused leaves none behind.
    Belongs to one event loop.
    """

    def __init__(self, runs: RunService) -> None:
        self._runs = runs
        self._in_progress = RequestsInProgress()

    async def start(
        self,
        kind: RunKind,
        arguments: Mapping[str, object],
        *,
        check: Callable[[], Awaitable[None]],
        key_name: str | None = None,
        idempotency: IdempotencyKey | None = None,
    ) -> Run:
        """A new run, or the one that the key stands for, as it is by now.

        The latter is answered in every state of the service (halted, full, stopping), and `check`, which raises where the run may
        not be started, is not asked then. Raises what `check` and `RunService.start` raise, `IdempotencyKeyReusedError` when the key
        came with another body, and `IdempotencyInProgressError` while this process is starting a run under the same key.
        """
        if idempotency is None:
            await check()
            return await self._runs.start(kind, arguments, key_name=key_name)
        remembered = await self._runs.remembered(idempotency)
        if remembered is not None:
            return await self._replay(remembered, idempotency)
        with self._in_progress.only(idempotency):
            try:
                await check()
                return await self._runs.start(kind, arguments, key_name=key_name, idempotency=idempotency)
            except RunKeyTakenError as taken:
                # Another process was faster, or a try of the same caller that was cut off before its outcome was known.
                return await self._replay(RememberedRun(taken.run_id, taken.body_sha256), idempotency)

    async def _replay(self, remembered: RememberedRun, idempotency: IdempotencyKey) -> Run:
        if remembered.body_sha256 != idempotency.body_sha256:
            raise IdempotencyKeyReusedError(run_id=remembered.run_id)
        return await self._runs.get(remembered.run_id, key_name=None)
