"""What every adapter promises that sums up what calls took: each counts once, and what nobody knows is no cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, update

from application.ports.usage_reader import MAX_USAGE_ITEMS, UsageBy, UsageItem, UsageReader
from domain.models.deliberation import Deliberation
from domain.witness.entry import accepted
from infrastructure.persistence.database import Database, open_database
from infrastructure.persistence.migrate import upgrade
from infrastructure.persistence.sql_deliberation_repository import SqlDeliberationRepository
from infrastructure.persistence.sql_usage_reader import SqlUsageReader
from infrastructure.persistence.tables import calls, charges, deliberations
from infrastructure.stubs.in_memory_usage_reader import InMemoryUsageReader, SpentCall
from tests.deliberation_specimens import deliberation

_CENT = 10**10


@dataclass(frozen=True)
class Ledger:
    """An adapter under test, and what puts calls where it reads them."""

    reader: UsageReader
    accept: Callable[[str | None], Awaitable[str]]
    write: Callable[[Sequence[SpentCall]], Awaitable[None]]
    forget_keys: Callable[[], Awaitable[None]]


class _Memory:
    def __init__(self) -> None:
        self.kept: list[SpentCall] = []
        self.keys: list[tuple[str, str | None]] = []

    async def accept(self, key_name: str | None) -> str:
        accepted_id = deliberation(key_name=key_name).id
        self.keys.append((accepted_id, key_name))
        return accepted_id

    async def write(self, spent: Sequence[SpentCall]) -> None:
        for call in spent:
            position = [each for each, _ in self.keys].index(call.deliberation_id)
            self.kept.append(replace(call, position=position, key_name=self.keys[position][1]))

    async def forget_keys(self) -> None:
        self.kept = [replace(call, key_name=None) for call in self.kept]


class _Sql:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._repository = SqlDeliberationRepository(database)
        self._written = 0

    async def accept(self, key_name: str | None) -> str:
        new: Deliberation = deliberation(key_name=key_name)
        await self._repository.add(new, accepted(new))
        return new.id

    async def write(self, spent: Sequence[SpentCall]) -> None:
        first = self._written
        self._written += len(spent)

        def insert_rows(connection: Connection) -> None:
            for number, call in enumerate(spent, start=first):
                same = {
                    "deliberation_id": call.deliberation_id,
                    "round_number": 0,
                    "agent_id": f"archon-{number}",
                    "purpose": "answer",
                    "attempt": 1,
                }
                asked = {
                    "prompt_sha256": None,
                    "leaf_index": number,
                    "model": call.model,
                    "day": call.day,
                    "held_tokens": call.held_tokens,
                    "held_cost": call.held_cost,
                }
                connection.execute(insert(calls).values(**same, **asked))
                if call.input_tokens or call.is_certain:
                    taken = {
                        "model": None,
                        "input_tokens": call.input_tokens,
                        "output_tokens": call.output_tokens,
                        "cost": call.cost,
                        "is_certain": call.is_certain,
                    }
                    connection.execute(insert(charges).values(**same, **taken))

        await self._database.write(insert_rows)

    async def forget_keys(self) -> None:
        def forget(connection: Connection) -> None:
            connection.execute(update(deliberations).values(key_name=None))

        await self._database.write(forget)

    async def close(self) -> None:
        await self._repository.close()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ledger]:
    """Each adapter in turn, empty."""
    if request.param == "memory":
        memory = _Memory()
        yield Ledger(InMemoryUsageReader(lambda: memory.kept), memory.accept, memory.write, memory.forget_keys)
        return
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/conclave.db"
        upgrade(url)
    else:
        url = request.getfixturevalue("empty_postgres")
    database = await open_database(url)
    sql = _Sql(database)
    yield Ledger(SqlUsageReader(database), sql.accept, sql.write, sql.forget_keys)
    await sql.close()
    await database.close()


def _call(
    deliberation_id: str,
    *,
    model: str | None = "openai/small",
    day: str = "2026-11-21",
    cost: int | None = _CENT,
    is_certain: bool = True,
    held_cost: int | None = 7 * _CENT,
) -> SpentCall:
    return SpentCall(
        deliberation_id,
        position=0,
        key_name=None,
        model=model,
        day=day,
        held_tokens=1_500,
        held_cost=held_cost,
        is_certain=is_certain,
        input_tokens=100,
        output_tokens=20,
        cost=cost,
    )


async def test_where_nothing_was_called_there_is_nothing(ledger: Ledger) -> None:
    await ledger.accept("alice")
    for by in UsageBy:
        assert await ledger.reader.usage(by, key_name=None) == []


@pytest.mark.parametrize(
    ("by", "keys"),
    [
        (UsageBy.KEY, ["alice", ""]),
        (UsageBy.PROVIDER, ["openai", "gemini", ""]),
        (UsageBy.MODEL, ["openai/small", "gemini/flash/latest", "", "local", "openai/large"]),
        (UsageBy.DAY, ["2026-11-22", "2026-11-21"]),
    ],
)
async def test_every_call_is_counted_once_whatever_it_is_summed_up_by(
    ledger: Ledger, by: UsageBy, keys: list[str]
) -> None:
    alices, nobodys = await ledger.accept("alice"), await ledger.accept(None)
    await ledger.write(
        [
            _call(alices, cost=9 * _CENT),
            _call(alices, model="gemini/flash/latest", cost=4 * _CENT),
            _call(nobodys, model="local", day="2026-11-22"),
            _call(nobodys, model="openai/large", day="2026-11-22", is_certain=False),
            _call(nobodys, model=None),
        ]
    )
    items = await ledger.reader.usage(by, key_name=None)
    assert [item.key for item in items] == keys
    assert sum(item.calls for item in items) == 5
    assert sum(item.input_tokens for item in items) == 400
    assert sum(item.output_tokens for item in items) == 80
    assert sum(item.cost_usd for item in items) == pytest.approx(0.15)
    assert sum(item.uncertain_usd for item in items) == pytest.approx(0.07)
    assert sum(item.uncertain_tokens for item in items) == 1_500


async def test_deliberations_come_newest_first_and_only_so_many(ledger: Ledger) -> None:
    ids = [await ledger.accept(None) for _ in range(4)]
    await ledger.write([_call(each) for each in (ids[2], ids[0], ids[3], ids[1], ids[0])])
    items = await ledger.reader.usage(UsageBy.DELIBERATION, key_name=None, limit=3)
    assert [(item.key, item.calls) for item in items] == [(ids[3], 1), (ids[2], 1), (ids[1], 1)]
    assert await ledger.reader.usage(UsageBy.DELIBERATION, key_name=None, limit=0) == []
    everything = await ledger.reader.usage(UsageBy.DELIBERATION, key_name=None, limit=MAX_USAGE_ITEMS)
    assert [(item.key, item.calls) for item in everything][-1] == (ids[0], 2)


async def test_a_key_is_shown_its_own_calls_alone(ledger: Ledger) -> None:
    alices, bobs, nobodys = [await ledger.accept(name) for name in ("alice", "bob", None)]
    await ledger.write([_call(alices), _call(bobs), _call(bobs), _call(nobodys)])
    for by in UsageBy:
        assert sum(item.calls for item in await ledger.reader.usage(by, key_name="bob")) == 2
        assert await ledger.reader.usage(by, key_name="carol") == []
        # No key is called so, and those without a key are nobody's.
        assert await ledger.reader.usage(by, key_name="") == []
    (item,) = await ledger.reader.usage(UsageBy.KEY, key_name="bob")
    assert item.key == "bob"


async def test_a_call_whose_end_nobody_knows_counts_with_what_it_holds_and_as_no_cost(ledger: Ledger) -> None:
    own = await ledger.accept(None)
    in_flight = replace(_call(own, is_certain=False), input_tokens=0, output_tokens=0, cost=None)
    await ledger.write([_call(own), _call(own, is_certain=False), in_flight])
    (item,) = await ledger.reader.usage(UsageBy.DELIBERATION, key_name=None)
    assert item == UsageItem(own, 3, 100, 20, 0.01, 0.14, 3_000)


async def test_a_call_without_a_known_price_has_tokens_and_no_cost(ledger: Ledger) -> None:
    own = await ledger.accept(None)
    await ledger.write([_call(own, cost=None, held_cost=None), _call(own, is_certain=False, held_cost=None)])
    (item,) = await ledger.reader.usage(UsageBy.MODEL, key_name=None)
    assert item == UsageItem("openai/small", 2, 100, 20, 0.0, 0.0, 1_500, unpriced_calls=2)


async def test_how_many_calls_had_no_known_price_is_counted_beside_what_the_others_cost(ledger: Ledger) -> None:
    own = await ledger.accept(None)
    await ledger.write([_call(own), _call(own, cost=None, held_cost=None), _call(own, is_certain=False)])
    (item,) = await ledger.reader.usage(UsageBy.DELIBERATION, key_name=None)
    assert (item.calls, item.unpriced_calls, item.cost_usd) == (3, 1, 0.01)


async def test_sums_are_exact_to_the_picodollar(ledger: Ledger) -> None:
    own = await ledger.accept(None)
    await ledger.write([_call(own, cost=cost) for cost in (1, 999_999, 333_333_333_333, 666_665_666_667)])
    (item,) = await ledger.reader.usage(UsageBy.KEY, key_name=None)
    assert item.cost_usd == 1.0


async def test_a_sum_beyond_64_bits_of_picodollars_is_no_error(ledger: Ledger) -> None:
    own = await ledger.accept(None)
    most = 2**63 - 1
    await ledger.write([_call(own, cost=most), _call(own, cost=most), _call(own, is_certain=False, held_cost=most)])
    (item,) = await ledger.reader.usage(UsageBy.DAY, key_name=None)
    assert item.cost_usd == 2 * most / 10**12
    assert item.uncertain_usd == most / 10**12


async def test_the_dearest_is_first_however_small_the_difference(ledger: Ledger) -> None:
    own = await ledger.accept(None)
    await ledger.write(
        [
            _call(own, model="p/b", cost=2_000_000),
            _call(own, model="p/a", cost=999_999),
            _call(own, model="p/a", cost=999_999),
            _call(own, model="p/c", cost=2_000_001),
            _call(own, model="p/Z", cost=2_000_000),
        ]
    )
    items = await ledger.reader.usage(UsageBy.MODEL, key_name=None)
    assert [item.key for item in items] == ["p/c", "p/Z", "p/b", "p/a"]


async def test_whoever_reads_while_calls_are_written_sees_each_transaction_whole_and_never_less_than_before(
    ledger: Ledger,
) -> None:
    own = await ledger.accept("alice")
    written = asyncio.Event()

    async def write() -> None:
        for _ in range(20):
            await ledger.write([_call(own, cost=_CENT), _call(own, is_certain=False), _call(own, cost=2 * _CENT)])
        written.set()

    async def read(by: UsageBy) -> None:
        seen = 0
        while not written.is_set() or seen < 60:
            items = await ledger.reader.usage(by, key_name="alice")
            found = items[0].calls if items else 0
            assert found >= seen
            assert found % 3 == 0
            if items:
                assert items[0].input_tokens == found // 3 * 200
                assert items[0].cost_usd == pytest.approx(found // 3 * 0.03)
                assert items[0].uncertain_usd == pytest.approx(found // 3 * 0.07)
            seen = found
            await asyncio.sleep(0)

    await asyncio.gather(write(), *(read(by) for by in (UsageBy.KEY, UsageBy.DELIBERATION, UsageBy.MODEL)))
    (item,) = await ledger.reader.usage(UsageBy.KEY, key_name="alice")
    assert item.calls == 60
    assert item.cost_usd == pytest.approx(0.6)


@pytest.mark.parametrize("by", list(UsageBy))
async def test_once_a_key_is_erased_its_calls_are_still_counted_under_no_name(ledger: Ledger, by: UsageBy) -> None:
    own = await ledger.accept("alice")
    await ledger.write([_call(own)])
    await ledger.forget_keys()
    (item,) = await ledger.reader.usage(by, key_name=None)
    assert item.calls == 1
    assert by is not UsageBy.KEY or not item.key
    assert await ledger.reader.usage(by, key_name="alice") == []
