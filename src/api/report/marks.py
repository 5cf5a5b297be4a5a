"""The mark of a position: a colour, a shape and a letter together, so that no reader and no printer depends on one of them."""

from __future__ import annotations

import math
from collections.abc import Mapping

__all__ = ["COLOURS", "drawn", "letter_of", "mark", "outline", "style_of"]

COLOURS = 8
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# Corners and how far each shape is turned, in degrees; None is a circle.
_SHAPES: tuple[tuple[int, float] | None, ...] = (
    None,
    (4, 45),
    (4, 0),
    (6, 0),
    (3, -90),
    (5, -90),
    (3, 90),
    (8, 22.5),
)
# Shapes with few corners look smaller than a circle around them.
_SIZES: Mapping[int, float] = {3: 1.3, 4: 1.15, 5: 1.1, 6: 1.05, 8: 1.02}
_SIGNS: Mapping[str, str] = {"answered": "?", "abstained": "–", "not asked": "", "not yet": ""}
_OTHER_SIGN = "×"


def letter_of(place: int) -> str:
    """A to Z, then AA, AB and so on."""
    before, last = divmod(place, len(_LETTERS))
    return (letter_of(before - 1) if before else "") + _LETTERS[last]


def style_of(place: int | None) -> str:
    """The class that gives a mark its colour; whoever has no position has none."""
    return "none" if place is None else f"p{place % COLOURS}"


def _sign_of(place: int | None, state: str) -> str:
    """The letter of a position, or a sign of how an agent without one ended."""
    return letter_of(place) if place is not None else _SIGNS.get(state, _OTHER_SIGN)


def outline(place: int | None, x: float, y: float, radius: float) -> str:
    """The shape of a position as SVG, without its colour; a circle for none."""
    shape = None if place is None else _SHAPES[place % len(_SHAPES)]
    if shape is None:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>'
    corners, turned = shape
    reach = radius * _SIZES[corners]
    points = (
        (x + reach * math.cos(angle), y + reach * math.sin(angle))
        for angle in (math.radians(turned + 360 * corner / corners) for corner in range(corners))
    )
    return f'<path d="M{" ".join(f"{across:.1f} {down:.1f}" for across, down in points)}Z"/>'


def drawn(
    place: int | None, state: str, x: float, y: float, radius: float, *, told: str = "", is_lettered: bool = True
) -> str:
    """A mark in SVG, with its letter where there is room; `told` is what a pointer over it is told, HTML already."""
    title = f"<title>{told}</title>" if told else ""
    sign = _sign_of(place, state) if is_lettered else ""
    size = radius * (1.15 if len(sign) < 2 else 0.85)
    # By its own height rather than a baseline attribute, which not every renderer knows.
    words = f'<text x="{x:.1f}" y="{y + 0.36 * size:.1f}" font-size="{size:.1f}">{sign}</text>' if sign else ""
    style = style_of(place) if place is not None or state not in {"not asked", "not yet"} else "none empty"
    return f'<g class="{style}">{title}{outline(place, x, y, radius)}{words}</g>'


def mark(place: int | None, state: str = "answered") -> str:
    """The mark beside a text; the text says the same, so that it is nothing to whoever hears the page."""
    return f'<svg class="mark" viewBox="0 0 24 24" aria-hidden="true">{drawn(place, state, 12, 12, 9)}</svg>'
