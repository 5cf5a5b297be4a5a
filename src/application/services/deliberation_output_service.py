"""The only way to read an agent's output: what is committed, and only while it still matches its record."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from application.ports.deliberation_repository import DeliberationReader
from domain.errors.deliberation import RecordMismatchError
from domain.models.round import AgentRecord

__all__ = ["DeliberationOutputService"]


class DeliberationOutputService:
    """Shows no output that is not committed, and none whose content differs from what was committed."""

    def __init__(self, reader: DeliberationReader) -> None:
        self._reader = reader

    async def outputs(self, deliberation_id: str, *, round_number: int | None = None) -> Sequence[AgentRecord]:
        """The records of one round, or of all, in the order of their commit.

        Raises `RecordMismatchError` when the stored content does not hash (SHA-256) to what was recorded.
        """
        stored = await self._reader.records(deliberation_id, round_number=round_number)
        for item in stored:
            found = None if item.record.content is None else hashlib.sha256(item.record.content.encode()).hexdigest()
            if found != item.content_sha256:
                raise RecordMismatchError(
                    deliberation_id=deliberation_id,
                    agent_id=item.record.agent_id,
                    round_number=item.record.round_number,
                    recorded=str(item.content_sha256),
                    found=str(found),
                )
        return [item.record for item in stored]
