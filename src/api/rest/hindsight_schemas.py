"""What is made of a deliberation after its end, as schemas: recounts, resolutions, and who was right."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from api.rest.result_schemas import Outcome, Rule
from api.rest.schema_document import Document

__all__ = [
    "Recount",
    "Resolution",
    "TrackRecord",
]


class Recount(Document):
    """What another rule makes of the recorded ballots."""

    deliberation_id: str
    rule: Rule
    outcome: Outcome | None = Field(description="Null where the deliberation was not completed.")
    leaf_index: int = Field(description="Where the log says so.")


class AgentScore(Document):
    """One agent against the truth of this question, and its record over all that were resolved."""

    agent_id: str
    score: float | None = Field(
        description="0 for right and sure of it, 1 for wrong and sure of it; null without an answer."
    )
    questions: int
    weight: float = Field(description="What its vote counts where the record weighs.")


class ModelScore(Document):
    """One model against the truth of this question, and its record over all that were resolved."""

    model: str
    score: float = Field(description="The mean over the agents that it answered for.")
    answers: int
    questions: int
    weight: float


class CalibrationBin(Document):
    """The answers whose stated confidence lies between two bounds, and how many of them were right."""

    model_config = ConfigDict(populate_by_name=True)

    low: float = Field(alias="from")
    high: float = Field(alias="to")
    count: int
    stated: float | None = Field(description="The mean confidence.")
    right: float | None = Field(description="The share that was right.")


class Resolution(Document):
    """How a question turned out, and how near everybody was."""

    deliberation_id: str
    answer: str | float | list[str]
    brier: float | None = Field(description="Of all answers together; null where that is not defined.")
    correct: bool | None = Field(description="Whether the decision is what turned out to be true.")
    error: float | None = Field(description="By how much a decision that is a number is greater than the truth.")
    agents: list[AgentScore]
    models: list[ModelScore]
    calibration: list[CalibrationBin]
    leaf_index: int = Field(description="Where the log says so.")


class Standing(Document):
    """One agent or model over all questions that were resolved."""

    name: str
    questions: int
    score: float = Field(description="The mean; 0 for right and sure of it, 1 for wrong and sure of it.")
    skill: float = Field(description="1 for always right, 0 for as good as knowing nothing.")
    weight: float = Field(description="What its vote counts where the record weighs.")


class TrackRecord(Document):
    """Who was right where the truth is known."""

    questions: int
    agents: list[Standing]
    models: list[Standing]
    calibration: list[CalibrationBin]
