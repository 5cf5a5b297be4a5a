"""A halt that some agents had already ended by when the process died is a halt for whoever goes on."""

from __future__ import annotations

from domain.models.deliberation import Deliberation, DeliberationStatus
from domain.models.roll_call import AgentState
from domain.witness.entry import accepted
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from infrastructure.stubs.virtual_time import VirtualClock
from tests.deliberation_specimens import NOON, committing, failed, opening, record, started
from tests.service_fixture import Canned, build, opened, specification


async def test_a_deliberation_whose_halt_was_cut_off_ends_as_halted_and_calls_nobody_although_the_halt_is_over() -> (
    None
):
    repository = InMemoryRepository(clock=VirtualClock())
    new = Deliberation.accept(specification(3), at=NOON, orchestrator="canned", simulated=True, key_name=None)
    await repository.add(new, accepted(new))
    await repository.append(opening(started(new)))
    await repository.append(committing(new.id, records=[record(0), failed(1, state=AgentState.HALTED)]))
    following = Canned({})
    async with opened(build(following, repository)) as house:
        ended = await house.service.wait(new.id, timeout_s=None)
    assert ended.status is DeliberationStatus.HALTED
    assert (ended.roll_call[AgentState.ANSWERED], ended.roll_call[AgentState.HALTED]) == (1, 2)
    assert following.calls == []


async def test_one_of_which_every_agent_was_halted_ends_as_halted_and_not_for_want_of_a_quorum() -> None:
    repository = InMemoryRepository(clock=VirtualClock())
    new = Deliberation.accept(specification(3), at=NOON, orchestrator="canned", simulated=True, key_name=None)
    await repository.add(new, accepted(new))
    await repository.append(opening(started(new)))
    halted = [failed(agent, state=AgentState.HALTED) for agent in range(3)]
    await repository.append(committing(new.id, records=halted))
    async with opened(build(Canned({}), repository)) as house:
        ended = await house.service.wait(new.id, timeout_s=None)
    assert (ended.status, ended.reason) == (DeliberationStatus.HALTED, "the system was halted")
