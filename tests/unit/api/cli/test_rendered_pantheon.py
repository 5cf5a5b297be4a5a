"""A run of the pantheon as a person reads it."""

from __future__ import annotations

from typing import Any

from api.cli.rendered_pantheon import render_pantheon
from tests.unit.api.cli.samples import console, printed

_DOCUMENT: dict[str, Any] = {
    "task": "count",
    "status": "executed",
    "cycles": 1,
    "simulated": False,
    "handoffs": [
        {"cycle": 1, "from": "pantheon", "to": "observer", "latency_us": 6.25},
        {"cycle": 1, "from": "observer", "to": "reasoner", "latency_us": 1234.5},
    ],
    "executed": [{"step": "word_count", "output": 1}],
    "rejected": [],
    "failure": None,
    "refused": 0,
    "remarks": [],
}


def shown(**changes: Any) -> str:
    target = console()
    render_pantheon(target, {**_DOCUMENT, **changes})
    return printed(target)


def test_each_handoff_has_a_line_with_its_latency() -> None:
    assert shown().splitlines() == [
        "Task: count",
        "",
        "From      To        Latency us",
        "pantheon  observer         6.2",
        "observer  reasoner     1,234.5",
        "2 handoffs, 1,240.8 us of bus time a cycle",
        "",
        "Executed",
        "  word_count: 1",
        "",
        "Executed: 1 whole cycle.",
    ]


def test_several_cycles_share_the_lines() -> None:
    again = [{**handoff, "cycle": 2, "latency_us": 8.25} for handoff in _DOCUMENT["handoffs"][:1]]
    text = shown(cycles=2, handoffs=[*_DOCUMENT["handoffs"][:1], *again])
    assert "pantheon  observer        7.2         8.2" in text
    assert "2 handoffs, 7.2 us of bus time a cycle" in text


def test_a_step_that_gave_the_same_again_is_shown_once() -> None:
    text = shown(cycles=3, executed=[*_DOCUMENT["executed"] * 3, {"step": "echo", "output": "count"}])
    assert "Executed\n  word_count: 1 (3 times)\n  echo: count\n" in text


def test_what_was_rejected_is_shown_with_its_reason() -> None:
    text = shown(status="rejected", executed=[], rejected=[{"step": "rm\x1b[2J", "reason": "not allowed"}])
    assert "Rejected\n  rm\\x1b[2J: not allowed" in text
    assert "Executed" not in text


def test_a_failure_a_forgery_and_a_simulation_are_shown() -> None:
    failure = {"role": "actor", "kind": "timeout", "message": "the role 'actor' failed (timeout)."}
    remarks = [{"cycle": 1, "role": "observer", "text": "look\x07 here"}]
    text = shown(status="failed", failure=failure, refused=2, simulated=True, remarks=remarks)
    assert "Failed: 1 whole cycle." in text
    assert "the role 'actor' failed (timeout)." in text
    assert "2 messages from elsewhere refused." in text
    assert "Simulated" in text
    assert "observer, cycle 1: look\\x07 here" in text


def test_a_run_without_any_handoff_can_be_shown() -> None:
    assert "0 handoffs" in shown(status="failed", cycles=0, handoffs=[], executed=[])
