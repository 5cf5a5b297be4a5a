"""The hemicycle: every agent on a seat, those of one position side by side, whatever their number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from api.report.marks import drawn, mark
from api.report.reading import Reading, Seat
from application.pages.html_text import plain, shown

__all__ = ["Hall", "Place", "hemicycle", "places", "seated"]

_WIDTH, _MARGIN = 640.0, 24.0
_INNER = 0.36
_MOST_RADIUS = 24.0
_ROOM_ENOUGH = 0.19
_MOST_ROWS = 60
# Beyond it a letter is a dot, and a title for each makes the page long for nothing.
_MOST_TOLD = 1_000
_LEAST_LETTERED = 4.0
_NAMED_IN_LEGEND = 12


@dataclass(frozen=True, slots=True)
class Place:
    """Where a seat stands, in the units of whoever gives it."""

    x: float
    y: float


def places(count: int) -> tuple[list[Place], float]:
    """So many places on a half circle of radius 1, y upwards, from left to right, and how far the nearest two are apart."""
    if count < 1:
        return [], 1.0
    tried = [_rows(count, number) for number in range(1, min(count, _MOST_ROWS) + 1)]
    # More room than the largest seat takes is no gain: then fewer rows are.
    rows, apart = max(tried, key=lambda each: (min(each[1], _ROOM_ENOUGH), -len(each[0])))
    found: list[tuple[float, float]] = []
    for radius, seats in rows:
        found += [(math.pi * (0.5 if seats == 1 else seat / (seats - 1)), radius) for seat in range(seats)]
    # By angle, so that a position is a wedge and no row is cut in two.
    ordered = sorted(found, key=lambda each: (round(each[0], 6), -each[1]))
    return [Place(-radius * math.cos(angle), radius * math.sin(angle)) for angle, radius in ordered], apart


@dataclass(frozen=True, slots=True)
class Hall:
    """A drawing of so many seats in its own units, y downwards, each seat a circle of `radius` at its place at most."""

    width: float
    height: float
    radius: float
    places: Sequence[Place]


def seated(count: int) -> Hall:
    """A hall with that many seats, at least one, as large as the width allows."""
    found, apart = places(count)
    # The rim of the outermost seats has to stay inside as well.
    reach = (_WIDTH / 2 - _MARGIN) / (1 + 0.45 * min(apart, 2 * _MOST_RADIUS / (_WIDTH / 2)))
    radius = min(_MOST_RADIUS, 0.43 * apart * reach)
    lowest = min(place.y for place in found)
    height = (max(place.y for place in found) - lowest) * reach + 2 * (_MARGIN + radius)
    drawn_at = [
        Place(_WIDTH / 2 + place.x * reach, height - _MARGIN - radius - (place.y - lowest) * reach) for place in found
    ]
    return Hall(_WIDTH, height, radius, drawn_at)


def _rows(count: int, number: int) -> tuple[list[tuple[float, int]], float]:
    """`number` rows as radius and seats, the inner ones shorter, and how far the nearest two seats are apart."""
    gap = (1 - _INNER) / (number - 1) if number > 1 else 1.0
    radii = [_INNER + gap * row for row in range(number)] if number > 1 else [1.0]
    whole = sum(radii)
    shares = [count * radius / whole for radius in radii]
    seats = [max(1, int(share)) for share in shares]
    # The largest remainders first, the outer rows before the inner ones.
    order = sorted(range(number), key=lambda row: (seats[row] - shares[row], -row))
    for row in order[: max(0, count - sum(seats))]:
        seats[row] += 1
    while sum(seats) > count:
        seats[seats.index(max(seats))] -= 1
    beside = [math.pi * radius / (row - 1) for radius, row in zip(radii, seats, strict=True) if row > 1]
    return list(zip(radii, seats, strict=True)), min([gap, *beside])


def hemicycle(reading: Reading) -> str:
    """The seats with a legend; nothing where there is nobody."""
    seats = reading.seats
    if not seats:
        return ""
    hall = seated(len(seats))
    is_told = len(seats) <= _MOST_TOLD
    marks = "".join(
        drawn(
            seat.position,
            seat.state,
            place.x,
            place.y,
            hall.radius,
            told=_told(seat, reading) if is_told else "",
            is_lettered=hall.radius >= _LEAST_LETTERED,
        )
        for seat, place in zip(seats, hall.places, strict=True)
    )
    label = plain(f"{len(seats)} seats. {_summary(seats, reading)}", limit=2_000)
    view = f"0 0 {hall.width:.0f} {hall.height:.0f}"
    return (
        f'<figure class="seats"><svg role="img" aria-label="{label}" viewBox="{view}">{marks}</svg>'
        f'<figcaption><ul class="legend">{_legend(seats, reading)}</ul></figcaption></figure>'
    )


def _told(seat: Seat, reading: Reading) -> str:
    who = "an agent" if seat.agent_id is None else seat.agent_id
    what = seat.state.replace("_", " ") if seat.position is None else reading.positions[seat.position].name
    return plain(f"{who}: {what}", limit=200)


def _summary(seats: Sequence[Seat], reading: Reading) -> str:
    return ", ".join(f"{name}: {count}" for _, _, name, count in _groups(seats, reading))


def _groups(seats: Sequence[Seat], reading: Reading) -> list[tuple[int | None, str, str, int]]:
    """Position, state, name and size of each group, in the order of the seats."""
    found: dict[tuple[int | None, str], int] = {}
    for seat in seats:
        key = (seat.position, "answered" if seat.position is not None else seat.state)
        found[key] = found.get(key, 0) + 1
    return [
        (place, state, _without_position(state) if place is None else reading.positions[place].name, count)
        for (place, state), count in found.items()
    ]


def _without_position(state: str) -> str:
    return "answered, and is in no position" if state == "answered" else state.replace("_", " ")


def _legend(seats: Sequence[Seat], reading: Reading) -> str:
    groups = _groups(seats, reading)
    held = [each for each in groups if each[0] is not None]
    others = [each for each in groups if each[0] is None]
    left = held[_NAMED_IN_LEGEND:]
    named = [*held[:_NAMED_IN_LEGEND], *others]
    drawn_ = "".join(
        f"<li>{mark(place, state)} {shown(name, limit=80)} <b>{count}</b></li>" for place, state, name, count in named
    )
    more = f"<li>{len(left)} more positions <b>{sum(each[3] for each in left)}</b></li>" if left else ""
    return drawn_ + more
