"""Two deliberations side by side, or one of them under several rules: what they agree on, and where they part."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Query
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from api.conclave import Conclave
from api.dashboard.costs import NOT_KNOWN, money
from api.dashboard.fitting import MOST_OF_A_ROOM
from api.dashboard.rendering import render, render_fragment
from api.documents import deliberation_document, outcome_with_reasons, output_document, rule_document
from api.report.pieces import amount, duration
from api.report.reading import Position, Reading, number, part
from api.report.tallies import OF_AGENTS, unit_of
from api.report.verdict import headline
from api.requests import RecountRequest
from api.rest.callers import Caller, Observer, OpenConclave
from api.rest.deliberations import find_deliberation
from application.ports.witness_log import LoggedEntry
from application.services.resolution_entry import read_resolution
from domain.analysis.recount import recount
from domain.analysis.scoring import unanswerable
from domain.errors.deliberation import InvalidSpecificationError
from domain.models.deliberation import Deliberation
from domain.models.question import AnswerKind
from domain.voting.rule import applicable
from domain.witness.sequel import RECOUNTED, RESOLVED

__all__ = ["Bar", "Fact", "Side", "answered_differently", "compare"]

_MOST_BARS = 50
_ALWAYS_BARS = 12
_MOST_DIFFERING = 100

_Id = Annotated[str | None, Query(max_length=64)]


@dataclass(frozen=True, slots=True)
class Bar:
    """One answer of a tally: its place among the answers of all sides, its amount, and its share of the whole in percent."""

    place: int
    name: str
    amount: float
    share: float
    wins: bool


@dataclass(frozen=True, slots=True)
class Side:
    """One column: a deliberation, or what one rule makes of it.

    `verdict` is HTML already, escaped; `note` says how it differs from the first. What the bars count is `unit`, in the plural, and
    `base` says what their shares are of.
    """

    title: str
    document: Mapping[str, Any]
    reading: Reading
    verdict: str
    decision: Position | None
    against: Sequence[Position]
    bars: Sequence[Bar]
    more_bars: int
    unit: str
    base: str
    dissent: str
    note: str = ""
    leaf_index: int | None = None


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of the terms: what each side has, and whether that is the same."""

    name: str
    values: tuple[str, str]

    @property
    def same(self) -> bool:
        """Whether both have the same."""
        return self.values[0] == self.values[1]


@dataclass(frozen=True, slots=True)
class Differing:
    """An agent that is in both, with the last answer that it gave in each."""

    agent_id: str
    answers: tuple[str, str]


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
    names = _names([first.reading, second.reading])
    sides = [_side(each.reading, names, title=title) for title, each in zip(("A", "B"), (first, second), strict=True)]
    shows_names = caller.sees is None and bool(conclave.keys)
    differing, agreeing, only = answered_differently(first.reading, second.reading)
    return {
        "sides": sides,
        "facts": [
            Fact(name, (one, other))
            for (name, one), (_, other) in zip(
                _facts(first, shows_names=shows_names), _facts(second, shows_names=shows_names), strict=True
            )
        ],
        "differing": differing[:_MOST_DIFFERING],
        "more_differing": max(0, len(differing) - _MOST_DIFFERING),
        "agreeing": agreeing,
        "only": only,
        "same_question": first.document["question"] == second.document["question"],
        "comparable": _is_comparable(first.reading, second.reading),
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
    names = _names([reading for reading, _ in readings])
    own = _told(whole.reading)
    sides = [
        _side(
            reading,
            names,
            title=_rule_words(part(reading.document, "rule")),
            note="" if index is None else "the same outcome" if _told(reading) == own else "another outcome",
            leaf_index=index,
        )
        for reading, index in readings
    ]
    done = {str(part(side.document, "rule").get("kind")) for side in sides}
    # Its own rule stands among them wherever there is a decision.
    agreeing = part(whole.reading.outcome, "robustness").get("rules_agreeing") or ()
    answer = deliberation.specification.question.answer
    rules = [each.kind.value for each in applicable(deliberation.specification.counted_answers)]
    return {
        "document": whole.document,
        "sides": sides,
        "by_record": [entry.index for entry in by_record],
        "rules": [(kind, kind in done) for kind in rules],
        "agreeing": [each for each in agreeing if each != whole.reading.outcome.get("rule")],
        "has_decision": bool(agreeing),
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
    return _answer_words(truth)


def _names(readings: Sequence[Reading]) -> list[str]:
    """Every answer of every side, in one order, so that a letter means the same on all of them, and in the chamber."""
    asked = [name for reading in readings for name in _asked_for(part(reading.document, "answer"))]
    return list(dict.fromkeys([*asked, *(name for reading in readings for name in reading.names)]))


def _is_comparable(one: Reading, other: Reading) -> bool:
    """Whether the same answer could be given to both."""
    same = [set(_asked_for(part(each.document, "answer"))) for each in (one, other)]
    return one.answer_kind == other.answer_kind and same[0] == same[1]


def _asked_for(answer: Mapping[str, Any]) -> Sequence[str]:
    if answer.get("kind") == AnswerKind.VERDICT:
        return ("yes", "no")
    return answer.get("options") or ()


def _side(reading: Reading, names: Sequence[str], *, title: str, note: str = "", leaf_index: int | None = None) -> Side:
    every = _bars(reading, names)
    # Where there are many, those that somebody gave.
    bars = [bar for place, bar in enumerate(every) if bar.share or place < _ALWAYS_BARS][:_MOST_BARS]
    positions = reading.positions
    percentage = number(part(reading.outcome, "dissent").get("percentage"))
    return Side(
        title=title,
        document=reading.document,
        reading=reading,
        verdict=headline(reading),
        decision=next((each for each in positions if each.is_decision), None),
        against=[each for each in positions if not each.is_decision],
        bars=bars,
        more_bars=len(every) - len(bars),
        unit="agents" if reading.is_estimate else unit_of(reading),
        base=_base(reading, sum(bar.amount for bar in every)),
        dissent="" if percentage is None else f"{percentage:g} %",
        note=note,
        leaf_index=leaf_index,
    )


def _base(reading: Reading, whole: float) -> str:
    """Of what the shares are, so that nobody takes them for those of the chamber, which are of all who were asked."""
    if reading.answer_kind == "approval":
        whole = reading.roll_call.get("answered", 0)
        told = f"of the {whole:,} who answered"
    elif reading.is_estimate:
        told = f"of the {whole:,.6g} who gave a number"
    else:
        told = f"of the {whole:,.6g} {unit_of(reading)} counted"
    is_of_agents = reading.is_estimate or reading.answer_kind == "approval" or unit_of(reading) in OF_AGENTS
    return f"{told}; {reading.asked:,} were asked" if is_of_agents and whole != reading.asked else told


def _bars(reading: Reading, names: Sequence[str]) -> list[Bar]:
    """Shares of the whole, so that one scale holds for every side, whatever it counts."""
    tally = reading.tally
    if reading.is_estimate:
        tally = {each.name: each.count for each in reading.positions}
    whole = float(reading.roll_call.get("answered", 0)) if reading.answer_kind == "approval" else sum(tally.values())
    chosen = next((each.name for each in reading.positions if each.is_decision), None)
    places = {name: place for place, name in enumerate(names)}
    return [
        Bar(
            places.get(name, len(names)),
            reading.with_unit(name) if name.startswith(("below ", "above ")) else name,
            count,
            100 * max(0.0, count) / whole if whole else 0.0,
            wins=name == chosen,
        )
        for name, count in sorted(tally.items(), key=lambda item: -item[1])
    ]


def _facts(whole: _Whole, *, shows_names: bool) -> list[tuple[str, str]]:
    document, reading = whole.document, whole.reading
    outcome, limits, usage = reading.outcome, part(document, "limits"), part(document, "usage")
    roll_call = reading.roll_call
    lost = ", ".join(
        f"{count} {name.replace('_', ' ')}"
        for name, count in roll_call.items()
        if count and name not in {"asked", "answered"}
    )
    quorum = number(part(document, "quorum").get("min_answered_fraction"))
    seed = document.get("seed")
    return [
        ("Kind of answer", _kind_words(part(document, "answer"))),
        ("Protocol", _kind_words(part(document, "protocol"))),
        ("Rule", _rule_words(part(document, "rule"))),
        ("Quorum", "–" if quorum is None else f"{100 * quorum:g} % of those asked"),
        ("Agents", _agents_words(part(document, "agents"))),
        ("Models", ", ".join(document.get("models") or ()) or "–"),
        (
            "Answered by",
            str(document.get("orchestrator") or "–") + (" (simulated)" if document.get("simulated") else ""),
        ),
        ("Origin", str(document.get("origin") or "–")),
        ("Seed", "none" if seed is None else str(seed)),
        ("Time for an agent", duration(limits.get("agent_timeout_s"))),
        ("Most tokens", _limit(limits.get("max_total_tokens"), amount)),
        ("Most money", _limit(limits.get("max_cost_usd"), _money)),
        ("State", str(document.get("status")).replace("_", " ")),
        ("Outcome", str(outcome.get("status") or "none").replace("_", " ")),
        ("Decision", _decision_words(reading)),
        ("Margin", "–" if outcome.get("margin") is None else amount(outcome["margin"])),
        ("Spread", "–" if outcome.get("spread") is None else reading.with_unit(amount(outcome["spread"], 6))),
        ("Dissent", _percent(part(outcome, "dissent").get("percentage"))),
        ("Answered", f"{roll_call.get('answered', 0)} of {reading.asked}"),
        ("Did not answer", lost or "nobody"),
        ("Calls", amount(usage.get("calls"))),
        ("Tokens in, out", f"{amount(usage.get('input_tokens'))}, {amount(usage.get('output_tokens'))}"),
        ("Cost", _money(usage.get("cost_usd"))),
        ("Accepted", f"{document['created_at'][:19].replace('T', ' ')} UTC"),
        *([("Asked by the key", whole.deliberation.key_name or "–")] if shows_names else []),
    ]


def answered_differently(first: Reading, second: Reading) -> tuple[list[Differing], int, tuple[int, int]]:
    """Agents of the same id that answered otherwise, how many gave the same, and how many of each side answered there alone."""
    differing, agreeing = [], 0
    for agent_id, output in first.ballots.items():
        other = second.ballots.get(agent_id)
        if other is None:
            continue
        if output.get("answer") == other.get("answer"):
            agreeing += 1
        else:
            answers = (_answer_words(output.get("answer")), _answer_words(other.get("answer")))
            differing.append(Differing(agent_id, answers))
    both = agreeing + len(differing)
    return differing, agreeing, (len(first.ballots) - both, len(second.ballots) - both)


def _told(reading: Reading) -> tuple[object, object]:
    return reading.outcome.get("status"), reading.outcome.get("decision")


def _answer_words(answer: object) -> str:
    if answer is None:
        return "–"
    if isinstance(answer, list | tuple):
        return ", ".join(map(str, answer)) or "none of them"
    value = number(answer)
    return amount(value) if value is not None else str(answer)


def _decision_words(reading: Reading) -> str:
    decision = reading.outcome.get("decision")
    return _answer_words(decision) if decision is None else reading.with_unit(_answer_words(decision))


def _money(value: object) -> str:
    found = number(value)
    return NOT_KNOWN if found is None else money(found)


def _limit(value: object, told: Callable[[object], str]) -> str:
    return "no limit" if value is None else told(value)


def _percent(value: object) -> str:
    found = number(value)
    return "–" if found is None else f"{found:g} %"


def _kind_words(found: Mapping[str, Any]) -> str:
    """A kind with its settings, options counted."""
    said = [
        f"{len(value)} options" if name == "options" else f"{name.replace('_', ' ')} {value}"
        for name, value in found.items()
        if name != "kind"
    ]
    kind = str(found.get("kind") or "–").replace("_", " ")
    return f"{kind} ({', '.join(said)})" if said else kind


def _rule_words(rule: Mapping[str, Any]) -> str:
    return _kind_words({name: value for name, value in rule.items() if name != "weights"})


def _agents_words(agents: Mapping[str, Any]) -> str:
    count, roster = agents.get("count"), agents.get("roster")
    return f"{count} of {roster}" if roster else str(count)
