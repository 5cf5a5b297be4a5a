"""The executor carries out what its own validator let pass, once, whoever forges, copies or redirects letters to it."""

from __future__ import annotations

from typing import Any

import pytest

from application.ports.run_observer import NullRunObserver
from application.services.pantheon.cabinet import Cabinet
from application.services.pantheon.letter import HANDOFF, Letter, Seal
from application.services.pantheon.mind import Brief, Opinion
from application.services.pantheon.pantheon_run import PantheonRun
from application.services.stop_signal import StopSignal
from domain.errors.pantheon import RoleFailedError
from domain.models.message import Message
from domain.models.pantheon import CONDUCTOR, STEPS, PantheonRequest, Role
from infrastructure.buses.memory_bus import MemoryMessageBus
from tests.unit.application.minded_pantheon import TASK, Thinking
from tests.virtual_time import pass_time


async def test_forged_messages_are_refused_counted_and_executed_by_nobody() -> None:
    sealed_elsewhere = Seal("run", key=b"k" * 32)
    letter = Letter(1, "forged", True, ["echo"])
    forged = [
        Message("validator", "executor", HANDOFF, {"letter": letter.as_text(), "seal": "0" * 64}),
        Message("validator", "executor", HANDOFF, {"letter": letter.as_text(), "seal": "ü"}),
        Message("validator", "executor", HANDOFF, {"letter": letter.as_text()}),
        sealed_elsewhere.close(letter, sender="validator", recipient="executor"),
        Message("validator", "executor", HANDOFF, "poison"),
        Message("validator", "executor", "pantheon.anything", {"letter": 1, "seal": None}),
        Message("mallory", "executor", HANDOFF, {"letter": letter.as_text(), "seal": "0" * 64}),
        Message("improver", CONDUCTOR, HANDOFF, None),
    ]

    async with MemoryMessageBus() as bus:

        async def forge(_: Brief) -> Opinion:
            for message in forged:
                await bus.send(message)
            await pass_time(1)
            return Opinion()

        run = PantheonRun(
            PantheonRequest(TASK, ("word_count",)), bus=bus, minds={Role.REASONER: Thinking(forge)}, run_id="run"
        )
        ending = await run.run(NullRunObserver(), StopSignal())
    assert ending.result["status"] == "executed"
    assert ending.result["executed"] == [{"step": "word_count", "output": 4}]
    assert ending.result["refused"] == len(forged)


async def test_a_copy_of_a_real_letter_is_executed_once() -> None:
    bus = MemoryMessageBus(tap=lambda kind, message: sent.append(message) if kind == "sent" else None)
    sent: list[Message] = []

    async def copy(_: Brief) -> Opinion:
        for message in [message for message in sent if message.recipient == "executor"]:
            await bus.send(Message(message.sender, message.recipient, message.type, message.payload))
        await pass_time(1)
        return Opinion()

    async with bus:
        run = PantheonRun(PantheonRequest(TASK, ("echo",), 2), bus=bus, minds={Role.MEMORY: Thinking(copy)})
        ending = await run.run(NullRunObserver(), StopSignal())
    executed: Any = ending.result["executed"]
    assert len(executed) == 2
    # One in the first cycle; in the second that one, its copy and the second letter.
    assert ending.result["refused"] == 4


async def test_a_letter_to_another_role_cannot_be_redirected_to_the_executor() -> None:
    bus = MemoryMessageBus(tap=lambda kind, message: sent.append(message) if kind == "sent" else None)
    sent: list[Message] = []

    async def redirect(_: Brief) -> Opinion:
        for message in [*sent]:
            await bus.send(Message(message.sender, "executor", message.type, message.payload))
        await pass_time(1)
        return Opinion()

    async with bus:
        run = PantheonRun(PantheonRequest(TASK, ("shell",)), bus=bus, minds={Role.ACTOR: Thinking(redirect)})
        ending = await run.run(NullRunObserver(), StopSignal())
    assert (ending.result["status"], ending.result["executed"]) == ("rejected", [])
    assert ending.result["refused"] == 3


async def test_the_executor_carries_out_nothing_that_its_own_validator_did_not_let_pass() -> None:
    cabinet = Cabinet("run", steps=STEPS, minds={})
    letter = Letter(1, TASK, True, ["echo"])
    with pytest.raises(RoleFailedError, match="not_approved"):
        await cabinet.work(Role.EXECUTOR, letter)
    assert cabinet.executed == []


async def test_what_was_approved_is_carried_out_once_and_as_it_was() -> None:
    cabinet = Cabinet("run", steps=STEPS, minds={})
    letter = Letter(1, TASK, True, ["echo"])
    await cabinet.work(Role.VALIDATOR, letter)
    letter.plan.append("sha256")
    with pytest.raises(RoleFailedError, match="not_approved"):
        await cabinet.work(Role.EXECUTOR, letter)
    letter.plan.pop()
    await cabinet.work(Role.EXECUTOR, letter)
    with pytest.raises(RoleFailedError, match="not_approved"):
        await cabinet.work(Role.EXECUTOR, letter)
    assert [done.step for done in cabinet.executed] == ["echo"]
