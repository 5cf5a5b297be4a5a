"""Halts at random moments, in every way and with every channel away once: no call begins any more, and nothing else is lost."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.bookmark import Bookmark
from tests.llm_server.handle import LlmServer
from tests.nursery import Nursery
from tests.ordeals.drill import Drill, drills_for
from tests.ordeals.drills import Drills, Figures
from tests.ordeals.house import House, Kind
from tests.ordeals.site import Site
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

_logger = logging.getLogger(__name__)

_SEED = 784
_CHAPTER = 8


@pytest.fixture(scope="module")
def halts(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    sized: Callable[[int, int], int],
    campaign_minutes: float,
) -> Iterator[Mapping[Kind, Future[Figures]]]:
    """What comes of the drills of all kinds that are asked for, which go on beside each other.

    20 halts over all kinds, in a campaign 200, begun where the last one ran out of time.
    """
    chosen = [
        Kind(str(item.callspec.params["kind"]))
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.module is request.module
    ]
    until = time.monotonic() + campaign_minutes * 60
    with Nursery() as nursery, ThreadPoolExecutor(len(Kind)) as hands:
        yield {
            kind: hands.submit(
                _go_through,
                drills_for(kind, number=sized(20, 200), seed=_SEED),
                partial(_site, kind, tmp_path_factory.mktemp(kind), nursery),
                Bookmark(request.config, f"halts/{kind}") if campaign_minutes else None,
                until,
            )
            for kind in chosen
        }


def _go_through(
    drills: Sequence[Drill],
    site: Callable[[LlmServer, RedisServer, PostgresServer], Site],
    bookmark: Bookmark | None,
    until: float,
) -> Figures:
    """The worst of all drills, chapter by chapter, each at a new site. Servers of its own: they are stopped and started."""
    figures = Figures()
    begin = 0 if bookmark is None else bookmark.place % len(drills)
    with LlmServer() as llm, RedisServer() as redis, PostgresServer() as postgres:
        for start in range(begin, len(drills), _CHAPTER):
            redis.flush()
            llm.reset()
            llm.configure(latency_seconds={"lognormal": {"median": 0.06, "sigma": 0.8}}, record_bodies=True)
            scene = Drills(site(llm, redis, postgres), llm, seed=_SEED + start)
            try:
                scene.open()
                for drill in drills[start : start + _CHAPTER]:
                    scene.go_through(drill)
                scene.verify()
            finally:
                scene.close()
            figures += scene.figures
            if bookmark is not None:
                bookmark.put(start + _CHAPTER if start + _CHAPTER < len(drills) else 0)
                if time.monotonic() > until:
                    break
    return figures


def _site(
    kind: Kind, place: Path, nursery: Nursery, llm: LlmServer, redis: RedisServer, postgres: PostgresServer
) -> Site:
    name = f"halts_{secrets.token_hex(6)}"
    folder = place / name
    (folder / "data").mkdir(parents=True)
    (folder / "shared").mkdir()
    halt_file = folder / "shared" / "HALT"
    settings: dict[str, Any] = {
        "CONCLAVE_LLM_BASE_URL": llm.base_url,
        "CONCLAVE_LLM_API_KEY": "k",
        "CONCLAVE_LLM_MODEL": "test-model",
        "CONCLAVE_HALT_FILE": str(halt_file),
        "CONCLAVE_HALT_REDIS_URL": redis.url(),
        "CONCLAVE_MAX_RUNNING_DELIBERATIONS": "4",
    }
    database = str(folder / "data" / "conclave.db")
    if kind is not Kind.SQLITE:
        database = name
        postgres.create_database(database)
        settings["CONCLAVE_DATABASE_URL"] = postgres.url(database)
    if kind is Kind.WORKERS:
        settings["CONCLAVE_QUEUE"] = "procrastinate"
    house = House(kind, folder, nursery, settings)
    return Site(house, halt_file, redis, None if kind is Kind.SQLITE else postgres, database)


@pytest.mark.parametrize("kind", Kind)
def test_no_call_begins_after_a_halt_whoever_sets_it_and_whatever_is_away(
    kind: Kind, halts: Mapping[Kind, Future[Figures]]
) -> None:
    figures = halts[kind].result()
    _logger.info("%s: %s", kind, figures)
    # What would pass without a call in flight would say nothing of those that are.
    assert figures.in_flight >= figures.halts
    assert figures.ended["halted"] >= 2 * figures.halts
