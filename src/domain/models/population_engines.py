"""What can carry a population, and which of the things that a population may have need the memory of one machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING

from domain.errors.deliberation import FieldProblem

if TYPE_CHECKING:
    from domain.models.population import PopulationSpecification

__all__ = ["ENGINES", "engine_problems"]

ENGINES = ("local", "ray", "torch")
"""Threads or processes of one machine; one actor for each group of shards on a cluster; tensors on one device."""

_IN_ONE_MEMORY = frozenset(
    {
        "arrivals",
        "begin_with",
        "commands",
        "departures",
        "dormancy",
        "external",
        "fold_ticks",
        "inference",
        "memory_bytes",
        "metrics",
        "peers",
        "thinkers",
        "tiers",
    }
)


def engine_problems(spec: PopulationSpecification) -> Iterator[FieldProblem]:
    """What is asked for that its engine does not have."""
    if spec.engine == "local":
        return
    for field in fields(spec):
        if field.name in _IN_ONE_MEMORY and getattr(spec, field.name) != field.default:
            yield FieldProblem(f"/{field.name}", f"needs the engine 'local', not {spec.engine!r}")
    if spec.engine == "torch" and ":" in spec.behaviour:
        yield FieldProblem("/behaviour", "must be a built-in one with the engine 'torch'")
