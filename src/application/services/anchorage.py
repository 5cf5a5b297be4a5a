"""The anchors of one log: what each of them holds, how it is handed the next checkpoint, and what is wrong with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

from application.ports.anchor import Anchor, AnchorConflictError
from application.ports.clock import Clock
from application.ports.witness_log import Head, WitnessLogReader
from application.services.log_check import SignedHead
from application.services.log_tree import LogTree
from application.services.signed_history import SignedHistory
from domain.errors.witness import VerificationRefusedError
from domain.witness.checkpoint import Checkpoint

__all__ = ["AnchorState", "Anchorage", "RestartableAnchor"]

_logger = logging.getLogger(__name__)
_ANSWER_S = 20.0


@runtime_checkable
class RestartableAnchor(Protocol):
    """An anchor that can begin anew after a restore that an operator has accepted."""

    async def restart(self, note: str) -> None:
        """Keep that checkpoint whatever is held now. Raises like `Anchor.publish`."""
        ...


@dataclass(frozen=True, slots=True)
class AnchorState:
    """How an anchor stands: the size that it holds as far as this process knows, when it took it from here, and what is wrong.

    None where that is not known: nothing was given to it since the start, or nothing is wrong.
    """

    name: str
    tree_size: int | None
    taken_at: datetime | None
    problem: str | None


class Anchorage:
    """Gives every anchor each checkpoint once, and asks all of them at once; whatever one of them does stops nothing.

    `problems` says of each anchor that could not be reached or refused a checkpoint why.
    """

    def __init__(
        self, anchors: Sequence[Anchor], *, log: WitnessLogReader, history: SignedHistory, clock: Clock
    ) -> None:
        self.anchors = tuple(anchors)
        self.problems: dict[str, str] = {}
        self._log = log
        self._history = history
        self._clock = clock
        self._held: dict[str, Checkpoint] = {}
        self._unheard: set[str] = set()
        self._taken_at: dict[str, datetime] = {}

    @property
    def states(self) -> Sequence[AnchorState]:
        """Each anchor in the order in which they are configured."""
        held, taken_at, problems = self._held, self._taken_at, self.problems
        return [
            AnchorState(name, held[name].tree_size if name in held else None, taken_at.get(name), problems.get(name))
            for name in (anchor.name for anchor in self.anchors)
        ]

    @property
    def signed_heads(self) -> Sequence[SignedHead]:
        """What the anchors hold, as far as this process knows."""
        return [
            SignedHead(f"the newest checkpoint of the anchor {name!r}", checkpoint)
            for name, checkpoint in self._held.items()
        ]

    async def ask(self) -> None:
        """Have every anchor say what it holds."""
        await asyncio.gather(*(self._ask(anchor) for anchor in self.anchors))

    async def publish(self, checkpoint: Checkpoint, note: str) -> bool:
        """Give it to every anchor that has it not yet; whether one of them holds what has to be compared with the log."""
        behind = [anchor for anchor in self.anchors if self._held.get(anchor.name) != checkpoint]
        return any(await asyncio.gather(*(self._publish_to(anchor, note, checkpoint) for anchor in behind)))

    async def _ask(self, anchor: Anchor) -> None:
        try:
            async with asyncio.timeout(_ANSWER_S):
                note = await anchor.latest()
            if note is not None:
                self._held[anchor.name] = await self._history.open(note)
        except Exception as error:  # noqa: BLE001 - whatever an anchor does is shown, and stops nothing
            self._unheard.add(anchor.name)
            self._note_problem(anchor, error)
        else:
            # What it refused to take is not mended by its telling what it holds.
            if anchor.name in self._unheard:
                self._forget_problem(anchor)

    async def _publish_to(self, anchor: Anchor, note: str, checkpoint: Checkpoint) -> bool:
        """Whether the anchor holds something that has to be compared with the log."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self._hand_over(anchor, note, checkpoint)
        except Exception as error:  # noqa: BLE001 - whatever an anchor does is shown, and stops nothing
            self._unheard.discard(anchor.name)
            is_new = self._note_problem(anchor, error)
            return is_new and isinstance(error, AnchorConflictError | VerificationRefusedError)
        self._forget_problem(anchor)
        if self._held.get(anchor.name) == checkpoint:
            self._taken_at[anchor.name] = self._clock.now()
        return False

    async def _hand_over(self, anchor: Anchor, note: str, checkpoint: Checkpoint) -> None:
        tree = LogTree(self._log)
        held = self._held.get(anchor.name)
        if held is not None:
            head = Head(checkpoint.tree_size, checkpoint.root_hash)
            if await self._history.is_abandoned(tree, head, held):
                if isinstance(anchor, RestartableAnchor):
                    await anchor.restart(note)
                    self._held[anchor.name] = checkpoint
                    return
            elif held.tree_size > checkpoint.tree_size:
                return
        old_size = 0 if held is None else min(held.tree_size, checkpoint.tree_size)
        try:
            proof = await tree.consistency_proof(old_size, checkpoint.tree_size)
            await anchor.publish(note, old_size=old_size, consistency=proof)
        except AnchorConflictError as error:
            if not 0 <= error.conflict_size <= checkpoint.tree_size or error.conflict_size == old_size:
                raise
            proof = await tree.consistency_proof(error.conflict_size, checkpoint.tree_size)
            await anchor.publish(note, old_size=error.conflict_size, consistency=proof)
        self._held[anchor.name] = checkpoint

    def _note_problem(self, anchor: Anchor, error: Exception) -> bool:
        """Whether it is another problem than the anchor had before."""
        text = str(error) or type(error).__name__
        if isinstance(error, TimeoutError):
            text = f"it did not answer within {_ANSWER_S:g} s"
        if self.problems.get(anchor.name) == text:
            return False
        self.problems[anchor.name] = text
        _logger.warning("the anchor %r: %s", anchor.name, text, extra={"anchor": anchor.name})
        return True

    def _forget_problem(self, anchor: Anchor) -> None:
        self._unheard.discard(anchor.name)
        self.problems.pop(anchor.name, None)
