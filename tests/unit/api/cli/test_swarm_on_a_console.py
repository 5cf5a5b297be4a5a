"""A swarm as a person sees it: while it runs, and afterwards, on consoles of any width."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from api.cli.rendered_swarm import render_swarm
from api.cli.swarm_progress import SwarmProgress


def console(width: int = 80, *, terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None, highlight=False)


def written(on: Console) -> str:
    file = on.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def document(**other: Any) -> dict[str, Any]:
    return {
        "task": "coin-flip",
        "transport": "memory",
        "agents": 128,
        "received": 127,
        "batches": 32,
        "batch_size": 4,
        "instances": 1,
        "seed": 7,
        "heads": 60,
        "tails": 67,
        "split_p_value": 0.59,
        "wall_ms": 8.5,
        "phases_ms": {"load": 0.5, "flips": 7.0, "aggregate": 0.5, "backup": 1.0},
        "messages": 653,
        "messages_per_second": 76_823.5,
        "parallelism": 128,
        "queue_max": 128,
        "latency_histogram": [{"up_to_us": 500, "count": 100}, {"up_to_us": 5_000_000, "count": 27}],
        "vetoes": [],
        "failures": [
            {"agent_id": "coin-agent-7", "kind": "died", "message": "\x1b[2Jit died", "attempts": 2, "counted": False}
        ],
        "failures_omitted": 0,
        "missing": ["coin-agent-7"],
        "retried_batches": 1,
        "status": "completed",
        "session_dir": "logs/session_x",
        **other,
    }


@pytest.mark.parametrize("width", [30, 80, 100])
def test_no_line_is_wider_than_the_console(width: int) -> None:
    on = console(width)
    render_swarm(on, document(session_dir="logs/x"))
    assert max(cell_len(line) for line in written(on).splitlines()) <= width


def test_whatever_an_agent_says_cannot_steer_the_terminal() -> None:
    on = console()
    render_swarm(on, document())
    assert "\x1b" not in written(on)
    assert "it died" in written(on)


def test_ranges_of_latency_have_units_that_can_be_read() -> None:
    on = console()
    render_swarm(on, document())
    assert "up to 500 us" in written(on)
    assert "up to 5 s" in written(on)


def test_a_veto_stands_out() -> None:
    on = console()
    veto = {"rule": "differs", "agent_id": "coin-agent-3", "sender": "coin-agent-3", "detail": "'tails' after 'heads'"}
    render_swarm(on, document(vetoes=[veto]))
    assert "Safety halted the swarm" in written(on)
    assert "differs: coin-agent-3" in written(on)


def test_only_so_many_troubles_are_listed() -> None:
    on = console(100)
    failure = {"agent_id": "agent-1", "kind": "raised", "message": "no", "attempts": 1, "counted": True}
    render_swarm(on, document(failures=[failure] * 30, failures_omitted=5))
    assert written(on).count("agent-1: raised") == 10
    assert "and 25 more" in written(on)


def test_a_task_without_coins_has_no_split() -> None:
    on = console()
    render_swarm(on, document(heads=None, tails=None, split_p_value=None))
    assert "fair coin" not in written(on)


def test_a_simulated_question_says_so_and_how_to_show_its_deliberation() -> None:
    on = console()
    facts = {"deliberation_id": "d-1", "orchestrator": "simulated", "simulated": True}
    render_swarm(on, document(heads=None, tails=None, split_p_value=None, **facts))
    assert "Simulated: no model was asked" in written(on)
    assert "conclave show d-1" in written(on).splitlines()


def test_a_swarm_that_lost_its_bus_says_so_and_times_nothing() -> None:
    on = console()
    failure = {"kind": "bus-unavailable", "message": "the redis bus is away"}
    render_swarm(on, document(failure=failure, phases_ms={}, wall_ms=0.0, status="failed"))
    assert "the redis bus is away" in written(on)
    assert "from loaded to backed up" not in written(on)
    assert "Simulated" not in written(on)


def test_progress_shows_counts_and_the_split_so_far() -> None:
    on = console(60, terminal=True)
    progress = SwarmProgress(on, clock=lambda: 0.0)
    progress.show("swarm.started", {"text": "session s: 128 agents"})
    counts = {"agents": 128, "received": 64, "in_flight": 60, "failed": 4, "results": {"heads": 30, "tails": 34}}
    progress.show("swarm.progress", counts)
    progress.show("swarm.batch_retried", {"text": "batch 2 is retried: \x1b[31mcoin-agent-7", "warning": True})
    on.print(progress.view())
    shown = written(on)
    assert "64 of 128 counted, 60 act, 4 failures" in shown
    assert "heads" in shown
    assert "\x1b[31m" not in shown
    assert "batch 2 is retried" in shown


def test_progress_without_a_console_shows_nothing() -> None:
    with SwarmProgress(None) as progress:
        progress.show("swarm.batch_retried", {"text": "batch 2 is retried", "warning": True})
        progress.say("join")
        progress.close()
