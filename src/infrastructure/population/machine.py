"""What this machine has that a population might want: devices that compute, networks, and room on disk."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Device", "Network", "cuda_devices", "free_disk_bytes", "networks"]

_NET = Path("/sys/class/net")
_NAME_BYTES = 128


@dataclass(frozen=True, slots=True)
class Device:
    """A CUDA device and its memory."""

    name: str
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Network:
    """A network that is up, other than the loopback; `mbit_s` is None where it does not say how fast it is."""

    name: str
    mbit_s: int | None


def cuda_devices(load: Callable[[str], ctypes.CDLL] = ctypes.CDLL) -> list[Device]:
    """The CUDA devices that the driver of this machine knows; none where there is no driver. Nothing is begun on them."""
    try:
        driver = load("libcuda.so.1")
        if driver.cuInit(0):
            return []
        count = ctypes.c_int()
        if driver.cuDeviceGetCount(ctypes.byref(count)):
            return []
        return [found for number in range(count.value) if (found := _device(driver, number)) is not None]
    except (OSError, AttributeError):
        return []


def _device(driver: ctypes.CDLL, number: int) -> Device | None:
    handle, name, size = ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES), ctypes.c_size_t()
    if driver.cuDeviceGet(ctypes.byref(handle), number):
        return None
    driver.cuDeviceGetName(name, _NAME_BYTES, handle)
    driver.cuDeviceTotalMem_v2(ctypes.byref(size), handle)
    return Device(name.value.decode(errors="replace"), int(size.value))


def networks(folder: Path = _NET) -> list[Network]:
    """The networks of this machine that are up, by name; none where the system does not say."""
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return []
    found = []
    for name in names:
        if name != "lo" and _word(folder / name / "operstate") in {"up", "unknown"}:
            speed = _word(folder / name / "speed")
            found.append(Network(name, int(speed) if speed.isdigit() and int(speed) else None))
    return found


def free_disk_bytes(folder: Path) -> int:
    """The room where that folder is or would be made."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


def _word(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
