"""Writes messages into the rings of a shard, whole arrays at a time: the kernel of numpy sends with it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from infrastructure.population.field import Field
from infrastructure.population.numpy_pieces import Letters, fitting, orders

__all__ = ["RingWriter"]

_32 = np.uint64(32)
# With more rings than these a message finds its place in its ring by itself.
_FEW_BINS = 8
# The share of a ring that has to be free before it is sent to.
_WORTH_A_PIECE = 4


class RingWriter:
    """Single producer into the rings of one worker's shards; what it wrote is visible once its heads are published."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self._shards, self._lanes = field.shards, field.lanes
        self._bins = self._lanes * self._shards
        self._heads, self._tails = field.heads.data, field.tails.data

    def room(self, source: int) -> int:
        """How many messages of that shard fit, whatever rings they belong into."""
        field = self._field
        if self._bins > _FEW_BINS:
            return field.capacity - int((field.heads[:, source, :] - field.tails[:, :, source]).max())
        heads, tails = self._heads, self._tails
        waiting = max(
            heads[lane, source, dest] - tails[lane, dest, source]
            for lane in range(self._lanes)
            for dest in range(self._shards)
        )
        return int(field.capacity - waiting)

    def is_worth_a_piece(self, room: int) -> bool:
        """False where it takes longer to draw a piece anew for each few that fit than to wait for whoever receives them."""
        return self._bins > _FEW_BINS or room >= self._field.capacity // _WORTH_A_PIECE

    def fitting(self, source: int, key: NDArray[Any]) -> int:
        """How many of the first messages, which belong into the rings `key`, fit."""
        field = self._field
        return fitting(key, field.capacity - (field.heads[:, source, :] - field.tails[:, :, source]).reshape(-1))

    def write(self, source: int, letters: Letters, key: NDArray[Any], position: NDArray[np.int64]) -> None:
        """Write these, all of which fit, and set `position` to the heads that make them visible. Their targets are used up."""
        position[:] = self._field.heads[:, source, :]
        heads = position.reshape(-1)
        words = letters.targets
        words <<= _32
        words |= letters.rows.view(np.uint64)
        if self._bins > _FEW_BINS:
            order = np.argsort(key, kind="stable")
            self._scatter(source, words.take(order), letters.values.take(order), key.take(order), heads)
            return
        for number, order in enumerate(orders(key, self._bins)):
            if order.size:
                lane, dest = divmod(number, self._shards)
                ring = ((lane * self._shards + source) * self._shards + dest) * self._field.capacity
                self._put(ring, int(heads[number]), order, words, letters.values)
                heads[number] += order.size

    def _put(
        self, ring: int, head: int, order: NDArray[np.int64], words: NDArray[np.uint64], values: NDArray[np.int64]
    ) -> None:
        """Write these of the messages behind the head of the ring that begins there, in one piece or in two."""
        field, place = self._field, head % self._field.capacity
        whole = min(order.size, field.capacity - place)
        for begin, piece in ((ring + place, order[:whole]), (ring, order[whole:])):
            if piece.size:
                end = begin + piece.size
                words.take(piece, out=field.who[begin:end], mode="clip")
                values.take(piece, out=field.values[begin:end], mode="clip")

    def _scatter(
        self,
        source: int,
        words: NDArray[np.uint64],
        values: NDArray[np.int64],
        key: NDArray[Any],
        heads: NDArray[np.int64],
    ) -> None:
        """Write messages that are sorted by ring behind the heads of many rings."""
        field, shards = self._field, self._shards
        numbers = np.arange(heads.size, dtype=np.int64)
        rings = (numbers // shards * shards + source) * shards + numbers % shards
        amounts = np.bincount(key, minlength=heads.size)
        slots = np.arange(words.size) + (heads - (np.cumsum(amounts) - amounts)).take(key)
        slots &= field.capacity - 1
        slots += (rings * field.capacity).take(key)
        field.who[slots] = words
        field.values[slots] = values
        heads += amounts
