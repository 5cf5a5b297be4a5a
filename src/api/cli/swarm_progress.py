"""Shows on standard error how a swarm goes on, to a person who watches a terminal and to nobody else."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from api.cli.account import describe_duration
from api.cli.bars import bar, cut, draws_blocks, tally_lines
from api.cli.live_drawing import live_drawing
from api.cli.plain_text import visible

__all__ = ["SwarmProgress", "swarm_progress_on"]

_WARNINGS = 4
_MAX_WARNING = 200


class SwarmProgress:
    """Draws what was counted so far, and wipes it away in the end; on a dumb terminal it writes warnings alone.

    Used as a context manager; closing it a second time does nothing. `clock` tells seconds.
    """

    def __init__(self, console: Console | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._began = clock()
        self._live: Live | None = None
        self._progress: Mapping[str, Any] = {}
        self._lines: list[str] = []
        self._head = "opening"

    def __enter__(self) -> Self:
        if self._console is not None and not self._console.is_dumb_terminal:
            self._live = live_drawing(self._console, self.view)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wipe the drawing away."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def show(self, type: str, data: Mapping[str, Any]) -> None:  # noqa: A002 - as a run's observer names it
        """One note of the run."""
        if type == "swarm.progress":
            self._progress = data
        elif type == "swarm.started":
            self._head = visible(str(data.get("text")), limit=_MAX_WARNING)
        elif data.get("warning"):
            self.say(visible(str(data.get("text")), limit=_MAX_WARNING))

    def say(self, line: str) -> None:
        """A line that stays in the drawing, or is written on a terminal on which nothing can be drawn over."""
        self._lines.append(line)
        if self._console is not None and self._live is None:
            self._console.print(Text(line), soft_wrap=True)

    def view(self) -> Group:
        """The drawing as it is now, at most as wide as the console."""
        width = 80 if self._console is None else self._console.width
        blocks = self._console is not None and draws_blocks(self._console)
        agents, received = int(self._progress.get("agents") or 0), int(self._progress.get("received") or 0)
        lines = [Text(cut(f"{self._head}, {describe_duration(self._clock() - self._began)}", width), style="bold")]
        if agents:
            counts = [f"{received} of {agents} counted", f"{self._progress.get('in_flight', 0)} act"]
            if self._progress.get("failed"):
                counts.append(f"{self._progress['failed']} failures")
            lines.append(Text(bar(received / agents, max(8, width - 2), blocks=blocks), style="green"))
            lines.append(Text(cut(", ".join(counts), width)))
            results = self._progress.get("results") or {}
            lines += tally_lines(results, total=received, width=width, blocks=blocks) if results else []
        lines += [Text(cut(line, width), style="dim") for line in self._lines[-_WARNINGS:]]
        return Group(*lines)


def swarm_progress_on(console: Console | None) -> SwarmProgress:
    """What suits that console: nothing is shown without one."""
    return SwarmProgress(console)
