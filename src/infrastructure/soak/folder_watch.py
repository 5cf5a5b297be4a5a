"""Tells an event loop which files of some folders are new: by inotify, or by looking every few milliseconds where that does not reach."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping

from infrastructure.soak.native import Inotify, is_networked

__all__ = ["FolderWatch"]

_POLL_S = 0.005
_SELDOM = 10


class FolderWatch:
    """Calls `changed(place, name, there)` for each file that was written, renamed into place or removed, and `missed()` when it cannot
    say which.

    The first of the `places` is looked at at every turn where it has to be looked at, the others at every tenth.
    """

    def __init__(
        self,
        places: Mapping[str, str],
        *,
        changed: Callable[[str, str, bool], None],
        missed: Callable[[], None],
        polls: bool = False,
    ) -> None:
        """`places` are paths of folders by name. `polls`: never ask for inotify."""
        self._places = dict(places)
        self._changed = changed
        self._missed = missed
        self.polls = polls or any(is_networked(path) for path in places.values())
        self._inotify: Inotify | None = None
        self._names: dict[int, str] = {}
        self._task: asyncio.Task[None] | None = None
        self._known: dict[str, dict[str, tuple[int, int]]] = {}

    def open(self) -> None:
        """Begin; what is there already is not told where inotify works."""
        loop = asyncio.get_running_loop()
        if not self.polls:
            try:
                self._inotify = Inotify()
                for name, path in self._places.items():
                    self._names[self._inotify.watch(path)] = name
            except OSError:
                # No more of them for this user, or no such thing here.
                self._close_inotify()
                self.polls = True
        if self._inotify is not None:
            loop.add_reader(self._inotify.file, self._read)
        else:
            self._task = loop.create_task(self._poll())

    async def close(self) -> None:
        """Tell nothing any more."""
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify.file)
            self._close_inotify()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None

    def _close_inotify(self) -> None:
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    def _read(self) -> None:
        while self._inotify is not None and (events := self._inotify.read()):
            for watch, name, there in events:
                if watch < 0:
                    self._missed()
                else:
                    self._changed(self._names[watch], name, there)

    async def _poll(self) -> None:
        turn = 0
        while True:
            for number, (place, path) in enumerate(self._places.items()):
                if number == 0 or turn % _SELDOM == 0:
                    self._compare(place, path)
            turn += 1
            await asyncio.sleep(_POLL_S)

    def _compare(self, place: str, path: str) -> None:
        before = self._known.get(place, {})
        now: dict[str, tuple[int, int]] = {}
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    now[entry.name] = (status.st_ino, status.st_mtime_ns)
        except OSError:
            # It changes while it is read, or its machine is away: the next turn looks again.
            return
        self._known[place] = now
        for name, seen in now.items():
            if before.get(name) != seen:
                self._changed(place, name, True)
        for name in before.keys() - now.keys():
            self._changed(place, name, False)
