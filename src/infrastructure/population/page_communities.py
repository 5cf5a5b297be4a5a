"""What became of the answers of a deliberation in a population, for its page: communities, the decision, and intervals over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from application.pages.html_text import shown
from application.ports.population_record import Sample
from domain.models.population import PopulationSpecification
from infrastructure.population.page_charts import Curve, curves
from infrastructure.population.page_parts import figure, section, table

__all__ = ["communities_of", "decision_of", "each_community_of", "replicates_of"]

_COLOURS = 8
_MAX_ANSWER = 80
_MAX_REASON = 160
_MAX_ROWS = 200
_UNKNOWN = "-"


def communities_of(report: Mapping[str, Any], spec: PopulationSpecification, samples: Sequence[Sample]) -> str:
    """The communities that began with a deliberation's ballots: by answer, and each one; nothing where there are none."""
    rows = report["subgroups"]
    if not rows:
        return ""
    colours = {row["answer"]: min(number, _COLOURS - 1) for number, row in enumerate(rows)}
    found = (
        f"<p>Each agent of deliberation {shown(report['deliberation_id'] or _UNKNOWN, limit=64)} that answered is the beginning of a "
        "simulated community. All began with the same quota. That a handful of answers became many rows adds no evidence to them.</p>"
    )
    sampled = [sample for sample in samples if len(sample.communities) == len(spec.archetypes)]
    if sampled:
        found += figure(
            curves(
                [
                    Curve(
                        f"thin s{colours[archetype.answer]}",
                        [(sample.tick, sample.communities[place]) for sample in sampled],
                    )
                    for place, archetype in enumerate(spec.archetypes)
                ],
                label="Simulated communities: the mean opinion of each over time",
                written=lambda value: f"{value:.2f}",
                first_tick=0,
                last_tick=max(1, sampled[-1].tick),
                most=1.0,
            ),
            "The mean opinion of each simulated community over ticks, by the answer that it began with.",
            legend=_legend(rows, colours),
        )
    found += "<h3>By answer</h3>" + table(
        ("answer", "place", "agents", "mean", "moved", "variance", "share"), [_of_answer(row) for row in rows]
    )
    found += (
        '<p class="soft">Place: where the answer lies between 0 and 1. Share: of all simulated agents, those whose opinion lies nearest '
        "to that answer's place, in the beginning and in the end.</p>"
    )
    return section("Communities", found)


def decision_of(report: Mapping[str, Any]) -> str:
    """What the deliberation decided beside what the population ended with."""
    found = report["decision"]
    if found is None:
        return ""
    answer = shown(found["answer"], limit=_MAX_ANSWER) if found["answer"] is not None else "no decision"
    rows = [
        ["the deliberation decided", answer],
        ["share of its ballots", _percent(found["ballot_share"])],
        ["share of simulated agents, beginning", _percent(found["initial_share"])],
        ["share of simulated agents, end", _percent(found["final_share"])],
        ["most lie nearest to, beginning", shown(found["initial_leader"], limit=_MAX_ANSWER)],
        ["most lie nearest to, end", shown(found["final_leader"], limit=_MAX_ANSWER)],
        ["final mean minus the decision's place", _signed(found["distance_of_final_mean"])],
    ]
    return section("The decision and the end of the population", table(("", ""), rows, text_columns=(1,)))


def replicates_of(report: Mapping[str, Any]) -> str:
    """Intervals over seeds."""
    found = report["replicates"]
    if found is None:
        return ""
    rows = [
        [name, *_interval(found[key])]
        for name, key in (("mean", "mean"), ("variance", "variance"), ("groups", "groups"))
    ]
    rows += [
        [f"share nearest to {shown(one['answer'], limit=_MAX_ANSWER)}", *_interval(one["share"])]
        for one in found["answers"]
    ]
    rows += [
        [f"mean of who began with {shown(one['answer'], limit=_MAX_ANSWER)}", *_interval(one["mean"])]
        for one in found["answers"]
    ]
    said = (
        f"<p>{found['done']} of {found['planned']} simulated populations that differ by seed alone. Method: {shown(found['method'])}, "
        f"level {found['level']:.0%}, {found['resamples']:,} resamples (seed {found['resample_seed']}). The intervals say how much is "
        "chance of the simulation, and nothing about people.</p>"
    )
    runs = [
        [str(run["seed"]), f"{run['mean']:.5f}", f"{run['variance']:.6f}", str(run["groups"])] for run in found["runs"]
    ]
    each = "<h3>Each seed</h3>" + table(("seed", "mean", "variance", "groups"), runs)
    return section("Over seeds", said + table(("in the end", "mean", "from", "to"), rows) + each)


def _legend(rows: Sequence[Mapping[str, Any]], colours: Mapping[str, int]) -> str:
    named = rows if len(rows) <= _COLOURS else rows[: _COLOURS - 1]
    drawn = "".join(
        f'<li><i class="s{colours[row["answer"]]}"></i>{shown(row["answer"], limit=40)}</li>' for row in named
    )
    return drawn + (f'<li><i class="s{_COLOURS - 1}"></i>others</li>' if len(rows) > _COLOURS else "")


def _of_answer(row: Mapping[str, Any]) -> list[str]:
    begun, ended = row["initial"], row["final"]
    return [
        f"{shown(row['answer'], limit=_MAX_ANSWER)} ({row['archetypes']})",
        f"{row['opinion']:.2f}",
        f"{row['agents']:,}",
        _from_to(begun["mean"], ended["mean"], ".3f"),
        _signed(row["moved"]),
        _from_to(begun["variance"], ended["variance"], ".4f"),
        _from_to(begun["share"], ended["share"], ".1%"),
    ]


def each_community_of(report: Mapping[str, Any], spec: PopulationSpecification) -> str:
    """Every archetype with its answer, how its community moved, and its reason; nothing where there are none."""
    if not spec.archetypes:
        return ""
    begun = report["opinions"]["initial"].get("communities") or ()
    ended = report["opinions"]["final"].get("communities") or ()
    known = list(zip(spec.archetypes, begun, ended, strict=False))
    rows = [
        [
            shown(archetype.name, limit=60),
            shown(archetype.answer, limit=_MAX_ANSWER),
            f"{last['agents']:,}",
            _from_to(first["mean"], last["mean"], ".3f"),
            _signed(last["mean"] - first["mean"]),
            _from_to(first["variance"], last["variance"], ".4f"),
        ]
        for archetype, first, last in known[:_MAX_ROWS]
    ]
    left = f'<p class="soft">and {len(known) - _MAX_ROWS:,} more, in report.json</p>' if len(known) > _MAX_ROWS else ""
    heads = ("agent", "answer", "agents", "mean", "moved", "variance")
    reasons = [
        f"<li>{shown(archetype.name, limit=60)}: {shown(archetype.reason, limit=_MAX_REASON)}</li>"
        for archetype, _, _ in known[:_MAX_ROWS]
        if archetype.reason
    ]
    why = (
        f"<details><summary>The reasons that they gave</summary><ul>{''.join(reasons)}</ul></details>"
        if reasons
        else ""
    )
    return section("Each community", table(heads, rows, text_columns=(1,)) + left + why)


def _from_to(first: float | None, last: float | None, form: str) -> str:
    return " &rarr; ".join(_UNKNOWN if value is None else format(value, form) for value in (first, last))


def _signed(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:+.3f}"


def _percent(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.1%}"


def _interval(found: Mapping[str, Any]) -> list[str]:
    return [_UNKNOWN if found[key] is None else f"{found[key]:.5f}" for key in ("value", "low", "high")]
