"""Tells what nobody has written so from what was written: a stored row that cannot be read is one that somebody has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from domain.errors.deliberation import RecordMismatchError
from infrastructure.persistence.documents import UnreadableDocumentError

__all__ = ["UNREADABLE", "readable"]

_T = TypeVar("_T")

UNREADABLE = (UnreadableDocumentError, ValueError, TypeError, LookupError, AttributeError)
"""What reading a row that somebody has changed by hand may raise."""


def readable(deliberation_id: object, read: Callable[[], _T]) -> _T:
    """What `read` makes of stored rows. Raises `RecordMismatchError` for what nobody has written so."""
    try:
        return read()
    except UNREADABLE as error:
        raise RecordMismatchError(
            deliberation_id=str(deliberation_id), part="form", recorded="", found=f"unreadable: {type(error).__name__}"
        ) from error
