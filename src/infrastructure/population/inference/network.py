"""The policy network in whole numbers: its weights, seeded or out of a file, rounded so that every engine computes the very same."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from application.ports.inference import FEATURES
from domain.errors.deliberation import FieldProblem
from domain.errors.population import InvalidPopulationError
from infrastructure.population.randomness import Purpose, draw, key_of

__all__ = ["UNIT", "Layer", "Network", "scaled", "seeded_network", "stored_network"]

UNIT = 64
"""Weights and activations are multiples of 1 / UNIT, biases of 1 / UNIT squared."""

_HIDDEN = (32, 32)
_MOST_WEIGHT = 127
_MOST_WIDTH = 1_024
_MOST_LAYERS = 16
# A sum of a thousand products and a bias stays below 2^24, which single precision counts exactly in any order.
_MOST_BIAS = 16 * UNIT * UNIT
_MOST_FILE_BYTES = 256 << 20

_Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights (inputs x outputs) and biases (outputs) as whole numbers held in single precision."""

    weights: _Floats
    biases: _Floats


@dataclass(frozen=True, slots=True)
class Network:
    """Layers one after the other. After each but the last: divided by UNIT, rounded down, and held between 0 and 127.

    What the last one gives, held between -4,096 and 4,096, is the pull. All sums are of whole numbers below 2^24, so that they are
    exact in single precision, whatever the order, the library, the processor or the device.
    """

    layers: tuple[Layer, ...]

    @property
    def shape(self) -> list[int]:
        """How many numbers go in, through and out."""
        return [self.layers[0].weights.shape[0], *(layer.weights.shape[1] for layer in self.layers)]


def seeded_network(seed: int) -> Network:
    """Weights by the seed, evenly within what keeps signals as large from layer to layer (He and others, 2015)."""
    widths = (len(FEATURES), *_HIDDEN, 1)
    layers = []
    for number, (before, after) in enumerate(pairwise(widths)):
        bits = draw(key_of(seed, 0, Purpose.NETWORK, number), np.arange(before * after, dtype=np.uint64))
        most = round((6.0 / before) ** 0.5 * UNIT)
        weights = (bits >> np.uint64(32)) * np.uint64(2 * most + 1) >> np.uint64(32)
        layers.append(
            Layer(
                (weights.astype(np.float32) - np.float32(most)).reshape(before, after),
                np.zeros(after, dtype=np.float32),
            )
        )
    return Network(tuple(layers))


def stored_network(path: Path) -> Network:
    """The weights of an .npz file: `w1`, `b1`, `w2`, ... in their order, rounded to multiples of 1 / 64 and 1 / 4,096.

    Raises `InvalidPopulationError` where they are no network for these features, or are too large.
    """
    try:
        with path.open("rb") as file:
            # As it is unpacked, which may be far more than the file.
            if sum(part.file_size for part in zipfile.ZipFile(file).infolist()) > _MOST_FILE_BYTES:
                raise _unusable(path, f"is larger than {_MOST_FILE_BYTES >> 20} MiB")
            file.seek(0)
            found = np.load(file, allow_pickle=False)
            arrays = {name: np.asarray(found[name]) for name in found.files}
    except OSError as error:
        raise _unusable(path, f"cannot be read ({error.strerror or error})") from error
    except (ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise _unusable(path, "is no .npz file") from error
    count = len(arrays) // 2
    names = [f"{kind}{number}" for number in range(1, count + 1) for kind in "wb"]
    if not 1 <= count <= _MOST_LAYERS or set(arrays) != set(names):
        raise _unusable(path, f"must hold w1, b1, w2, b2 and so on, for 1 to {_MOST_LAYERS} layers")
    layers = []
    width = len(FEATURES)
    for number in range(1, count + 1):
        layer = _layer(path, number, arrays[f"w{number}"], arrays[f"b{number}"], width)
        layers.append(layer)
        width = layer.weights.shape[1]
    if width != 1:
        raise _unusable(path, f"ends with {width} numbers for an agent, and must end with one")
    return Network(tuple(layers))


def _layer(path: Path, number: int, weights: NDArray[np.float64], biases: NDArray[np.float64], width: int) -> Layer:
    if weights.dtype.kind not in "fiu" or biases.dtype.kind not in "fiu":
        raise _unusable(path, f"holds something else than numbers in layer {number}")
    if weights.ndim != 2 or weights.shape[0] != width or not 1 <= weights.shape[1] <= _MOST_WIDTH:
        wanted = f"{width} x (1 to {_MOST_WIDTH})"
        raise _unusable(path, f"has w{number} of the shape {weights.shape}, which must be {wanted}")
    if biases.shape != weights.shape[1:]:
        raise _unusable(path, f"has b{number} of the shape {biases.shape}, which must be {weights.shape[1:]}")
    whole = np.rint(weights.astype(np.float64) * UNIT)
    shifts = np.rint(biases.astype(np.float64) * UNIT * UNIT)
    if not (bool(np.all(np.abs(whole) <= _MOST_WEIGHT)) and bool(np.all(np.abs(shifts) <= _MOST_BIAS))):
        raise _unusable(path, f"has numbers in layer {number} that are none, or weights beyond 2 or biases beyond 16")
    return Layer(whole.astype(np.float32), shifts.astype(np.float32))


def _unusable(path: Path, problem: str) -> InvalidPopulationError:
    return InvalidPopulationError([FieldProblem("/inference_weights", f"the file {path.name!r} {problem}")])


def scaled(layers: Sequence[Layer]) -> list[Layer]:
    """The same layers with all but the last divided by UNIT, which is a power of two and loses nothing."""
    return [
        *(Layer(layer.weights / np.float32(UNIT), layer.biases / np.float32(UNIT)) for layer in layers[:-1]),
        layers[-1],
    ]
