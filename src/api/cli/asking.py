"""The options that describe a deliberation, and the request that they make."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.options import finite

__all__ = [
    "AgentsOption",
    "AnswerOption",
    "ContextFileOption",
    "ContextOption",
    "ControlOption",
    "DeadlineOption",
    "FractionOption",
    "MaxAttemptsOption",
    "MaxCostOption",
    "MaxRoundsOption",
    "MaximumOption",
    "MinimumOption",
    "NeighboursOption",
    "OptionsOption",
    "ProtocolOption",
    "QuestionArgument",
    "QuorumOption",
    "ReviewersOption",
    "RosterOption",
    "RoundsOption",
    "RuleOption",
    "SeedOption",
    "StrengthOption",
    "TieBreakOption",
    "TimeoutOption",
    "UnitOption",
    "WaveSizeOption",
    "WeightedByOption",
    "request_of",
]

_MAX_READ_BYTES = 1024 * 1024
_STDIN = "-"
_DEFAULT_MODEL = "default"

QuestionArgument = Annotated[
    str, typer.Argument(metavar="QUESTION", help="The question; - reads it from standard input.")
]
OptionsOption = Annotated[
    list[str] | None, typer.Option("--option", metavar="TEXT", help="An option to choose from; repeat it, 2 to 50.")
]
AnswerOption = Annotated[
    str | None,
    typer.Option(
        "--answer",
        metavar="KIND",
        help="choice, approval, ranking, verdict, score, probability, number or text; "
        "without it choice where there are options, else verdict.",
    ),
]
MinimumOption = Annotated[float | None, typer.Option("--min", metavar="X", callback=finite, help="Least score.")]
MaximumOption = Annotated[float | None, typer.Option("--max", metavar="X", callback=finite, help="Greatest score.")]
UnitOption = Annotated[str | None, typer.Option("--unit", metavar="TEXT", help="What a number counts.")]
ContextOption = Annotated[
    str | None, typer.Option("--context", metavar="TEXT", help="What every agent is told besides.")
]
ContextFileOption = Annotated[
    Path | None, typer.Option("--context-file", metavar="FILE", help="The same from a file; - is standard input.")
]
AgentsOption = Annotated[
    int | None, typer.Option("--agents", metavar="N", help="How many, 1 to 72; without it the whole roster.")
]
RosterOption = Annotated[str | None, typer.Option("--roster", metavar="NAME", help="Who is asked; without it archons.")]
ProtocolOption = Annotated[
    str | None, typer.Option("--protocol", metavar="KIND", help="How many rounds, who sees what; without it poll.")
]
WaveSizeOption = Annotated[
    int | None,
    typer.Option(
        "--wave-size",
        metavar="N",
        help="A poll asks so many at one time, and stops once the others could change nothing.",
    ),
]
MaxRoundsOption = Annotated[
    int | None, typer.Option("--max-rounds", metavar="N", help="Revisions of a delphi at most, 1 to 9; else 3.")
]
ReviewersOption = Annotated[
    int | None, typer.Option("--reviewers", metavar="N", help="How many review each answer of a peer_review; else 3.")
]
RoundsOption = Annotated[
    int | None, typer.Option("--rounds", metavar="N", help="Exchanges of a debate before its vote, 1 to 8; else 2.")
]
NeighboursOption = Annotated[
    int | None, typer.Option("--neighbours", metavar="N", help="How many others each one hears in a debate; else 4.")
]
RuleOption = Annotated[
    str | None, typer.Option("--rule", metavar="KIND", help="How ballots are counted; else as suits the answer.")
]
FractionOption = Annotated[
    float | None,
    typer.Option(
        "--fraction",
        metavar="X",
        callback=finite,
        help="The share of all asked that a threshold wants, or what a trimmed mean drops a side.",
    ),
]
TieBreakOption = Annotated[
    str | None,
    typer.Option("--tie-break", metavar="KIND", help="none, lottery or another rule; without it a tie stays one."),
]
StrengthOption = Annotated[
    str | None,
    typer.Option("--strength", metavar="KIND", help="Of pairwise wins: winning_votes, or margins."),
]
WeightedByOption = Annotated[
    str | None,
    typer.Option("--weighted-by", metavar="WHAT", help="confidence or record; else each ballot is one vote."),
]
QuorumOption = Annotated[
    float | None,
    typer.Option("--quorum", metavar="X", callback=finite, help="The share that has to take part; else 0.5."),
]
TimeoutOption = Annotated[
    float | None, typer.Option("--timeout", metavar="S", callback=finite, help="Seconds for each agent; else 120.")
]
DeadlineOption = Annotated[
    float | None, typer.Option("--deadline", metavar="S", callback=finite, help="Seconds for all; else 1800.")
]
MaxAttemptsOption = Annotated[
    int | None, typer.Option("--max-attempts", metavar="N", help="Calls for one answer at most; else 2.")
]
MaxCostOption = Annotated[
    float | None, typer.Option("--max-cost", metavar="USD", callback=finite, help="Money at most; else 5.")
]
ControlOption = Annotated[
    str | None,
    typer.Option(
        "--control",
        metavar="MODEL",
        help="Ask this model alone as often as all agents, and show it beside; default is the one that is asked anyway.",
    ),
]
OriginOption = Annotated[
    str | None,
    typer.Option(
        "--origin", metavar="NAME", help="Where the topic came from: autonomous, petition, scheduled; else api."
    ),
]
SeedOption = Annotated[int | None, typer.Option("--seed", metavar="N", help="Repeats what can be repeated.")]


def request_of(
    question: str,
    *,
    option: list[str] | None,
    answer: str | None,
    minimum: float | None,
    maximum: float | None,
    unit: str | None,
    context: str | None,
    context_file: Path | None,
    agents: int | None,
    roster: str | None,
    protocol: str | None,
    wave_size: int | None,
    max_rounds: int | None,
    reviewers: int | None,
    rounds: int | None,
    neighbours: int | None,
    rule: str | None,
    fraction: float | None,
    tie_break: str | None,
    strength: str | None,
    weighted_by: str | None,
    quorum: float | None,
    timeout: float | None,
    deadline: float | None,
    max_attempts: int | None,
    max_cost: float | None,
    seed: int | None,
    control: str | None = None,
    origin: str | None = None,
) -> dict[str, Any]:
    """The body of `POST /v1/deliberations`, without what was not given. Raises `typer.BadParameter`."""
    if context is not None and context_file is not None:
        raise typer.BadParameter("give --context or --context-file, not both")
    if question == _STDIN and context_file == Path(_STDIN):
        raise typer.BadParameter("only one of QUESTION and --context-file can come from standard input")
    return _present(
        question=_read(Path(_STDIN), "QUESTION") if question == _STDIN else question,
        context=context if context_file is None else _read(context_file, "--context-file"),
        answer=_present(
            kind=answer or ("choice" if option else "verdict"), options=option, min=minimum, max=maximum, unit=unit
        ),
        agents=_present(count=agents, roster=roster),
        protocol=_present(
            kind=protocol,
            wave_size=wave_size,
            max_rounds=max_rounds,
            reviewers_per_answer=reviewers,
            rounds=rounds,
            neighbours=neighbours,
        ),
        rule=_rule(rule, fraction) | _present(tie_break=tie_break, strength=strength, weighted_by=weighted_by),
        quorum=_present(min_answered_fraction=quorum),
        limits=_present(agent_timeout_s=timeout, deadline_s=deadline, max_attempts=max_attempts, max_cost_usd=max_cost),
        seed=seed,
        metadata=_present(origin=origin),
        control=None if control is None else {"model": None if control == _DEFAULT_MODEL else control},
    )


def _rule(kind: str | None, fraction: float | None) -> dict[str, Any]:
    # Only a threshold is set by a fraction alone.
    return _present(kind=kind or (None if fraction is None else "threshold"), fraction=fraction)


def _present(**fields: Any) -> dict[str, Any]:
    """The fields that were given; an empty part was not."""
    return {name: value for name, value in fields.items() if value is not None and value not in ({}, [])}


def _read(path: Path, what: str) -> str:
    """A text in UTF-8, from a file or from standard input. Raises `typer.BadParameter`."""
    try:
        if path == Path(_STDIN):
            content = sys.stdin.buffer.read(_MAX_READ_BYTES + 1)
        else:
            with path.open("rb") as file:
                content = file.read(_MAX_READ_BYTES + 1)
    except OSError as error:
        raise typer.BadParameter(f"{what}: {str(path)!r} cannot be read: {error.strerror}") from None
    if len(content) > _MAX_READ_BYTES:
        raise typer.BadParameter(f"{what}: more than {_MAX_READ_BYTES} bytes are not taken")
    try:
        return content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{what}: byte {error.start} is not UTF-8") from None
