"""The port through which checkpoints are kept where the log's own operator cannot rewrite them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

from domain.errors.dependency import DependencyUnavailableError

__all__ = ["Anchor", "AnchorConflictError"]


class AnchorConflictError(DependencyUnavailableError):
    """The anchor holds a checkpoint of another size than was thought, `conflict_size`.

    Publish again from there. A size beyond the log's own head means that the log was rolled back.
    """

    slug: ClassVar[str] = "anchor-conflict"

    def __init__(self, *, anchor: str, conflict_size: int, expected_size: int) -> None:
        super().__init__(
            dependency=f"the anchor {anchor!r}",
            problem=f"it holds a checkpoint of {conflict_size} entries, not of {expected_size}",
            remedy="Publish again from that size; if the log has never been so large here, it was rolled back.",
        )
        self.conflict_size = conflict_size
        self.expected_size = expected_size


class Anchor(Protocol):
    """Keeps checkpoints outside of the log. Whatever it has acknowledged, it still holds after a restart of everything here."""

    @property
    def name(self) -> str:
        """How messages call it; holds no secret."""
        ...

    async def publish(self, note: str, *, old_size: int, consistency: Sequence[bytes]) -> None:
        """Keep that checkpoint, a signed note; return once it is kept. The same one twice is kept once.

        `old_size` is the size that the anchor is thought to hold (0: nothing) and `consistency` the proof (RFC 6962 section 2.1.2,
        hashes of 32 bytes) from there; an anchor that compares nothing needs neither. Raises `DependencyUnavailableError`, of it
        `AnchorConflictError` when the anchor holds another size, and `VerificationRefusedError` when it holds what contradicts
        the checkpoint.
        """
        ...

    async def latest(self) -> str | None:
        """The newest checkpoint that it holds, None where it holds none or cannot tell. Raises like `publish`."""
        ...
