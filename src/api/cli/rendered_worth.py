"""What a result is worth as a person reads it: a few sentences, warnings told apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.cli.plain_text import visible
from domain.counted import counted

__all__ = ["Line", "control_line", "drop_out_of", "worth_lines"]

Document = Mapping[str, Any]

_MAX_NAME = 100
_MAX_NAMED = 6
_PRESENCE = ("Degraded:", "Drop-out")
_PARTS = {"model": "model", "persona": "persona group"}


@dataclass(frozen=True, slots=True)
class Line:
    """A sentence, and whether it warns."""

    text: str
    is_warning: bool = False


def drop_out_of(document: Document) -> Sequence[str]:
    """What is to be said beside the number of those missing, where they are not missing by chance."""
    return [warning for warning in _warnings(document) if warning.startswith(_PRESENCE[1])]


def worth_lines(document: Document) -> Sequence[Line]:
    """What a result rests on; nothing for a deliberation without an outcome. Who is missing is said elsewhere."""
    worth = document.get("worth") or {}
    if not worth or document.get("outcome") is None:
        return []
    sentences = (
        *_winners(worth, document["outcome"]),
        *_without_one(worth),
        *_votes(worth),
        *_movement(worth),
        *_copies(worth),
    )
    warnings = [warning for warning in _warnings(document) if not warning.startswith(_PRESENCE)]
    return [*(Line(warning, is_warning=True) for warning in warnings), *(Line(sentence) for sentence in sentences)]


def control_line(document: Document) -> str | None:
    """What one model said alone, beside what was decided; None where no control was wanted."""
    control = document.get("control")
    if control is None:
        return None
    model = visible(str(control.get("model") or "the default model"), limit=_MAX_NAME)
    if control.get("status") is None:
        return f"Control: {model} was to be asked alone, and could not be"
    where = f"Control: {model} asked alone {counted(control.get('asked') or 0, 'time')}"
    if control.get("tally") is None:
        return f"{where}: {visible(str(control['status']))}"
    held = sorted(control["tally"].items(), key=lambda item: -item[1])
    tally = ", ".join(f"{visible(str(name), limit=_MAX_NAME)} {votes:g}" for name, votes in held[:_MAX_NAMED] if votes)
    found = {"status": control.get("outcome_status"), "decision": control.get("decision")}
    return f"{where} {_decided(found)}" + (f": {tally}" if tally else "")


def _warnings(document: Document) -> Sequence[str]:
    return [visible(str(warning)) for warning in (document.get("worth") or {}).get("warnings") or ()]


def _winners(worth: Document, outcome: Document) -> Iterator[str]:
    """Rules that would decide otherwise; those that agree are said with the decision."""
    others = [
        f"{visible(str(each['rule']))} {_decided(each)}"
        for each in worth.get("winners") or ()
        if not isinstance(each.get("decision"), int | float)
        and (each.get("status"), each.get("decision")) != (outcome.get("status"), outcome.get("decision"))
    ]
    if others:
        yield f"By other rules: {', '.join(others)}"


def _decided(winner: Document) -> str:
    if winner.get("status") == "decided":
        return f"decides {visible(str(winner.get('decision')), limit=_MAX_NAME)}"
    return "is tied" if winner.get("status") == "tied" else "has no majority"


def _without_one(worth: Document) -> Iterator[str]:
    without = worth.get("without_one") or {}
    agents = without.get("agent")
    if agents is not None and agents.get("low") is not None:
        yield f"Without one agent: {agents['low']:.10g} to {agents['high']:.10g}"
    elif agents is not None:
        pivotal = agents.get("pivotal") or ()
        yield (
            f"Without one agent: another result without any of {len(pivotal)}"
            if pivotal
            else ("Without one agent: the same result, whichever it is")
        )
    for part, name in _PARTS.items():
        found = without.get(part)
        if found is None:
            continue
        if found.get("low") is not None:
            yield f"Without one {name}: {found['low']:.10g} to {found['high']:.10g}"
        elif found.get("pivotal"):
            yield f"Without one {name}: another result without {_listed(found['pivotal'])}"
        else:
            yield f"Without one {name}: the same result, whichever it is"


def _votes(worth: Document) -> Iterator[str]:
    measured = worth.get("effective_votes") or {}
    found = measured.get("across") or measured.get("within")
    if found is None:
        return
    note = visible(str(found.get("note")))
    if found.get("value") is None:
        yield (
            f"Effective votes: not known, between {found['low']:.1f} and {found['high']:.1f} of {found['voters']}: {note}"
        )
        return
    yield (
        f"Effective votes: {found['value']:.1f} of {found['voters']} "
        f"({found['low']:.1f} to {found['high']:.1f}), {note}"
    )


def _movement(worth: Document) -> Iterator[str]:
    movement = worth.get("movement")
    if movement is None:
        return
    said = f"Changed: {movement['changed']} of {movement['changeable']}"
    if movement.get("conformity") is not None:
        leader = visible(str(movement.get("blind_leader")), limit=_MAX_NAME)
        said += f", {100 * movement['conformity']:.0f} % of them to {leader}, which led before"
    division = worth.get("division") or {}
    before, after = ((division.get(moment) or {}).get("polarisation") for moment in ("blind", "final"))
    if before is not None and after is not None:
        said += f"; polarisation {before:.2f} before, {after:.2f} after"
    yield said


def _copies(worth: Document) -> Iterator[str]:
    for group in (worth.get("copies") or ())[:_MAX_NAMED]:
        yield f"Like copies of each other: {_listed(group['agents'])}, on {counted(group['questions'], 'question')}"
    for agents in (worth.get("same_words") or ())[:_MAX_NAMED]:
        yield f"The same reason word for word: {_listed(agents)}"


def _listed(names: Sequence[Any]) -> str:
    shown = [visible(str(name), limit=_MAX_NAME) for name in names[:_MAX_NAMED]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
