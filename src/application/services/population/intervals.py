"""How much of what a population came to is chance: percentile bootstrap intervals over populations that differ by their seed alone."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from domain.models.run import JsonValue

__all__ = ["LEVEL", "RESAMPLES", "replicates_document"]

LEVEL = 0.95
RESAMPLES = 2_000
_RESAMPLE_SEED = 0


def replicates_document(reports: Sequence[Mapping[str, Any]], *, planned: int) -> dict[str, JsonValue]:
    """Intervals of what these reports of the same population under several seeds came to (Efron 1979, percentile method).

    Each is that of the mean over seeds; seeds are drawn with replacement, the same draws for every figure. With fewer than two there is
    no interval, and its ends are null.
    """
    drawn = _Draws(len(reports))
    finals = [report["opinions"]["final"] for report in reports]
    answers = [row["answer"] for row in reports[0]["subgroups"]] if reports else []
    names = [one["name"] for one in finals[0].get("communities", ())] if reports else []
    return {
        "simulated": True,
        "planned": planned,
        "done": len(reports),
        "method": "percentile bootstrap of the mean over seeds",
        "level": LEVEL,
        "resamples": RESAMPLES,
        "resample_seed": _RESAMPLE_SEED,
        "mean": drawn.interval([final["mean"] for final in finals]),
        "variance": drawn.interval([final["variance"] for final in finals]),
        "groups": drawn.interval([report["groups"]["final"] for report in reports]),
        "answers": [
            {
                "answer": answer,
                "share": drawn.interval([report["subgroups"][place]["final"]["share"] for report in reports]),
                "mean": drawn.interval([report["subgroups"][place]["final"]["mean"] for report in reports]),
            }
            for place, answer in enumerate(answers)
        ],
        "communities": [
            {
                "name": name,
                "answer": finals[0]["communities"][place]["answer"],
                "mean": drawn.interval([final["communities"][place]["mean"] for final in finals]),
            }
            for place, name in enumerate(names)
        ],
        "runs": [
            {
                "seed": report["seed"],
                "mean": final["mean"],
                "variance": final["variance"],
                "groups": report["groups"]["final"],
                "state_hash": report["state_hash"],
            }
            for report, final in zip(reports, finals, strict=True)
        ],
    }


class _Draws:
    """The same draws of seeds for every figure, so that figures belong together."""

    def __init__(self, seeds: int) -> None:
        # Of this module alone `random()` itself is promised to stay the same in later versions of Python.
        source = random.Random(_RESAMPLE_SEED)  # noqa: S311 - nothing here is secret
        wanted = RESAMPLES if seeds > 1 else 0
        self._rows = [[int(source.random() * seeds) for _ in range(seeds)] for _ in range(wanted)]

    def interval(self, values: Sequence[float | None]) -> dict[str, JsonValue]:
        """The mean of these, one for each seed, and where it would lie had other seeds been drawn; nulls where a value is missing."""
        known = [value for value in values if value is not None]
        if len(known) < len(values) or not values:
            return {"value": None, "low": None, "high": None}
        mean = math.fsum(known) / len(known)
        if not self._rows:
            return {"value": mean, "low": None, "high": None}
        means = sorted(math.fsum(known[place] for place in row) / len(row) for row in self._rows)
        outside = (1.0 - LEVEL) / 2.0
        low = means[math.floor(outside * len(means))]
        high = means[math.ceil((1.0 - outside) * len(means)) - 1]
        return {"value": mean, "low": low, "high": high}
