"""The live feed of the chamber: each deliberation is followed once, whoever views it, and everybody is sent the same bytes."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Any

from api.conclave import Conclave
from api.dashboard.chamber_state import ChamberState, Change
from api.dashboard.costs import has_unknown_price
from api.dashboard.halt_banner import HaltBanner
from api.documents import moment, output_document
from api.report.reading import Reading
from api.rest.json_response import encode
from api.shown import shown_deliberation
from application.ports.clock import Clock, SystemClock
from application.services.deliberation_output_service import WitnessedOutput
from domain.analysis.control import CONTROL_OF
from domain.errors.conclave_error import ConclaveError
from domain.errors.deliberation import ServiceStoppingError
from domain.models.control import control_id
from domain.models.deliberation import Deliberation, DeliberationStatus

__all__ = ["GATHER_S", "MOST_FRAMES", "Broadcaster", "LatestWatch", "LiveFeed", "Viewer", "frame"]

_logger = logging.getLogger(__name__)

GATHER_S = 0.1
"""What happens within so many seconds is told at once."""

MOST_FRAMES = 16
"""A viewer that is so many frames behind is sent the whole anew instead of them."""

_LOOK_S = 1.0
_LATEST_OF = 8
_MOST_QUEUED = 200

Draw = Callable[[ChamberState], str]
"""The chamber as HTML."""


def frame(name: str, sequence: int, document: Mapping[str, Any]) -> bytes:
    """One server-sent event (HTML, section 9.2)."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (sequence, name.encode(), encode(dict(document)))


class Viewer:
    """One who views: what it is still to be sent. `wake` is set whenever there is something for it to look at."""

    def __init__(self, wake: asyncio.Event | None = None) -> None:
        self.wake = wake if wake is not None else asyncio.Event()
        self.frames: deque[bytes] = deque()
        self.wants_all = True

    def pass_on(self, content: bytes) -> None:
        """A frame for it; one too many, and it is to be sent the whole instead."""
        if not self.wants_all:
            self.frames.append(content)
            if len(self.frames) > MOST_FRAMES:
                self.start_over()
        self.wake.set()

    def start_over(self) -> None:
        """Send it the whole next."""
        self.frames.clear()
        self.wants_all = True
        self.wake.set()


class Broadcaster:
    """Follows one deliberation: reads what happens once, encodes it once, and passes the same bytes to all its viewers.

    What happens within `GATHER_S` seconds is read and told together. Nothing is told that is not committed, and outcomes only as
    they match their leaves. Once it `is_over` nothing follows: the deliberation ended, or it could not be followed any further.
    """

    def __init__(
        self,
        conclave: Conclave,
        deliberation_id: str,
        *,
        draw: Draw,
        clock: Clock | None = None,
    ) -> None:
        self.deliberation_id = deliberation_id
        self.state: ChamberState | None = None
        self.error: Exception | None = None
        self.is_over = False
        self.ready = asyncio.Event()
        self.looks = 0
        self._conclave = conclave
        self._draw = draw
        self._clock = clock if clock is not None else SystemClock()
        self._viewers: set[Viewer] = set()
        self._task: asyncio.Task[None] | None = None
        self._leaf = -1
        self._outputs: list[WitnessedOutput] = []
        self._drawn: tuple[int, str] | None = None
        self._whole: tuple[int, bytes] | None = None
        self._version = 0
        self._rows = -1

    @property
    def viewer_count(self) -> int:
        """How many view it."""
        return len(self._viewers)

    def join(self, viewer: Viewer) -> None:
        """One more views it; the first one has it begin."""
        self._viewers.add(viewer)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"broadcast-{self.deliberation_id}")

    def leave(self, viewer: Viewer) -> None:
        """One fewer; the last one's leaving ends it."""
        self._viewers.discard(viewer)
        if self._task is not None and not self._viewers:
            self._task.cancel()

    async def begun(self) -> ChamberState:
        """The state once it is known. Raises what keeps it from being known."""
        await self.ready.wait()
        if self.error is not None:
            raise self.error
        if self.state is None:
            raise ServiceStoppingError
        return self.state

    def html(self) -> str:
        """The chamber as it stands."""
        if self.state is None:
            return ""
        if self._drawn is None or self._drawn[0] != self._version:
            self._drawn = self._version, self._draw(self.state)
        return self._drawn[1]

    def next_frame(self, viewer: Viewer) -> bytes | None:
        """What that viewer is to be sent now, or None."""
        if viewer.wants_all:
            if self.state is None:
                return None
            viewer.wants_all = False
            viewer.frames.clear()
            return self._whole_frame(self.state)
        return viewer.frames.popleft() if viewer.frames else None

    def alive(self) -> bytes:
        """What tells a viewer that nothing happened, and how far it should have come."""
        sequence = 0 if self.state is None else self.state.sequence
        return frame("alive", sequence, {"sequence": sequence, "now": moment(self._clock.now())})

    def _whole_frame(self, state: ChamberState) -> bytes:
        if self._whole is None or self._whole[0] != self._version:
            name = "ended" if state.has_ended else "snapshot"
            document = {
                "sequence": state.sequence,
                "deliberation_id": self.deliberation_id,
                "now": moment(self._clock.now()),
                "html": self.html(),
            }
            self._whole = self._version, frame(name, state.sequence, document)
        return self._whole[1]

    async def _run(self) -> None:
        try:
            await self._follow()
        except ConclaveError as error:
            self.error = error
            _logger.warning("deliberation %s cannot be followed now: %s", self.deliberation_id, error)
        except Exception as error:
            self.error = error
            _logger.exception("deliberation %s cannot be shown", self.deliberation_id)
        finally:
            self.is_over = True
            self.ready.set()
            for viewer in self._viewers:
                viewer.wake.set()

    async def _follow(self) -> None:
        deliberations, own = self._conclave.deliberations, self.deliberation_id
        deliberation = await deliberations.get(own)
        is_unpriced = has_unknown_price(deliberation, self._conclave.fan_out.desk)
        state = ChamberState(deliberation, is_unpriced=is_unpriced)
        told = state.shown
        looks = deliberations.gathered_events(own, gather=self._gather)
        async with aclosing(looks):
            async for events in looks:
                self.looks += 1
                outputs = []
                if any(event.type == "agent.ended" for event in events):
                    outputs = list(await self._conclave.outputs.later_outputs(deliberation, after=self._leaf))
                    self._leaf = max([self._leaf, *(each.leaf_index for each in outputs)])
                    # The whole replies are long, and nothing here is told of them.
                    self._outputs += [replace(each, record=replace(each.record, content=None)) for each in outputs]
                if events:
                    state.take(events, outputs)
                if state.status is DeliberationStatus.QUEUED:
                    state.note_place(await self._place_in_queue(state.deliberation))
                ended = bool(events) and events[-1].is_terminal
                if ended:
                    await self._end(state)
                told = self._publish(state, told)
                if ended:
                    return

    async def _gather(self) -> None:
        await asyncio.sleep(GATHER_S)

    async def _end(self, state: ChamberState) -> None:
        deliberation = await self._conclave.deliberations.get(self.deliberation_id)
        document = await shown_deliberation(self._conclave, deliberation)
        # Each was compared with its leaf when it came, and what is committed does not change.
        outputs = [output_document(each) for each in self._outputs]
        state.end(deliberation, Reading(document, outputs))
        # Long texts of many agents take longer than an event loop should be held.
        self._drawn = self._version + 1, await asyncio.to_thread(self._draw, state)

    def _publish(self, state: ChamberState, told: Change) -> Change:
        """Tell everybody what is different from what they were `told`; where the page has to be drawn anew, they are sent the whole."""
        change = state.change_since(told)
        if self.state is not None and change.is_empty and not state.has_ended:
            return told
        self._version += 1
        self.state = state
        rows = len(state.positions.names)
        if rows != self._rows or state.has_ended:
            self._rows = rows
            for viewer in self._viewers:
                viewer.start_over()
        else:
            content = frame("change", state.sequence, self._document(state, change))
            for viewer in self._viewers:
                viewer.pass_on(content)
        self.ready.set()
        return state.shown

    def _document(self, state: ChamberState, change: Change) -> dict[str, Any]:
        return {
            "sequence": state.sequence,
            "now": moment(self._clock.now()),
            "status": state.status.value,
            "started_at": moment(state.started_at),
            "seats": [
                [number, mark.style, mark.symbol, mark.sign, mark.label] for number, mark in change.seats.items()
            ],
            "texts": dict(change.texts),
            "bars": dict(change.bars),
        }

    async def _place_in_queue(self, deliberation: Deliberation) -> int | None:
        """How many are before it, and it: whoever accepted them, of whom nothing is told."""
        waiting = await self._conclave.deliberations.page(
            status=DeliberationStatus.QUEUED, key_name=None, limit=_MOST_QUEUED, cursor=None
        )
        ids = [each.id for each in reversed(waiting.items)]
        return ids.index(deliberation.id) + 1 if deliberation.id in ids else None


class LatestWatch:
    """Looks once a second which deliberation is the latest of those that a caller sees, for everybody who sees the same."""

    def __init__(self, conclave: Conclave, sees: str | None) -> None:
        self.latest: str | None = None
        self.is_over = False
        self.ready = asyncio.Event()
        self._conclave = conclave
        self._sees = sees
        self._wakes: set[asyncio.Event] = set()
        self._task: asyncio.Task[None] | None = None

    @property
    def watcher_count(self) -> int:
        """How many wait for a newer one."""
        return len(self._wakes)

    def join(self, wake: asyncio.Event) -> None:
        """Set `wake` whenever another one is the latest, and when the watch is over."""
        self._wakes.add(wake)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="watch-latest")

    def leave(self, wake: asyncio.Event) -> None:
        """Do so no more; after the last one nothing is looked for."""
        self._wakes.discard(wake)
        if self._task is not None and not self._wakes:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            while not self._conclave.deliberations.is_stopping:
                latest = await find_latest(self._conclave, self._sees)
                is_news, self.latest = latest != self.latest or not self.ready.is_set(), latest
                self.ready.set()
                if is_news:
                    self._wake_all()
                await asyncio.sleep(_LOOK_S)
        except ConclaveError as error:
            _logger.warning("it cannot be seen now which deliberation is the latest: %s", error)
        finally:
            self.is_over = True
            self.ready.set()
            self._wake_all()

    def _wake_all(self) -> None:
        for wake in self._wakes:
            wake.set()


class LiveFeed:
    """Every broadcaster and every watch of this process, each there as long as somebody needs it. `banner` is told to all viewers."""

    def __init__(
        self, conclave: Conclave, *, draw: Draw, clock: Clock | None = None, banner: HaltBanner | None = None
    ) -> None:
        self._conclave = conclave
        self._draw = draw
        self._clock = clock
        self.banner = banner
        self.broadcasters: dict[str, Broadcaster] = {}
        self.watches: dict[str | None, LatestWatch] = {}

    @contextmanager
    def viewing(self, deliberation_id: str, viewer: Viewer) -> Iterator[Broadcaster]:
        """The broadcaster of that deliberation, with one more viewer. One that is over is not joined: what was erased since is gone."""
        found = self.broadcasters.get(deliberation_id)
        if found is None or found.is_over:
            found = self.broadcasters[deliberation_id] = Broadcaster(
                self._conclave, deliberation_id, draw=self._draw, clock=self._clock
            )
        found.join(viewer)
        try:
            yield found
        finally:
            found.leave(viewer)
            if not found.viewer_count and self.broadcasters.get(deliberation_id) is found:
                del self.broadcasters[deliberation_id]

    @contextmanager
    def watching(self, sees: str | None, wake: asyncio.Event) -> Iterator[LatestWatch]:
        """The watch for the latest that such a caller sees."""
        found = self.watches.get(sees)
        if found is None or found.is_over:
            found = self.watches[sees] = LatestWatch(self._conclave, sees)
        found.join(wake)
        try:
            yield found
        finally:
            found.leave(wake)
            if not found.watcher_count and self.watches.get(sees) is found:
                del self.watches[sees]


async def find_latest(conclave: Conclave, sees: str | None) -> str | None:
    """The id of the latest deliberation that such a caller sees, None where there is none yet. Controls only go with their own."""
    page = await conclave.deliberations.page(status=None, key_name=sees, limit=_LATEST_OF, cursor=None)
    return next((each.id for each in page.items if not _is_control(each)), None)


def _is_control(deliberation: Deliberation) -> bool:
    of = deliberation.specification.metadata.get(CONTROL_OF)
    return of is not None and control_id(of) == deliberation.id
