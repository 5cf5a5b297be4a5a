"""The use cases of Conclave, exported lazily."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from application.services.batch import Batch, BatchObserver, ConcurrentResult, StopCause
    from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
    from application.services.deliberation_output_service import DeliberationOutputService
    from application.services.deliberation_service import DeliberationService

_EXPORTS = {
    "batch": ("Batch", "BatchObserver", "ConcurrentResult", "StopCause"),
    "concurrent_deliberation_service": ("ConcurrentDeliberationService",),
    "deliberation_output_service": ("DeliberationOutputService",),
    "deliberation_service": ("DeliberationService",),
}

__all__ = [
    "Batch",
    "BatchObserver",
    "ConcurrentDeliberationService",
    "ConcurrentResult",
    "DeliberationOutputService",
    "DeliberationService",
    "StopCause",
]


def __getattr__(name: str) -> object:
    for module, names in _EXPORTS.items():
        if name in names:
            return getattr(import_module(f"application.services.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
