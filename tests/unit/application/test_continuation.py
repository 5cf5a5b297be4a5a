"""How far a deliberation has come, by its records, and by its ledger beside what the log says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from application.ports.deliberation_repository import Claim, Commit, LedgerCall
from application.services.continuation import course_of
from domain.witness.entry import accepted, call_intended
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from tests.deliberation_specimens import NOON, SettableClock, committing, deliberation, failed, opening, record, started


async def _claim(calls: Sequence[tuple[int, int]], *, recorded: bool = True) -> Claim:
    """A deliberation with calls (agent, attempt), a second apart, and with the ends of the agents 0 and 1."""
    repository = InMemoryRepository(clock=SettableClock())
    new = deliberation()
    await repository.add(new, accepted(new))
    await repository.append(opening(started(new)))
    for place, (agent, attempt) in enumerate(calls):
        entry = call_intended(
            new.id,
            at=NOON + timedelta(seconds=place),
            round_number=0,
            agent_id=f"archon-{agent}",
            attempt=attempt,
            model=None,
            prompt=None if agent == 0 else f"Think, {agent}.",
            prompt_salt=bytes(16),
        )
        await repository.append(Commit(new.id, [entry]))
    if recorded:
        await repository.append(committing(new.id, records=[record(0), failed(1)]))
    claim = await repository.claim(new.id, lease="me/1", lease_s=5)
    assert claim is not None
    return claim


async def test_one_that_nobody_began_has_come_nowhere() -> None:
    claim = await _claim([], recorded=False)
    course = course_of(claim)
    assert (dict(course.records), course.attempts(0, "archon-0"), course.began_at(0, "archon-0")) == ({}, 0, None)
    assert course.is_sound
    assert not course.has_begun(0, [agent.id for agent in claim.deliberation.specification.roster.agents])


async def test_who_has_ended_and_who_was_called_how_often_and_since_when() -> None:
    claim = await _claim([(0, 1), (1, 1), (2, 1), (1, 2)])
    course = course_of(claim)
    assert course.records == {(0, "archon-0"): record(0), (0, "archon-1"): failed(1)}
    assert [course.attempts(0, f"archon-{agent}") for agent in range(4)] == [1, 2, 1, 0]
    assert course.attempts(1, "archon-0") == 0
    assert [course.began_at(0, f"archon-{agent}") for agent in range(4)] == [
        NOON,
        NOON + timedelta(seconds=1),
        NOON + timedelta(seconds=2),
        None,
    ]
    assert course.is_sound


async def test_a_group_has_begun_when_any_of_it_was_called_or_has_ended() -> None:
    course = course_of(await _claim([(2, 1)]))
    agents = [agent.id for agent in (await _claim([])).deliberation.specification.roster.agents]
    assert [course.has_begun(0, [agent]) for agent in agents] == [True, True, True]
    assert not course.has_begun(1, agents)
    assert not course.has_begun(0, [])
    assert [course_of(await _claim([(2, 1)], recorded=False)).has_begun(0, [agent]) for agent in agents] == [
        False,
        False,
        True,
    ]


async def test_attempts_are_counted_by_their_numbers_whatever_is_missing() -> None:
    assert course_of(await _claim([(0, 3)])).attempts(0, "archon-0") == 3


def _forged(calls: Sequence[LedgerCall]) -> dict[str, list[LedgerCall]]:
    first, second, *rest = calls
    return {
        "one is missing": [first, *rest],
        "all are missing": [],
        "one too many": [*calls, replace(first, attempt=9, leaf_index=99)],
        "one twice": [*calls, first],
        "another attempt": [replace(first, attempt=2), second, *rest],
        "another agent": [replace(first, agent_id="archon-7"), second, *rest],
        "another round": [replace(first, round_number=1), second, *rest],
        "another purpose": [replace(first, purpose="repair"), second, *rest],
        "another prompt": [first, replace(second, prompt_sha256="00" * 32), *rest],
        "no prompt": [first, replace(second, prompt_sha256=None), *rest],
        "another place": [replace(first, leaf_index=77), second, *rest],
        "two that changed places": [
            replace(first, leaf_index=second.leaf_index),
            replace(second, leaf_index=first.leaf_index),
            *rest,
        ],
    }


_WAYS = list(_forged([LedgerCall(0, "a", "answer", 1, None, 0), LedgerCall(0, "b", "answer", 1, "aa", 1)]))


@pytest.mark.parametrize("way", _WAYS)
async def test_a_ledger_that_is_not_what_the_log_says_is_not_sound_and_the_log_is_believed(way: str) -> None:
    claim = await _claim([(0, 1), (1, 1), (2, 1)])
    course = course_of(replace(claim, calls=_forged(claim.calls)[way]))
    assert not course.is_sound
    assert [course.attempts(0, f"archon-{agent}") for agent in range(3)] == [1, 1, 1]


async def test_in_which_order_the_ledger_is_read_does_not_matter() -> None:
    claim = await _claim([(0, 1), (1, 1), (2, 1)])
    assert course_of(replace(claim, calls=list(reversed(claim.calls)))).is_sound
