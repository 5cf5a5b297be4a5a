"""What the result is worth, in figures and sentences: how firm it is, how divided they are, and how many voices they really are."""

from __future__ import annotations

from collections.abc import Sequence

from api.outcome_words import other_rules_agreeing
from api.report.marks import mark
from api.report.pieces import amount, listed, table, warning
from api.report.reading import Document, Reading, items, number, part
from application.pages.html_text import plain, shown
from domain.counted import counted

__all__ = ["worth_of"]

_PARTS = {"agent": "one agent", "model": "one model", "persona": "one persona group"}
_MOST_GROUPS = 8
_MOST_WARNINGS = 12


def worth_of(reading: Reading) -> str:
    """Everything that is known about it; nothing where nothing is."""
    worth = part(reading.document, "worth")
    # Who is missing is said in the first lines of the page.
    warnings = [each for each in reading.warnings if not each.startswith(("Degraded:", "Drop-out"))]
    found = "".join(warning(shown(each, limit=500)) for each in warnings[:_MOST_WARNINGS])
    if reading.has_outcome:
        rows = [*_firm(reading), *_without_one(worth), *_divided(worth), *_votes(worth), *_echoes(worth)]
        found += table(
            ["measure", "found", "read it as"],
            rows,
            caption="What the result is worth",
            words=(1, 2),
            style="flowing",
            is_quiet=True,
        )
        found += _winners(reading, worth)
    return found + _control(reading)


def _firm(reading: Reading) -> list[list[str]]:
    outcome = reading.outcome
    robustness = part(outcome, "robustness")
    flips = number(robustness.get("votes_to_flip"))
    margin = number(outcome.get("margin"))
    rows = []
    if margin is not None:
        rows.append(["margin", amount(margin), "how far the first is ahead, as the rule counts"])
    rows.append(
        [
            "votes to flip",
            "not defined for this rule" if flips is None else counted(flips, "ballot"),
            "the fewest ballots changed so that another wins outright",
        ]
    )
    if isinstance(robustness.get("rules_agreeing"), list):
        others = [each.replace("_", " ") for each in other_rules_agreeing(outcome)]
        told = listed(others) if others else "none of the others"
        rows.append(["rules that decide the same", told, "the others are below"])
    return rows


def _without_one(worth: Document) -> list[list[str]]:
    rows = []
    for name, called in _PARTS.items():
        found = part(part(worth, "without_one"), name)
        if not found:
            continue
        low, high, pivotal = number(found.get("low")), number(found.get("high")), found.get("pivotal")
        if low is not None and high is not None:
            told = f"{amount(low)} to {amount(high)}"
        elif isinstance(pivotal, list) and pivotal:
            told = f"another result without any of {len(pivotal)}: {listed(pivotal, most=6)}"
        else:
            told = "the same result, whichever it is"
        rows.append([f"without {called} (jackknife)", told, f"the same ballots as if {called} had never been asked"])
    return rows


def _divided(worth: Document) -> list[list[str]]:
    blind, final = (part(part(worth, "division"), when) for when in ("blind", "final"))
    rows = []
    for name, called, read_as in (
        ("entropy_bits", "entropy, bits", "0 is unanimity; one bit is two camps of one size"),
        ("polarisation", "polarisation", "0 is one camp, 1 two camps of one size"),
    ):
        before, after = number(blind.get(name)), number(final.get(name))
        if after is not None:
            told = f"{after:.2f}"
            if before is not None and part(worth, "movement"):
                told = f"{before:.2f} blind, {told} in the end"
            rows.append([called, told, read_as])
    movement = part(worth, "movement")
    if movement:
        rows.append(
            [
                "changed their answer",
                f"{amount(movement.get('changed'))} of {amount(movement.get('changeable'))}",
                "of those who answered both times",
            ]
        )
        conformity = number(movement.get("conformity"))
        if conformity is not None:
            leader = shown(movement.get("blind_leader"), limit=80)
            rows.append(
                [
                    "conformity",
                    f"{conformity:.0%}",
                    f"of those who changed, towards {leader}, which led the blind round",
                ]
            )
    shares = worth.get("agreement")
    latest = shares.get("shares") if isinstance(shares, dict) else None
    if isinstance(latest, list) and latest and (now := number(latest[0])) is not None:
        told = f"{now:.0%}"
        if len(latest) > 1:
            told += f" now; {counted(len(latest) - 1, 'earlier deliberation')}: " + ", ".join(
                f"{value:.0%}" for each in latest[1:10] if (value := number(each)) is not None
            )
        rows.append(["largest position", told, "more than 90 % ten times in a row is a reason to look for groupthink"])
    return rows


def _votes(worth: Document) -> list[list[str]]:
    measured = part(worth, "effective_votes")
    rows = []
    for name, called in (
        ("across", "effective votes, over earlier deliberations"),
        ("within", "effective votes, from this one alone"),
    ):
        found = part(measured, name)
        if not found:
            continue
        low, high, voters = (number(found.get(key)) for key in ("low", "high", "voters"))
        value = number(found.get("value"))
        between = f"{amount(low, 3)} to {amount(high, 3)} of {amount(voters)}"
        told = f"not known, {between}" if value is None else f"{value:.1f} ({between})"
        questions = number(found.get("questions"))
        note = shown(found.get("note") or "", limit=300)
        if name == "across" and questions:
            note += f" ({counted(questions, 'question')})"
        rows.append([called, told + _interval(low, high, value, voters), note])
    return rows


def _interval(low: float | None, high: float | None, value: float | None, voters: float | None) -> str:
    """The interval on a line from no vote to all of them."""
    if low is None or high is None or not voters or voters <= 0:
        return ""
    left, right = (100 * min(1.0, max(0.0, end / voters)) for end in (low, high))
    at = (
        ""
        if value is None
        else f'<rect class="at" x="{100 * min(1.0, max(0.0, value / voters)):.1f}" width="1" height="10"/>'
    )
    return (
        '<svg class="interval" viewBox="0 0 101 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="ground" y="4" width="101" height="2"/><rect x="{left:.1f}" y="2" width="{max(0.5, right - left):.1f}" height="6"/>'
        f"{at}</svg>"
    )


def _echoes(worth: Document) -> list[list[str]]:
    rows = []
    for group in items(worth, "copies")[:_MOST_GROUPS]:
        agents = list(group.get("agents") or ())
        rows.append(
            [
                "like copies of each other",
                listed(agents, most=8),
                f"the same blind answers more often than {counted(number(group.get('questions')) or 0, 'question')} explain",
            ]
        )
    same = worth.get("same_words")
    rows += [
        ["the same reason word for word", listed(agents, most=8), "in the blind round of this deliberation"]
        for agents in (same if isinstance(same, list) else [])[:_MOST_GROUPS]
        if isinstance(agents, list)
    ]
    return rows


def _winners(reading: Reading, worth: Document) -> str:
    rows = []
    for each in items(worth, "winners"):
        same = (each.get("status"), each.get("decision")) == (
            reading.outcome.get("status"),
            reading.outcome.get("decision"),
        )
        rows.append(
            [
                shown(str(each.get("rule")).replace("_", " "), limit=40),
                _winner(reading, each),
                "the same" if same else "<b>another result</b>",
            ]
        )
    caption = "What every rule decides on these ballots"
    return table(["rule", "decides", "compared"], rows, caption=caption, words=(1, 2))


def _winner(reading: Reading, each: Document) -> str:
    if each.get("status") != "decided":
        return {"tied": "a tie", "no_majority": "no majority"}.get(str(each.get("status")), shown(each.get("status")))
    decision = each.get("decision")
    if number(decision) is not None:
        return amount(decision)
    place = reading.place_of(decision)
    return ("" if place is None else f"{mark(place)} ") + shown(decision, limit=200)


def _control(reading: Reading) -> str:
    control = part(reading.document, "control")
    if not control:
        return ""
    model = shown(control.get("model") or "the default model", limit=100)
    title = "<h3>Control: one model alone</h3>"
    if not control.get("status"):
        return f"{title}<p>{model} was to be asked alone as often, and could not be.</p>"
    said = f"<p>{model} was asked alone {counted(number(control.get('asked')) or 0, 'time')}: "
    tally = {str(name): value for name, count in part(control, "tally").items() if (value := number(count)) is not None}
    if not tally:
        return f"{title}{said}{plain(control['status'], limit=40)}.</p>"
    found = {"status": control.get("outcome_status"), "decision": control.get("decision")}
    own = reading.tally
    names: Sequence[str] = list(dict.fromkeys([*own, *tally]))
    rows = []
    for name in names[:40]:
        place = reading.place_of(name)
        marked = "" if place is None else f"{mark(place)} "
        rows.append([marked + shown(name, limit=80), amount(own.get(name, 0)), amount(tally.get(name, 0))])
    compared = (
        ""
        if reading.is_estimate
        else table(["answer", "these agents", "one model"], rows, caption="Beside the control")
    )
    return f"{title}{said}{_winner(reading, found)}.</p>{compared}"
