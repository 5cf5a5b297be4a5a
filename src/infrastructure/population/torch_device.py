"""The only importer of torch, and the choice of the device that it computes on."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

__all__ = ["HOW_TO_INSTALL_TORCH", "has_torch", "torch_and_device"]

HOW_TO_INSTALL_TORCH = (
    "install the build of torch that fits this machine (pytorch.org says which): no extra can name it"
)


def has_torch() -> bool:
    """Whether it is installed here; nothing is imported for that."""
    return find_spec("torch") is not None


def torch_and_device(wanted: str | None = None) -> tuple[Any, str]:
    """The package, and `wanted` or else `cuda` where there is such a device and `cpu` where there is none."""
    import torch

    return torch, wanted or ("cuda" if torch.cuda.is_available() else "cpu")
