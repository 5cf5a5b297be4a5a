"""Runs over the Redis bus against a model of one inbox that goes by the letter, message by message."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from application.ports.message_bus import Message, Priority
from domain.errors.bus import InboxFullError
from tests.integration.redis_runs import ATTEMPTS, VISIBLE_S, Clock, patient_bus, taken


@pytest.fixture
def clock() -> Clock:
    return Clock()


@dataclass
class Held:
    message: tuple[int, int]
    attempt: int
    due: float


@dataclass
class Model:
    """One inbox by the letter, message by message; a message is its priority and number."""

    capacity: int
    overflow: str
    manual: bool
    clock: Clock
    waiting: list[tuple[int, int]] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    dead: list[tuple[str, int]] = field(default_factory=list)

    def send(self, message: tuple[int, int]) -> bool:
        self.sweep()
        if len(self.waiting) + len(self.held) < self.capacity:
            self.waiting.append(message)
            self.waiting.sort()
            return True
        if self.overflow == "reject":
            return False
        lowest = max([each[0] for each in self.waiting] + [message[0]])
        victim = next((each for each in [*self.waiting, message] if each[0] == lowest), message)
        self.waiting = sorted({*self.waiting, message} - {victim})
        self.dead.append(("inbox_full", victim[1]))
        return True

    def sweep(self) -> None:
        for each in [each for each in self.held if each.due <= self.clock.now and each.attempt >= ATTEMPTS]:
            self.held.remove(each)
            self.dead.append(("attempts", each.message[1]))

    def take(self, most: int) -> list[tuple[int, int]]:
        self.sweep()
        found: list[tuple[int, int]] = []
        for priority in Priority:
            for each in sorted(self.held, key=lambda one: one.message):
                if each.due <= self.clock.now and each.message[0] == priority and len(found) < most:
                    each.attempt, each.due = each.attempt + 1, self.clock.now + VISIBLE_S
                    found.append((each.message[1], each.attempt))
            for message in [each for each in self.waiting if each[0] == priority][: most - len(found)]:
                self.waiting.remove(message)
                found.append((message[1], 1))
                if self.manual:
                    self.held.append(Held(message, 1, self.clock.now + VISIBLE_S))
        return found

    def acknowledge(self, number: int) -> bool:
        kept = [each for each in self.held if each.message[1] != number]
        known, self.held = len(kept) < len(self.held), kept
        return known


@pytest.mark.parametrize("overflow", ["reject", "drop_oldest"])
@pytest.mark.parametrize("mode", ["auto", "manual"])
async def test_runs_behave_as_single_messages_do(
    redis_url: str, clock: Clock, mode: str, overflow: str, sized: Callable[[int, int], int]
) -> None:
    for seed in range(sized(8, 300)):
        await _compared(random.Random(seed), f"{redis_url}", f"{mode}-{overflow}-{seed}", clock, mode, overflow)


async def _compared(choice: random.Random, url: str, namespace: str, clock: Clock, mode: str, overflow: str) -> None:
    capacity, number, ids = choice.randint(3, 40), 0, {}
    model = Model(capacity, overflow, mode == "manual", clock)
    async with patient_bus(url, clock, namespace) as bus:
        await bus.register("a", capacity=capacity, overflow=overflow, acknowledge=mode)
        for _ in range(60):
            step = choice.random()
            if step < 0.35:
                priority = choice.choice(list(Priority))
                some = range(number, number + choice.randint(1, 12))
                number = some.stop
                outcomes = [model.send((int(priority), each)) for each in some]
                sending = bus.send_many([Message("s", "a", "number", each, priority) for each in some])
                if all(outcomes):
                    await sending
                else:
                    with pytest.raises(InboxFullError):
                        await sending
            elif step < 0.65:
                most = choice.randint(1, 15)
                found = await taken(bus, most)
                assert [(one.payload, one.attempt) for one in found] == model.take(most), (namespace, number)
                ids.update({one.payload: one.id for one in found})
            elif step < 0.9 and mode == "manual":
                in_hand = [each.message[1] for each in model.held]
                chosen = choice.sample(in_hand, choice.randint(0, len(in_hand)))
                if choice.random() < 0.6:
                    chosen.sort()
                known = [model.acknowledge(each) for each in chosen]
                assert await bus.acknowledge("a", *(ids[each] for each in chosen)) == sum(known)
            else:
                clock.now += choice.choice([VISIBLE_S / 3, VISIBLE_S])
            model.sweep()
            stats = await bus.stats()
            assert stats.queued == {"a": len(model.waiting) + len(model.held)}, (namespace, number)
        letters = await bus.dead_letters()
        assert sorted((str(one.reason), one.message.payload) for one in letters) == sorted(model.dead)
        assert (stats.dead_letters, stats.corrupt) == (len(model.dead), 0)
