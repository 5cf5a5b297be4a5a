"""Measures how long inferences take on this machine: of rows that are all different, so that nothing is known already."""

from __future__ import annotations

import time
from importlib.util import find_spec
from statistics import median

import numpy as np
from numpy.typing import NDArray

from application.ports.inference import MAX_BATCH, InferenceModel, InferenceRequest
from infrastructure.population.inference.batches import BatchedInference
from infrastructure.population.inference.network import seeded_network
from infrastructure.population.inference.policy import PolicyModel

__all__ = ["inference_figures"]

_FEW, _MANY = 100_000, 1_000_000
_REPEATS = 3
_CUDA_BATCHES = 20


def inference_figures() -> dict[str, float | None]:
    """Seconds of 100,000 and of 1,000,000 inferences, the best of three, and milliseconds of a batch on a CUDA device.

    None where there is no such device, and for what is not measured here.
    """
    return {
        "inferences_100k": _seconds(_FEW),
        "inferences_1m": _seconds(_MANY),
        "cuda_batch": _cuda_batch_ms(),
        "cuda_utilisation": None,
        "cuda_tick": None,
    }


def _seconds(rows: int) -> float:
    took = []
    for turn in range(_REPEATS):
        inference = BatchedInference(PolicyModel(seeded_network(turn)))
        features = _different(rows)
        began = time.perf_counter()
        inference.submit(InferenceRequest(features.data, tick=1)).result()
        took.append(time.perf_counter() - began)
        inference.close()
    return min(took)


def _different(rows: int) -> NDArray[np.int8]:
    """So many rows of features, each a number in base 65 and so unlike all others."""
    number = np.arange(rows, dtype=np.int64)
    found = np.zeros((rows, 8), np.int8)
    for place in range(8):
        found[:, place] = number % 65 - 32
        number = number // 65 + place * 7
    return found


def _cuda_batch_ms() -> float | None:
    if find_spec("torch") is None:
        return None
    from infrastructure.population.inference.torch_policy import TorchModel

    model = TorchModel(seeded_network(0))
    try:
        return _median_ms(model) if model.document()["device"] == "cuda" else None
    finally:
        model.close()


def _median_ms(model: InferenceModel) -> float:
    """Of one batch, there and back; the first ones load what is needed."""
    features = _different(MAX_BATCH).data
    took = []
    for _ in range(_CUDA_BATCHES):
        began = time.perf_counter()
        model.infer(features, tick=1)
        took.append(time.perf_counter() - began)
    return median(took) * 1e3
