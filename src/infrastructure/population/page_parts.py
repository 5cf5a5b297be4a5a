"""The pieces that the page of a population is made of: sections, figures and tables, each marked as simulated."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["BADGE", "figure", "section", "table"]

# More columns than that are no table any more where a page is three hundred points wide.
_MOST_ON_A_PHONE = 4

BADGE = '<span class="badge">simulated</span>'


def section(title: str, content: str) -> str:
    """A section; `title` and `content` are HTML already."""
    return f"<section><h2>{title}{BADGE}</h2>{content}</section>"


def figure(plot: str, caption: str, *, legend: str = "") -> str:
    """A picture, what its lines are, and what it shows; all of them are HTML already."""
    lines = f'<ul class="legend">{legend}</ul>' if legend else ""
    return f"<figure>{lines}{plot}<figcaption>{caption}</figcaption></figure>"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: Sequence[int] = ()) -> str:
    """A table of HTML; columns are numbers but for the first one and `text_columns`. One of many columns is cards on a phone."""

    def cell(kind: str, number: int, content: str) -> str:
        style = ' class="text"' if number in text_columns else ""
        name = f' data-name="{heads[number]}"' if cards and kind == "td" and number else ""
        return f"<{kind}{style}{name}>{content}</{kind}>"

    cards = len(heads) > _MOST_ON_A_PHONE

    head = "".join(cell("th", number, name) for number, name in enumerate(heads))
    body = "".join(
        "<tr>" + "".join(cell("td", number, value) for number, value in enumerate(row)) + "</tr>" for row in rows
    )
    style = ' class="cards"' if cards else ""
    return f'<div class="wide"><table{style}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
