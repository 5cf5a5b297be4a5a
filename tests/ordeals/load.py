"""Callers who ask while a Conclave is halted, and come back as they are told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.conclave_fixture import Answer
from tests.ordeals.voices import Asked

_MOST = 5


@dataclass
class Drilled(Asked):
    """One deliberation of a drill: held where it is still at work at the halt; `may_be_stored` once an answer to its caller was lost."""

    is_held: bool = False
    may_be_stored: bool = False


@dataclass
class Load:
    """Callers who ask for one deliberation after the other, and again for the same one when they are told to come back."""

    ask: Callable[[Drilled], Answer | None]
    new: Callable[[], Drilled]
    stopping: threading.Event = field(default_factory=threading.Event)
    # When each request began that was accepted although it had never been sent before.
    accepted_at: list[float] = field(default_factory=list)
    error: BaseException | None = None

    def run(self) -> None:
        try:
            for _ in range(_MOST):
                asked = self.new()
                while not self._once(asked):
                    if self.stopping.wait(0.1):
                        return
                if self.stopping.wait(0.04):
                    return
        except BaseException as error:  # noqa: BLE001 - raised again where the load is joined
            self.error = error

    def _once(self, asked: Drilled) -> bool:
        was_sent, began = asked.may_be_stored, time.monotonic()
        self.ask(asked)
        if asked.id is not None and not was_sent:
            self.accepted_at.append(began)
        return asked.id is not None
