"""Tiles: how a log's hashes and entries are cut into files that never change (C2SP tlog-tiles)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["TILE_HEIGHT", "TILE_WIDTH", "Tile", "entry_bundle", "read_entry_bundle", "tiles_of"]

TILE_HEIGHT = 8
TILE_WIDTH = 256

_MAX_LEVEL = 63
_MAX_ENTRY_BYTES = 65_535
_PATH = re.compile(r"(entries|[0-9]{1,2})/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([0-9]{1,3}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Tile:
    """Up to 256 hashes side by side at one height of the tree, or, where level is None, that many entries.

    Hash i of a tile at level l covers 256**l leaves and stands at place index * 256 + i of that height. A width below
    256 makes it partial. Raises ValueError where the level is not 0 to 63, the index below 0 or the width not 1 to 256.
    """

    level: int | None
    index: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        if self.level is not None and not 0 <= self.level <= _MAX_LEVEL:
            raise ValueError(
                f"there is no tile level {self.level!r}; take one from 0 to {_MAX_LEVEL}, None for entries"
            )
        if self.index < 0:
            raise ValueError(f"there is no tile {self.index!r}; the first of a level is 0")
        if not 1 <= self.width <= TILE_WIDTH:
            raise ValueError(f"a tile is not {self.width!r} wide; take a width from 1 to {TILE_WIDTH}")

    @classmethod
    def parse(cls, path: str) -> Tile:
        """The tile at a path such as `0/x001/234.p/5` or `entries/000`.

        Raises ValueError for any path that is not written exactly as `str` would write it.
        """
        found = _PATH.fullmatch(path)
        if found is not None:
            level, index, width = found.groups()
            tile = cls(
                level=None if level == "entries" else int(level),
                index=int(index.replace("/", "").replace("x", "")),
                width=TILE_WIDTH if width is None else int(width),
            )
            if str(tile) == path:
                return tile
        raise ValueError(f"{path!r} is not the path of a tile; write it like '0/x001/234.p/5' or 'entries/000'")

    def __str__(self) -> str:
        number = str(self.index)
        digits = number.zfill(-(-len(number) // 3) * 3)
        groups = [digits[start : start + 3] for start in range(0, len(digits), 3)]
        place = "/".join([f"x{group}" for group in groups[:-1]] + groups[-1:])
        suffix = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"{'entries' if self.level is None else self.level}/{place}{suffix}"

    @property
    def start(self) -> int:
        """The place of its first hash (or entry) at its height."""
        return self.index * TILE_WIDTH

    @property
    def end(self) -> int:
        """The place after its last hash (or entry) at its height."""
        return self.start + self.width

    def exists_in(self, tree_size: int) -> bool:
        """Whether a tree of that many leaves has all the tile's hashes, as one checkpoint or an earlier one named it."""
        return self.end <= tree_size >> TILE_HEIGHT * (self.level or 0)


def tiles_of(tree_size: int) -> Iterator[Tile]:
    """All the hash tiles of a tree, partial ones included, from the leaves upwards, each level from the left.

    The entry bundles are those of level 0 with level None. Raises ValueError where the size is below 0.
    """
    if tree_size < 0:
        raise ValueError(f"the size {tree_size!r} of a tree is below 0; give the number of its leaves")
    level, hashes = 0, tree_size
    while hashes:
        full, rest = divmod(hashes, TILE_WIDTH)
        for index in range(full):
            yield Tile(level, index)
        if rest:
            yield Tile(level, full, rest)
        level, hashes = level + 1, full


def entry_bundle(entries: Sequence[bytes]) -> bytes:
    """Up to 256 entries, each after its length as two bytes, big endian.

    Raises ValueError where there are more, or where one has more than 65,535 bytes.
    """
    if len(entries) > TILE_WIDTH:
        raise ValueError(f"{len(entries)!r} entries do not fit a bundle; give at most {TILE_WIDTH}")
    parts = []
    for place, entry in enumerate(entries):
        if len(entry) > _MAX_ENTRY_BYTES:
            raise ValueError(
                f"entry {place!r} of the bundle has {len(entry)!r} bytes; the format ends at {_MAX_ENTRY_BYTES}"
            )
        parts += [len(entry).to_bytes(2, "big"), entry]
    return b"".join(parts)


def read_entry_bundle(data: bytes) -> list[bytes]:
    """The entries of a bundle, in order. Raises ValueError where it ends inside one or has more than 256."""
    entries: list[bytes] = []
    place = 0
    while place < len(data):
        begin = place + 2
        end = begin + int.from_bytes(data[place:begin], "big")
        if begin > len(data) or end > len(data):
            raise ValueError(f"the bundle of {len(data)!r} bytes ends inside entry {len(entries)!r}; fetch it again")
        if len(entries) == TILE_WIDTH:
            raise ValueError(f"the bundle of {len(data)!r} bytes goes on after {TILE_WIDTH} entries; fetch it again")
        entries.append(data[begin:end])
        place = end
    return entries
