"""What all opinions of a population come to at one moment."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from application.ports.population_engine import CommunitySummary, OpinionSummary
from domain.models.population import PopulationSpecification
from infrastructure.population.columns import Columns

__all__ = ["summary_of"]

_BINS = 100


def summary_of(columns: Columns, spec: PopulationSpecification, tick: int) -> OpinionSummary:
    """Of the agents that live after `tick`, and of those who began in the community of each archetype."""
    opinions, kinds = columns.opinion[tick % 2], columns.type
    if columns.free_count[0]:
        living = columns.alive == 1
        opinions, kinds = opinions[living], kinds[living]
    # Opinions are multiples of 2^-39, so that a hundred times one is exact; 1 itself belongs to the last bin.
    places = np.minimum((opinions * _BINS).astype(np.uint8), np.uint8(_BINS - 1))
    histogram = np.bincount(places, minlength=_BINS)
    return OpinionSummary(
        mean=float(opinions.mean()) if opinions.size else 0.0,
        variance=float(opinions.var()) if opinions.size else 0.0,
        histogram=[int(count) for count in histogram],
        communities=_communities(opinions, kinds, spec) if spec.archetypes else (),
    )


def _communities(
    opinions: NDArray[np.float64], kinds: NDArray[np.uint16], spec: PopulationSpecification
) -> list[CommunitySummary]:
    """All of them in three passes, however many there are."""
    most = len(spec.archetypes) + 1
    kinds = np.minimum(kinds, np.uint16(most))
    sizes = np.bincount(kinds, minlength=most + 1)
    counted = np.maximum(sizes, 1)
    means = np.bincount(kinds, weights=opinions, minlength=most + 1) / counted
    apart = opinions - means[kinds]
    variances = np.bincount(kinds, weights=apart * apart, minlength=most + 1) / counted
    return [
        CommunitySummary(archetype.name, archetype.answer, int(sizes[kind]), float(means[kind]), float(variances[kind]))
        for kind, archetype in enumerate(spec.archetypes, 1)
    ]
