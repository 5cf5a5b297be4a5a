"""While nobody can say whether the system is halted no call begins, and nobody's time runs but the deadline's."""

from __future__ import annotations

import asyncio

import pytest

from application.services.batch import Batch, StopCause
from domain.errors.agent import AgentInvocationError
from domain.errors.halt import SystemHaltedError
from domain.models.roll_call import AgentState
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from tests.unit.application.scripted_fan_out import Scripted, Witness, raising, requests, service
from tests.virtual_time import pass_time, time_passed


class DoubtfulHalt(HaltCheckerStub):
    """In doubt until it is made sure."""

    def __init__(self) -> None:
        super().__init__()
        self.sure = asyncio.Event()
        self.sure.set()

    async def is_halted(self) -> bool:
        return not self.sure.is_set() or await super().is_halted()

    async def wait_until_open(self) -> bool:
        await self.sure.wait()
        return await super().wait_until_open()


async def test_in_doubt_no_call_begins_and_nobodys_time_runs_and_then_it_goes_on() -> None:
    halt, orchestrator = DoubtfulHalt(), Scripted()
    running = asyncio.create_task(
        service(orchestrator, halt=halt, slots=2).run_batch(Batch("b", agent_timeout_s=3), requests(4), max_attempts=1)
    )
    await pass_time(0.5)
    halt.sure.clear()
    await pass_time(50)
    assert list(orchestrator.attempts) == ["archon-0", "archon-1"]
    halt.sure.set()
    result = await running
    assert result.success_count == 4
    assert result.total_ms == pytest.approx(51_500)
    assert {output.duration_seconds for output in result.outputs} == {1.0}


async def test_a_batch_that_begins_in_doubt_waits_as_well() -> None:
    halt, orchestrator = DoubtfulHalt(), Scripted()
    halt.sure.clear()
    asyncio.get_running_loop().call_later(50, halt.sure.set)
    result = await service(orchestrator, halt=halt).run_batch(
        Batch("b", agent_timeout_s=3), requests(4), max_attempts=1
    )
    assert (result.success_count, orchestrator.attempts["archon-0"]) == (4, [50])


@pytest.mark.parametrize("doubt_from", [0.0, 0.5])
async def test_the_deadline_runs_while_it_is_in_doubt(doubt_from: float) -> None:
    halt, orchestrator = DoubtfulHalt(), Scripted()
    if doubt_from:
        asyncio.get_running_loop().call_later(doubt_from, halt.sure.clear)
    else:
        halt.sure.clear()
    fan_out = service(orchestrator, halt=halt, slots=2)
    result = await fan_out.run_batch(Batch("b", agent_timeout_s=99, deadline=20), requests(4), max_attempts=1)
    assert {(failure.kind, failure.attempts) for failure in result.failures} == {("deadline", 0)}
    assert result.success_count == (2 if doubt_from else 0)
    assert time_passed() == pytest.approx(20)
    assert fan_out.pool.active_count == 0


@pytest.mark.parametrize("doubt_from", [0.0, 0.5])
@pytest.mark.parametrize("cause", [StopCause.CANCELLED, StopCause.SUSPENDED])
async def test_a_stop_is_heeded_while_it_is_in_doubt(doubt_from: float, cause: StopCause) -> None:
    halt, orchestrator = DoubtfulHalt(), Scripted()
    if doubt_from:
        asyncio.get_running_loop().call_later(doubt_from, halt.sure.clear)
    else:
        halt.sure.clear()
    batch = Batch("b", agent_timeout_s=99)
    asyncio.get_running_loop().call_later(5, batch.stop, cause)
    result = await service(orchestrator, halt=halt, slots=2).run_batch(batch, requests(4), max_attempts=1)
    assert {failure.state for failure in result.failures} == {AgentState.CANCELLED}
    assert time_passed() == pytest.approx(5)


@pytest.mark.parametrize("began_in_doubt", [True, False])
async def test_a_doubt_that_turns_out_to_be_a_halt_halts(began_in_doubt: bool) -> None:
    halt, orchestrator = DoubtfulHalt(), Scripted()
    if began_in_doubt:
        halt.sure.clear()
    running = asyncio.create_task(
        service(orchestrator, halt=halt, slots=2).run_batch(Batch("b", agent_timeout_s=9), requests(4), max_attempts=1)
    )
    await pass_time(0.5)
    halt.sure.clear()
    await pass_time(5)
    await halt.set_halted("fire")
    halt.sure.set()
    if began_in_doubt:
        with pytest.raises(SystemHaltedError):
            await running
    else:
        result = await running
        assert {failure.kind for failure in result.failures} == {"halted"}
    assert len(orchestrator.attempts) == (0 if began_in_doubt else 2)


async def test_a_doubt_that_comes_up_while_a_further_attempt_is_recorded_holds_its_call_back() -> None:
    halt = DoubtfulHalt()
    orchestrator = Scripted(archon_0=raising(AgentInvocationError("reset", kind="reset", retryable=True)))
    running = asyncio.create_task(
        service(orchestrator, halt=halt).run_batch(
            Batch("b", agent_timeout_s=99), requests(1), max_attempts=2, observer=Witness(takes_s=2)
        )
    )
    # The first is recorded until 2 s, the second from 2.25 s to 4.25 s.
    await pass_time(3)
    halt.sure.clear()
    await pass_time(20)
    assert orchestrator.attempts["archon-0"] == [2]
    halt.sure.set()
    assert (await running).outputs[0].attempt == 2
    assert orchestrator.attempts["archon-0"] == [2, 23]
