"""Rewrites the Q4_1 weights of a GGUF model in another quantisation, tensor by tensor, and leaves everything else as it is.

The format is that of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

__all__ = ["Q4_1", "Q8_0", "Converter", "UnreadableModelError", "converted_bytes", "rewrite"]

# Numbers of `ggml_type`.
Q4_1 = 3
Q8_0 = 8

# Takes the bytes of a Q4_1 tensor, how many numbers a row has and how many rows; gives the same numbers as Q8_0.
Converter = Callable[[memoryview, int, int], bytes]

_BLOCK = 32
_BLOCK_BYTES = {Q4_1: 20, Q8_0: 34}
_STRING, _ARRAY = 8, 9
_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_DEFAULT_ALIGNMENT = 32
_MAX_DIMENSIONS = 4
_HEADER = struct.Struct("<4sIQQ")


class UnreadableModelError(ValueError):
    """The file is no GGUF model that can be rewritten; `problem` says why. llama.cpp may still be able to serve it."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"the model's weights cannot be rewritten: {problem}")
        self.problem = problem


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: bytes
    shape: tuple[int, ...]
    kind: int
    data: memoryview

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)

    @property
    def converted_bytes(self) -> int:
        return self.numbers // _BLOCK * _BLOCK_BYTES[Q8_0] if self.kind == Q4_1 else len(self.data)


@dataclass(frozen=True, slots=True)
class _Model:
    head: bytes
    alignment: int
    tensors: list[_Tensor]


def converted_bytes(model: memoryview) -> int:
    """How many bytes of weights the rewritten model holds; 0 if no tensor of it is Q4_1. Raises `UnreadableModelError`."""
    tensors = _read(model).tensors
    if not any(tensor.kind == Q4_1 for tensor in tensors):
        return 0
    return sum(tensor.converted_bytes for tensor in tensors)


def rewrite(model: memoryview, convert: Converter) -> Iterator[bytes | memoryview]:
    """The rewritten model in pieces, to be written one after the other. Raises `UnreadableModelError`."""
    read = _read(model)
    infos = []
    offset = 0
    for tensor in read.tensors:
        kind = Q8_0 if tensor.kind == Q4_1 else tensor.kind
        infos.append(struct.pack("<Q", len(tensor.name)) + tensor.name)
        infos.append(struct.pack(f"<I{len(tensor.shape)}QIQ", len(tensor.shape), *tensor.shape, kind, offset))
        offset += _aligned(tensor.converted_bytes, read.alignment)
    head = read.head + b"".join(infos)
    yield head + bytes(_aligned(len(head), read.alignment) - len(head))
    for tensor in read.tensors:
        data: bytes | memoryview = tensor.data
        if tensor.kind == Q4_1:
            data = convert(tensor.data, tensor.shape[0], tensor.numbers // tensor.shape[0])
            _check(tensor, data)
        yield data
        yield bytes(_aligned(len(data), read.alignment) - len(data))


def _check(tensor: _Tensor, converted: bytes) -> None:
    """Refuse what a converter made of a tensor if its length or its first or last numbers cannot be right."""
    if len(converted) != tensor.converted_bytes:
        raise UnreadableModelError(f"a tensor became {len(converted)} bytes long instead of {tensor.converted_bytes}")
    before, after = _BLOCK_BYTES[Q4_1], _BLOCK_BYTES[Q8_0]
    for wanted, got in (
        (_q4_1_numbers(tensor.data[:before]), _q8_0_numbers(converted[:after])),
        (_q4_1_numbers(tensor.data[-before:]), _q8_0_numbers(converted[-after:])),
    ):
        # Half a step of 127 to the largest, and as much again for the rounding of scales to 16 bits.
        tolerance = max(map(abs, wanted)) / 127
        if any(abs(one - other) > tolerance for one, other in zip(wanted, got, strict=True)):
            raise UnreadableModelError("a tensor came out with other numbers")


def _q4_1_numbers(block: memoryview) -> list[float]:
    """ggml's `block_q4_1`: a scale and a least number in 16 bits each, then the low halves of 16 bytes, then the high ones."""
    scale, least = struct.unpack_from("<2e", block)
    halves = bytes(block[4:])
    return [scale * (byte & 15) + least for byte in halves] + [scale * (byte >> 4) + least for byte in halves]


def _q8_0_numbers(block: bytes) -> list[float]:
    """ggml's `block_q8_0`: a scale in 16 bits, then 32 signed bytes."""
    scale, *numbers = struct.unpack("<e32b", block)
    return [scale * number for number in numbers]


def _read(model: memoryview) -> _Model:
    try:
        return _Reader(model).model()
    except struct.error:
        raise UnreadableModelError("it ends too early") from None


class _Reader:
    """Reads a model from its beginning to its end."""

    def __init__(self, model: memoryview) -> None:
        self._model = model
        self._at = 0

    def model(self) -> _Model:
        magic, version, tensor_count, pair_count = self._take(_HEADER)
        if magic != b"GGUF" or version not in {2, 3}:
            raise UnreadableModelError("it is no little-endian GGUF file of version 2 or 3")
        alignment = _DEFAULT_ALIGNMENT
        for _ in range(pair_count):
            key = self._string()
            kind = self._number("<I")
            start = self._at
            self._skip_value(kind)
            if key == b"general.alignment" and kind == 4:
                (alignment,) = struct.unpack_from("<I", self._model, start)
        if alignment < 1 or alignment & (alignment - 1):
            raise UnreadableModelError(f"its alignment of {alignment} is no power of two")
        head = bytes(self._model[: self._at])
        infos = [self._info() for _ in range(tensor_count)]
        start = _aligned(self._at, alignment)
        # A tensor's size is only known for the types that are rewritten: the others end where the next one begins.
        ends = sorted({offset for *_, offset in infos} | {len(self._model) - start})
        following = dict(pairwise(ends))
        return _Model(
            head,
            alignment,
            [
                self._tensor(name, shape, kind, start + at, following.get(at, at) - at)
                for name, shape, kind, at in infos
            ],
        )

    def _tensor(self, name: bytes, shape: tuple[int, ...], kind: int, start: int, room: int) -> _Tensor:
        length = room
        if kind == Q4_1:
            if not shape[0] or shape[0] % _BLOCK:
                raise UnreadableModelError(f"a row of {shape[0]} numbers is not made of blocks of {_BLOCK}")
            length = math.prod(shape) // _BLOCK * _BLOCK_BYTES[Q4_1]
        data = self._model[start : start + length]
        if length > room or len(data) != length:
            raise UnreadableModelError("it ends too early")
        return _Tensor(name, shape, kind, data)

    def _info(self) -> tuple[bytes, tuple[int, ...], int, int]:
        name = self._string()
        dimensions = self._number("<I")
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            raise UnreadableModelError(f"a tensor has {dimensions} dimensions")
        shape = self._take(struct.Struct(f"<{dimensions}Q"))
        return name, shape, self._number("<I"), self._number("<Q")

    def _skip_value(self, kind: int) -> None:
        if kind in _SCALAR_BYTES:
            self._at += _SCALAR_BYTES[kind]
        elif kind == _STRING:
            self._string()
        elif kind == _ARRAY:
            element = self._number("<I")
            count = self._number("<Q")
            if element in _SCALAR_BYTES:
                self._at += count * _SCALAR_BYTES[element]
            elif element == _STRING:
                for _ in range(count):
                    self._string()
            else:
                raise UnreadableModelError(f"a list holds values of type {element}")
        else:
            raise UnreadableModelError(f"a value has type {kind}")

    def _string(self) -> bytes:
        length = self._number("<Q")
        text = bytes(self._model[self._at : self._at + length])
        if len(text) != length:
            raise UnreadableModelError("it ends too early")
        self._at += length
        return text

    def _number(self, form: str) -> int:
        (number,) = self._take(struct.Struct(form))
        return int(number)

    def _take(self, form: struct.Struct) -> tuple[Any, ...]:
        taken = form.unpack_from(self._model, self._at)
        self._at += form.size
        return taken


def _aligned(length: int, alignment: int) -> int:
    return -(-length // alignment) * alignment
