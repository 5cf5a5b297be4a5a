"""Pictures for the page of a population: curves, bars and a heat map, as SVG whose labels are text of the page, to stay legible."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from application.ports.population_record import Sample

__all__ = ["Curve", "bars", "curves", "heat_map"]

_WIDTH, _HEIGHT = 1_000.0, 100.0
_COLUMNS = 400
# Of what is seldom enough must be left to be seen, and what everybody thinks must not drown the rest.
_GAMMA = 0.4
_LEAST_SHADE = 12
_BLUE = (0x2F, 0x7D, 0xE1)


@dataclass(frozen=True, slots=True)
class Curve:
    """A line through points by tick; `style` is one of the classes of the page's style."""

    style: str
    points: Sequence[tuple[float, float]]


def curves(
    drawn: Sequence[Curve],
    *,
    label: str,
    written: Callable[[float], str],
    first_tick: int,
    last_tick: int,
    most: float | None = None,
) -> str:
    """A chart of curves over ticks that begins at 0; `most` is the upper end, else a round number above all points.

    `label` is HTML already; `written` says a value of the axis.
    """
    values = [value for curve in drawn for _, value in curve.points if math.isfinite(value)]
    top = most if most is not None else _round_above(max(values, default=1.0))
    span = max(1, last_tick - first_tick)
    lines = [
        f'<path class="{curve.style}" d="{_path(curve.points, first_tick, span, top)}"/>'
        for curve in drawn
        if curve.points
    ]
    plot = f"{_svg(label, '')}{_grid()}{''.join(lines)}</svg>"
    return _framed(plot, [written(top * share) for share in (1.0, 0.75, 0.5, 0.25, 0.0)], first_tick, last_tick)


def bars(histogram: Sequence[int], *, label: str) -> str:
    """The shares of the bins of 0-1, the fullest as high as the chart."""
    most = max(*histogram, 1)
    width = _WIDTH / len(histogram)
    drawn = [
        f'<rect x="{number * width:.1f}" y="{_HEIGHT * (1 - count / most):.2f}" width="{width * 0.9:.1f}" '
        f'height="{_HEIGHT * count / most:.2f}"/>'
        for number, count in enumerate(histogram)
        if count
    ]
    share = most / max(1, sum(histogram))
    plot = f"{_svg(label, 'low')}{''.join(drawn)}</svg>"
    return (
        f'<div class="plot"><div class="y axis"><span>{share:.0%}</span><span>0</span></div>{plot}'
        '<div class="x axis"><span>0</span><span>opinion</span><span>1</span></div></div>'
    )


def heat_map(samples: Sequence[Sample], *, label: str) -> str:
    """All opinions over ticks, 1 on top; each column shows the last sample that was taken by then. Over it the mean."""
    last = max(1, samples[-1].tick)
    image = base64.b64encode(_png(_shades(samples, last))).decode()
    mean = Curve("mean", [(sample.tick, sample.mean) for sample in samples])
    plot = (
        f"{_svg(label, 'tall')}"
        f'<image x="0" y="0" width="{_WIDTH:.0f}" height="{_HEIGHT:.0f}" preserveAspectRatio="none" '
        f'href="data:image/png;base64,{image}"/>'
        f'<path class="mean" d="{_path(mean.points, 0, last, 1.0)}"/>'
        f"{_hovers(samples, last)}</svg>"
    )
    return _framed(plot, ["1", "0.75", "0.5", "0.25", "0"], 0, last)


def _hovers(samples: Sequence[Sample], last: int) -> str:
    """What a pointer over a sample is told."""
    ends = [sample.tick for sample in samples[1:]] + [last]
    return "".join(
        f'<rect class="hover" x="{_x(sample.tick, 0, last):.2f}" y="0" '
        f'width="{max(0.5, _x(end, 0, last) - _x(sample.tick, 0, last)):.2f}" height="{_HEIGHT:.0f}">'
        f"<title>simulated, tick {sample.tick:,}: mean {sample.mean:.4f}, variance {sample.variance:.5f}</title></rect>"
        for sample, end in zip(samples, ends, strict=True)
    )


def _shades(samples: Sequence[Sample], last: int) -> list[bytes]:
    """The rows of the picture from opinion 1 down to 0, each place a shade from 0 to 255."""
    ticks = [sample.tick for sample in samples]
    bins = len(samples[0].histogram)
    of_sample = [_column(sample) for sample in samples]
    width = min(_COLUMNS, last + 1)
    columns = [of_sample[max(0, bisect_right(ticks, last * number / max(1, width - 1)) - 1)] for number in range(width)]
    return [bytes(column[place] for column in columns) for place in reversed(range(bins))]


def _column(sample: Sample) -> bytes:
    total = max(1, sum(sample.histogram))
    return bytes(
        max(_LEAST_SHADE, min(255, round(255 * (count / total) ** _GAMMA))) if count > 0 else 0
        for count in sample.histogram
    )


def _png(rows: Sequence[bytes]) -> bytes:
    """A PNG (RFC 2083) whose shades are the opacity of one blue, so that it is legible on a light and on a dark ground."""
    head = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 3, 0, 0, 0)
    content = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    parts = (
        (b"IHDR", head),
        (b"PLTE", bytes(_BLUE) * 256),
        (b"tRNS", bytes(range(256))),
        (b"IDAT", content),
        (b"IEND", b""),
    )
    found = b"\x89PNG\r\n\x1a\n"
    for kind, data in parts:
        found += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return found


def _framed(plot: str, heights: Sequence[str], first_tick: int, last_tick: int) -> str:
    middle = (first_tick + last_tick) // 2
    beside = "".join(f"<span>{height}</span>" for height in heights)
    return (
        f'<div class="plot"><div class="y axis">{beside}</div>{plot}<div class="x axis"><span>{first_tick:,}</span>'
        f"<span>tick {middle:,}</span><span>{last_tick:,}</span></div></div>"
    )


def _svg(label: str, style: str) -> str:
    return (
        f'<svg class="{style}" role="img" aria-label="{label}" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" '
        'preserveAspectRatio="none">'
    )


def _grid() -> str:
    return "".join(
        f'<line class="grid" x1="0" x2="{_WIDTH:.0f}" y1="{height}" y2="{height}"/>' for height in (25, 50, 75)
    )


def _path(points: Sequence[tuple[float, float]], first: int, span: int, top: float) -> str:
    places = [
        f"{_x(tick, first, span):.2f} {_HEIGHT * (1 - min(value, top) / top):.2f}"
        for tick, value in points
        if math.isfinite(value)
    ]
    if len(places) == 1:
        # A single point is a short line, or nobody sees it.
        places.append(places[0].replace(places[0].split()[0], f"{float(places[0].split()[0]) + 2:.2f}", 1))
    return f"M{' L'.join(places)}" if places else ""


def _x(tick: float, first: int, span: int) -> float:
    return _WIDTH * (tick - first) / span


def _round_above(value: float) -> float:
    if value <= 0 or not math.isfinite(value):
        return 1.0
    scale = 10.0 ** math.floor(math.log10(value))
    return next(step * scale for step in (1.0, 2.0, 4.0, 8.0, 10.0) if step * scale >= value)
