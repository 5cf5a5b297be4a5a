"""What was verified as a person reads it: what is proven first, then everything that could not be shown."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from api.cli.page import Page
from api.cli.plain_text import visible
from application.services.verification import UnseenText, VerificationReport, VerifiedDeliberation
from domain.counted import counted

__all__ = ["not_recomputed_words", "render_report"]

_MAX_CHARACTERS = 200
_MAX_DELIBERATIONS = 200
_MAX_LISTED = 100


def render_report(console: Console, report: VerificationReport) -> None:
    """Print the whole report. Long lists are cut, and say so."""
    page = Page(console)
    what = "a whole log" if report.kind == "log" else "a bundle"
    entries = counted(report.entries_checked, "entry", "entries")
    is_whole = not report.not_recomputed
    page.paragraph(
        f"{'Verified' if is_whole else 'Verified in part'}: {what}, {entries} of "
        f"{visible(report.origin, limit=_MAX_CHARACTERS)}",
        style="bold green" if is_whole else "bold yellow",
    )
    if not is_whole:
        page.paragraph(f"{not_recomputed_words(report)}. What they say is the word of whoever signed.", style="yellow")
    page.paragraph(f"Checkpoint: tree size {report.tree_size}, root hash {report.root_hash.hex()}")
    for deliberation in report.deliberations[:_MAX_DELIBERATIONS]:
        page.gap()
        _write_deliberation(page, deliberation)
    if len(report.deliberations) > _MAX_DELIBERATIONS:
        page.gap()
        page.paragraph(f"and {len(report.deliberations) - _MAX_DELIBERATIONS} deliberations more: --json lists them")
    page.gap()
    page.paragraph(
        f"Texts: {report.disclosed} disclosed, {report.withheld_count} withheld, {report.erased_count} erased; "
        f"{counted(report.prompts, 'prompt')} committed to and not kept"
    )
    if report.kind == "bundle":
        page.paragraph(
            "A bundle cannot show that no recount, resolution or erasure followed what is in it.", style="dim"
        )
    _write_unseen(page, "Withheld", report.withheld, report.withheld_count)
    _write_unseen(page, "Erased", report.erased, report.erased_count)


def not_recomputed_words(report: VerificationReport) -> str:
    """Of how many deliberations the outcome was not computed again."""
    return f"NOT computed again: {counted(report.not_recomputed, 'outcome')}, of a kind that this version does not know"


def _write_deliberation(page: Page, deliberation: VerifiedDeliberation) -> None:
    status = "not ended yet" if deliberation.status is None else deliberation.status
    page.paragraph(f"Deliberation {visible(deliberation.id, limit=_MAX_CHARACTERS)}: {status}", style="bold")
    if deliberation.outcome_status is not None:
        said = visible(deliberation.outcome_status.replace("_", " "), limit=_MAX_CHARACTERS)
        decision = deliberation.decision
        named = "" if decision is None else f": {visible(_text(decision), limit=_MAX_CHARACTERS)}"
        page.paragraph(f"Outcome: {said}{named}", indent=2)
        if deliberation.not_recomputed is None:
            page.paragraph("The outcome was computed again from the ballots, and is the same.", indent=2)
        else:
            why = visible(deliberation.not_recomputed, limit=_MAX_CHARACTERS)
            page.paragraph(f"The outcome was NOT computed again: {why}.", indent=2, style="yellow")
    followed = [
        counted(number, noun)
        for number, noun in ((deliberation.recounts, "recount"), (deliberation.resolutions, "resolution"))
        if number
    ]
    if followed:
        page.paragraph(f"{' and '.join(followed)} computed again, and the same.", indent=2)
    if deliberation.not_repeated:
        many = counted(deliberation.not_repeated, "recount or resolution")
        page.paragraph(f"{many} NOT computed again.", indent=2, style="yellow")
    counts = deliberation.roll_call
    states = [f"{count} {state.replace('_', ' ')}" for state, count in counts.items() if count and state != "asked"]
    asked = counts.get("asked", 0)
    page.paragraph(
        f"Roll call: {asked} asked = {' + '.join(states)}" if asked else "Roll call: nobody was asked", indent=2
    )


def _write_unseen(page: Page, name: str, texts: Sequence[UnseenText], count: int) -> None:
    if not count:
        return
    by_index: dict[int, list[str]] = {}
    for text in texts[:_MAX_LISTED]:
        by_index.setdefault(text.index, []).append(text.field)
    page.gap()
    page.paragraph(f"{name}:")
    for index, fields in by_index.items():
        page.paragraph(f"entry {index}: {', '.join(fields)}", indent=2, hang=2)
    if count > _MAX_LISTED:
        page.paragraph(f"and {count - _MAX_LISTED} more: --json lists them", indent=2)


def _text(decision: str | float) -> str:
    return decision if isinstance(decision, str) else f"{decision:g}"
