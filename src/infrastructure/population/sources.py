"""Looks at what a population names outside of itself, so that one which cannot begin is refused before anything is written."""

from __future__ import annotations

from pathlib import Path

from domain.models.population import BEHAVIOURS, PopulationSpecification
from infrastructure.population.edge_file import read_edges

__all__ = ["require_sources"]


def require_sources(spec: PopulationSpecification) -> None:
    """Read or find each of them once: the edge file, behaviour, weights and thinkers of a user, and where the warm tier lies.

    Raises `EdgeFileError`, `InvalidPopulationError` and `ConfigurationError`.
    """
    if spec.edge_file is not None:
        read_edges(spec.edge_file, spec.agents)
    if spec.behaviour not in BEHAVIOURS:
        from infrastructure.population.own_behaviour import behaviour_class

        # It is not made: that is for the run, which can be stopped.
        behaviour_class(spec.behaviour)
    if spec.inference_weights:
        from infrastructure.population.inference.network import stored_network

        stored_network(Path(spec.inference_weights))
    if spec.thinkers and ":" in spec.thinker:
        from infrastructure.population.thinking.functions import thinker_named

        thinker_named(spec.thinker)
    if spec.tiers and spec.warm == "redis":
        from infrastructure.population.tiers.opening import warm_address

        warm_address()
