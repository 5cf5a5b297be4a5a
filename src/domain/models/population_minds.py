"""What agents of a population may act by and think with, and what is wrong with how that was asked for."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from domain.errors.deliberation import FieldProblem
from domain.models.text import text_problem

if TYPE_CHECKING:
    from domain.models.population import PopulationSpecification

__all__ = [
    "ASKING_A_MODEL",
    "DEFAULT_TOPIC",
    "INFERENCES",
    "INFERENCES_OVER_REST",
    "MAX_THINKERS",
    "asks_models",
    "mind_problems",
]

INFERENCES = ("none", "policy", "torch", "openai")
"""What agents may act by in each tick, beside their behaviour."""

INFERENCES_OVER_REST = ("none", "policy")
"""Those that neither cost money nor name a file."""

MAX_THINKERS = 1_000
"""The most agents that think, and the most that may ask a model of text in one tick."""

ASKING_A_MODEL = 8
"""How many agents ask a model of text in a tick, where nobody said how many."""

DEFAULT_TOPIC = "Opinions go from 0, wholly against it, to 1, wholly for it: which one do you hold now?"

_THINKERS = ("model", "roster", "callable")
_ROSTER = re.compile(r"roster/\w[\w.-]{0,63}")
_OWN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_NOTES = ("exact", "usearch")
_MAX_TICKS = 10_000_000
_DEADLINE_S = (0.001, 3_600.0)
_MAX_TOPIC_BYTES = 2_000


def asks_models(thinker: str) -> bool:
    """Whether that kind of thinker is a language model."""
    return thinker == "model" or thinker.partition("/")[0] == "roster"


def mind_problems(given: PopulationSpecification) -> Iterator[FieldProblem]:
    """What is wrong with these fields, by JSON pointer; the number of agents is right already."""
    if given.inference not in INFERENCES:
        yield FieldProblem("/inference", f"must be one of {', '.join(INFERENCES)}")
    most = MAX_THINKERS if given.inference == "openai" else given.agents
    begin: object = given.begin_with
    beginners = begin if isinstance(begin, int) and begin > 0 else given.agents
    for name, value, least, limit in (
        ("inference_agents", given.inference_agents, 0, most),
        ("thinkers", given.thinkers, 0, min(MAX_THINKERS, beginners)),
        ("think_every", given.think_every, 1, _MAX_TICKS),
    ):
        given_number: object = value
        if not isinstance(given_number, int) or isinstance(given_number, bool) or not least <= given_number <= limit:
            yield FieldProblem(f"/{name}", f"must be a whole number from {least} to {limit}")
    weights: object = given.inference_weights
    if not isinstance(weights, str) or (weights and not weights.isprintable()):
        yield FieldProblem("/inference_weights", "must be the path of an .npz file")
    elif weights and given.inference not in {"policy", "torch"}:
        yield FieldProblem("/inference_weights", "is for the inference policy or torch")
    thinker = str(given.thinker)
    if thinker not in _THINKERS and not _ROSTER.fullmatch(thinker) and not _OWN.fullmatch(thinker):
        yield FieldProblem("/thinker", "must be model, roster, roster/NAME or module:name")
    deadline: object = given.ask_deadline_s
    fits = isinstance(deadline, int | float) and not isinstance(deadline, bool) and math.isfinite(deadline)
    if not fits or not _DEADLINE_S[0] <= given.ask_deadline_s <= _DEADLINE_S[1]:
        yield FieldProblem(
            "/ask_deadline_s", f"must be a number of seconds from {_DEADLINE_S[0]:g} to {_DEADLINE_S[1]:g}"
        )
    topic: object = given.topic
    if not isinstance(topic, str) or text_problem(topic, max_bytes=_MAX_TOPIC_BYTES):
        yield FieldProblem("/topic", f"must be a text of at most {_MAX_TOPIC_BYTES} bytes")
    if given.notes not in _NOTES:
        yield FieldProblem("/notes", f"must be one of {', '.join(_NOTES)}")
