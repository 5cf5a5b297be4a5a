"""How long a server asks to be left alone, in every form in which servers say so."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["retry_after_s", "seconds_in"]

_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?")


def retry_after_s(headers: Mapping[str, str], *, now: Callable[[], datetime]) -> float | None:
    """Seconds that the server asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date (RFC 9110, 10.2.3).

    `headers` has to find names whatever their case. A date is compared with the server's own `Date` where it sends one, so that
    clocks need not agree.
    """
    milliseconds = seconds_in(headers.get("retry-after-ms", "").strip())
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("Retry-After", "").strip()
    seconds = seconds_in(value)
    if seconds is not None:
        return seconds
    moment = _date(value)
    if moment is None:
        return None
    return max(0.0, (moment - (_date(headers.get("Date", "")) or now())).total_seconds())


def seconds_in(text: str) -> float | None:
    """The number that is all of the text, written in digits; None for anything else."""
    return float(text) if _NUMBER.fullmatch(text) else None


def _date(value: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
