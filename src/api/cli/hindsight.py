"""`conclave recount`, `resolve` and `track-record`: what is made of deliberations after their end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.archive import IdArgument
from api.cli.asking import FractionOption, RuleOption, StrengthOption, TieBreakOption, WeightedByOption
from api.cli.options import JsonOption, ServerOption

if TYPE_CHECKING:
    from api.cli.page import Page

__all__ = ["add_to"]

_ESTIMATES = frozenset({"score", "probability", "number"})
_LISTS = frozenset({"approval", "ranking"})
_MAX_SHOWN = 72
_MAX_CHARACTERS = 128


def add_to(app: typer.Typer) -> None:
    """Make the commands known."""
    app.command("recount")(recount)
    app.command("resolve")(resolve)
    app.command("track-record")(track_record)


def recount(
    deliberation_id: IdArgument,
    rule: RuleOption = None,
    fraction: FractionOption = None,
    tie_break: TieBreakOption = None,
    strength: StrengthOption = None,
    weighted_by: WeightedByOption = None,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count the recorded ballots of one deliberation by another rule.

    Asks no agent and changes nothing of its outcome; what comes of it is recorded.
    """
    from api.bootstrap import run
    from api.cli.deliberations import Access, find_by_prefix, open_deliberations
    from api.cli.page import Page
    from api.cli.terminal import print_document, result_console

    settings = {
        "kind": rule,
        "fraction": fraction,
        "tie_break": tie_break,
        "strength": strength,
        "weighted_by": weighted_by,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    if not given:
        raise typer.BadParameter("give --rule, or a setting of the usual one")

    async def work() -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        async with open_deliberations(server, Access.READ) as deliberations:
            found = await find_by_prefix(deliberations, deliberation_id)
            return found, await deliberations.recount(str(found["id"]), given)

    found, counted = run(work())
    if as_json:
        print_document(counted)
    else:
        _write_recount(Page(result_console()), found, counted)


def resolve(
    deliberation_id: IdArgument,
    answer: Annotated[
        list[str],
        typer.Option(
            "--answer", metavar="A", help="How it turned out; several times for several options, the best first."
        ),
    ],
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Record how the question of one deliberation turned out.

    Prints how near everybody was (Brier score, 0 for right) and what each vote weighs where the record weighs votes.
    """
    from api.bootstrap import run
    from api.cli.deliberations import Access, find_by_prefix, open_deliberations
    from api.cli.page import Page
    from api.cli.terminal import print_document, result_console

    async def work() -> Mapping[str, Any]:
        async with open_deliberations(server, Access.READ) as deliberations:
            found = await find_by_prefix(deliberations, deliberation_id)
            told = _truth(answer, str((found.get("answer") or {}).get("kind")))
            return await deliberations.resolve(str(found["id"]), told)

    found = run(work())
    if as_json:
        print_document(found)
    else:
        _write_resolution(Page(result_console()), found)


def track_record(server: ServerOption = None, as_json: JsonOption = False) -> None:
    """Show who was right where questions were resolved.

    These are the weights that --weighted-by record gives to votes.
    """
    from api.bootstrap import run
    from api.cli.deliberations import Access, open_deliberations
    from api.cli.page import Page
    from api.cli.terminal import print_document, result_console

    async def work() -> Mapping[str, Any]:
        async with open_deliberations(server, Access.READ) as deliberations:
            return await deliberations.track_record()

    found = run(work())
    if as_json:
        print_document(found)
        return
    page = Page(result_console())
    page.paragraph(f"Questions that were resolved: {found['questions']}")
    for title, items in (("Agents", found["agents"]), ("Models", found["models"])):
        if items:
            page.gap()
            page.paragraph(f"{title}, by what their votes weigh:", style="bold")
        for each in items[:_MAX_SHOWN]:
            said = f"{_named(each['name'])}: {each['weight']:.2f}, mean score {each['score']:.3f}"
            page.paragraph(f"{said} over {each['questions']}", indent=2)


def _truth(told: list[str], kind: str) -> object:
    """What was told, as answers of that kind are. Raises `typer.BadParameter`."""
    if kind in _LISTS:
        return told
    if len(told) > 1:
        raise typer.BadParameter("--answer: this question has one answer")
    if kind in _ESTIMATES and told[0].lower() not in {"yes", "no"}:
        try:
            number = float(told[0])
        except ValueError:
            raise typer.BadParameter(f"--answer: {told[0]!r} is no number") from None
        if not math.isfinite(number):
            raise typer.BadParameter("--answer: is not a finite number")
        return number
    return told[0]


def _write_recount(page: Page, found: Mapping[str, Any], counted: Mapping[str, Any]) -> None:
    outcome, before = counted["outcome"], found.get("outcome") or {}
    rule = _named(counted["rule"]["kind"])
    if outcome is None:
        page.paragraph(f"By {rule}: no outcome, because the deliberation is {_named(found.get('status'))}")
        return
    page.paragraph(f"By {rule}: {_said(outcome)}", style="bold")
    page.paragraph(f"As agreed, by {_named(before.get('rule'))}: {_said(before)}")
    for name, votes in list(outcome["tally"].items())[:_MAX_SHOWN]:
        page.paragraph(f"{_named(name)}: {votes:g}", indent=2)
    page.paragraph(f"Recorded as entry {counted['leaf_index']}; the outcome stays as it was.", style="dim")


def _write_resolution(page: Page, found: Mapping[str, Any]) -> None:
    answer = found["answer"]
    page.paragraph(
        f"Turned out: {', '.join(map(_named, answer)) if isinstance(answer, list) else _named(answer)}", style="bold"
    )
    if found["correct"] is not None:
        page.paragraph(f"The decision was {'right' if found['correct'] else 'wrong'}.")
    if found["error"] is not None:
        page.paragraph(f"The decision was off by {found['error']:g}.")
    if found["brier"] is not None:
        page.paragraph(f"Brier score of all answers together: {found['brier']:.4f}")
    page.gap()
    page.paragraph("Agents (0 is right and sure of it):", style="bold")
    for each in found["agents"][:_MAX_SHOWN]:
        score = "no answer" if each["score"] is None else f"{each['score']:.3f}"
        page.paragraph(f"{_named(each['agent_id'])}: {score}, weighs {each['weight']:.2f}", indent=2)
    for each in found["models"][:_MAX_SHOWN]:
        page.paragraph(f"model {_named(each['model'])}: {each['score']:.3f} over {each['answers']}", indent=2)
    page.paragraph(f"Recorded as entry {found['leaf_index']}.", style="dim")


def _said(outcome: Mapping[str, Any]) -> str:
    if outcome.get("status") != "decided":
        return _named(outcome.get("status")).replace("_", " ")
    return _named(outcome.get("decision"))


def _named(value: object) -> str:
    from api.cli.plain_text import visible

    return visible(f"{value:g}" if isinstance(value, float) else str(value), limit=_MAX_CHARACTERS)
