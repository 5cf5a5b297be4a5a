"""What a machine has for a population, told from what its system says."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from infrastructure.population.calibration import calibrated
from infrastructure.population.machine import Device, Network, cuda_devices, free_disk_bytes, networks
from tests.population.towns import specification


class Driver:
    """As much of a CUDA driver as is asked."""

    def __init__(self, *, status: int = 0, count: int = 1) -> None:
        self._status, self._count = status, count

    def cuInit(self, _flags: int) -> int:  # noqa: N802 - as the driver names it
        return self._status

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self._count
        return 0

    def cuDeviceGet(self, device: Any, number: int) -> int:  # noqa: N802
        device._obj.value = number
        return 0

    def cuDeviceGetName(self, name: Any, _size: int, _device: Any) -> int:  # noqa: N802
        name.value = b"Example 9000"
        return 0

    def cuDeviceTotalMem_v2(self, size: Any, _device: Any) -> int:  # noqa: N802
        size._obj.value = 80 << 30
        return 0


def load(driver: Any) -> Any:
    return lambda _name: driver


def test_devices_are_those_that_the_driver_knows() -> None:
    assert cuda_devices(load(Driver(count=2))) == [Device("Example 9000", 80 << 30)] * 2


def test_without_a_driver_or_a_device_there_are_none() -> None:
    def missing(_name: str) -> ctypes.CDLL:
        raise OSError("no such library")

    assert cuda_devices(missing) == []
    assert cuda_devices(load(Driver(status=100))) == []
    assert cuda_devices(load(Driver(count=0))) == []
    assert cuda_devices(load(object())) == []


def test_networks_are_those_that_are_up(tmp_path: Path) -> None:
    for name, state, speed in (
        ("lo", "unknown", ""),
        ("eth0", "up", "10000"),
        ("eth1", "down", "1000"),
        ("tun", "unknown", "-1"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "operstate").write_text(f"{state}\n")
        (tmp_path / name / "speed").write_text(f"{speed}\n")
    (tmp_path / "odd").mkdir()
    assert networks(tmp_path) == [Network("eth0", 10_000), Network("tun", None)]
    assert networks(tmp_path / "nowhere") == []


def test_room_is_that_of_the_nearest_folder_that_is_there(tmp_path: Path) -> None:
    assert free_disk_bytes(tmp_path / "a" / "b" / "c") > 0


def test_a_tick_of_the_whole_is_told_from_a_smaller_one() -> None:
    found = calibrated(specification(agents=400_000, shards=1), cache=None)
    small = calibrated(specification(agents=2_000, shards=1), cache=None)
    assert (found.agents, small.agents) == (200_000, 2_000)
    assert found.tick_s > 10 * small.tick_s > 0
    assert 0 < found.ticks <= 20
