"""What the whole analysis of a 72-agent deliberation takes, by kind of answer, with and without earlier deliberations.

    python -m benchmarks.analysis [--repetitions 9] [--json FILE]

Each row is the median of the thread's own processor time, so that a busy machine changes little. The target is 50 ms. Beside it, how
far measured effective votes of simulated juries are from the truth, by correlation and number of questions.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from domain.analysis.decision import decide
from domain.analysis.effective_votes import effective, measure_across
from domain.analysis.past import PastBallots, Voice
from domain.analysis.worth import assess
from domain.models.agent import Agent, Persona, Roster
from domain.models.deliberation import Deliberation, DeliberationStatus, Specification
from domain.models.protocol import Protocol, ProtocolKind
from domain.models.question import AnswerFormat, AnswerKind, Question
from domain.models.roll_call import AgentState
from domain.models.round import AgentRecord
from domain.voting.ballot import Answer
from domain.voting.rule import default_rule

_AGENTS = 72
_EARLIER = 200
_AT = datetime(2026, 1, 1, tzinfo=UTC)
_TARGET_MS = 50
_MODELS = ("small", "large", "other")
_VERDICT = AnswerFormat(AnswerKind.VERDICT)


def _options(count: int) -> tuple[str, ...]:
    return tuple(f"option {number}" for number in range(count))


def _draw(draw: random.Random, answer: AnswerFormat) -> Answer:
    if answer.kind is AnswerKind.RANKING:
        return tuple(draw.sample(answer.options, len(answer.options)))
    if answer.kind is AnswerKind.APPROVAL:
        return tuple(option for option in answer.options if draw.random() < 0.4)
    if answer.kind.is_estimate:
        return draw.random()
    return draw.choice(answer.options or ("yes", "no"))


def _deliberation(answer: AnswerFormat, rounds: int = 1) -> Deliberation:
    draw = random.Random(7)
    agents = [Agent(f"agent-{n}", Persona(f"Persona {n % 9}."), _MODELS[n % 3]) for n in range(_AGENTS)]
    protocol = Protocol(ProtocolKind.DELPHI if rounds > 1 else ProtocolKind.POLL)
    asked = Specification(
        Question("Which?", None, answer), Roster.assemble("bench", agents), default_rule(answer.kind), protocol
    )
    running = Deliberation.accept(asked, at=_AT, orchestrator="bench", simulated=True, key_name=None).start(at=_AT)
    records = [
        AgentRecord(
            number, agent.id, AgentState.ANSWERED, 1, None, _AT, answer=_draw(draw, answer), model=agent.model,
            reasoning=f"Because of {agent.id}, and of {number} more reasons that take a sentence."
        )
        for number in range(rounds)
        for agent in agents
    ]  # fmt: skip
    whole, outcome = decide(running, records)
    return running.end(DeliberationStatus.COMPLETED, at=_AT, rounds=whole, outcome=outcome)


def _voices() -> tuple[Voice, ...]:
    return tuple((f"agent-{n}", _MODELS[n % 3]) for n in range(_AGENTS))


def _jury(questions: int, correlation: float, *, seed: int, resolved: bool = True) -> list[PastBallots]:
    draw, heard = random.Random(seed), []
    for number in range(questions):
        share = 0.7
        if correlation:
            weight = 1 / correlation - 1
            share = draw.betavariate(0.7 * weight, 0.3 * weight)
        truth, lie = ("yes", "no") if draw.random() < 0.5 else ("no", "yes")
        blind = {voice: truth if draw.random() < share else lie for voice in _voices()}
        at = _AT + timedelta(hours=number)
        heard.append(PastBallots(f"q-{number}", at, _VERDICT, blind, 0.8, truth if resolved else None))
    return heard


def _median_ms(over: Deliberation, past: Sequence[PastBallots], repetitions: int) -> float:
    times = []
    for _ in range(repetitions):
        began = time.thread_time()
        assess(over, past)
        times.append((time.thread_time() - began) * 1e3)
    return statistics.median(times)


def main() -> None:
    """Print both tables, and append them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    past = _jury(_EARLIER, 0.1, seed=1)
    kinds = {
        "verdict": _deliberation(_VERDICT),
        "choice of 3": _deliberation(AnswerFormat(AnswerKind.CHOICE, _options(3))),
        "choice of 3, 4 rounds": _deliberation(AnswerFormat(AnswerKind.CHOICE, _options(3)), 4),
        "approval of 10": _deliberation(AnswerFormat(AnswerKind.APPROVAL, _options(10))),
        "ranking of 5": _deliberation(AnswerFormat(AnswerKind.RANKING, _options(5))),
        "ranking of 10": _deliberation(AnswerFormat(AnswerKind.RANKING, _options(10))),
        "ranking of 50": _deliberation(AnswerFormat(AnswerKind.RANKING, _options(50))),
        "score": _deliberation(AnswerFormat(AnswerKind.SCORE, (), 0.0, 1.0)),
        "probability": _deliberation(AnswerFormat(AnswerKind.PROBABILITY)),
    }
    print(f"Analysis of {_AGENTS} agents in ms of processor time, target {_TARGET_MS}")
    print(f"| answer | alone | with {_EARLIER} earlier |\n|---|---|---|")
    times = {}
    for name, over in kinds.items():
        times[name] = [_median_ms(over, each, arguments.repetitions) for each in ((), past)]
        print(f"| {name} | {times[name][0]:.1f} | {times[name][1]:.1f} |")
    print(
        "\nEffective votes of simulated juries of 72, resolved: true value, and the worst of 10 measured, in per cent off"
    )
    print("| correlation | true | 30 questions | 100 | 300 |\n|---|---|---|---|---|")
    errors = {}
    for correlation in (0.0, 0.1, 0.3, 0.5):
        true = effective(_AGENTS, correlation)
        errors[correlation] = [_worst(correlation, true, questions) for questions in (30, 100, 300)]
        print(f"| {correlation} | {true:.1f} | {' | '.join(f'{error:.0f}' for error in errors[correlation])} |")
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        with arguments.json.open("a") as file:
            file.write(json.dumps({"times_ms": times, "errors_percent": errors}) + "\n")


def _worst(correlation: float, true: float, questions: int) -> float:
    found = []
    for seed in range(10):
        measured = measure_across(_VERDICT, _voices(), _jury(questions, correlation, seed=seed))
        if measured is not None and measured.value is not None:
            found.append(abs(measured.value / true - 1) * 100)
    return max(found)


if __name__ == "__main__":
    main()
