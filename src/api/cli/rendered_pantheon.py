"""A run of the pantheon as a person reads it: the handoffs with their latencies, and what was executed, rejected or failed."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from api.cli.page import Page
from api.cli.plain_text import visible
from domain.counted import counted

__all__ = ["render_pantheon", "show_progress"]

_MAX_TASK = 200
_MAX_OUTPUT = 200
_MAX_REASON = 400
_MAX_SHOWN = 20


def show_progress(type: str, data: Mapping[str, Any]) -> None:  # noqa: A002 - as a run's observer names it
    """One line on the standard error of somebody who watches."""
    from api.cli.terminal import progress_console

    console = progress_console()
    if console is None:
        return
    if type == "pantheon.role_asked":
        console.print(f"cycle {data.get('cycle')}: asking the {data.get('role')} ...")
    elif type == "pantheon.cycle_ended":
        console.print(f"cycle {data.get('cycle')} of {data.get('of')} ended")


def render_pantheon(console: Console, document: Mapping[str, Any]) -> None:
    """The document of contract section 7."""
    page = Page(console)
    page.paragraph(f"Task: {visible(str(document['task']), limit=_MAX_TASK)}", hang=6)
    page.gap()
    _write_handoffs(page, document)
    _write_executed(page, document["executed"])
    _write_rejected(page, document["rejected"])
    for remark in list(document.get("remarks") or ())[-_MAX_SHOWN:]:
        page.gap()
        page.paragraph(
            f"{remark['role']}, cycle {remark['cycle']}: {visible(str(remark['text']), limit=_MAX_REASON)}", hang=2
        )
    page.gap()
    _write_status(page, document)


def _write_handoffs(page: Page, document: Mapping[str, Any]) -> None:
    handoffs: Sequence[Mapping[str, Any]] = document["handoffs"]
    by_place: dict[tuple[str, str], list[float]] = {}
    for handoff in handoffs:
        by_place.setdefault((handoff["from"], handoff["to"]), []).append(handoff["latency_us"])
    several = document["cycles"] > 1
    rows: list[tuple[str, ...]] = [
        ("From", "To", "Median us", "Longest us") if several else ("From", "To", "Latency us")
    ]
    for (sender, recipient), found in by_place.items():
        figures = (statistics.median(found), max(found)) if several else (found[0],)
        rows.append((sender, recipient, *(f"{figure:,.1f}" for figure in figures)))
    _write_columns(page, rows)
    of_cycles: dict[int, float] = {}
    for handoff in handoffs:
        of_cycles[handoff["cycle"]] = of_cycles.get(handoff["cycle"], 0.0) + handoff["latency_us"]
    total = statistics.median(of_cycles.values()) if of_cycles else 0.0
    page.line(Text(f"{counted(len(handoffs), 'handoff')}, {total:,.1f} us of bus time a cycle", style="dim"))


def _write_executed(page: Page, executed: Sequence[Mapping[str, Any]]) -> None:
    if not executed:
        return
    page.gap()
    page.line(Text("Executed", style="bold"))
    # The same steps give the same in each cycle.
    found = Counter((done["step"], str(done["output"])) for done in executed)
    for (step, output), times in list(found.items())[:_MAX_SHOWN]:
        often = f" ({times} times)" if times > 1 else ""
        page.paragraph(f"{step}: {visible(output, limit=_MAX_OUTPUT)}{often}", indent=2, hang=2)


def _write_rejected(page: Page, rejected: Sequence[Mapping[str, Any]]) -> None:
    if not rejected:
        return
    page.gap()
    page.line(Text("Rejected", style="bold"))
    for step in rejected[:_MAX_SHOWN]:
        name = visible(str(step["step"]), limit=_MAX_OUTPUT) or "(no step)"
        page.paragraph(f"{name}: {visible(str(step['reason']), limit=_MAX_REASON)}", indent=2, hang=2)


def _write_status(page: Page, document: Mapping[str, Any]) -> None:
    status, failure = document["status"], document.get("failure")
    style = {"executed": "green", "rejected": "yellow"}.get(status, "red")
    page.paragraph(f"{status.capitalize()}: {counted(document['cycles'], 'whole cycle')}.", style=style)
    if failure:
        page.paragraph(visible(str(failure["message"]), limit=_MAX_REASON), style=style)
    if document.get("refused"):
        page.paragraph(f"{counted(document['refused'], 'message')} from elsewhere refused.", style="yellow")
    if document.get("simulated"):
        page.paragraph("Simulated: no model was asked, so what the roles said means nothing.", style="yellow")


def _write_columns(page: Page, rows: Sequence[Sequence[str]]) -> None:
    """The first two columns to the left, the figures to the right; the first row is the heads."""
    widths = [max(cell_len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = [
            cell + " " * (width - cell_len(cell)) if place < 2 else " " * (width - cell_len(cell)) + cell
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        page.line(Text("  ".join(cells).rstrip(), style="dim" if number == 0 else ""))
