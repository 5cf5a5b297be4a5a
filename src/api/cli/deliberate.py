"""`conclave deliberate`: puts one question to the agents, shows how it goes on, and prints what came of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from api.cli.deliberations import Document

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Make the command known."""
    app.command("deliberate")(deliberate)


def deliberate(
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
    """Ask the agents one question.

    Prints the outcome with tally, dissent, roll call and every failure. Ctrl-C ends it early, and what was counted until then
    is still printed.
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
    raise typer.Exit(_hold(body, server=server, as_json=as_json))


def _hold(body: dict[str, Any], *, server: str | None, as_json: bool) -> int:
    from api.cli.deliberations import Access, open_deliberations
    from api.cli.exit_codes import code_of_error, code_of_status
    from api.cli.holding import LeftUnfinishedError, hold_deliberation
    from api.cli.interruption import Interruption, run_interruptible
    from api.cli.progress import progress_on
    from api.cli.rendering import render_deliberation
    from api.cli.terminal import again, complain, print_document, progress_console, result_console
    from domain.errors.conclave_error import ConclaveError

    async def work(interruption: Interruption) -> int:
        left: LeftUnfinishedError | None = None
        outputs: Sequence[Document] = ()
        progress = progress_on(progress_console())
        with progress:
            async with open_deliberations(server, Access.ASK) as deliberations:
                try:
                    ended = await hold_deliberation(deliberations, body, progress=progress, interruption=interruption)
                except LeftUnfinishedError as error:
                    left, ended = error, error.document
                try:
                    outputs = () if as_json else await deliberations.outputs(str(ended["id"]))
                except ConclaveError:
                    if left is None:
                        raise
                notices = deliberations.notices
        if as_json:
            print_document(ended)
        else:
            command = again(str(ended["id"]), server)
            render_deliberation(result_console(), ended, outputs=outputs, notices=notices, again=command)
        sys.stdout.flush()
        if left is not None:
            complain(f"{left} {ended['id']} has not ended: its answers until then are kept.")
            return code_of_error(left)
        return code_of_status(ended)

    return run_interruptible(work)
