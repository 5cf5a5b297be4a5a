"""How long each rule takes on its hardest profiles, beside the bound that it is to keep, and votelib where it has the rule.

    python -m benchmarks.rules [--repetitions 7] [--json FILE]

Each profile is random, so that every option keeps standing and every pair is close. Times are the best of the repetitions, in
processor time of one thread; votelib counts the same ballots once, from the form that it takes.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from domain.models.question import AnswerFormat, AnswerKind
from domain.voting.ballot import Ballot
from domain.voting.profile import named_options
from domain.voting.rule import Rule, RuleKind, apply_rule, rules_for

_SIZES = ((72, 50, 20.0), (10_000, 20, 1_000.0))
"""Ballots, options, and the milliseconds that no rule may take."""

_SENTENCES = (
    "Close it.",
    "Leave it open.",
    "Close it on weekends only.",
    "Ask those who live there.",
    "Count cars first.",
)


def ballots_of(kind: AnswerKind, *, ballots: int, options: Sequence[str]) -> list[Ballot]:
    """Random ballots of that kind; rankings are whole, approvals name half of the options."""
    chance = random.Random(ballots)

    def answer() -> Any:
        if kind is AnswerKind.RANKING:
            return tuple(chance.sample(options, len(options)))
        if kind is AnswerKind.APPROVAL:
            return tuple(chance.sample(options, len(options) // 2))
        if kind is AnswerKind.CHOICE:
            return chance.choice(options)
        if kind is AnswerKind.VERDICT:
            return chance.choice(("yes", "no"))
        if kind is AnswerKind.TEXT:
            return " ".join(chance.sample(_SENTENCES, 3))
        return chance.uniform(0.001, 0.999)

    return [Ballot(f"agent-{place}", answer(), 0.5 + chance.random() / 2) for place in range(ballots)]


def best_ms(work: Callable[[], object], repetitions: int) -> float:
    """The shortest of so many runs, in milliseconds."""
    times = []
    for _ in range(repetitions):
        began = time.thread_time()
        work()
        times.append(time.thread_time() - began)
    return min(times) * 1e3


def measured(repetitions: int) -> list[dict[str, Any]]:
    """A row for each rule and size."""
    rows = []
    for ballots, size, bound in _SIZES:
        options = tuple(f"option {number}" for number in range(size))
        for kind in AnswerKind:
            if kind is AnswerKind.TEXT and ballots > 72:
                # There are never more texts than agents.
                continue
            answer = AnswerFormat(kind, options if kind.has_options else (), 0.0, 1.0)
            given = ballots_of(kind, ballots=ballots, options=options)
            for rule in rules_for(kind):
                peer = _peer(rule, given, options) if kind in {AnswerKind.RANKING, AnswerKind.APPROVAL} else None
                # With a lottery a run-off has one course only, without one it follows all that ties leave open.
                for chosen in (Rule(rule), Rule(rule, tie_break="lottery"))[: 2 if rule is RuleKind.IRV else 1]:
                    count = partial(apply_rule, chosen, answer, given, asked=len(given), seed=7)
                    rows.append(
                        {
                            "ballots": ballots,
                            "options": size if kind.has_options else None,
                            "answer": kind.value,
                            "rule": f"{rule.value}{' with lottery' if chosen.tie_break else ''}",
                            "ms": round(best_ms(count, repetitions), 3),
                            "bound_ms": None if kind is AnswerKind.TEXT else bound,
                            "votelib_ms": None if peer is None else round(best_ms(peer, 1), 3),
                        }
                    )
    return rows


def _peer(rule: RuleKind, given: Sequence[Ballot], options: Sequence[str]) -> Callable[[], object] | None:
    """votelib counting the same ballots, where it is installed and has the rule."""
    if find_spec("votelib") is None:
        return None
    import votelib.convert
    from votelib.component.rankscore import Borda
    from votelib.evaluate.condorcet import Copeland, MinimaxCondorcet, Schulze
    from votelib.evaluate.core import Plurality

    place = {option: number for number, option in enumerate(options)}
    # By number: votelib takes a name of several letters for several candidates.
    orders = Counter(tuple(place[option] for option in named_options(ballot.answer)) for ballot in given)
    votes: dict[Any, int] = dict(orders)

    def pairs() -> Any:
        return votelib.convert.RankedToCondorcetVotes().convert(votes)

    known: Mapping[RuleKind, Callable[[], object]] = {
        RuleKind.BORDA: lambda: Plurality().evaluate(
            votelib.convert.RankedToPositionalVotes(Borda(base=0)).convert(votes), 1
        ),
        RuleKind.COPELAND: lambda: Copeland(second_order=False).evaluate(pairs(), 1),
        RuleKind.MINIMAX: lambda: MinimaxCondorcet().evaluate(pairs(), 1),
        RuleKind.SCHULZE: lambda: Schulze().evaluate(pairs(), 1),
        RuleKind.PLURALITY: lambda: Plurality().evaluate(votelib.convert.RankedToFirstPreference().convert(votes), 1),
    }
    return known.get(rule)


def main() -> None:
    """Measure, print a table, and say whether every bound is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = measured(arguments.repetitions)
    print(f"{platform.python_implementation()} {platform.python_version()} on {platform.machine()}\n")
    print(f"{'ballots':>8} {'options':>8}  {'answer':<12} {'rule':<18} {'ms':>9} {'bound':>7} {'votelib':>9}")
    for row in rows:
        bound, peer = row["bound_ms"], row["votelib_ms"]
        print(
            f"{row['ballots']:>8} {row['options'] or '-':>8}  {row['answer']:<12} {row['rule']:<18} {row['ms']:>9.3f} "
            f"{'-' if bound is None else format(bound, '.0f'):>7} {'-' if peer is None else format(peer, '.1f'):>9}"
        )
    late = [row for row in rows if row["bound_ms"] is not None and row["ms"] > row["bound_ms"]]
    print(f"\n{'Every bound is kept.' if not late else f'{len(late)} bounds are not kept.'}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    raise SystemExit(1 if late else 0)


if __name__ == "__main__":
    main()
