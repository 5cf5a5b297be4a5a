"""Finds agents, groups and waiting requests by name in shared memory: a hash table of chained nodes."""

from __future__ import annotations

from zlib import crc32

from infrastructure.buses.shm_layout import Head, Node
from infrastructure.buses.shm_segment import Segment

__all__ = ["Directory"]


class Directory:
    """Names and what they stand for. Agents and groups share one space of names, requests have their own.

    All calls are made inside a section of the segment.
    """

    def __init__(self, segment: Segment) -> None:
        self._segment = segment

    def find(self, name: str, *kinds: int) -> int:
        """The node of that name and one of those kinds, or 0."""
        words = self._segment.words
        text = name.encode()
        code = crc32(text)
        node = words[Head.BUCKETS + code % Head.BUCKET_COUNT]
        while node:
            if words[node + Node.HASH] == code and words[node + Node.KIND] in kinds and self._text(node) == text:
                return node
            node = words[node + Node.NEXT]
        return 0

    def insert(self, name: str, kind: int, value: int, serial: int = 0) -> int:
        """A new node."""
        segment = self._segment
        words = segment.words
        text = name.encode()
        code = crc32(text)
        bucket = Head.BUCKETS + code % Head.BUCKET_COUNT
        node = segment.allocate(Node.TEXT + (len(text) + 7) // 8)
        words[node + Node.NEXT] = words[bucket]
        words[node + Node.HASH] = code
        words[node + Node.KIND] = kind
        words[node + Node.VALUE] = value
        words[node + Node.SERIAL] = serial
        words[node + Node.LENGTH] = len(text)
        start = (node + Node.TEXT) * 8
        segment.memory[start : start + len(text)] = text
        segment.set(bucket, node)
        return node

    def remove(self, node: int) -> None:
        """The node is gone."""
        segment = self._segment
        words = segment.words
        place = Head.BUCKETS + words[node + Node.HASH] % Head.BUCKET_COUNT
        while words[place] != node:
            place = words[place] + Node.NEXT
        segment.set(place, words[node + Node.NEXT])
        segment.free(node, Node.TEXT + (words[node + Node.LENGTH] + 7) // 8)

    def name(self, node: int) -> str:
        """The name of a node."""
        return self._text(node).decode()

    def all(self, kind: int) -> list[int]:
        """Every node of a kind."""
        words = self._segment.words
        found = []
        for bucket in range(Head.BUCKETS, Head.BUCKETS + Head.BUCKET_COUNT):
            node = words[bucket]
            while node:
                if words[node + Node.KIND] == kind:
                    found.append(node)
                node = words[node + Node.NEXT]
        return found

    def _text(self, node: int) -> bytes:
        start = (node + Node.TEXT) * 8
        return self._segment.memory[start : start + self._segment.words[node + Node.LENGTH]]
