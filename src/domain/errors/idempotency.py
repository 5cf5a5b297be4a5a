"""What can go wrong with the key by which a caller says that two requests are the same one."""

from __future__ import annotations

from typing import ClassVar

from domain.errors.deliberation import DeliberationError

__all__ = ["IdempotencyInProgressError", "IdempotencyKeyReusedError", "IdempotencyKeyTakenError"]


class IdempotencyKeyTakenError(DeliberationError):
    """The key stands for another deliberation already, so nothing was stored. `body_sha256` (hex) is of the body that came with it."""

    slug: ClassVar[str] = "idempotency-key-taken"

    def __init__(self, *, deliberation_id: str, body_sha256: str) -> None:
        super().__init__(
            f"this idempotency key stands for deliberation {deliberation_id!r} already: answer with that one if the bodies are the same."
        )
        self.deliberation_id = deliberation_id
        self.body_sha256 = body_sha256


class IdempotencyKeyReusedError(DeliberationError):
    """The caller has sent another body under the same key before, for which that deliberation was accepted or that run started."""

    slug: ClassVar[str] = "idempotency-key-reused"

    def __init__(self, *, deliberation_id: str | None = None, run_id: str | None = None) -> None:
        what = f"deliberation {deliberation_id!r} was accepted" if run_id is None else f"run {run_id!r} was started"
        super().__init__(
            f"this Idempotency-Key came with another body before, for which {what}: send that body again, or take another key."
        )
        self.deliberation_id = deliberation_id
        self.run_id = run_id


class IdempotencyInProgressError(DeliberationError):
    """A request under the same key is being accepted right now; what became of it can be asked for in a moment."""

    slug: ClassVar[str] = "idempotency-in-progress"

    def __init__(self, *, retry_after_s: int = 1) -> None:
        super().__init__(
            "a request under this Idempotency-Key is still being accepted: send it again, under the same key, in "
            f"{retry_after_s} s."
        )
        self.retry_after_s = retry_after_s
