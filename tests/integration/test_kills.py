"""SIGKILL at random instants and at each named crash point: nothing acknowledged is lost, and no finished call is made again."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.bookmark import Bookmark
from tests.llm_server.handle import LlmServer
from tests.nursery import Nursery
from tests.ordeals.house import House, Kind
from tests.ordeals.ordeal import Ordeal
from tests.ordeals.strikes import Strike, strikes_for
from tests.servers.postgres import PostgresServer

_SEED = 4
_CHAPTER = 32


@pytest.fixture(scope="module")
def ordeals(
    request: pytest.FixtureRequest,
    postgres_server: PostgresServer,
    tmp_path_factory: pytest.TempPathFactory,
    sized: Callable[[int, int], int],
    campaign_minutes: float,
) -> Iterator[Mapping[Kind, Future[Counter[str]]]]:
    """What comes of the ordeals of all kinds that are asked for, which go on beside each other.

    30 random kills and 2 at each point over all kinds, in a campaign 100 and 20, begun where the last one ran out of time.
    """
    if not postgres_server.running:
        postgres_server.start()
    beside = [item for item in request.session.items if isinstance(item, pytest.Function) and item.path == request.path]
    chosen = [Kind(str(item.callspec.params["kind"])) for item in beside]
    with Nursery() as nursery, ThreadPoolExecutor(len(Kind)) as hands:
        yield {
            kind: hands.submit(
                _go_through,
                strikes_for(kind, random_kills=sized(30, 100), kills_per_point=sized(2, 20), seed=_SEED),
                partial(_house, kind, nursery, postgres_server, tmp_path_factory.mktemp(kind)),
                Bookmark(request.config, f"kills/{kind}") if campaign_minutes else None,
                time.monotonic() + campaign_minutes * 60,
            )
            for kind in chosen
        }


def _go_through(
    strikes: list[Strike], house: Callable[[str, LlmServer], House], bookmark: Bookmark | None, until: float
) -> Counter[str]:
    """The ends of all deliberations that were killed at work, chapter by chapter, each in a new house."""
    ended: Counter[str] = Counter()
    begin = 0 if bookmark is None else bookmark.place % len(strikes)
    with LlmServer() as llm:
        for start in range(begin, len(strikes), _CHAPTER):
            llm.reset()
            llm.configure(
                latency_seconds={"lognormal": {"median": 0.03, "sigma": 0.8}},
                faults=[{"contains": "you answer slowly", "latency_seconds": 1.3}],
                record_bodies=True,
            )
            ordeal = Ordeal(house(f"from-{start}", llm), llm, seed=_SEED + start)
            try:
                ordeal.open()
                ordeal.endure(strikes[start : start + _CHAPTER])
                ordeal.settle()
                ended += ordeal.verify()
            finally:
                ordeal.close()
            if bookmark is not None:
                bookmark.put(start + _CHAPTER if start + _CHAPTER < len(strikes) else 0)
                if time.monotonic() > until:
                    break
    return ended


def _house(kind: Kind, nursery: Nursery, postgres: PostgresServer, folder: Path, name: str, llm: LlmServer) -> House:
    settings: dict[str, Any] = {
        "CONCLAVE_LLM_BASE_URL": llm.base_url,
        "CONCLAVE_LLM_API_KEY": "k",
        "CONCLAVE_LLM_MODEL": "test-model",
    }
    if kind is not Kind.SQLITE:
        database = f"kills_{secrets.token_hex(6)}"
        postgres.create_database(database)
        settings["CONCLAVE_DATABASE_URL"] = postgres.url(database)
    if kind is Kind.WORKERS:
        settings["CONCLAVE_QUEUE"] = "procrastinate"
    (folder / name / "data").mkdir(parents=True)
    return House(kind, folder / name, nursery, settings)


@pytest.mark.parametrize("kind", Kind)
def test_what_was_acknowledged_outlives_every_kill_and_no_finished_call_is_made_again(
    kind: Kind, ordeals: Mapping[Kind, Future[Counter[str]]]
) -> None:
    ended = ordeals[kind].result()
    # Those that were cancelled, or halted while they ran, say less of what comes out undisturbed.
    assert ended["completed"] > ended.total() / 2
