"""A control: one model asked the same question again and again, beside the deliberation that it is to be compared with."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import NAMESPACE_OID, uuid5

from domain.errors.deliberation import FieldProblem
from domain.models.agent import MAX_MODEL_BYTES
from domain.models.text import text_problem

__all__ = ["Control", "control_id"]


@dataclass(frozen=True, slots=True)
class Control:
    """Which model is asked; the default one without a name."""

    model: str | None = None

    def problems(self, pointer: str = "/control") -> list[FieldProblem]:
        """What keeps this model from being asked."""
        if self.model is not None and (problem := text_problem(self.model, max_bytes=MAX_MODEL_BYTES)):
            return [FieldProblem(f"{pointer}/model", problem)]
        return []


def control_id(deliberation_id: str) -> str:
    """The id of the control of that deliberation, hashed from its id (RFC 9562, version 5), so that each can be found by the other."""
    return str(uuid5(NAMESPACE_OID, f"conclave control of {deliberation_id}"))
