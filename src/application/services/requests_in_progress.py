"""The requests of this process that are being accepted under an idempotency key, what becomes of which nobody knows yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from application.ports.idempotency import IdempotencyKey
from domain.errors.idempotency import IdempotencyInProgressError

__all__ = ["RequestsInProgress"]


class RequestsInProgress:
    """At most one under each key of a caller at a time. Belongs to one event loop."""

    def __init__(self) -> None:
        self._keys: set[tuple[str, str]] = set()

    @contextmanager
    def only(self, idempotency: IdempotencyKey) -> Iterator[None]:
        """Within it no other is begun under that key. Raises `IdempotencyInProgressError` where one is already."""
        place = (idempotency.scope, idempotency.key)
        if place in self._keys:
            raise IdempotencyInProgressError
        self._keys.add(place)
        try:
            yield
        finally:
            self._keys.discard(place)
