"""Shows on standard error how a deliberation goes on, to a person who watches a terminal and to nobody else."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from api.cli.account import describe_duration
from api.cli.bars import bar, cut, draws_blocks, tally_lines
from api.cli.live_drawing import live_drawing
from api.cli.plain_text import visible
from api.cli.rendered_rounds import answers_the_question

__all__ = ["LineProgress", "LiveProgress", "Progress", "QuietProgress", "progress_on"]

_MAX_BARS = 8
_VOICES = 3
_MAX_VOICE_CHARACTERS = 300
_LINES_PER_ROUND = 4

Document = Mapping[str, Any]


class Progress(Protocol):
    """Is told what happens, and shows it or not. Used as a context manager; what it drew is gone afterwards."""

    wants_outputs: bool

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def begin(self, document: Document) -> None:
        """The deliberation was accepted."""
        ...

    def note(self, event: Document) -> None:
        """An event of the contract."""
        ...

    def hear(self, outputs: Sequence[Document]) -> None:
        """All outputs that are committed so far."""
        ...

    def say(self, message: str) -> None:
        """Something about the command itself."""
        ...


class QuietProgress:
    """Shows nothing, because nobody watches."""

    wants_outputs = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing was drawn."""

    def begin(self, document: Document) -> None:
        """Not shown."""

    def note(self, event: Document) -> None:
        """Not shown."""

    def hear(self, outputs: Sequence[Document]) -> None:
        """Not shown."""

    def say(self, message: str) -> None:
        """Not shown."""


class _Standing:
    """What is known so far: who is asked, how each agent that ended has ended, and what was said."""

    def __init__(self) -> None:
        self.status = "opening"
        self.asked = 0
        self.started = 0
        self.round = 0
        self.purpose: str | None = None
        self.ended: dict[str, str] = {}
        self.outputs: Sequence[Document] = ()

    def note(self, event: Document) -> None:
        kind = event.get("type")
        if kind == "round.started":
            self.asked = len(event.get("agents") or ()) or self.asked
            self.started, self.ended = 0, {}
            self.round, self.purpose = int(event.get("round") or 0), event.get("purpose")
        elif kind == "agent.started":
            self.started += 1
        elif kind == "agent.ended":
            self.ended[str(event.get("agent_id"))] = str(event.get("state"))
        if kind in {"deliberation.started", "round.started"}:
            purpose = f" ({visible(self.purpose.replace('_', ' '))})" if self.purpose else ""
            self.status = f"round {self.round}{purpose}" if self.round else "running"

    @property
    def counts(self) -> str:
        by_state = Counter(self.ended.values())
        parts = [f"{by_state[state]} {visible(state.replace('_', ' '))}" for state in ("answered", *sorted(by_state))]
        distinct = list(dict.fromkeys(parts))
        return ", ".join([*distinct, f"{max(0, self.asked - len(self.ended))} to come"])

    @property
    def answers(self) -> Sequence[Any]:
        if not answers_the_question(self.purpose):
            return []
        answered = (
            output.get("answer")
            for output in self.outputs
            if output.get("state") == "answered" and output.get("round", 0) == self.round
        )
        return [answer[0] if isinstance(answer, list | tuple) and answer else answer for answer in answered]


class LineProgress:
    """Writes a few plain lines, for a terminal on which nothing can be drawn over."""

    wants_outputs = False

    def __init__(self, console: Console) -> None:
        self._console = console
        self._standing = _Standing()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lines stay where they are."""

    def begin(self, document: Document) -> None:
        """One line with how many are asked."""
        self._standing.asked = int((document.get("agents") or {}).get("count") or 0)
        self.say(f"asking {self._standing.asked} agents")

    def note(self, event: Document) -> None:
        """One line for each quarter that has ended."""
        before = len(self._standing.ended)
        self._standing.note(event)
        now, asked = len(self._standing.ended), max(1, self._standing.asked)
        if now * _LINES_PER_ROUND // asked > before * _LINES_PER_ROUND // asked:
            self.say(f"{now} of {asked} ended: {self._standing.counts}")

    def hear(self, outputs: Sequence[Document]) -> None:
        """Not shown."""

    def say(self, message: str) -> None:
        """One line."""
        self._console.print(Text(message), soft_wrap=True)


class LiveProgress:
    """Draws counts, time, the tally so far and the latest voices, and wipes them away in the end.

    What is written to standard error meanwhile stands above the drawing; a log set up before goes on beneath it. `clock` tells
    seconds.
    """

    wants_outputs = True

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._began = clock()
        self._standing = _Standing()
        self._kind = ""
        self._options: Sequence[str] = ()
        self._message = ""
        self._live: Live | None = None

    def __enter__(self) -> Self:
        self._live = live_drawing(self._console, self.view)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def begin(self, document: Document) -> None:
        """Time starts to count now, whatever opening took."""
        self._began = self._clock()
        answer = document.get("answer") or {}
        self._kind = str(answer.get("kind", ""))
        self._options = ("yes", "no") if self._kind == "verdict" else tuple(answer.get("options") or ())
        self._standing.asked = int((document.get("agents") or {}).get("count") or 0)
        self._standing.status = str(document.get("status", ""))

    def note(self, event: Document) -> None:
        """Seen at the next refresh."""
        self._standing.note(event)

    def hear(self, outputs: Sequence[Document]) -> None:
        """Seen at the next refresh."""
        self._standing.outputs = outputs

    def say(self, message: str) -> None:
        """Stands in the drawing from now on."""
        self._message = message

    def view(self) -> Group:
        """The drawing as it is now, at most as wide as the console."""
        width, standing = self._console.width, self._standing
        spent = describe_duration(self._clock() - self._began)
        if not standing.asked:
            return Group(Text(cut(self._message or f"opening, {spent}", width)))
        ended = len(standing.ended)
        head = f"{self._message or standing.status}: {ended} of {standing.asked} ended, {spent}"
        blocks = draws_blocks(self._console)
        room = max(8, width - 2)
        lines = [
            Text(cut(head, width), style="bold"),
            Text(bar(ended / standing.asked, room, blocks=blocks), style="green"),
            Text(cut(standing.counts, width)),
            *self._tally(width, blocks=blocks),
            *self._voices(width),
        ]
        return Group(*lines)

    def _tally(self, width: int, *, blocks: bool) -> Sequence[Text]:
        answers = self._standing.answers
        numbers = [answer for answer in answers if isinstance(answer, int | float)]
        if numbers:
            return [Text(cut(f"median so far {median(numbers):.6g} of {len(numbers)} estimates", width))]
        counted = Counter(str(answer) for answer in answers if answer is not None)
        if not counted or (not self._options and self._kind == "text"):
            return []
        ordered = {option: counted.get(option, 0) for option in self._options} or dict(counted)
        if len(ordered) > _MAX_BARS:
            ordered = dict(Counter(ordered).most_common(_MAX_BARS))
        lines = tally_lines(ordered, total=len(answers), width=width, blocks=blocks, whole_labels=False)
        return [Text(), *lines]

    def _voices(self, width: int) -> Sequence[Text]:
        heard = [output for output in self._standing.outputs if output.get("reasoning")][-_VOICES:]
        said = [
            f"{visible(str(output.get('agent_id')), limit=64)}: {visible(str(output['reasoning']), limit=_MAX_VOICE_CHARACTERS)}"
            for output in heard
        ]
        return [Text(), *(Text(cut(line, width), style="dim") for line in said)] if said else []


def progress_on(console: Console | None) -> Progress:
    """What suits that console: nothing without one, lines on a dumb terminal, and a live drawing on any other."""
    if console is None:
        return QuietProgress()
    return LineProgress(console) if console.is_dumb_terminal else LiveProgress(console)
