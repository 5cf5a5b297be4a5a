"""What a result is worth, as a chapter of the minutes: derived from the entries alone, since other deliberations are not in them."""

from __future__ import annotations

from collections.abc import Iterator

from application.pages.markdown import NOTHING, inline, table
from domain.analysis.recounts import Winner
from domain.analysis.worth import Worth

__all__ = ["worth_chapter"]


def worth_chapter(worth: Worth) -> Iterator[str]:
    """What the outcome rests on, in Markdown line by line."""
    yield from ("Derived from the ballots above, and recorded nowhere.", "")
    facts = [
        *((f"By {inline(each.rule)}", _decided(each)) for each in worth.winners),
        *_without_one(worth),
        ("Entropy in bits, blind and final", _both(worth.blind.entropy_bits, worth.final.entropy_bits)),
        ("Polarisation, blind and final", _both(worth.blind.polarisation, worth.final.polarisation)),
    ]
    if worth.movement is not None:
        moved = worth.movement
        facts.append(("Changed their answer", f"{moved.changed} of {moved.changeable}"))
        facts.append((f"Of them to {inline(moved.blind_leader)}, which led before", _share(moved.conformity)))
    if worth.within is not None:
        bounds = f"{worth.within.low:.1f} to {worth.within.high:.1f} of {worth.within.voters}"
        facts.append(("Effective votes", f"{bounds}: {inline(worth.within.note)}"))
    facts += (("Same reason word for word", ", ".join(map(inline, agents))) for agents in worth.same_words)
    yield from table(("Matter", "As derived"), facts)


def _decided(winner: Winner) -> str:
    return inline(winner.decision) if winner.decision is not None else inline(winner.status.value.replace("_", " "))


def _without_one(worth: Worth) -> Iterator[tuple[str, str]]:
    for name, found in (
        ("agent", worth.pivotal_agents),
        ("model", worth.pivotal_models),
        ("persona group", worth.pivotal_personas),
    ):
        if found is None or not found.looked:
            continue
        if found.low is not None:
            yield f"Without one {name}", f"{inline(found.low)} to {inline(found.high)}"
        elif found.pivotal:
            yield f"Without one {name}", f"another result without any of {', '.join(map(inline, found.pivotal))}"
        else:
            yield f"Without one {name}", "the same result, whichever it is"


def _both(blind: float | None, final: float | None) -> str:
    return NOTHING if blind is None or final is None else f"{blind:.2f}, {final:.2f}"


def _share(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.0f} %"
