"""Runs of one fixed moment, each a second after the last, and the states that they come to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from domain.models.deliberation import DeliberationStatus
from domain.models.run import Run, RunKind
from domain.models.run_event import new_run_id

__all__ = ["AT", "COMPLETED", "FAILED", "RUNNING", "a_run"]

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)
COMPLETED, FAILED, RUNNING = DeliberationStatus.COMPLETED, DeliberationStatus.FAILED, DeliberationStatus.RUNNING


def a_run(number: int = 0, **fields: Any) -> Run:
    at = AT + timedelta(seconds=number)
    return Run(new_run_id(at), RunKind.SWARM, RUNNING, started_at=at, **fields)
