"""What every store promises about searching it: what is found, whose it is, and that pages neither miss nor repeat."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from application.ports.witness_log import Erasure
from application.services.administration import operators_statement
from domain.models.deliberation import Deliberation, DeliberationStatus
from domain.models.outcome import OutcomeStatus
from domain.models.protocol import Protocol, ProtocolKind
from domain.models.question import AnswerFormat, AnswerKind, Question
from domain.models.search import Search
from domain.voting.rule import Rule, RuleKind
from domain.witness.entry import accepted
from tests.deliberation_specimens import NOON, OPTIONS, committing, deliberation, ended, opening, record, started
from tests.integration.contracts.store import Store

_CHOICE = AnswerFormat(AnswerKind.CHOICE, OPTIONS)


async def put(
    store: Store,
    question: str,
    *,
    context: str | None = None,
    answer: AnswerFormat = _CHOICE,
    key_name: str | None = None,
    rule: RuleKind = RuleKind.PLURALITY,
    **facts: Any,
) -> Deliberation:
    """A new deliberation about that, added."""
    fresh = deliberation(key_name=key_name)
    asked = replace(
        fresh.specification,
        question=Question(question, context, answer),
        rule=Rule(rule),
        **{name: facts.pop(name) for name in ("protocol", "metadata") if name in facts},
    )
    fresh = replace(fresh, specification=asked, **facts)
    await store.repository.add(fresh, accepted(fresh))
    return fresh


async def decide(store: Store, fresh: Deliberation, *answers: Any) -> Deliberation:
    """The same one, ended with these answers."""
    running = started(fresh)
    await store.repository.append(opening(running))
    records = [record(number, answer=answer) for number, answer in enumerate(answers)]
    given = fresh.specification.question.answer
    await store.repository.append(committing(running.id, records=records, answers=given))
    over = ended(running, records)
    await store.repository.append(committing(running.id, deliberation=over))
    return over


async def found(store: Store, text: str | None = None, **wanted: Any) -> list[str]:
    """The questions of all that a search finds, newest first."""
    own: dict[str, Any] = {name: wanted.pop(name) for name in ("status", "key_name", "origin") if name in wanted}
    search = Search(words=Search.words_of(text), **wanted)
    facts: dict[str, Any] = {"status": None, "key_name": None, **own, "search": search}
    page = await store.repository.page(limit=50, cursor=None, **facts)
    assert await store.repository.count(**facts) == len(page.items)
    return [each.specification.question.text for each in page.items]


async def read_to_the_end(store: Store, search: Search, *, limit: int) -> list[str]:
    """The ids on every page."""
    ids: list[str] = []
    cursor: str | None = None
    while True:
        page = await store.repository.page(status=None, key_name=None, limit=limit, cursor=cursor, search=search)
        ids += [each.id for each in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return ids


async def test_every_word_has_to_occur_somewhere_in_question_context_or_options(store: Store) -> None:
    await put(store, "Close the city centre to cars?", context="The council met on Monday.")
    await put(store, "Close the library on Monday?")
    assert await found(store, "monday") == ["Close the library on Monday?", "Close the city centre to cars?"]
    assert await found(store, "monday cars") == ["Close the city centre to cars?"]
    assert await found(store, "weekends LIBRARY") == ["Close the library on Monday?"]
    assert await found(store, "monday trams") == []


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("Soll die Straße gesperrt werden?", "STRASSE"),
        ("Une journée à Évreux?", "evreux journee"),
        ("Η ΟΔΟΣ ΕΙΝΑΙ ΚΛΕΙΣΤΗ;", "οδος"),
        ("日本の首都は？", "首都"),
        ("ﬁle ２４７?", "file 247"),
        ("İstanbul'a gidelim mi?", "istanbul"),
        ("Is it caf\u00e9\u200b-time?", "cafe-time"),
        ("Is this \u202ereversed\u202c?", "reversed"),
    ],
)
async def test_case_accents_and_invisible_characters_do_not_matter(store: Store, question: str, text: str) -> None:
    await put(store, question)
    await put(store, "Something else altogether?")
    assert await found(store, text) == [question]


@pytest.mark.parametrize(
    "text", ["%", "_", "100%", "a_b", "it's", '"; DROP', "\\", "[a-z]*", "^a", "?", "'' OR 1=1 --"]
)
async def test_what_means_something_to_a_database_is_text_like_any_other(store: Store, text: str) -> None:
    await put(store, "Nothing of the kind")
    assert await found(store, text) == []
    await put(store, f"Is {text} data?")
    assert await found(store, text) == [f"Is {text} data?"]


@pytest.mark.parametrize("text", ["", "   ", "\u200b", "\u0301", "\x00", "\ud800"])
async def test_a_text_in_which_nothing_can_be_seen_keeps_everything(store: Store, text: str) -> None:
    await put(store, "Anything?")
    assert await found(store, text) == ["Anything?"]


async def test_a_word_may_be_what_an_id_begins_with_and_no_other_part_of_it(store: Store) -> None:
    one, _ = await put(store, "First?"), await put(store, "Second?")
    assert await found(store, one.id[:8].upper()) == ["First?"]
    assert await found(store, f"{one.id} first") == ["First?"]
    assert await found(store, one.id[4:]) == []


async def test_a_decision_is_found_once_there_is_one(store: Store) -> None:
    number = await put(store, "How many?", answer=AnswerFormat(AnswerKind.NUMBER, unit="km"), rule=RuleKind.MEDIAN)
    verdict = await put(store, "Shall we?", answer=AnswerFormat(AnswerKind.VERDICT), rule=RuleKind.THRESHOLD)
    assert await found(store, "1234.5") == await found(store, "yes") == []
    await decide(store, number, 1234.5, 1234.5, 7.0)
    await decide(store, verdict, "yes", "yes", "no")
    assert await found(store, "1234.5") == ["How many?"]
    assert await found(store, "yes") == ["Shall we?"]


async def test_a_search_keeps_to_how_it_was_asked_and_how_it_came_out(store: Store) -> None:
    await decide(store, await put(store, "Decided?"), "yes", "yes", "no")
    await decide(store, await put(store, "Tied?"), "yes", "no")
    await put(store, "Debated?", protocol=Protocol(ProtocolKind.DEBATE, rounds=1, neighbours=1))
    await put(store, "Scored?", answer=AnswerFormat(AnswerKind.PROBABILITY), rule=RuleKind.MEDIAN)
    assert await found(store, outcome=OutcomeStatus.DECIDED) == ["Decided?"]
    assert await found(store, outcome=OutcomeStatus.TIED) == ["Tied?"]
    assert await found(store, outcome=OutcomeStatus.NO_MAJORITY) == []
    assert await found(store, protocol=ProtocolKind.DEBATE) == ["Debated?"]
    assert await found(store, answer=AnswerKind.PROBABILITY) == ["Scored?"]
    assert await found(store, rule=RuleKind.MEDIAN) == ["Scored?"]
    assert await found(store, "debated", answer=AnswerKind.PROBABILITY) == []
    assert await found(store, status=DeliberationStatus.QUEUED, answer=AnswerKind.CHOICE) == ["Debated?"]


async def test_a_search_keeps_to_a_time_and_to_who_answered(store: Store) -> None:
    for day in range(3):
        await put(store, f"Day {day}?", created_at=NOON + timedelta(days=day), simulated=day == 1)
    tomorrow = NOON + timedelta(days=1)
    assert await found(store, since=tomorrow) == ["Day 2?", "Day 1?"]
    assert await found(store, until=tomorrow) == ["Day 0?"]
    assert await found(store, since=tomorrow, until=tomorrow + timedelta(microseconds=1)) == ["Day 1?"]
    assert await found(store, simulated=True) == ["Day 1?"]
    assert await found(store, "day", simulated=False) == ["Day 2?", "Day 0?"]


async def test_a_caller_finds_only_what_is_of_its_own_key(store: Store) -> None:
    await put(store, "Ours to decide?", key_name="ours")
    await put(store, "Theirs to decide?", key_name="theirs")
    assert await found(store, "decide", key_name="ours") == ["Ours to decide?"]
    assert await found(store, key_name="ours") == ["Ours to decide?"]
    assert await found(store, "theirs", key_name="ours") == []


async def test_a_search_goes_with_an_origin(store: Store) -> None:
    await put(store, "Petitioned for trams?", metadata={"origin": "petition"})
    await put(store, "Scheduled for trams?", metadata={"origin": "scheduled"})
    assert await found(store, "trams", origin="petition") == ["Petitioned for trams?"]
    assert await found(store, "trams", origin="\x00") == []


async def test_an_erased_deliberation_is_found_by_its_id_and_by_no_word_any_more(store: Store) -> None:
    over = await decide(store, await put(store, "What is secret?"), "yes", "yes", "no")
    assert await found(store, "secret") == ["What is secret?"]
    await erase(store, over)
    assert await found(store, "secret") == await found(store, "weekends") == []
    assert await found(store, over.id[:8]) == [""]
    assert await found(store, outcome=OutcomeStatus.DECIDED) == [""]


async def test_pages_of_a_search_go_on_where_they_were_cut(store: Store) -> None:
    ids = [(await put(store, f"{('Trams', 'Buses')[number % 2]} {number}?")).id for number in range(10)]
    trams = Search(words=("trams",))
    assert await read_to_the_end(store, trams, limit=2) == ids[-2::-2]
    assert await read_to_the_end(store, trams, limit=5) == ids[-2::-2]


async def test_what_was_there_is_on_one_page_once_while_more_is_accepted(store: Store) -> None:
    before = [(await put(store, f"Trams before {number}?")).id for number in range(12)]
    others = [store.repository, await store.open_another()]
    stop = asyncio.Event()

    async def accept(place: int) -> int:
        accepted_here = 0
        while not stop.is_set():
            fresh = deliberation()
            question = Question(f"Trams during {place}?", None, _CHOICE)
            fresh = replace(fresh, specification=replace(fresh.specification, question=question))
            await others[place].add(fresh, accepted(fresh))
            accepted_here += 1
            await asyncio.sleep(0)
        return accepted_here

    async def read() -> Sequence[str]:
        ids = await read_to_the_end(store, Search(words=("trams",)), limit=5)
        stop.set()
        return ids

    first, second, ids = await asyncio.gather(accept(0), accept(1), read())
    assert first + second > 0
    assert len(ids) == len(set(ids))
    assert [each for each in ids if each in set(before)] == before[::-1]


async def test_a_question_of_32_kib_and_fifty_long_options_are_found(store: Store) -> None:
    options = tuple(f"{number:02d} {'ä' * 70}\u202e<b>" for number in range(50))
    await put(store, "Ü" * 16_000 + " needle?", answer=AnswerFormat(AnswerKind.CHOICE, options))
    assert len(await found(store, "needle 49 aaaa <b>")) == 1


async def erase(store: Store, over: Deliberation) -> None:
    """Erase the texts of it."""
    facts = {"deliberation_id": over.id}
    document, texts = operators_statement("erased", at=NOON, reason="asked for", key_name=None, facts=facts)
    await store.log.erase(Erasure(over.id, document, texts))
