"""What a population and the processes that speak for some of its rows write to one another over a message bus.

Rows are little-endian uint32, opinions little-endian float64 from 0 to 1, each list one text of bytes, so that any language can read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.models.message import Payload

__all__ = ["HEARD", "SAID", "Heard", "Said", "heard_in", "heard_payload", "said_in", "said_payload"]

HEARD = "population.heard"
"""The type of a message to a partner: a micro-batch of what was said to its rows in one tick."""

SAID = "population.said"
"""The type of a message from a partner: what its rows think from now on, which they say in the next tick."""

_ROW, _OPINION = np.dtype("<u4"), np.dtype("<f8")


@dataclass(frozen=True, slots=True)
class Heard:
    """What was said in `tick`: row number i was told by `senders[i]` that it thinks `opinions[i]`.

    `last` says that no more of this tick follows.
    """

    tick: int
    rows: NDArray[np.uint32]
    senders: NDArray[np.uint32]
    opinions: NDArray[np.float64]
    last: bool


@dataclass(frozen=True, slots=True)
class Said:
    """What `rows` think, each named once at most, after a partner had read what was said in `tick`."""

    tick: int
    rows: NDArray[np.uint32]
    opinions: NDArray[np.float64]


def heard_payload(heard: Heard) -> Payload:
    """As it is sent."""
    return {
        "tick": heard.tick,
        "rows": heard.rows.astype(_ROW).tobytes(),
        "senders": heard.senders.astype(_ROW).tobytes(),
        "opinions": heard.opinions.astype(_OPINION).tobytes(),
        "last": heard.last,
    }


def heard_in(payload: Payload) -> Heard:
    """What was sent. Raises `ValueError` where it is nothing of that kind."""
    fields, tick = _fields_of(payload)
    found = Heard(
        tick,
        _rows(fields, "rows"),
        _rows(fields, "senders"),
        _opinions(fields),
        fields.get("last") is True,
    )
    if not found.rows.size == found.senders.size == found.opinions.size:
        raise ValueError("has not as many senders and opinions as rows")
    return found


def said_payload(said: Said) -> Payload:
    """As it is sent."""
    return {
        "tick": said.tick,
        "rows": said.rows.astype(_ROW).tobytes(),
        "opinions": said.opinions.astype(_OPINION).tobytes(),
    }


def said_in(payload: Payload) -> Said:
    """What was sent. Raises `ValueError` where it is nothing of that kind, or an opinion is none from 0 to 1."""
    fields, tick = _fields_of(payload)
    found = Said(tick, _rows(fields, "rows"), _opinions(fields))
    if found.rows.size != found.opinions.size:
        raise ValueError("has not as many opinions as rows")
    if not bool(np.all((found.opinions >= 0.0) & (found.opinions <= 1.0))):
        raise ValueError("has an opinion that is none from 0 to 1")
    return found


def _fields_of(payload: Payload) -> tuple[Mapping[str, Payload], int]:
    if not isinstance(payload, dict):
        raise ValueError("is no object")  # noqa: TRY004 - as all that is wrong with it
    tick = payload.get("tick")
    if isinstance(tick, bool) or not isinstance(tick, int) or tick < 0:
        raise ValueError("names no tick")
    return payload, tick


def _rows(fields: Mapping[str, Payload], name: str) -> NDArray[np.uint32]:
    return np.frombuffer(_content(fields, name, _ROW.itemsize), _ROW)


def _opinions(fields: Mapping[str, Payload]) -> NDArray[np.float64]:
    return np.frombuffer(_content(fields, "opinions", _OPINION.itemsize), _OPINION)


def _content(fields: Mapping[str, Payload], name: str, size: int) -> bytes:
    content = fields.get(name)
    if not isinstance(content, bytes) or len(content) % size:
        raise ValueError(f"has no {name} of {size} bytes each")
    return content
