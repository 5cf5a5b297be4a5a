"""The pieces that a report is made of: sections with headings, tables with heads, facts, and figures in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

from api.report.reading import number
from application.pages.html_text import shown

__all__ = [
    "BADGE",
    "amount",
    "duration",
    "facts",
    "listed",
    "moment",
    "money",
    "section",
    "table",
    "warning",
]

_MANY_COLUMNS = 4
_UNKNOWN = "not known"

BADGE = '<span class="badge">simulated</span>'
"""Stands wherever a part could be read, or photographed, without the beginning of the page."""


def section(name: str, title: str, content: str) -> str:
    """A section that can be linked to by `name`; nothing where there is no `content`. All are HTML already."""
    if not content:
        return ""
    return f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{title}</h2>{content}</section>'


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str,
    words: Sequence[int] = (),
    style: str = "",
    is_quiet: bool = False,
) -> str:
    """A table of HTML whose first column heads its rows; columns are figures but for that one and `words`.

    A wide one scrolls in itself, by keyboard as well; one of many columns (`flowing`) is running text on a phone. The caption of a
    quiet one is heard and not seen, because a heading says the same.
    """
    if not rows:
        return ""
    if len(heads) > _MANY_COLUMNS and not style:
        style = "flowing"
    of_words = [' class="text"' if place in words else "" for place in range(len(heads))]
    named = [f' data-name="{name}"' if style == "flowing" else "" for name in heads]
    head = "".join(f'<th scope="col"{kind}>{name}</th>' for kind, name in zip(of_words, heads, strict=True))
    body = ""
    for first, *rest in rows:
        cells = zip(rest, of_words[1:], named[1:], strict=True)
        told = "".join(f"<td{kind}{name}>{content}</td>" for content, kind, name in cells)
        body += f'<tr><th scope="row">{first}</th>{told}</tr>'
    kind = f' class="{style}"' if style else ""
    quiet = ' class="unseen"' if is_quiet else ""
    return (
        f'<div class="wide" role="group" aria-label="{caption}" tabindex="0"><table{kind}>'
        f"<caption{quiet}>{caption}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Names with what they stand for, as tiles; those that say nothing are left out."""
    told = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in pairs if value)
    return f'<dl class="tiles">{told}</dl>' if told else ""


def warning(text: str) -> str:
    """A paragraph that warns; `text` is HTML already."""
    return f'<p class="warning"><b>Warning:</b> {text}</p>'


def listed(names: Sequence[object], *, most: int = 12) -> str:
    """Names in one line, and how many more there are."""
    told = [shown(name, limit=100) for name in names[:most]]
    if len(names) > most:
        told.append(f"{len(names) - most} more")
    return " and ".join(filter(None, [", ".join(told[:-1]), *told[-1:]]))


def amount(value: object, digits: int = 10) -> str:
    """A number as short as it can be written, or that it is not known."""
    found = number(value)
    return _UNKNOWN if found is None else f"{found:,.{digits}g}"


def money(value: object) -> str:
    """US dollars, to a hundredth of a cent."""
    found = number(value)
    return _UNKNOWN if found is None else f"{found:,.4f} USD"


def moment(value: object) -> str:
    """A time of the contract to the second, in UTC; whatever else it is, as it stands."""
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return shown(value, limit=40) if value else ""
    return f'<time datetime="{found.isoformat()}">{found:%Y-%m-%d %H:%M:%S} UTC</time>'


def duration(seconds: object) -> str:
    """Seconds as a person says them."""
    found = number(seconds)
    if found is None or found < 0:
        return ""
    if found < 1:
        return f"{found * 1000:.0f} ms"
    if found < 60:
        return f"{found:.1f} s"
    return f"{math.floor(found) // 60} min {math.floor(found) % 60:02} s"
