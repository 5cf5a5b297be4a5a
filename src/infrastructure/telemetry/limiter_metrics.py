"""Turns how limiters stand into what is measured of them, for a bounded number of models."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate

from infrastructure.orchestrators.allowance import WAIT_BOUNDS_S, LimiterState

__all__ = ["MAX_MODELS", "OTHER_MODELS", "limiter_gauges", "limiter_waits"]

MAX_MODELS = 100
"""Members may name any model, and each label value is kept by whoever scrapes."""

OTHER_MODELS = "other"

_GAUGES: tuple[tuple[str, str, Callable[[LimiterState], float | None]], ...] = (
    ("pace_ratio", "How fast a model is asked: 1 at full speed, less after the provider complained.", lambda s: s.pace),
    ("in_flight_calls", "Calls in flight.", lambda s: s.in_flight),
    ("waiting_calls", "Calls that wait for leave of the limiter.", lambda s: s.waiting),
    ("paused", "1 while nobody is sent, because the provider asked to wait, else 0.", lambda s: float(s.paused_s > 0)),
    (
        "shared",
        "1 while the limits are shared with other processes, 0 while those cannot be asked.",
        lambda s: s.shared,
    ),
)


def limiter_gauges(states: Mapping[str, LimiterState]) -> Iterator[tuple[str, str, Mapping[str, float]]]:
    """Each gauge's name, its help and its value by model; none of a gauge that no model has."""
    shown = _bounded(states)
    for name, text, read in _GAUGES:
        found = {model: value for model, state in shown.items() if (value := read(state)) is not None}
        if found:
            yield f"conclave_limiter_{name}", text, found


def limiter_waits(states: Mapping[str, LimiterState]) -> Mapping[str, tuple[list[tuple[str, float]], float]]:
    """By model, the cumulative buckets of the waits, `+Inf` last, and the seconds of all of them."""
    return {model: (_buckets(state), state.waited_s) for model, state in _bounded(states).items()}


def _buckets(state: LimiterState) -> list[tuple[str, float]]:
    bounds = (*(repr(float(bound)) for bound in WAIT_BOUNDS_S), "+Inf")
    return [(bound, float(reached)) for bound, reached in zip(bounds, accumulate(state.waits), strict=True)]


def _bounded(states: Mapping[str, LimiterState]) -> Mapping[str, LimiterState]:
    if len(states) <= MAX_MODELS:
        return states
    names = list(states)
    shown = {name: states[name] for name in names[: MAX_MODELS - 1]}
    rest = [states[name] for name in names[MAX_MODELS - 1 :]]
    sharing = [state.shared for state in rest if state.shared is not None]
    shown[OTHER_MODELS] = LimiterState(
        pace=min(state.pace for state in rest),
        in_flight=sum(state.in_flight for state in rest),
        waiting=sum(state.waiting for state in rest),
        paused_s=max(state.paused_s for state in rest),
        shared=all(sharing) if sharing else None,
        waits=tuple(map(sum, zip(*(state.waits for state in rest), strict=True))),
        waited_s=math.fsum(state.waited_s for state in rest),
    )
    return shown
