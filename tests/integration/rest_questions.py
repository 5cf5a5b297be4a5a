"""Questions for the REST door, of 72 agents and of two, and the events of their deliberations."""

from __future__ import annotations

from typing import Any

from tests.conclave_fixture import RunningServer, read_events

__all__ = ["QUESTION", "SMALL", "ask_events"]

QUESTION: dict[str, Any] = {
    "question": "Should the city centre be closed to private cars?",
    "answer": {"kind": "choice", "options": ["yes", "no", "weekends only"]},
    "seed": 7,
}
SMALL = {**QUESTION, "agents": {"count": 2}}


def ask_events(server: RunningServer, deliberation_id: str, **headers: str) -> list[dict[str, Any]]:
    """All events until the stream ends; a header is named with `_` for `-`."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    with server.events(f"/v1/deliberations/{deliberation_id}/events", headers=sent) as stream:
        assert stream.status == 200
        return read_events(stream)
