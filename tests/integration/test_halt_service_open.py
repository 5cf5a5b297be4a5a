"""The halt of a whole service, as its processes have it: sticky, by either channel, with either of them broken."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from api.bootstrap import Purpose, load_settings, open_conclave, open_halt, upgrade_database
from api.conclave import Conclave
from api.requests import DeliberationRequest
from domain.errors.halt import HaltNotClearableError, SystemHaltedError
from domain.errors.witness import LogUnverifiedError
from domain.models.deliberation import DeliberationStatus
from infrastructure.settings import Settings
from infrastructure.settings import load_settings as load_from
from tests.patience import eventually_in_loop
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

BODY: dict[str, Any] = {"question": "Shall we?", "agents": {"count": 3}}
PATIENCE_S = 20.0


@dataclass(frozen=True)
class Place:
    """A data folder with its settings, and how to break and mend what stands behind each channel."""

    settings: Settings
    folder: Path
    break_channel: Callable[[str], object]
    mend_channel: Callable[[str], object]


def settings_of(folder: Path, **more: str) -> Settings:
    environ = {"CONCLAVE_DATA_DIR": str(folder), "CONCLAVE_ORCHESTRATOR": "simulated", **more}
    return load_from(environ, None)


@pytest.fixture(params=["sqlite", "postgres and redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    folder = tmp_path / "data"
    halt_folder = tmp_path / "mounted"
    halt_folder.mkdir()
    more = {"CONCLAVE_HALT_FILE": str(halt_folder / "HALT")}
    moved = {"file": (halt_folder, tmp_path / "unmounted"), "database": (folder / "conclave.db", folder / "moved.db")}
    if request.param == "sqlite":
        return Place(
            settings_of(folder, **more),
            folder,
            lambda name: moved[name][0].rename(moved[name][1]),
            lambda name: moved[name][1].rename(moved[name][0]),
        )
    postgres: PostgresServer = request.getfixturevalue("postgres_server")
    redis: RedisServer = request.getfixturevalue("redis_server")
    url: str = request.getfixturevalue("postgres_url")
    more |= {"CONCLAVE_DATABASE_URL": url, "CONCLAVE_HALT_REDIS_URL": request.getfixturevalue("redis_url")}
    settings = settings_of(folder, **more)
    upgrade_database(settings)
    name = url.rpartition("/")[2]

    def allow(allowed: str) -> None:
        with psycopg.connect(postgres.conninfo(), autocommit=True) as connection:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {allowed}'.encode())
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])

    breaks: dict[str, Callable[[], object]] = {
        "database": lambda: allow("false"),
        "file": lambda: moved["file"][0].rename(moved["file"][1]),
        "redis": redis.stop,
    }
    mends: dict[str, Callable[[], object]] = {
        "database": lambda: allow("true"),
        "file": lambda: moved["file"][1].rename(moved["file"][0]),
        "redis": redis.start,
    }
    return Place(settings, folder, lambda name: breaks[name](), lambda name: mends[name]())


def names(place: Place) -> list[str]:
    return ["database", "file", *(["redis"] if place.settings.halt_redis_url else [])]


@asynccontextmanager
async def serving(place: Place) -> AsyncIterator[Conclave]:
    async with open_conclave(place.settings, purpose=Purpose.SERVE) as conclave:
        yield conclave


async def submit(conclave: Conclave) -> DeliberationStatus:
    specification = DeliberationRequest.read(BODY, conclave.rosters).specification(conclave.rosters)
    accepted = await conclave.deliberations.submit(specification)
    return (await conclave.deliberations.wait(accepted.id, timeout_s=PATIENCE_S)).status


async def entries(conclave: Conclave) -> list[str]:
    lines = [json.loads(line) async for line in conclave.witness.export()]
    found = [json.loads(line["entry"])["type"] for line in lines if "entry" in line]
    return [kind for kind in found if kind.startswith("halt")]


async def until(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds; channels outside the process change without a word."""

    async def holds() -> bool:
        return condition()

    await eventually_in_loop(holds)


async def test_a_halt_outlives_a_restart_and_ends_by_being_cleared(place: Place) -> None:
    async with serving(place) as conclave:
        assert await submit(conclave) is DeliberationStatus.COMPLETED
        state = await conclave.halt.set("a drill", key_name="root")
        assert {name: (each.halted, each.reachable) for name, each in state.channels.items()} == dict.fromkeys(
            names(place), (True, True)
        )
    async with serving(place) as conclave:
        assert conclave.halt.status().reason == "a drill"
        with pytest.raises(SystemHaltedError, match="a drill"):
            await submit(conclave)
        await conclave.halt.clear("it is over", key_name="root")
        assert await submit(conclave) is DeliberationStatus.COMPLETED
        assert await entries(conclave) == ["halt.set", "halt.cleared"]
        assert conclave.witness.problem is None


async def test_what_another_process_sets_and_clears_is_obeyed(place: Place) -> None:
    async with serving(place) as conclave:
        async with open_halt(place.settings) as from_outside:
            await from_outside.set("from outside", key_name=None)
        await until(lambda: conclave.halt.status().reason == "from outside")
        with pytest.raises(SystemHaltedError):
            await submit(conclave)
        async with open_halt(place.settings, checks_log=True) as from_outside:
            await from_outside.clear("it is over", key_name=None)
        await until(lambda: not conclave.halt.status().halted)
        assert await submit(conclave) is DeliberationStatus.COMPLETED


async def test_with_any_one_channel_broken_the_door_is_shut_a_halt_holds_and_all_is_well_once_it_is_mended(
    place: Place,
) -> None:
    async with serving(place) as conclave:
        for name in names(place):
            await until(lambda: not conclave.halt.status().halted)
            place.break_channel(name)
            try:
                await until(lambda name=name: conclave.halt.status().unreachable == (name,))  # type: ignore[misc]
                with pytest.raises(SystemHaltedError):
                    await submit(conclave)
                await conclave.halt.set(f"{name} is broken", key_name=None)
                assert conclave.halt.status().reason == f"{name} is broken"
                with pytest.raises(HaltNotClearableError):
                    await conclave.halt.clear("it is over", key_name=None)
            finally:
                place.mend_channel(name)
            await until(lambda: not conclave.halt.status().unreachable)
            # What was away is set by the service itself, and the log has it once.
            await until(lambda: all(each.halted for each in conclave.halt.status().channels.values()))
            await conclave.halt.clear("it is over", key_name=None)
        assert await submit(conclave) is DeliberationStatus.COMPLETED
        assert await entries(conclave) == ["halt.set", "halt.cleared"] * len(names(place))


async def test_a_halt_with_the_database_away_is_recorded_after_a_restart(place: Place) -> None:
    async with serving(place):
        pass
    place.break_channel("database")
    try:
        async with open_halt(place.settings) as from_outside:
            state = await from_outside.set("a drill", key_name=None)
            assert state.unreachable == ("database",)
    finally:
        place.mend_channel("database")
    async with serving(place) as conclave:
        await until(lambda: all(each.halted for each in conclave.halt.status().channels.values()))
        notes = Path(place.settings.halt_file).parent
        await until(lambda: not list(notes.glob("HALT.note-*")))
        assert await entries(conclave) == ["halt.set"]


async def test_each_channel_tells_of_itself_in_health_and_metrics(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    async with open_conclave(settings_of(folder), purpose=Purpose.SERVE) as conclave:
        assert (await conclave.health["halt.file"]()).works
        text = conclave.render_metrics(None)[0].decode()
        assert "conclave_halted 0.0" in text
        assert 'conclave_halt_channel_reachable{channel="file"} 1.0' in text
        (folder / "HALT").mkdir()
        await until(lambda: conclave.halt.status().halted)
        health = await conclave.health["halt.file"]()
        assert (health.works, health.detail) == (False, "a folder is in its place")
        text = conclave.render_metrics(None)[0].decode()
        assert "conclave_halted 1.0" in text
        assert 'conclave_halt_channel_reachable{channel="file"} 0.0' in text
        assert 'conclave_halt_channel_reachable{channel="database"} 1.0' in text


async def test_a_log_that_does_not_verify_halts_its_process_and_no_clearing_ends_that(tmp_path: Path) -> None:
    async with open_conclave(settings_of(tmp_path / "data"), purpose=Purpose.SERVE) as conclave:
        await conclave.halt.set("a drill", key_name=None)
        conclave.witness.problem = LogUnverifiedError(problem="it was rolled back at file:/secret", remedy="Look.")
        await until(lambda: conclave.halt.status().held is not None)
        assert "secret" not in str(conclave.halt.status().reason)
        with pytest.raises(HaltNotClearableError):
            await conclave.halt.clear("it is over", key_name=None)
        conclave.witness.problem = None
        await until(lambda: conclave.halt.status().held is None)
        assert not (await conclave.halt.clear("it is over", key_name=None)).halted


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONCLAVE_DATA_DIR", str(tmp_path))
    assert load_settings().halt_file == tmp_path / "HALT"
