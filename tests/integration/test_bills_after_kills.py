"""SIGKILL in the middle of priced calls: no cost is lost from the ledger, and no budget is ever passed by what the far end counted."""

from __future__ import annotations

import secrets
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest

from domain.models.money import Price, picodollars
from infrastructure.stubs.crash_points import CrashAt
from tests.conclave_fixture import Answer, Client
from tests.llm_server.handle import LlmServer
from tests.nursery import Nursery
from tests.ordeals.house import House, Kind
from tests.ordeals.ordeal import Ordeal
from tests.ordeals.strikes import Strike
from tests.ordeals.voices import voice_in
from tests.servers.postgres import PostgresServer

_SEED = 5
_MOST_WRITTEN = 40
_SECRET = "a-secret-of-the-ordeal"
_MODEL = "test/test-model"
_PRICE = Price.per_million(input_usd=100, output_usd=1000)
# Where money is short: one process, and several that share a purse over their database.
_POOR = (Kind.SQLITE, Kind.WORKERS)
# How many are asked undisturbed before the first kill and after the last: the first is heard, and the last find no money left.
_BEFORE, _AFTER = 1, 5
# Where a call is reserved, made and settled.
_POINTS = ("intent.before", "intent.after", "call.before", "call.after", "ended.before", "ended.after")
_CALLS = """
    SELECT calls.deliberation_id, calls.agent_id, calls.held_cost, charges.input_tokens, charges.output_tokens, charges.cost,
           charges.is_certain
    FROM calls LEFT JOIN charges ON charges.deliberation_id = calls.deliberation_id
        AND charges.round_number = calls.round_number AND charges.agent_id = calls.agent_id
        AND charges.purpose = calls.purpose AND charges.attempt = calls.attempt
"""


@dataclass(frozen=True, slots=True)
class Money:
    """What may be spent, in US dollars: by each deliberation, and by the key in a day."""

    deliberation_usd: float
    day_usd: float


_AMPLE = Money(deliberation_usd=50.0, day_usd=10_000.0)
# There an answer takes 0.13, and a little more at most: three of five voices can be heard, in five deliberations or fewer.
_TIGHT = Money(deliberation_usd=0.45, day_usd=2.0)


@dataclass(frozen=True, slots=True)
class _Reply:
    """An answer that the far end gave, whole or to nobody, by its own count."""

    label: str
    voice: str
    at: float
    tokens: tuple[int, int]
    whole: bool

    @property
    def cost(self) -> int:
        return _PRICE.of(*self.tokens)


@dataclass(frozen=True, slots=True)
class _Call:
    """A row of the ledger; what it took is None where nobody knows."""

    deliberation_id: str
    voice: str
    held: int
    took: tuple[int, int] | None
    cost: int


@dataclass(frozen=True, slots=True)
class Books:
    """Both sides of the account after the last kill. `ids` and `documents` are by the label of a deliberation."""

    money: Money
    replies: list[_Reply]
    ledger: list[_Call]
    ids: Mapping[str, str]
    documents: Mapping[str, Any]
    usage: Mapping[str, Any]
    usage_of_key: Mapping[str, Any]
    kills: int

    def replies_to(self, label: str) -> list[_Reply]:
        """What the far end answered in that deliberation."""
        return [reply for reply in self.replies if reply.label == label]


class _KeyedClient(Client):
    """Asks with the key whose budget it is."""

    def ask(self, method: str, path: str, body: object = None, *, headers: Mapping[str, str] | None = None) -> Answer:
        return super().ask(method, path, body, headers={"Authorization": f"Bearer {_SECRET}", **(headers or {})})


class _PaidOrdeal(Ordeal):
    """An ordeal in which everything has a price and a limit."""

    def __init__(self, house: House, llm: LlmServer, money: Money) -> None:
        super().__init__(house, llm, seed=_SEED)
        self._client = _KeyedClient(house.port)
        self._money = money

    def _new(self, *, slow: bool) -> Any:
        asked = super()._new(slow=slow)
        limits = {**asked.body["limits"], "max_cost_usd": self._money.deliberation_usd}
        asked.body = {**asked.body, "limits": limits, "sampling": {"max_output_tokens": _MOST_WRITTEN}}
        return asked

    def ask_for(self, number: int) -> None:
        """So many more, undisturbed, until they have ended."""
        self._bring_up()
        for _ in range(number):
            assert self._ask(self._new(slow=False))
        self.settle()

    def books(self) -> Books:
        """Both sides, once everything has ended."""
        ids = {asked.label: str(asked.id) for asked in self._asked}
        return Books(
            self._money,
            list(map(_reply, filter(_is_reply, self._llm.journal()))),
            _ledger(self._house),
            ids,
            {asked.label: asked.document(self._client) for asked in self._asked},
            self._usage("deliberation"),
            self._usage("key"),
            len(self.kills),
        )

    def _usage(self, by: str) -> Mapping[str, Any]:
        answer = self._client.ask("GET", f"/v1/usage?by={by}")
        assert answer.status == 200, answer
        return {item["key"]: item for item in answer.document["items"]}


def _is_reply(entry: Mapping[str, Any]) -> bool:
    return entry["prompt_tokens"] is not None and entry["ended_monotonic"] is not None


def _reply(entry: Mapping[str, Any]) -> _Reply:
    voice = voice_in(entry)
    assert voice is not None, entry
    tokens = entry["prompt_tokens"], entry["completion_tokens"]
    return _Reply(*voice, entry["arrived_wall"], tokens, not entry["client_disconnected"])


def _ledger(house: House) -> list[_Call]:
    if house.kind is Kind.SQLITE:
        with closing(sqlite3.connect(house.folder / "data" / "conclave.db")) as connection:
            rows = connection.execute(_CALLS).fetchall()
    else:
        address = house.settings["CONCLAVE_DATABASE_URL"].replace("+psycopg", "", 1)
        with psycopg.connect(address, autocommit=True) as connection:
            rows = connection.execute(_CALLS).fetchall()
    return [
        _Call(str(deliberation), voice, held, (read, written) if certain else None, cost if certain else held)
        for deliberation, voice, held, read, written, cost, certain in rows
    ]


def _house(kind: Kind, money: Money, nursery: Nursery, postgres: PostgresServer, folder: Path, llm: LlmServer) -> House:
    (folder / "data").mkdir()
    providers = folder / "providers.toml"
    providers.write_text(
        f'[providers.test]\nbase_url = "{llm.base_url}"\napi_key_env = "TEST_KEY"\nmodels = ["test-model"]\n'
        f'[prices."{_MODEL}"]\ninput_usd_per_million = 100\noutput_usd_per_million = 1000\n'
        f"[budgets.ordeal]\nusd_per_day = {money.day_usd}\n"
    )
    settings = {
        "CONCLAVE_PROVIDERS_FILE": str(providers),
        "CONCLAVE_API_KEYS": f"ordeal:admin:{_SECRET}",
        "TEST_KEY": "k",
    }
    if kind is not Kind.SQLITE:
        database = f"bills_{secrets.token_hex(6)}"
        postgres.create_database(database)
        settings["CONCLAVE_DATABASE_URL"] = postgres.url(database)
    if kind is Kind.WORKERS:
        settings["CONCLAVE_QUEUE"] = "procrastinate"
    return House(kind, folder, nursery, settings)


def _strikes(kind: Kind, money: Money, *, number: int) -> list[Strike]:
    """This kind's share of so many kills; half of them where money is reserved and settled, but not where there may be none left."""
    random = Random(f"{_SEED}:{kind}")
    found = [
        Strike(CrashAt(random.choice(_POINTS), random.randint(1, 3)) if each % 2 and money is _AMPLE else None)
        for each in range(list(Kind).index(kind), number, len(Kind))
    ]
    random.shuffle(found)
    return found


def _go_through(house: House, llm: LlmServer, money: Money, strikes: list[Strike]) -> Books:
    llm.configure(
        latency_seconds={"lognormal": {"median": 0.03, "sigma": 0.8}},
        faults=[
            {"contains": "you answer slowly", "latency_seconds": 0.7},
            {"fault": "429", "fraction": 0.1, "each_call": True, "retry_after": 0.05},
            {"fault": "truncated", "fraction": 0.05, "each_call": True, "seed": 1},
        ],
        usage={} if money is _AMPLE else {"prompt_tokens": 900, "completion_tokens": _MOST_WRITTEN},
        record_bodies=True,
    )
    ordeal = _PaidOrdeal(house, llm, money)
    try:
        ordeal.open()
        ordeal.ask_for(_BEFORE)
        ordeal.endure(strikes)
        ordeal.settle()
        ordeal.ask_for(_AFTER)
        return ordeal.books()
    finally:
        ordeal.close()


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """Where all processes are forked from."""
    with Nursery() as opened:
        yield opened


@pytest.fixture(scope="module")
def all_books(
    request: pytest.FixtureRequest,
    nursery: Nursery,
    postgres_server: PostgresServer,
    tmp_path_factory: pytest.TempPathFactory,
    sized: Callable[[int, int], int],
) -> Iterator[Mapping[tuple[Kind, Money], Future[Books]]]:
    """What comes of the kills for all that are asked for, with money enough and with too little, as many at once as there are kinds."""
    if not postgres_server.running:
        postgres_server.start()
    beside = [item for item in request.session.items if isinstance(item, pytest.Function) and item.path == request.path]
    params = [item.callspec.params for item in beside if hasattr(item, "callspec")]

    def one(kind: Kind, money: Money, folder: Path, number: int) -> Books:
        with LlmServer() as llm:
            house = _house(kind, money, nursery, postgres_server, folder, llm)
            return _go_through(house, llm, money, _strikes(kind, money, number=number))

    with ThreadPoolExecutor(len(Kind)) as hands:
        yield {
            (kind, money): hands.submit(one, kind, money, tmp_path_factory.mktemp(kind), number)
            for name, money, number in (("ample", _AMPLE, sized(5, 100)), ("tight", _TIGHT, sized(4, 40)))
            for kind in Kind
            if any(each.get(name) == kind for each in params)
        }


@pytest.fixture(params=Kind)
def ample(request: pytest.FixtureRequest, all_books: Mapping[tuple[Kind, Money], Future[Books]]) -> Books:
    return all_books[request.param, _AMPLE].result()


@pytest.fixture(params=_POOR)
def tight(request: pytest.FixtureRequest, all_books: Mapping[tuple[Kind, Money], Future[Books]]) -> Books:
    return all_books[request.param, _TIGHT].result()


def test_no_cost_is_lost_from_the_ledger(ample: Books) -> None:
    _assert_none_is_lost(ample)
    assert ample.kills > 0
    assert {document["status"] for document in ample.documents.values()} == {"completed"}


def test_each_charge_is_what_the_far_end_counted_for_that_voice(ample: Books) -> None:
    _assert_each_charge_matches(ample)


def test_the_deliberation_tells_the_same_cost_as_the_ledger(ample: Books) -> None:
    for label, document in ample.documents.items():
        item, usage = ample.usage[ample.ids[label]], document["usage"]
        assert usage["cost_usd"] == pytest.approx(item["cost_usd"], abs=1e-9), label
        assert usage["uncertain_usd"] == pytest.approx(item["uncertain_usd"], abs=1e-9), label
        assert usage["calls"] == item["calls"], label


def test_what_was_killed_with_a_call_in_flight_is_uncertain_and_what_was_not_is_exact(ample: Books) -> None:
    by_voice: dict[tuple[str, str], list[_Reply]] = defaultdict(list)
    for reply in ample.replies:
        by_voice[ample.ids[reply.label], reply.voice].append(reply)
    unknown = Counter((call.deliberation_id, call.voice) for call in ample.ledger if call.took is None)
    for whose, replies in by_voice.items():
        settled = [call for call in ample.ledger if (call.deliberation_id, call.voice) == whose and call.took]
        told = sum(call.took != (0, 0) for call in settled)
        assert len(replies) - unknown[whose] <= told <= sum(reply.whole for reply in replies), whose


def test_no_budget_is_passed_by_what_the_far_end_counted(tight: Books) -> None:
    limit = picodollars(tight.money.deliberation_usd)
    spent = {label: sum(reply.cost for reply in tight.replies_to(label)) for label in tight.ids}
    assert max(spent.values()) <= limit
    by_day: Counter[str] = Counter()
    for reply in tight.replies:
        by_day[datetime.fromtimestamp(reply.at, UTC).date().isoformat()] += reply.cost
    assert max(by_day.values()) <= picodollars(tight.money.day_usd)
    _assert_none_is_lost(tight)
    _assert_each_charge_matches(tight)


def test_what_would_pass_a_budget_is_over_budget_and_the_others_are_heard(tight: Books) -> None:
    states: Counter[str] = Counter()
    for document in tight.documents.values():
        states.update(document["roll_call"])
    assert states["over_budget"] > 0
    assert states["answered"] > 0
    item = tight.usage_of_key["ordeal"]
    assert item["cost_usd"] + item["uncertain_usd"] <= tight.money.day_usd + 1e-9


def test_a_second_attempt_does_not_wait_for_what_the_first_one_held(
    nursery: Nursery, postgres_server: PostgresServer, tmp_path: Path, llm_server: LlmServer
) -> None:
    """A limit that holds one call at a time, and a first attempt that was refused: it gives back what it held."""
    llm_server.configure(faults=[{"fault": "429", "times": 1, "retry_after": 0.05}])
    house = _house(Kind.SQLITE, _AMPLE, nursery, postgres_server, tmp_path, llm_server)
    process = house.start("server")
    try:
        process.line()
        body = {
            "question": "Should it be asked again?",
            "agents": {"members": [{"id": "one", "persona": "You are alone."}]},
            "limits": {"max_cost_usd": 0.2},
            "sampling": {"max_output_tokens": _MOST_WRITTEN},
        }
        found = _KeyedClient(house.port).post(body, query="?wait=10").document
    finally:
        process.kill()
    assert (found["status"], found["usage"]["calls"]) == ("completed", 2), found


def _assert_none_is_lost(books: Books) -> None:
    for label, own in books.ids.items():
        counted = sum(reply.cost for reply in books.replies_to(label))
        item = books.usage.get(own, {"cost_usd": 0.0, "uncertain_usd": 0.0})
        kept = picodollars(item["cost_usd"]) + picodollars(item["uncertain_usd"])
        assert counted <= kept + 1, f"{label!r}: {counted - kept} picodollars are lost: {item!r}"
    counted = sum(reply.cost for reply in books.replies)
    total = books.usage_of_key["ordeal"]
    assert counted <= picodollars(total["cost_usd"]) + picodollars(total["uncertain_usd"]) + 1


def _assert_each_charge_matches(books: Books) -> None:
    replied: dict[tuple[str, str], Counter[tuple[int, int]]] = defaultdict(Counter)
    for reply in books.replies:
        if reply.whole:
            replied[books.ids[reply.label], reply.voice][reply.tokens] += 1
    charged: dict[tuple[str, str], Counter[tuple[int, int]]] = defaultdict(Counter)
    for call in books.ledger:
        if call.took is not None:
            assert call.cost == _PRICE.of(*call.took), call
            assert call.cost <= call.held, call
            if call.took != (0, 0):
                charged[call.deliberation_id, call.voice][call.took] += 1
    for whose, taken in charged.items():
        assert taken <= replied[whose], f"{whose!r} is charged {taken!r} for {replied[whose]!r}"
