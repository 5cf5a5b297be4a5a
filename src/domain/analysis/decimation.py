"""Lines of any length in so few points that a picture can show them, without losing a peak or a dip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Decimation"]


@dataclass(slots=True)
class _Extent:
    """The least and the greatest value that one line had in a stretch, and where."""

    least: float
    least_at: float
    greatest: float
    greatest_at: float

    def take(self, other: _Extent) -> None:
        if other.least < self.least:
            self.least, self.least_at = other.least, other.least_at
        if other.greatest > self.greatest:
            self.greatest, self.greatest_at = other.greatest, other.greatest_at

    def in_order(self) -> tuple[float, float]:
        if self.least_at <= self.greatest_at:
            return self.least, self.greatest
        return self.greatest, self.least


@dataclass(slots=True)
class _Stretch:
    """Some rows that follow each other."""

    first: float
    last: float
    rows: int = 1
    extents: list[_Extent | None] = field(default_factory=list)

    def grow(self, position: float, values: Sequence[float | None]) -> None:
        """One more row. Millions of them come this way, so nothing is made for those that are neither least nor greatest."""
        self.last = position
        self.rows += 1
        for place, value in enumerate(values):
            if value is None:
                continue
            extent = self.extents[place]
            if extent is None:
                self.extents[place] = _Extent(value, position, value, position)
            elif value < extent.least:
                extent.least, extent.least_at = value, position
            elif value > extent.greatest:
                extent.greatest, extent.greatest_at = value, position

    def take(self, other: _Stretch) -> None:
        self.last = other.last
        self.rows += other.rows
        for place, theirs in enumerate(other.extents):
            ours = self.extents[place]
            if ours is None:
                self.extents[place] = theirs
            elif theirs is not None:
                ours.take(theirs)


class Decimation:
    """Takes rows one after the other, of any number, and has at most `max_points` points of them at any time.

    Rows are put together by twos, fours, eights and so on; of each such stretch every line keeps its least and its greatest value, in
    the order in which they came, so that what was drawn of all rows and what is drawn of the points cover the same ground. Up to
    half of `max_points` rows stand as they came.
    """

    def __init__(self, lines: int, *, max_points: int) -> None:
        """`lines` is how many values a row has. Raises `ValueError` for fewer than four points."""
        if max_points < 4:
            raise ValueError(f"max_points is {max_points!r}: a line that is put together by twos needs four at least")
        self._lines = lines
        self._most = max_points // 2
        self._width = 1
        self._stretches: list[_Stretch] = []
        self.rows = 0

    def add(self, position: float, values: Sequence[float | None]) -> None:
        """One row; None is a gap in that line. No position is before the last one. Raises `ValueError` for another number of values."""
        if len(values) != self._lines:
            raise ValueError(f"a row of {len(values)} values is none of {self._lines} lines")
        self.rows += 1
        if len(self._stretches) == self._most and self._stretches[-1].rows == self._width:
            self._halve()
        if self._stretches and self._stretches[-1].rows < self._width:
            self._stretches[-1].grow(position, values)
            return
        extents = [None if value is None else _Extent(value, position, value, position) for value in values]
        self._stretches.append(_Stretch(position, position, 1, extents))

    def points(self) -> tuple[list[float], list[list[float | None]]]:
        """The positions of the points, and for each line its values there."""
        positions: list[float] = []
        lines: list[list[float | None]] = [[] for _ in range(self._lines)]
        for stretch in self._stretches:
            alone = stretch.rows == 1
            positions.extend((stretch.first,) if alone else (stretch.first, stretch.last))
            for line, extent in zip(lines, stretch.extents, strict=True):
                if extent is None:
                    line.extend((None,) if alone else (None, None))
                elif alone:
                    line.append(extent.greatest)
                else:
                    line.extend(extent.in_order())
        return positions, lines

    def _halve(self) -> None:
        pairs = self._stretches
        for ours, theirs in zip(pairs[::2], pairs[1::2], strict=False):
            ours.take(theirs)
        # Of an odd number the last one has no other, and grows by what comes next.
        self._stretches = pairs[::2]
        self._width *= 2
