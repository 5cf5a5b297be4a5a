"""The tally of every rule as bars, for rankings who is preferred to whom, and for numbers how they lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from api.report.marks import letter_of, mark
from api.report.pieces import amount, listed, table
from api.report.reading import Reading, number, part
from application.pages.html_text import plain, shown
from domain.counted import counted
from domain.voting.ballot import Ballot
from domain.voting.profile import Profile

__all__ = ["OF_AGENTS", "tally_of", "unit_of"]

_UNITS: Mapping[str, str] = {
    "plurality": "votes",
    "threshold": "votes",
    "approval": "approvals",
    "borda": "points",
    "copeland": "wins",
    "schulze": "first places",
    "minimax": "first places",
    "irv": "first places",
    "synthesis": "texts",
}
OF_AGENTS = frozenset({"votes", "approvals", "first places", "texts"})
"""What an agent has one of, or one for each of several options: of these there are shares of all who were asked."""
_BINS = 12
_MOST_ROWS = 60
_MOST_PAIRED = 12


def tally_of(reading: Reading) -> str:
    """Everything that was counted; nothing where nothing was."""
    if reading.is_estimate:
        return _histogram(reading)
    return _bars(reading) + _matrix(reading)


def unit_of(reading: Reading) -> str:
    """What the rule counts, in the plural."""
    rule = str(reading.outcome.get("rule") or part(reading.document, "rule").get("kind") or "")
    unit = _UNITS.get(rule, "votes")
    return f"{unit}, weighted" if part(reading.document, "rule").get("weighted_by") else unit


def _bars(reading: Reading) -> str:
    tally = reading.tally
    if not tally:
        return ""
    blind = part(reading.outcome, "blind_tally")
    has_blind = len(reading.rounds) > 1 and bool(blind)
    places = part(reading.outcome, "places")
    # Of approvals an agent gives several, so that they are shares of those who answered.
    whole = float(reading.roll_call.get("answered", 0)) if reading.answer_kind == "approval" else sum(tally.values())
    most = max([*tally.values(), *(number(count) or 0 for count in blind.values())], default=0)
    order = sorted(tally, key=lambda name: (number(places.get(name)) or 0, -tally[name]))
    unit = unit_of(reading)
    heads = (
        ["answer", '<span class="unseen">bar</span>', unit, "share"]
        + (["blind round"] if has_blind else [])
        + (["place"] if places else [])
    )
    rows = []
    for name in order[:_MOST_ROWS]:
        count = tally[name]
        place = reading.place_of(name)
        row = [
            f"{'' if place is None else mark(place)} {shown(name, limit=200)}",
            _bar(place, count / most if most else 0.0),
            f"{count:,.10g}",
            f"{100 * count / whole:.1f} %" if whole else "",
        ]
        row += [amount(blind.get(name, 0))] if has_blind else []
        row += [amount(places.get(name))] if places else []
        rows.append(row)
    left = len(order) - len(rows)
    more = f'<p class="soft">and {counted(left, "more answer")}</p>' if left > 0 else ""
    return table(heads, rows, caption=f"Tally in {unit}", style="bars") + more


def _bar(place: int | None, share: float) -> str:
    style = "" if place is None else f' class="p{place % 8}"'
    return (
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="ground" width="100" height="10"/><g{style}><rect width="{100 * share:.2f}" height="10"/></g></svg>'
    )


def _matrix(reading: Reading) -> str:
    """Row by column: how many rank the row above the column; from the ballots, as the rules read them."""
    if not any(isinstance(output.get("answer"), list | tuple) for output in reading.ballots.values()):
        return ""
    weighted_by = part(reading.document, "rule").get("weighted_by")
    if reading.answer_kind == "approval" or weighted_by not in {None, "confidence"}:
        return ""
    options = list(reading.tally)
    known = set(options)
    ballots = []
    for agent, output in reading.ballots.items():
        if isinstance(output.get("answer"), list | tuple):
            # Of statements some are dropped after they were ranked.
            ranked = tuple(name for each in output["answer"] if (name := str(each)) in known)
            ballots.append(Ballot(agent, ranked or None, number(output.get("confidence"))))
    if not ballots or len(options) < 2:
        return ""
    profile = Profile.of(ballots, options, weighted=weighted_by is not None)
    pairs = profile.pairwise()
    places = part(reading.outcome, "places")
    order = sorted(range(len(options)), key=lambda place: (number(places.get(options[place])) or 0, place))
    paired = order[:_MOST_PAIRED]
    heads = ["ranked above", *(_short(reading, options[column]) for column in paired)]
    rows = [
        [
            f"{_short(reading, options[row])} {shown(options[row], limit=60)}",
            *(_pair(pairs[row][column], pairs[column][row], profile.scale, row == column) for column in paired),
        ]
        for row in paired
    ]
    left = len(order) - len(paired)
    more = f" Only the first {len(paired)} of {len(order)} options are shown." if left else ""
    return (
        "<h3>Option against option</h3>"
        '<p class="soft">How many rank the option of the row above that of the column; <b>bold</b> where more do than the '
        f"other way.{more}</p>" + table(heads, rows, caption="Pairwise preferences", style="pairs")
    )


def _short(reading: Reading, name: str) -> str:
    place = reading.place_of(name)
    if place is None:
        return shown(name, limit=3)
    return f'{mark(place)}<span class="unseen">{letter_of(place)}</span>'


def _pair(won: int, lost: int, scale: int, is_same: bool) -> str:  # noqa: FBT001 - the diagonal
    if is_same:
        return "·"
    told = f"{won / scale:.4g}"
    return f"<b>{told}</b>" if won > lost else told


def _histogram(reading: Reading) -> str:
    numbers = _numbers(reading)
    if not numbers:
        return ""
    unit = part(reading.document, "answer").get("unit")
    said = f" {plain(unit, limit=40)}" if unit else ""
    values = sorted(value for value, count in numbers for _ in range(max(1, round(count))))
    low, high = values[0], values[-1]
    decision = number(reading.outcome.get("decision"))
    drawn_ = _bins(values, low, high, decision, said) if high > low else ""
    spread = reading.outcome.get("spread")
    rows = [
        [name, f"{value}{said}"]
        for name, value in (
            ("least", amount(low)),
            ("lower quartile", amount(_quantile(values, 0.25), 6)),
            ("median", amount(_quantile(values, 0.5), 6)),
            ("upper quartile", amount(_quantile(values, 0.75), 6)),
            ("most", amount(high)),
            *([("spread (interquartile range)", amount(spread, 6))] if spread is not None else []),
        )
    ]
    outliers = reading.outcome.get("outliers")
    apart = (
        f"<p>Far from all others (Tukey's fences): {listed(outliers)}.</p>"
        if isinstance(outliers, list) and outliers
        else ""
    )
    return drawn_ + apart + table(["of the numbers", "value"], rows, caption="The numbers that were given")


def _numbers(reading: Reading) -> list[tuple[float, float]]:
    """Each number with how often it counts, from the ballots, or from the tally where there are none."""
    found = [(value, 1.0) for each in reading.ballots.values() if (value := number(each.get("answer"))) is not None]
    if found:
        return found
    for name, count in reading.tally.items():
        try:
            found.append((float(name), count))
        except ValueError:
            continue
    return found


def _bins(values: Sequence[float], low: float, high: float, decision: float | None, said: str) -> str:
    width = (high - low) / _BINS
    if not width or width != width or width == float("inf"):
        return ""
    counts = [0] * _BINS
    for value in values:
        counts[min(_BINS - 1, int((value - low) / width))] += 1
    most = max(counts)
    drawn_ = "".join(
        f'<rect x="{place * 100 / _BINS + 0.4:.2f}" y="{100 - 100 * count / most:.2f}" width="{100 / _BINS - 0.8:.2f}" '
        f'height="{100 * count / most:.2f}"><title>{low + place * width:.5g} to {low + (place + 1) * width:.5g}: {count}</title></rect>'
        for place, count in enumerate(counts)
        if count
    )
    line, told = "", ""
    if decision is not None:
        at = 100 * min(1.0, max(0.0, (decision - low) / (high - low)))
        line = f'<line x1="{at:.2f}" x2="{at:.2f}" y1="0" y2="100"/>'
        told = f"; the line is the decision, {amount(decision, 6)}{said}"
    label = f"Histogram of {len(values)} numbers from {low:.5g} to {high:.5g}{said}{told}"
    return (
        f'<figure class="histogram"><svg role="img" aria-label="{label}" viewBox="0 0 100 100" preserveAspectRatio="none">'
        f"{drawn_}{line}</svg>"
        f'<div class="axis"><span>{low:.5g}</span><span>{low + (high - low) / 2:.5g}</span><span>{high:.5g}{said}</span></div>'
        f"<figcaption>How many agents gave a number in each twelfth of the range; at most {most}{told}.</figcaption></figure>"
    )


def _quantile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
