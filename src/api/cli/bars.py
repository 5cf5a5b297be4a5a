"""Tallies as bars that fit their terminal, whatever the width, the encoding and the script of the options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.console import Console
from rich.text import Text

from api.cli.plain_text import visible

__all__ = ["bar", "cut", "draws_blocks", "fit", "histogram", "tally_lines"]

_EIGHTHS = " ▏▎▍▌▋▊▉"
_MAX_LABEL_CHARACTERS = 300
_LABEL_SHARE = 0.4
_LEAST_BAR = 4
_MOST_BAR = 40


def draws_blocks(console: Console) -> bool:
    """Whether the console's encoding has block characters."""
    return console.encoding.lower().startswith("utf")


def bar(fraction: float, width: int, *, blocks: bool) -> str:
    """A bar over `fraction` (0 to 1) of `width` cells, without the empty rest; a fraction above 0 is always seen."""
    fraction = min(1.0, max(0.0, fraction))
    if not blocks:
        return "#" * max(round(fraction * width), 1 if fraction > 0 else 0)
    eighths = max(round(fraction * width * 8), 1 if fraction > 0 else 0)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def cut(text: str, cells: int) -> str:
    """`text` in at most `cells` cells, ending in dots where it was cut and there is room for them."""
    if cell_len(text) <= cells:
        return text
    return set_cell_size(text, cells) if cells <= len("...") else set_cell_size(text, cells - 3) + "..."


def fit(text: str, cells: int) -> str:
    """`text` in exactly `cells` cells: cut, or filled up with spaces."""
    return set_cell_size(cut(text, cells), cells)


def histogram(tally: Mapping[str, int], bins: int = 8) -> Mapping[str, int]:
    """A tally of numbers as at most `bins` ranges of equal width, or the tally itself when it is no longer than that."""
    try:
        counts = [(float(number), count) for number, count in tally.items()]
    except ValueError:
        return tally
    least, most = min(counts, default=(0.0, 0))[0], max(counts, default=(0.0, 0))[0]
    step = most / bins - least / bins
    edges = [least + step * place for place in range(bins)] + [most]
    if len(counts) <= bins or not all(low < high for low, high in pairwise(edges)):
        return tally
    ranges = {f"{low:g} to {high:g}": (low, high) for low, high in pairwise(edges)}
    if len(ranges) < bins:
        return tally
    return {
        name: sum(count for number, count in counts if low <= number < high or number == high == most)
        for name, (low, high) in ranges.items()
    }


def tally_lines(
    tally: Mapping[str, int], *, total: int, width: int, blocks: bool, whole_labels: bool = True
) -> Sequence[Text]:
    """One bar for each entry with its count and its share of `total`; none is wider than `width` cells.

    A label too long for its column stands on lines of its own above its bar, or is cut when `whole_labels` is not set.
    """
    labels = {name: visible(name, limit=_MAX_LABEL_CHARACTERS) for name in tally}
    longest = max((cell_len(label) for label in labels.values()), default=0)
    column = min(longest, int(width * _LABEL_SHARE))
    most = max(tally.values(), default=0)
    counts = max((len(str(count)) for count in tally.values()), default=1)
    figures = counts + len("  100.0 %")
    stacked = whole_labels and longest > column
    indent = 2 if stacked else column + 2
    room = min(_MOST_BAR, width - indent - figures - 2)
    lines: list[Text] = []
    for name, count in tally.items():
        drawn = bar(count / most if most else 0.0, room, blocks=blocks) if room >= _LEAST_BAR else ""
        share = f"{100 * count / total:.1f} %" if total else "-"
        figure = f"{count:>{counts}}  {share:>7}"
        gap = " " * max(0, room - cell_len(drawn)) + "  " if room >= _LEAST_BAR else ""
        if stacked:
            lines += [Text(piece, style="bold") for piece in chop_cells(labels[name], width)]
            head = Text("  ")
        else:
            head = Text(fit(labels[name], column) + "  ")
        lines.append(head.append(drawn, style="cyan").append(gap).append(figure))
    return lines
