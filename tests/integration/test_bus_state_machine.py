"""Random sequences of calls to each transport of the message bus, compared step by step with a model of some fifty lines."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from application.ports.message_bus import Message, Priority
from domain.errors.bus import InboxFullError, NameTakenError, ReceiveTimeoutError, UnknownAgentError
from tests.integration.contracts.buses import TRANSPORTS, BusPlace

_Result = TypeVar("_Result")
_Outcome = tuple[str, Any]

AGENTS = st.sampled_from(["a", "b", "c", "d"])
GROUPS = st.sampled_from(["group", "circle", "d"])
PRIORITIES = st.sampled_from(list(Priority))


@dataclass
class Box:
    """One inbox of the model: what waits in order of taking, what is in hand, and which given ids it has seen."""

    capacity: int
    overflow: str
    manual: bool
    waiting: list[Message] = field(default_factory=list)
    in_hand: list[Message] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)


class Model:
    """The bus as a few lists, with no thought of speed. Names that refuse are returned as the name of their error."""

    def __init__(self) -> None:
        self.boxes: dict[str, Box] = {}
        self.groups: dict[str, set[str]] = {}
        self.counts: Counter[str] = Counter()
        self.dead: list[tuple[str, str, str]] = []

    def put(self, name: str, message: Message, *, alone: bool) -> str:
        box = self.boxes[name]
        if message.id in box.seen:
            self.counts["duplicates"] += 1
            return "duplicate"
        if len(box.waiting) + len(box.in_hand) >= box.capacity and box.overflow != "drop_oldest":
            self.counts["rejected"] += 1
            if not alone:
                self.dead.append((message.id, name, "inbox_full"))
            return "InboxFullError"
        self.counts["sent"] += 1
        box.seen.add(message.id)
        box.waiting.append(message)
        if len(box.waiting) + len(box.in_hand) > box.capacity:
            self.counts["dropped"] += 1
            lowest = max(each.priority for each in box.waiting)
            victim = next(each for each in box.waiting if each.priority == lowest)
            box.waiting.remove(victim)
            self.dead.append((victim.id, name, "inbox_full"))
        box.waiting.sort(key=lambda each: each.priority)
        return "taken" if message in box.waiting else "dropped"

    def send(self, message: Message) -> str:
        if message.recipient in self.boxes:
            found = self.put(message.recipient, message, alone=True)
            return found if found == "InboxFullError" else "sent"
        if message.recipient not in self.groups:
            self.dead.append((message.id, message.recipient, "unknown_agent"))
            return "UnknownAgentError"
        for member in self.groups[message.recipient] - {message.sender}:
            self.put(member, message, alone=False)
        return "sent"

    def take(self, name: str, most: int) -> list[Message]:
        box = self.boxes[name]
        taken, box.waiting = box.waiting[:most], box.waiting[most:]
        box.in_hand += taken if box.manual else []
        self.counts["delivered"] += len(taken)
        self.counts["acknowledged"] += 0 if box.manual else len(taken)
        return taken

    def unregister(self, name: str) -> None:
        box = self.boxes.pop(name)
        self.dead += [(message.id, name, "unregistered") for message in box.waiting + box.in_hand]
        for members in self.groups.values():
            members.discard(name)
        self.groups = {group: members for group, members in self.groups.items() if members}


class BusMachine(RuleBasedStateMachine):
    """Does the same to a bus and to the model; every outcome, count, queue and dead letter has to agree."""

    def __init__(self, place: AbstractAsyncContextManager[BusPlace]) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.place = place
        opened = self.run(place.__aenter__())
        self.buses = [opened.open(visibility_s=3_600.0) for _ in range(2)]
        self.owners: dict[str, int] = {}
        self.model = Model()
        self.number = count(1)

    def run(self, call: Coroutine[Any, Any, _Result]) -> _Result:
        return self.loop.run_until_complete(call)

    def outcome(self, call: Coroutine[Any, Any, Any]) -> _Outcome:
        try:
            return "done", self.run(call)
        except (UnknownAgentError, NameTakenError, InboxFullError, ReceiveTimeoutError) as error:
            return type(error).__name__, None

    def owner(self, agent: str) -> Any:
        return self.buses[self.owners.get(agent, 0)]

    @rule(
        agent=AGENTS,
        at=st.integers(0, 1),
        capacity=st.integers(1, 4),
        overflow=st.sampled_from(["reject", "drop_oldest", "block"]),
        manual=st.booleans(),
    )
    def register(self, agent: str, at: int, capacity: int, overflow: str, *, manual: bool) -> None:
        mode = "manual" if manual else "auto"
        call = self.buses[at].register(agent, capacity=capacity, overflow=overflow, acknowledge=mode)
        name, _ = self.outcome(call)
        if agent in self.model.boxes or agent in self.model.groups:
            assert name == "NameTakenError"
            return
        assert name == "done"
        self.model.boxes[agent] = Box(capacity, overflow, manual)
        self.owners[agent] = at

    @rule(agent=AGENTS)
    def unregister(self, agent: str) -> None:
        name, _ = self.outcome(self.owner(agent).unregister(agent))
        assert name == ("done" if agent in self.model.boxes else "UnknownAgentError")
        if agent in self.model.boxes:
            self.model.unregister(agent)

    @rule(agent=AGENTS, group=GROUPS, leaves=st.booleans())
    def join_or_leave(self, agent: str, group: str, *, leaves: bool) -> None:
        bus = self.owner(agent)
        name, _ = self.outcome(bus.leave(agent, group) if leaves else bus.join(agent, group))
        if agent not in self.model.boxes:
            assert name == "UnknownAgentError"
        elif group in self.model.boxes:
            assert name == "NameTakenError"
        else:
            assert name == "done"
            members = self.model.groups.setdefault(group, set())
            if leaves:
                members.discard(agent)
            else:
                members.add(agent)
            if not members:
                del self.model.groups[group]

    @rule(sender=AGENTS, recipient=AGENTS | GROUPS, priority=PRIORITIES, at=st.integers(0, 1), again=st.booleans())
    def send(self, sender: str, recipient: str, priority: Priority, at: int, *, again: bool) -> None:
        message = self.message(sender, recipient, priority, again=again)
        name, found = self.outcome(self.buses[at].send(message, timeout=0.0))
        expected = self.model.send(message)
        assert (name, found) == (("done", message.id) if expected == "sent" else (expected, None))

    @rule(sender=AGENTS, recipients=st.lists(AGENTS, max_size=4), priority=PRIORITIES)
    def send_many(self, sender: str, recipients: list[str], priority: Priority) -> None:
        recipients = [each for each in recipients if self.may_wait_for_nothing(each)]
        messages = [self.message(sender, recipient, priority, again=False) for recipient in recipients]
        name, found = self.outcome(self.buses[0].send_many(messages))
        failures = [outcome for outcome in map(self.model.send, messages) if outcome != "sent"]
        assert (name, found) == ((failures[0], None) if failures else ("done", [each.id for each in messages]))

    @rule(sender=AGENTS, priority=PRIORITIES, at=st.integers(0, 1))
    def broadcast(self, sender: str, priority: Priority, at: int) -> None:
        message = self.message(sender, "everybody", priority, again=False)
        took = self.run(self.buses[at].broadcast(message))
        outcomes = [self.model.put(name, message, alone=False) for name in self.model.boxes if name != sender]
        assert took == outcomes.count("taken")

    @rule(agent=AGENTS, most=st.integers(1, 4))
    def receive(self, agent: str, most: int) -> None:
        name, found = self.outcome(self.owner(agent).receive_many(agent, most, timeout=0))
        if agent not in self.model.boxes:
            assert name == "UnknownAgentError"
            return
        expected = self.model.take(agent, most)
        assert (name, found) == (("done", expected) if expected else ("ReceiveTimeoutError", None))

    @rule(agent=AGENTS, data=st.data())
    def acknowledge(self, agent: str, data: st.DataObject) -> None:
        box = self.model.boxes.get(agent)
        in_hand = [] if box is None else box.in_hand
        chosen = data.draw(st.lists(st.sampled_from(in_hand), unique_by=lambda each: each.id)) if in_hand else []
        name, found = self.outcome(self.owner(agent).acknowledge(agent, *(each.id for each in chosen), "unknown"))
        assert (name, found) == (("UnknownAgentError", None) if box is None else ("done", len(chosen)))
        for each in chosen:
            in_hand.remove(each)
        self.model.counts["acknowledged"] += len(chosen)

    @invariant()
    def agrees(self) -> None:
        counts = self.run(self.buses[0].stats())
        queued = {name: len(box.waiting) + len(box.in_hand) for name, box in self.model.boxes.items()}
        assert {name: number for name, number in counts.queued.items() if number} == {
            name: number for name, number in queued.items() if number
        }
        letters = self.run(self.buses[0].dead_letters())
        assert Counter((each.message.id, each.recipient, str(each.reason)) for each in letters) == Counter(
            self.model.dead
        )
        assert counts.dead_letters == len(self.model.dead)

    def teardown(self) -> None:
        names = ("sent", "delivered", "acknowledged", "duplicates", "rejected", "dropped")
        counts = [self.run(bus.stats()) for bus in self.buses]
        # Some transports count for the bus and others for the object.
        whole = {name: getattr(counts[0], name) for name in names}
        summed = {name: sum(getattr(each, name) for each in counts) for name in names}
        expected = {name: self.model.counts[name] for name in names}
        self.run(self.place.__aexit__(None, None, None))
        self.run(self.loop.shutdown_asyncgens())
        self.loop.close()
        assert expected in (whole, summed)

    def message(self, sender: str, recipient: str, priority: Priority, *, again: bool) -> Message:
        """A new message, or one whose id may have been sent before."""
        number = next(self.number)
        message_id = f"m-{number % 3}" if again else f"n-{number}"
        return Message(sender, recipient, "note", {"number": number}, priority=priority, id=message_id)

    def may_wait_for_nothing(self, recipient: str) -> bool:
        """`send_many` has no patience to give, so it is kept from inboxes that make a sender wait."""
        box = self.model.boxes.get(recipient)
        return box is None or box.overflow != "block"


@pytest.mark.parametrize("transport", sorted(TRANSPORTS))
def test_a_transport_behaves_as_the_model(
    transport: str, request: pytest.FixtureRequest, tmp_path: Path, sized: Callable[[int, int], int]
) -> None:
    folders = count(1)

    class Placed(BusMachine):
        def __init__(self) -> None:
            folder = tmp_path / str(next(folders))
            folder.mkdir()
            super().__init__(TRANSPORTS[transport](request, folder))

    run_state_machine_as_test(
        Placed,
        settings=settings(
            max_examples=sized(80, 1_000) if transport == "memory" else sized(15, 200),
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
