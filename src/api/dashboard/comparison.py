"""Two deliberations side by side, or one of them under several rules: what they agree on, and where they part."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Query
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from api.conclave import Conclave
from api.dashboard.comparison_sides import is_comparable, names_of, side_of
from api.dashboard.comparison_terms import Fact, answer_words, answered_differently, facts_of, rule_words
from api.dashboard.fitting import MOST_OF_A_ROOM
from api.dashboard.rendering import render, render_fragment
from api.documents import deliberation_document, outcome_with_reasons, output_document, rule_document
from api.outcome_words import other_rules_agreeing
from api.report.reading import Reading, part
from api.requests import RecountRequest
from api.rest.callers import Caller, Observer, OpenConclave
from api.rest.deliberations import find_deliberation
from application.ports.witness_log import LoggedEntry
from application.services.resolution_entry import read_resolution
from domain.analysis.recount import recount
from domain.analysis.scoring import unanswerable
from domain.errors.deliberation import InvalidSpecificationError
from domain.models.deliberation import Deliberation
from domain.voting.rule import applicable
from domain.witness.sequel import RECOUNTED, RESOLVED

__all__ = ["compare"]

_MOST_DIFFERING = 100

_Id = Annotated[str | None, Query(max_length=64)]


@dataclass(frozen=True, slots=True)
class _Whole:
    """A deliberation with its documents."""

    deliberation: Deliberation
    document: Mapping[str, Any]
    outputs: Sequence[Mapping[str, Any]]
    reading: Reading


async def compare(request: Request, caller: Observer, conclave: OpenConclave, a: _Id = None, b: _Id = None) -> Response:
    """Both side by side; with `a` alone that one under every rule by which it was counted."""
    if not a:
        return RedirectResponse("/archive", status_code=303)
    first = await _whole(a, caller, conclave)
    if b and b != a:
        second = await _whole(b, caller, conclave)
        context = _two(first, second, caller, conclave)
        return render(request, "archive_compare.html", title="Compare", nav="archive", fits=MOST_OF_A_ROOM, **context)
    context = await _several_rules(first, conclave)
    if "hx-request" in request.headers:
        response = render_fragment(request, "archive_rules.html", fits=MOST_OF_A_ROOM, **context)
    else:
        response = render(
            request, "archive_rules_page.html", title="Compare rules", nav="archive", fits=MOST_OF_A_ROOM, **context
        )
    response.headers["Vary"] = "HX-Request"
    response.headers["Cache-Control"] = "no-store"
    return response


async def _whole(deliberation_id: str, caller: Caller, conclave: Conclave) -> _Whole:
    found = await find_deliberation(deliberation_id, caller, conclave)
    document = deliberation_document(found)
    outputs = [output_document(each) for each in await conclave.outputs.outputs(found.id)]
    return _Whole(found, document, outputs, await asyncio.to_thread(Reading, document, outputs))


def _two(first: _Whole, second: _Whole, caller: Caller, conclave: Conclave) -> dict[str, Any]:
    names = names_of([first.reading, second.reading])
    sides = [side_of(each.reading, names, title=title) for title, each in zip(("A", "B"), (first, second), strict=True)]
    shows_names = caller.sees is None and bool(conclave.keys)
    terms = [facts_of(each.deliberation, each.reading, shows_names=shows_names) for each in (first, second)]
    differing, agreeing, only = answered_differently(first.reading, second.reading)
    return {
        "sides": sides,
        "facts": [Fact(name, (one, terms[1][name])) for name, one in terms[0].items()],
        "differing": differing[:_MOST_DIFFERING],
        "more_differing": max(0, len(differing) - _MOST_DIFFERING),
        "agreeing": agreeing,
        "only": only,
        "same_question": first.document["question"] == second.document["question"],
        "comparable": is_comparable(first.reading, second.reading),
        "same_outcome": _told(first.reading) == _told(second.reading),
    }


async def _several_rules(whole: _Whole, conclave: Conclave) -> dict[str, Any]:
    deliberation = whole.deliberation
    counted = await _recounted(deliberation, conclave) if deliberation.status.is_terminal else []
    readings: list[tuple[Reading, int | None]] = [(whole.reading, None)]
    # Those that weigh by what was learned then cannot be counted again by what is learned now.
    by_record = [entry for entry, rule in counted if rule.get("weighted_by") == "record"]
    for entry, rule in counted:
        if rule.get("weighted_by") == "record":
            continue
        made = await _under(whole, rule)
        if made is not None:
            readings.append((made, entry.index))
    names = names_of([reading for reading, _ in readings])
    own = _told(whole.reading)
    sides = [
        side_of(
            reading,
            names,
            title=rule_words(part(reading.document, "rule")),
            note="" if index is None else "the same outcome" if _told(reading) == own else "another outcome",
            leaf_index=index,
        )
        for reading, index in readings
    ]
    done = {str(part(side.document, "rule").get("kind")) for side in sides}
    answer = deliberation.specification.question.answer
    rules = [each.kind.value for each in applicable(deliberation.specification.counted_answers)]
    return {
        "document": whole.document,
        "sides": sides,
        "by_record": [entry.index for entry in by_record],
        "rules": [(kind, kind in done) for kind in rules],
        "agreeing": other_rules_agreeing(whole.reading.outcome),
        # Its own rule stands on record wherever there is a decision.
        "has_decision": bool(part(whole.reading.outcome, "robustness").get("rules_agreeing")),
        "ended": deliberation.status.is_terminal,
        "unanswerable": unanswerable(answer),
        "truth": await _truth(deliberation, conclave),
    }


async def _recounted(deliberation: Deliberation, conclave: Conclave) -> list[tuple[LoggedEntry, Mapping[str, Any]]]:
    """The recounts that the log has, each rule once, the latest entry of each."""
    found: dict[str, tuple[LoggedEntry, Mapping[str, Any]]] = {}
    for entry in await conclave.witness.sequels(deliberation.id, RECOUNTED):
        rule: Mapping[str, Any] = json.loads(entry.entry)["rule"]
        found[json.dumps(rule, sort_keys=True)] = entry, rule
    return list(found.values())


async def _under(whole: _Whole, recorded: Mapping[str, Any]) -> Reading | None:
    """The deliberation as that rule has it, None where this version cannot read the rule."""
    try:
        asked = RecountRequest.read({"rule": {name: value for name, value in recorded.items() if value is not None}})
        rule = asked.rule.of(whole.deliberation.specification.counted_answers)
    except InvalidSpecificationError:
        return None
    outcome = await asyncio.to_thread(recount, whole.deliberation, rule)
    shown = None if outcome is None else outcome_with_reasons(outcome)
    document = {**whole.document, "rule": rule_document(rule), "outcome": shown}
    return await asyncio.to_thread(Reading, document, whole.outputs)


async def _truth(deliberation: Deliberation, conclave: Conclave) -> str | None:
    told = await conclave.witness.sequels(deliberation.id, RESOLVED) if deliberation.status.is_terminal else ()
    if not told:
        return None
    truth, _ = read_resolution(deliberation.id, told[-1], deliberation.specification.question.answer)
    return answer_words(truth)


def _told(reading: Reading) -> tuple[object, object]:
    return reading.outcome.get("status"), reading.outcome.get("decision")
