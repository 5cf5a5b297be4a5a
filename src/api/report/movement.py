"""What talking did: from the blind answers to the final ones, as streams between positions or as lines between numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from api.report.marks import drawn, mark, style_of
from api.report.pieces import table
from api.report.reading import Reading, first_choice, items, number, part
from application.pages.html_text import plain, shown
from domain.counted import counted

__all__ = ["changes_of", "rounds_of"]

_WIDTH, _HEIGHT, _SIDE = 640.0, 260.0, 112.0
# What is a mark high, so that those of two thin streams do not touch.
_GAP = 36.0
_BAR = 16.0
_NOBODY = "no answer"
_LEFT = " left"
_MOST_CHANGES = 100
_MOST_NODES = 12
_MOST_IN_A_TALLY = 4


def rounds_of(reading: Reading) -> str:
    """A line for each round, where there were several; the statement that was found in common; and what a poll saved."""
    found = ""
    if len(reading.rounds) > 1:
        heads = ["round", "for", "took part", "kept an earlier ballot", "tally"]
        found = table(
            heads, [_round(reading, each) for each in reading.rounds], caption="Rounds", words=(1, 4), is_quiet=True
        )
    saved = part(reading.document, "saved")
    if saved:
        agents, calls = number(saved.get("agents")) or 0, number(saved.get("calls")) or 0
        found += (
            f"<p>Stopped early: {counted(agents, 'agent')} were not asked, because they could not have changed the decision. "
            f"That saved {counted(calls, 'call')}.</p>"
        )
    return found


def _round(reading: Reading, each: Mapping[str, object]) -> list[str]:
    roll_call = part(each, "roll_call")
    took_part = sum(int(number(roll_call.get(state)) or 0) for state in ("answered", "abstained"))
    tally = sorted(
        ((str(name), number(count) or 0) for name, count in part(each, "tally").items()), key=lambda item: -item[1]
    )
    if reading.is_estimate:
        said = counted(len(tally), "different number") if tally else "-"
    else:
        said = ", ".join(f"{shown(name, limit=60)} {count:g}" for name, count in tally[:_MOST_IN_A_TALLY]) or "-"
        said += " and more" if len(tally) > _MOST_IN_A_TALLY else ""
    blind = " (blind)" if each.get("round") == 0 else ""
    return [
        f"{shown(each.get('round'), limit=8)}{blind}",
        shown(str(each.get("purpose") or "answer").replace("_", " "), limit=40),
        f"{took_part} of {int(number(roll_call.get('asked')) or 0)}",
        str(len(items(each, "kept"))),
        said,
    ]


def changes_of(reading: Reading) -> str:
    """The flow from blind to final, and who changed; nothing where there was one round."""
    if len(reading.rounds) < 2 or not reading.has_outcome:
        return ""
    drawn_ = _slopes(reading) if reading.is_estimate else _streams(reading)
    changed = items(reading.outcome, "changed")
    if not changed and not drawn_:
        return ""
    rows = [
        [shown(each.get("agent_id"), limit=128), _answer(reading, each.get("from")), _answer(reading, each.get("to"))]
        for each in changed[:_MOST_CHANGES]
    ]
    left = len(changed) - len(rows)
    more = f'<p class="soft">and {left} more</p>' if left > 0 else ""
    said = "<p>Nobody changed the answer.</p>" if not changed else ""
    return drawn_ + said + table(["agent", "from", "to"], rows, caption="Who changed", words=(1, 2)) + more


def _answer(reading: Reading, name: object) -> str:
    place = reading.place_of(name)
    return ("" if place is None else f"{mark(place)} ") + shown(name, limit=80)


def _streams(reading: Reading) -> str:
    pairs = _pairs(reading)
    if not pairs:
        return ""
    order = [*reading.names, _NOBODY]
    sides = []
    for side in (0, 1):
        sizes: dict[str, float] = {}
        for pair, count in pairs.items():
            sizes[pair[side]] = sizes.get(pair[side], 0) + count
        sides.append({name: sizes[name] for name in order if name in sizes})
    if max(map(len, sides)) > _MOST_NODES:
        return ""
    total = sum(pairs.values())
    scale = _HEIGHT / total
    height = _HEIGHT + _GAP * (max(map(len, sides)) - 1)
    tops = [_tops(side, scale, height) for side in sides]
    taken = [dict(side) for side in tops]
    bands = ""
    for before, after in sorted(pairs, key=lambda pair: (order.index(pair[0]), order.index(pair[1]))):
        high = pairs[before, after] * scale
        left, right = taken[0][before], taken[1][after]
        taken[0][before] += high
        taken[1][after] += high
        told = plain(f"{before} to {after}: {pairs[before, after]:g}", limit=200)
        style = "stay" if before == after else "move"
        bands += f'<path class="{style_of(_place(reading, before))} {style}" d="{_band(left, right, high)}"><title>{told}</title></path>'
    nodes = "".join(
        _node(reading, name, size, tops[side][name], size * scale, side=side)
        for side in (0, 1)
        for name, size in sides[side].items()
    )
    moved = ", ".join(f"{before} to {after} {count:g}" for (before, after), count in pairs.items() if before != after)
    label = plain(f"From the blind round, left, to the end, right. {moved or 'Nobody moved'}.", limit=1_000)
    return (
        f'<figure class="flow"><svg role="img" aria-label="{label}" viewBox="0 -20 {_WIDTH:.0f} {height + 40:.0f}">{bands}{nodes}</svg>'
        "<figcaption>Left the blind round, right the end; what crosses over changed. Letters as in the tally"
        f"{', – without an answer' if any(_NOBODY in side for side in sides) else ''}.</figcaption></figure>"
    )


def _pairs(reading: Reading) -> dict[tuple[str, str], float]:
    """How many went from which position to which, staying included."""
    if reading.answer_kind in {"text", "approval"}:
        return {}
    found: dict[tuple[str, str], float] = {}
    agents = dict.fromkeys([*reading.blind, *reading.ballots])
    known = set(reading.names)
    for agent in agents:
        sides = [_named(first_choice(each.get(agent, {})), known) for each in (reading.blind, reading.ballots)]
        if sides != [_NOBODY, _NOBODY]:
            found[sides[0], sides[1]] = found.get((sides[0], sides[1]), 0) + 1
    return found or _recorded_pairs(reading)


def _recorded_pairs(reading: Reading) -> dict[tuple[str, str], float]:
    """The same from what the outcome alone says."""
    found: dict[tuple[str, str], float] = {}
    known = set(reading.names)
    staying = {
        str(name): number(count) or 0 for name, count in part(reading.outcome, "blind_tally").items() if name in known
    }
    for each in items(reading.outcome, "changed"):
        pair = _named(each.get("from"), known), _named(each.get("to"), known)
        found[pair] = found.get(pair, 0) + 1
        staying[pair[0]] = staying.get(pair[0], 0) - 1
    return {**found, **{(name, name): count for name, count in staying.items() if count > 0}}


def _named(name: object, known: set[str]) -> str:
    return str(name) if str(name) in known else _NOBODY


def _place(reading: Reading, name: str) -> int | None:
    return None if name == _NOBODY else reading.place_of(name)


def _tops(side: Mapping[str, float], scale: float, height: float) -> dict[str, float]:
    """Where each node begins, those of a side together in the middle of the height."""
    whole = sum(side.values()) * scale + _GAP * (len(side) - 1)
    found, at = {}, (height - whole) / 2
    for name, size in side.items():
        found[name] = at
        at += size * scale + _GAP
    return found


def _band(left: float, right: float, high: float) -> str:
    start, end, middle = _SIDE + _BAR, _WIDTH - _SIDE - _BAR, _WIDTH / 2
    return (
        f"M{start} {left:.1f}C{middle} {left:.1f} {middle} {right:.1f} {end} {right:.1f}V{right + high:.1f}"
        f"C{middle} {right + high:.1f} {middle} {left + high:.1f} {start} {left + high:.1f}Z"
    )


def _node(reading: Reading, name: str, size: float, top: float, high: float, *, side: int) -> str:
    place = _place(reading, name)
    at = _SIDE if side == 0 else _WIDTH - _SIDE - _BAR
    outside = _SIDE - 52 if side == 0 else _WIDTH - _SIDE + 52
    middle = top + high / 2
    return (
        f'<g class="{style_of(place)}"><rect x="{at}" y="{top:.1f}" width="{_BAR}" height="{max(high, 1.0):.1f}"/></g>'
        f"{drawn(place, 'abstained', at - 26 if side == 0 else at + _BAR + 26, middle, 16)}"
        f'<text class="size{_LEFT if side == 0 else ""}" x="{outside}" y="{middle + 8:.1f}">{size:g}</text>'
    )


def _slopes(reading: Reading) -> str:
    """For numbers: a line for each agent from what it said blind to what it said last."""
    moves = []
    for agent, output in reading.ballots.items():
        before, after = number(reading.blind.get(agent, {}).get("answer")), number(output.get("answer"))
        if before is not None and after is not None:
            moves.append((agent, before, after))
    values: Sequence[float] = [value for _, *pair in moves for value in pair]
    if not moves or max(values) <= min(values):
        return ""
    low, high = min(values), max(values)

    def down(value: float) -> float:
        return _HEIGHT * (1 - (value - low) / (high - low))

    lines = "".join(
        f'<line class="{"stay" if before == after else "move"}" x1="{_SIDE}" y1="{down(before):.1f}" x2="{_WIDTH - _SIDE}" '
        f'y2="{down(after):.1f}"><title>{plain(f"{agent}: {before:g} to {after:g}", limit=200)}</title></line>'
        for agent, before, after in moves
    )
    ends = "".join(
        f'<text class="size{kind}" x="{at}" y="{y + 8:.1f}">{value:.5g}</text>'
        for at, kind in ((_SIDE - 10, _LEFT), (_WIDTH - _SIDE + 10, ""))
        for value, y in ((low, _HEIGHT), (high, 0.0))
    )
    changed = sum(before != after for _, before, after in moves)
    label = plain(
        f"The numbers of {len(moves)} agents in the blind round, left, and in the end, right; {changed} changed",
        limit=300,
    )
    return (
        f'<figure class="flow"><svg role="img" aria-label="{label}" viewBox="0 -14 {_WIDTH:.0f} {_HEIGHT + 28:.0f}">{lines}{ends}</svg>'
        "<figcaption>Each line is an agent: its blind number left, its last one right. "
        f"{changed} of {len(moves)} changed.</figcaption></figure>"
    )
