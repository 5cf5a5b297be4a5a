"""`conclave quote` and `conclave usage`: what a deliberation would take, and what calls took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from api.cli.asking import (
    AgentsOption,
    AnswerOption,
    ContextFileOption,
    ContextOption,
    ControlOption,
    DeadlineOption,
    FractionOption,
    MaxAttemptsOption,
    MaxCostOption,
    MaximumOption,
    MaxRoundsOption,
    MinimumOption,
    NeighboursOption,
    OptionsOption,
    OriginOption,
    ProtocolOption,
    QuestionArgument,
    QuorumOption,
    ReviewersOption,
    RosterOption,
    RoundsOption,
    RuleOption,
    SeedOption,
    StrengthOption,
    TieBreakOption,
    TimeoutOption,
    UnitOption,
    WaveSizeOption,
    WeightedByOption,
    request_of,
)
from api.cli.options import JsonOption, ServerOption

__all__ = ["add_to"]

ByOption = Annotated[
    str, typer.Option("--by", metavar="WHAT", help="Sums by deliberation, key, provider, model or day.")
]


def add_to(app: typer.Typer) -> None:
    """Make the commands known."""
    app.command("quote")(quote)
    app.command("usage")(usage)


def quote(
    question: QuestionArgument,
    option: OptionsOption = None,
    answer: AnswerOption = None,
    minimum: MinimumOption = None,
    maximum: MaximumOption = None,
    unit: UnitOption = None,
    context: ContextOption = None,
    context_file: ContextFileOption = None,
    agents: AgentsOption = None,
    roster: RosterOption = None,
    protocol: ProtocolOption = None,
    wave_size: WaveSizeOption = None,
    max_rounds: MaxRoundsOption = None,
    reviewers: ReviewersOption = None,
    rounds: RoundsOption = None,
    neighbours: NeighboursOption = None,
    rule: RuleOption = None,
    fraction: FractionOption = None,
    tie_break: TieBreakOption = None,
    strength: StrengthOption = None,
    weighted_by: WeightedByOption = None,
    quorum: QuorumOption = None,
    timeout: TimeoutOption = None,
    deadline: DeadlineOption = None,
    max_attempts: MaxAttemptsOption = None,
    max_cost: MaxCostOption = None,
    seed: SeedOption = None,
    control: ControlOption = None,
    origin: OriginOption = None,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a deliberation would take, and ask nobody.

    Takes the options of deliberate. Prints calls, tokens and US dollars, expected and at most.
    """
    body = request_of(
        question,
        option=option,
        answer=answer,
        minimum=minimum,
        maximum=maximum,
        unit=unit,
        context=context,
        context_file=context_file,
        agents=agents,
        roster=roster,
        protocol=protocol,
        wave_size=wave_size,
        max_rounds=max_rounds,
        reviewers=reviewers,
        rounds=rounds,
        neighbours=neighbours,
        rule=rule,
        fraction=fraction,
        tie_break=tie_break,
        strength=strength,
        weighted_by=weighted_by,
        quorum=quorum,
        timeout=timeout,
        deadline=deadline,
        max_attempts=max_attempts,
        max_cost=max_cost,
        seed=seed,
        control=control,
        origin=origin,
    )
    from api.bootstrap import run
    from api.cli.deliberations import Access
    from api.cli.rendered_money import render_quote
    from api.cli.spending import open_spending
    from api.cli.terminal import print_document, result_console

    async def work() -> Mapping[str, Any]:
        async with open_spending(server, Access.ASK) as spending:
            return await spending.quote(body)

    found = run(work())
    if as_json:
        print_document(found)
    else:
        render_quote(result_console(), found)


def usage(by: ByOption = "deliberation", server: ServerOption = None, as_json: JsonOption = False) -> None:
    """Show what calls took: tokens and US dollars.

    What is held by calls in flight, and by those whose end nobody knows, stands apart as uncertain.
    """
    from api.bootstrap import run
    from api.cli.deliberations import Access
    from api.cli.rendered_money import render_usage
    from api.cli.spending import open_spending
    from api.cli.terminal import print_document, result_console

    async def work() -> Mapping[str, Any]:
        async with open_spending(server, Access.READ) as spending:
            return await spending.usage(by)

    found = run(work())
    if as_json:
        print_document(found)
    else:
        render_usage(result_console(), found, by=by)
