"""Calls that compare texts are held, recorded and charged like those of agents, and no budget is passed for their sake."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from application.ports.agent_orchestrator import AgentRequest
from application.ports.model_desk import Forecast, NullModelDesk
from application.ports.text_embedder import CallRecord
from application.services.quote_service import QuoteService
from application.services.text_synthesis import TextSynthesis
from application.services.verification.deliberations import Deliberations
from domain.analysis.recount import recount
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.witness import VerificationRefusedError
from domain.models.budget import Limits, Quorum, Usage
from domain.models.deliberation import Deliberation, DeliberationStatus
from domain.models.money import Hold, KeyBudget, Price
from domain.models.protocol import Protocol, ProtocolKind
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.roll_call import AgentState
from domain.voting.rule import Rule, RuleKind
from domain.witness.entry import COMPARISON, NOBODY, sealed
from domain.witness.merkle import leaf_hash
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from infrastructure.stubs.virtual_time import VirtualClock
from tests.protocol_fixture import Troubled, asked_for, proven
from tests.service_fixture import Canned, House, abandon, build, finished, history, opened, specification
from tests.virtual_time import pass_time

TEXT = AnswerFormat(AnswerKind.TEXT)
# They share no word, so that only an embedder finds them alike.
SAID = {"archon-0": "Build trams.", "archon-1": "Expand light rail.", "archon-2": "Leave everything."}
HELD = 100
TAKEN = 40
PRICE = Price.per_million(input_usd=1_000, output_usd=0)


class Paid:
    """An embedder whose provider finds all texts but the last alike; it takes a second, hangs, or fails."""

    name = "near/embed"
    alike_from = 0.8

    def __init__(self, *, price: Price | None = PRICE, hangs: bool = False, failure: str | None = None) -> None:
        self._hold = Hold(HELD, None if price is None else price.of(HELD, 0))
        self._hangs = hangs
        self._failure = failure
        self.calls = 0

    def foresee(self, texts: Sequence[str]) -> Forecast | None:
        del texts
        return Forecast(self.name, None, self._hold)

    async def embed(self, texts: Sequence[str], *, record: CallRecord | None = None) -> Sequence[Sequence[float]]:
        assert record is not None
        forecast = Forecast(self.name, None, self._hold)
        await record.reserve(forecast)
        await record.starting(forecast)
        self.calls += 1
        await pass_time(1)
        if self._hangs:
            await asyncio.Event().wait()
        cost = 0.0 if self._hold.cost is None else PRICE.of(TAKEN, 0) / 10**12
        record.ended(None if self._failure else Usage(1, TAKEN, 0, cost), failure=self._failure)
        if self._failure:
            raise DependencyUnavailableError(dependency="the model", problem=self._failure)
        return [[1.0, 0.0] if place + 1 < len(texts) else [0.0, 1.0] for place in range(len(texts))]


class Flat(NullModelDesk):
    """Every call of an agent takes ten tokens at most, and no money."""

    def foresee(self, request: AgentRequest) -> Forecast:
        return Forecast("near/small", None, Hold(10, 0))


def house(
    embedder: Paid | None, repository: InMemoryRepository | None = None, *, budgets: dict[str, KeyBudget] | None = None
) -> House:
    answers = {agent: json.dumps({"answer": text}) for agent, text in SAID.items()}
    if repository is None:
        repository = InMemoryRepository(clock=VirtualClock(), budgets=budgets)
    return build(Canned(answers), repository, texts=TextSynthesis(embedder, budgets=budgets))


def asked(*, limits: Limits | None = None, quorum: Quorum | None = None, rule: Rule | None = None) -> Any:
    return specification(3, answer=TEXT, rule=rule or Rule(RuleKind.SYNTHESIS), limits=limits, quorum=quorum)


def method_of(ended: Deliberation) -> str:
    assert ended.outcome is not None
    assert ended.outcome.synthesis is not None
    return ended.outcome.synthesis.method


async def entries_of(at: House) -> list[dict[str, Any]]:
    kept = (await at.repository.stored(after=0, limit=1))[0]
    return [json.loads(each.entry) for each in kept.entries]


async def test_a_comparison_is_intended_charged_and_counted_like_any_other_call() -> None:
    async with opened(house(Paid())) as at:
        ended = await finished(at, asked())
        verified = await proven(at, ended.id)
        kept = (await at.repository.stored(after=0, limit=1))[0]
        told = [each.type for each in await history(at, ended.id)]
        entries = await entries_of(at)
    assert (ended.status, method_of(ended), verified.not_recomputed) == (
        DeliberationStatus.COMPLETED,
        "near/embed",
        None,
    )
    assert ended.outcome is not None
    assert ended.outcome.tally == {"cluster 1": 2, "cluster 2": 1}
    assert ended.usage == Usage(4, TAKEN, 0, 0.04)
    assert kept.calls is not None
    assert kept.charges is not None
    own = [call for call in kept.calls if call.purpose == COMPARISON]
    assert [(call.agent_id, call.attempt, call.model, call.held_tokens) for call in own] == [
        (NOBODY, 1, "near/embed", HELD)
    ]
    charged = [charge for charge in kept.charges if charge.purpose == COMPARISON]
    assert [(each.input_tokens, each.cost, each.is_certain) for each in charged] == [(TAKEN, PRICE.of(TAKEN, 0), True)]
    assert [each["type"] for each in entries[-3:]] == ["call.intended", "texts.compared", "deliberation.ended"]
    # It is no agent's, so nobody is told that an agent started.
    assert told.count("agent.started") == 3


@pytest.mark.parametrize(
    ("limits", "budgets", "price"),
    [
        (Limits(max_total_tokens=HELD - 1), None, PRICE),
        (Limits(max_cost_usd=0.09), None, PRICE),
        (Limits(max_cost_usd=3.0), None, None),
        (None, {"*": KeyBudget(day=PRICE.of(HELD, 0) - 1)}, PRICE),
        (None, {"*": KeyBudget(month=10**15)}, None),
    ],
    ids=["tokens", "money", "money without a price", "budget of the key", "budget without a price"],
)
async def test_what_would_pass_a_budget_is_not_asked_and_words_are_compared(
    limits: Limits | None, budgets: dict[str, KeyBudget] | None, price: Price | None
) -> None:
    embedder = Paid(price=price)
    async with opened(house(embedder, budgets=budgets)) as at:
        ended = await finished(at, asked(limits=limits))
        await proven(at, ended.id)
        entries = await entries_of(at)
    assert (embedder.calls, method_of(ended), ended.usage.calls) == (0, "tf-idf", 3)
    assert "texts.compared" not in [each["type"] for each in entries]


async def test_a_budget_that_is_just_enough_is_used() -> None:
    budgets = {"*": KeyBudget(day=PRICE.of(HELD, 0))}
    async with opened(house(Paid(), budgets=budgets)) as at:
        ended = await finished(at, asked(limits=Limits(max_total_tokens=HELD, max_cost_usd=0.1)))
    assert method_of(ended) == "near/embed"


async def test_a_call_that_fails_is_charged_with_all_that_it_held_and_words_are_compared() -> None:
    async with opened(house(Paid(failure="connection_lost"))) as at:
        ended = await finished(at, asked())
        await proven(at, ended.id)
        entries = await entries_of(at)
    assert method_of(ended) == "tf-idf"
    assert ended.usage == Usage(4, uncertain_tokens=HELD, uncertain_usd=0.1)
    assert entries[-2]["failure"] == "connection_lost"


async def test_nobody_is_asked_where_the_quorum_is_not_met() -> None:
    embedder = Paid()
    answers = {agent: json.dumps({"answer": text}) for agent, text in list(SAID.items())[:2]}
    lacking = build(Canned(answers, default="no ballot"), texts=TextSynthesis(embedder))
    async with opened(lacking) as at:
        ended = await finished(at, asked(quorum=Quorum(1.0)))
        await proven(at, ended.id)
    assert (ended.status, embedder.calls) == (DeliberationStatus.INQUORATE, 0)


async def killed_once(repository: InMemoryRepository | None = None, running: str | None = None) -> tuple[House, str]:
    """A process that dies while the texts are being compared."""
    embedder = Paid(hangs=True)
    at = house(embedder, repository)
    await at.service.start()
    if running is None:
        running = (await at.service.submit(asked())).id
    await pass_time(8)
    assert embedder.calls == 1
    await abandon(at)
    # Longer than the lease.
    await pass_time(6)
    return at, running


async def test_a_comparison_that_died_with_its_process_is_made_once_more_and_both_are_counted() -> None:
    first, running = await killed_once()
    embedder = Paid()
    async with opened(house(embedder, first.repository)) as second:
        ended = await second.service.wait(running, timeout_s=None)
        await proven(second, running)
        entries = await entries_of(second)
    intended = [each["attempt"] for each in entries if each.get("purpose") == COMPARISON and "held" in each]
    assert (embedder.calls, intended, method_of(ended)) == (1, [1, 2], "near/embed")
    assert ended.usage == Usage(5, TAKEN, 0, 0.04, HELD, 0.1)


async def test_one_that_died_twice_is_made_no_more() -> None:
    first, running = await killed_once()
    await killed_once(first.repository, running)
    embedder = Paid()
    async with opened(house(embedder, first.repository)) as last:
        ended = await last.service.wait(running, timeout_s=None)
        await proven(last, running)
        entries = await entries_of(last)
    assert (embedder.calls, method_of(ended)) == (0, "tf-idf")
    assert ended.usage == Usage(5, uncertain_tokens=2 * HELD, uncertain_usd=0.2)
    assert entries[-2]["failure"] == "interrupted"


async def test_one_that_is_cancelled_while_nobody_works_on_it_still_tells_of_its_comparison() -> None:
    first, running = await killed_once()
    await first.repository.request_cancel(running)
    embedder = Paid()
    async with opened(house(embedder, first.repository)) as second:
        ended = await second.service.wait(running, timeout_s=None)
        await proven(second, running)
    assert (ended.status, embedder.calls) == (DeliberationStatus.CANCELLED, 0)
    assert ended.usage.uncertain_tokens == HELD


async def test_a_recount_takes_the_clusters_that_were_witnessed_and_asks_no_model() -> None:
    embedder = Paid()
    async with opened(house(embedder)) as at:
        ended = await finished(at, asked())
        kept = await at.repository.get(ended.id)
    assert kept is not None
    assert kept.outcome is not None
    again = recount(kept, Rule(RuleKind.SYNTHESIS))
    assert again is not None
    # Their words alone would have made three clusters of them.
    assert (again.tally, again.synthesis) == ({"cluster 1": 2, "cluster 2": 1}, kept.outcome.synthesis)
    assert again.decision == ended.outcome.decision if ended.outcome else None
    assert embedder.calls == 1


def follow(entries: Sequence[dict[str, Any]]) -> None:
    """Verify entries as if the log held just these; the end is sealed over them anew."""
    deliberations, leaves = Deliberations(), list[bytes]()
    for index, entry in enumerate(entries):
        whole = sealed(entry, leaves) if entry["type"] == "deliberation.ended" else entry
        leaf = leaf_hash(json.dumps(whole).encode())
        deliberations.follow(str(entry["deliberation_id"]), whole, index=index, leaf=leaf)
        leaves.append(leaf)


async def entries_of_a_comparison() -> list[dict[str, Any]]:
    async with opened(house(Paid())) as at:
        await finished(at, asked())
        return await entries_of(at)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"attempt": 2}, "never intended"),
        ({"agent_id": "archon-0"}, "is said to be an agent's"),
        ({"usage": {"calls": 1, "input_tokens": 1, "output_tokens": 0, "cost_usd": 0.04}}, "usage"),
        ({"usage": {"calls": 1, "input_tokens": TAKEN, "output_tokens": 0, "cost_usd": 0.01}}, "cost"),
    ],
)
async def test_a_comparison_that_is_told_otherwise_than_it_was_is_refused(
    change: dict[str, Any], complaint: str
) -> None:
    entries = await entries_of_a_comparison()
    follow(entries)
    entries[-2] = {**entries[-2], **change}
    with pytest.raises(VerificationRefusedError, match=complaint):
        follow(entries)


async def test_a_comparison_has_to_end_and_ends_once() -> None:
    entries = await entries_of_a_comparison()
    with pytest.raises(VerificationRefusedError, match="never ended"):
        follow([*entries[:-2], entries[-1]])
    with pytest.raises(VerificationRefusedError, match="ends twice in round 0"):
        follow([*entries[:-1], entries[-2], entries[-1]])


async def test_a_text_that_was_kept_from_an_earlier_round_is_the_one_whose_claims_are_shown() -> None:
    spec = asked_for(Protocol(ProtocolKind.DELPHI, max_rounds=1), 4, answer=TEXT)
    async with opened(build(Troubled(failing={(1, "archon-0")}))) as at:
        ended = await finished(at, spec)
        await proven(at, ended.id)
    last = {record.agent_id: record.state for record in ended.rounds[-1].records}
    assert (len(ended.rounds), last["archon-0"]) == (2, AgentState.FAILED)
    assert ended.outcome is not None
    assert ended.outcome.synthesis is not None
    assert "archon-0" in {agent for cluster in ended.outcome.synthesis.clusters for agent in cluster.agents}


@pytest.mark.parametrize(
    ("embedder", "limits", "calls", "tokens"),
    [
        (Paid(), None, {"expected": 4, "at_most": 8}, 2 * HELD),
        (Paid(price=None), Limits(max_cost_usd=3.0), {"expected": 3, "at_most": 6}, 0),
        (None, None, {"expected": 3, "at_most": 6}, 0),
    ],
    ids=["priced", "without a price where money is limited", "by words"],
)
def test_a_quote_counts_the_comparison_where_one_would_be_made(
    embedder: Paid | None, limits: Limits | None, calls: dict[str, int], tokens: int
) -> None:
    desk = Flat()
    quote = QuoteService(desk=desk, texts=TextSynthesis(embedder)).quote(asked(limits=limits))
    bare = QuoteService(desk=desk).quote(asked(limits=limits))
    assert (quote.calls.expected, quote.calls.at_most) == (calls["expected"], calls["at_most"])
    assert quote.tokens.at_most is not None
    assert bare.tokens.at_most is not None
    assert quote.tokens.at_most - bare.tokens.at_most == tokens
