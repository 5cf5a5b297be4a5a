"""Quotes and usage as a person reads them: columns of figures, and what to know besides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from api.cli.page import Page
from api.cli.plain_text import visible

__all__ = ["render_quote", "render_usage"]

_UNKNOWN = "unknown"
_NAMELESS = "(none)"
_MAX_KEY_CHARACTERS = 80
_MAX_NOTICE_CHARACTERS = 1000


def render_quote(console: Console, document: Mapping[str, Any]) -> None:
    """Calls, tokens and US dollars, expected and at most, and the notices."""
    page = Page(console)
    rows = [
        (name, *(show(document[field].get(part)) for part in ("expected", "at_most")))
        for name, field, show in (
            ("Calls", "calls", _count),
            ("Tokens", "tokens", _count),
            ("Cost", "cost_usd", _money),
        )
    ]
    _write_columns(page, [("", "Expected", "At most"), *rows])
    for notice in document.get("notices") or ():
        page.gap()
        page.paragraph(visible(str(notice), limit=_MAX_NOTICE_CHARACTERS), style="yellow")
    page.gap()
    page.paragraph("Nobody was asked, and nothing was spent.", style="dim")


def render_usage(console: Console, document: Mapping[str, Any], *, by: str) -> None:
    """One line for each item, and one for all of them together."""
    page = Page(console)
    items = document.get("items") or ()
    if not items:
        page.line(Text("No call was made yet."))
        return
    fields = ("calls", "input_tokens", "output_tokens", "cost_usd", "uncertain_usd")
    total = {field: sum(_number(item.get(field)) for item in items) for field in fields}
    heads = (by.capitalize(), "Calls", "Tokens in", "Tokens out", "Cost", "Uncertain")
    rows = [(_key(item), *_figures(item)) for item in items]
    _write_columns(page, [heads, *rows, *([("All of these", *_figures(total))] if len(items) > 1 else ())])


def _figures(item: Mapping[str, Any]) -> Sequence[str]:
    counts = [_count(item.get(field)) for field in ("calls", "input_tokens", "output_tokens")]
    return [*counts, *(_money(item.get(field)) for field in ("cost_usd", "uncertain_usd"))]


def _key(item: Mapping[str, Any]) -> str:
    return visible(str(item.get("key") or ""), limit=_MAX_KEY_CHARACTERS) or _NAMELESS


def _number(value: object) -> float:
    return value if isinstance(value, int | float) else 0


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) else _UNKNOWN


def _money(value: object) -> str:
    return f"{value:.4f} USD" if isinstance(value, int | float) else _UNKNOWN


def _write_columns(page: Page, rows: Sequence[Sequence[str]]) -> None:
    """The first column to the left, the figures to the right; the first row is the heads."""
    widths = [max(cell_len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for number, row in enumerate(rows):
        first = row[0] + " " * (widths[0] - cell_len(row[0]))
        figures = [" " * (width - cell_len(text)) + text for text, width in zip(row[1:], widths[1:], strict=True)]
        page.line(Text("  ".join([first, *figures]).rstrip(), style="dim" if number == 0 else ""))
