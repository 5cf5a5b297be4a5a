"""Which message bus a run gets for the name of a transport."""

from pathlib import Path

import pytest

from api.bootstrap.buses import TRANSPORTS, make_bus
from domain.errors.configuration import ConfigurationError
from infrastructure.buses.file_bus import FileMessageBus
from infrastructure.buses.memory_bus import MemoryMessageBus
from infrastructure.buses.redis_bus import RedisMessageBus
from infrastructure.buses.shm_bus import SharedMemoryMessageBus
from infrastructure.settings import load_settings

_MADE = {
    "memory": MemoryMessageBus,
    "redis": RedisMessageBus,
    "file": FileMessageBus,
    "shm": SharedMemoryMessageBus,
}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_transport_is_chosen_by_its_name(transport: str, tmp_path: Path) -> None:
    bus = make_bus(
        load_settings({}, None), transport, name="run-1", folder=tmp_path, url="redis://127.0.0.1:1", visibility_s=3.0
    )
    assert type(bus) is _MADE[transport]


def test_the_address_of_the_settings_is_taken_where_none_is_given() -> None:
    settings = load_settings({"CONCLAVE_REDIS_URL": "redis://127.0.0.1:1"}, None)
    assert isinstance(make_bus(settings, "redis", name="run-1"), RedisMessageBus)


def test_redis_without_an_address_names_the_variable() -> None:
    with pytest.raises(ConfigurationError) as caught:
        make_bus(load_settings({}, None), "redis", name="run-1")
    assert caught.value.variable == "CONCLAVE_REDIS_URL"


def test_a_transport_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"'pigeon'.*memory, redis, file, shm"):
        make_bus(load_settings({}, None), "pigeon", name="run-1")


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".", "x" * 101, "é", "a b", "a\n"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_name_that_could_leave_its_place_is_refused(transport: str, name: str) -> None:
    with pytest.raises(ConfigurationError):
        make_bus(load_settings({}, None), transport, name=name, url="redis://127.0.0.1:1")


def test_limits_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="capacity"):
        make_bus(load_settings({}, None), "memory", name="run-1", capacity=0)


async def test_equal_names_and_places_are_one_bus(tmp_path: Path) -> None:
    here, there = (make_bus(load_settings({}, None), "file", name="run-1", folder=tmp_path / "bus") for _ in range(2))
    await here.register("b")
    assert "b" in (await there.stats()).queued
    await here.close()
    await there.close()
