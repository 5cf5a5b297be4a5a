"""How far a campaign has come, kept from run to run, so that the next one begins where the last was cut off."""

from __future__ import annotations

import pytest

__all__ = ["Bookmark"]


class Bookmark:
    """A place in one campaign, kept in pytest's cache."""

    def __init__(self, config: pytest.Config, name: str) -> None:
        assert config.cache is not None
        self._cache, self._name = config.cache, name

    @property
    def place(self) -> int:
        """Where the next run begins."""
        return int(self._cache.get(self._name, 0))

    def put(self, place: int) -> None:
        """Begin there next time."""
        self._cache.set(self._name, place)
