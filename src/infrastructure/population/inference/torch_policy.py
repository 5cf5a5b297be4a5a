"""The adapter `torch`: the network computed with PyTorch, on a CUDA device where there is one."""

from __future__ import annotations

from typing import Any

import numpy as np

from application.ports.inference import FULL_PULL, Table
from domain.errors.deliberation import FieldProblem
from domain.errors.population import InvalidPopulationError
from domain.models.run import JsonValue
from infrastructure.population.inference.network import Network, scaled
from infrastructure.population.torch_device import HOW_TO_INSTALL_TORCH, has_torch, torch_and_device

__all__ = ["TorchModel"]


class TorchModel:
    """See `InferenceModel`. The same pulls as those of numpy, without any tolerance: see `Network`."""

    def __init__(self, network: Network, *, device: str | None = None) -> None:
        """`device` is `cuda` where there is one, else `cpu`. Raises `InvalidPopulationError` where PyTorch is not installed."""
        if not has_torch():
            problem = f"'torch' is not installed here: {HOW_TO_INSTALL_TORCH}; or take policy"
            raise InvalidPopulationError([FieldProblem("/inference", problem)])
        self._torch, self._device = torch_and_device(device)
        self._network = network
        self._layers = [(self._tensor(layer.weights), self._tensor(layer.biases)) for layer in scaled(network.layers)]

    @property
    def name(self) -> str:
        """See `InferenceModel`."""
        return "torch"

    def infer(self, features: Table, *, tick: int) -> Table:  # noqa: ARG002 - a network has no days
        """See `InferenceModel`."""
        torch = self._torch
        with torch.inference_mode():
            signal = torch.from_numpy(np.ascontiguousarray(features)).to(self._device).to(torch.float32)
            for weights, biases in self._layers[:-1]:
                signal = torch.addmm(biases, signal, weights).floor_().clamp_(0, 127)
            weights, biases = self._layers[-1]
            pulls = torch.addmm(biases, signal, weights)[:, 0].clamp_(-FULL_PULL, FULL_PULL)
            found: Any = pulls.to(torch.int16).cpu().numpy()
        return memoryview(found)

    def document(self) -> dict[str, JsonValue]:
        """See `InferenceModel`."""
        return {"network": list(self._network.shape), "device": self._device}

    def close(self) -> None:
        """See `InferenceModel`."""
        self._layers = []

    def _tensor(self, numbers: Any) -> Any:
        return self._torch.from_numpy(numbers).to(self._device)
