"""The adapter `policy`: the network computed with numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from application.ports.inference import FULL_PULL, Table
from domain.models.run import JsonValue
from infrastructure.population.inference.network import Network, scaled

__all__ = ["PolicyModel"]

# So few rows at a time that their activations stay in the processor's cache, and that the library for matrices starts no threads.
_BLOCK = 512


class PolicyModel:
    """See `InferenceModel`. The same pulls on every machine: see `Network`."""

    name = "policy"

    def __init__(self, network: Network) -> None:
        self._network = network
        self._layers = scaled(network.layers)
        self._room = [np.empty((_BLOCK, layer.weights.shape[1]), np.float32) for layer in self._layers]

    def infer(self, features: Table, *, tick: int) -> Table:  # noqa: ARG002 - a network has no days
        """See `InferenceModel`."""
        rows: NDArray[np.int8] = np.asarray(features)
        found = np.empty(len(rows), np.int16)
        for start in range(0, len(rows), _BLOCK):
            found[start : start + _BLOCK] = self._pulls(rows[start : start + _BLOCK])
        return found.data

    def document(self) -> dict[str, JsonValue]:
        """See `InferenceModel`."""
        return {"network": list(self._network.shape), "device": "cpu"}

    def close(self) -> None:
        """See `InferenceModel`."""

    def _pulls(self, rows: NDArray[np.int8]) -> NDArray[np.float32]:
        signal = rows.astype(np.float32)
        *hidden, last = self._layers
        for layer, room in zip(hidden, self._room, strict=False):
            signal = np.matmul(signal, layer.weights, out=room[: len(rows)])
            signal += layer.biases
            np.floor(signal, out=signal)
            np.maximum(signal, 0, out=signal)
            np.minimum(signal, 127, out=signal)
        pulls = np.matmul(signal, last.weights)[:, 0]
        pulls += last.biases
        return np.asarray(np.clip(pulls, -FULL_PULL, FULL_PULL))
