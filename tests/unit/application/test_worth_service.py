"""The service that says what results are worth: what it asks the history, what it keeps, and where it computes."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from application.ports.ballot_history import Earlier
from application.ports.metrics import NullMetrics
from application.services import worth_service
from application.services.worth_service import MOST_EARLIER, WorthService
from domain.analysis.past import PastBallots
from domain.analysis.worth import Worth, assess
from domain.errors.dependency import DependencyUnavailableError
from domain.models.deliberation import Deliberation, DeliberationStatus
from tests.simulated_jury import VERDICT, hear
from tests.unit.domain.analysis.sessions import CHOICE, held

_VOICES = tuple((f"a{number}", "m") for number in range(24))


class History:
    """Ballots in memory, and what was asked of them."""

    def __init__(self, past: Sequence[PastBallots] = ()) -> None:
        self.past = {each.deliberation_id: each for each in past}
        self.asked: list[Earlier] = []
        self.read: list[str] = []

    async def earlier(self, asked: Earlier) -> Sequence[str]:
        self.asked.append(asked)
        return list(self.past)

    async def ballots(self, deliberation_ids: Collection[str]) -> Sequence[PastBallots]:
        self.read += deliberation_ids
        return [self.past[own] for own in deliberation_ids]


class Away(History):
    """A history that cannot be read."""

    async def earlier(self, asked: Earlier) -> Sequence[str]:
        raise DependencyUnavailableError(dependency="database", problem="it is away")


class Warnings(NullMetrics):
    """Counts the warnings of groupthink."""

    def __init__(self) -> None:
        self.count = 0

    def groupthink_warned(self) -> None:
        self.count += 1


def _agreeing(count: int) -> list[PastBallots]:
    at = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
    return [PastBallots(f"p{number}", at + timedelta(days=number), CHOICE, {}, 0.95) for number in range(count)]


async def test_the_history_is_asked_for_the_same_agents_before_the_end() -> None:
    history, over = History(), held(["yes"] * 3, minute=5)
    await WorthService(history).of(over)
    (asked,) = history.asked
    assert over.finished_at is not None
    assert asked == Earlier("a0", None, "stub", over.finished_at, over.id, MOST_EARLIER)


async def test_earlier_ballots_give_effective_votes() -> None:
    past = hear(_VOICES, questions=60, correlation=0.5, resolved=True)
    found = await WorthService(History(past)).of(held(["yes"] * 24, answer=VERDICT))
    assert found is not None
    assert found.effective_votes == pytest.approx(2, rel=0.35)


async def test_what_was_said_once_is_not_computed_again() -> None:
    history, over = History(), held(["yes"] * 3)
    service = WorthService(history)
    assert await service.of(over) is await service.of(over)
    assert len(history.asked) == 1


async def test_ballots_that_were_read_once_are_not_read_again() -> None:
    history = History(_agreeing(5))
    service = WorthService(history)
    await service.of(held(["yes"] * 3))
    await service.of(held(["no"] * 3))
    assert history.read == [f"p{number}" for number in range(5)]


async def test_once_texts_are_erased_it_is_said_anew() -> None:
    history, over = History(), held(["yes"] * 3, reasons={0: "Same.", 1: "Same."})
    service = WorthService(history)
    await service.of(over)
    bare = replace(over.rounds[0], records=tuple(replace(each, reasoning=None) for each in over.rounds[0].records))
    found = await service.of(replace(over, erased=True, rounds=(bare,)))
    assert found is not None
    assert found.same_words == ()


async def test_what_has_not_ended_is_worth_nothing_yet() -> None:
    over = held(["yes"] * 3)
    assert await WorthService(History()).of(replace(over, status=DeliberationStatus.RUNNING)) is None


async def test_what_is_shown_without_its_rounds_is_not_judged() -> None:
    assert await WorthService(History()).of(replace(held(["yes"] * 3), rounds=())) is None


async def test_without_an_outcome_no_history_is_read() -> None:
    history = History()
    found = await WorthService(history).of(held(["yes"] * 3, status=DeliberationStatus.INQUORATE))
    assert found is not None
    assert history.asked == []


async def test_a_history_that_is_away_is_said() -> None:
    with pytest.raises(DependencyUnavailableError):
        await WorthService(Away()).of(held(["yes"] * 3))


async def test_groupthink_is_counted_when_it_ends_and_not_when_it_is_read() -> None:
    metrics, over = Warnings(), held(["yes"] * 10)
    service = WorthService(History(_agreeing(9)), metrics=metrics)
    await service.note_end(over)
    await service.of(over)
    assert metrics.count == 1


async def test_without_agreement_nothing_is_counted() -> None:
    metrics = Warnings()
    await WorthService(History(_agreeing(8)), metrics=metrics).note_end(held(["yes"] * 10))
    assert metrics.count == 0


@pytest.mark.parametrize(("agents", "on_the_loop"), [(3, True), (72, False)])
async def test_much_is_computed_beside_the_event_loop_and_little_on_it(
    monkeypatch: pytest.MonkeyPatch, agents: int, on_the_loop: bool
) -> None:
    threads: list[int] = []

    def watched(deliberation: Deliberation, past: Sequence[PastBallots]) -> Worth:
        threads.append(threading.get_ident())
        return assess(deliberation, past)

    monkeypatch.setattr(worth_service, "assess", watched)
    await WorthService(History(_agreeing(9))).of(held(["yes"] * agents))
    assert [thread == threading.get_ident() for thread in threads] == [on_the_loop]
