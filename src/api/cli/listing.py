"""A page of deliberations as lines: whole ids for scripts and wide terminals, short ones where there is little room."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from api.cli.account import question_of
from api.cli.bars import cut, fit
from api.cli.plain_text import visible

__all__ = ["render_page"]

_SHORT_ID = 8
_ROOM_FOR_WHOLE_IDS = 100
_STATUS_CELLS = len("completed")
_TIME_CELLS = len("2026-01-01 00:00")
_LEAST_QUESTION = 20
_MAX_TEXT_CHARACTERS = 200


def render_page(console: Console, page: Mapping[str, Any]) -> None:
    """One line for each deliberation: id, status, time of its acceptance in UTC, decision and question.

    On a terminal lines are cut to its width; in a pipe or a file nothing is cut but texts of over 200 characters.
    """
    items = page.get("items") or ()
    if not items:
        console.print(Text("There are no such deliberations."), soft_wrap=True)
    for item in items:
        console.print(_line(console, item), soft_wrap=True)
    if page.get("next_cursor"):
        more = f"There are more: --cursor {visible(str(page['next_cursor']))}"
        console.print(Text(more, style="dim"), soft_wrap=True)


def _line(console: Console, item: Mapping[str, Any]) -> Text:
    whole = not console.is_terminal or console.width >= _ROOM_FOR_WHOLE_IDS
    deliberation_id = visible(str(item.get("id")))
    head = deliberation_id if whole else deliberation_id[:_SHORT_ID]
    status = fit(visible(str(item.get("status"))), _STATUS_CELLS)
    created = visible(str(item.get("created_at")))[:_TIME_CELLS].replace("T", " ")
    text = _said(item)
    line = Text(f"{head}  ").append(status, style="bold" if item.get("status") == "running" else "")
    room = console.width - cell_len(line.plain) - 2
    if not console.is_terminal or room - _TIME_CELLS - 2 >= _LEAST_QUESTION:
        line.append(f"  {created}", style="dim")
        room -= _TIME_CELLS + 2
    if console.is_terminal:
        text = cut(text, max(0, room))
    return line.append(f"  {text}".rstrip())


def _said(item: Mapping[str, Any]) -> str:
    question = visible(question_of(item), limit=_MAX_TEXT_CHARACTERS)
    outcome = item.get("outcome") or {}
    if outcome.get("status") == "decided":
        decision = outcome.get("decision")
        named = f"{decision:.10g}" if isinstance(decision, int | float) else visible(str(decision), limit=60)
        return f"[{named}] {question}"
    return f"[{visible(str(outcome['status'])).replace('_', ' ')}] {question}" if outcome.get("status") else question
