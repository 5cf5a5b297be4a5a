"""What all schemas have in common."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

__all__ = ["Document", "State", "Status"]

Status = Literal["queued", "running", "completed", "inquorate", "cancelled", "halted", "failed"]
State = Literal[
    "answered", "abstained", "invalid", "timed_out", "throttled", "failed", "over_budget", "cancelled", "halted"
]


class Document(BaseModel):
    """A JSON object with these fields and no others."""

    # Built only when somebody asks for the OpenAPI document, which most servers are never asked for.
    model_config = ConfigDict(extra="forbid", defer_build=True)
