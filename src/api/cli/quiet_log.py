"""The log of a command that does one thing: it does not drown the result."""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection
from typing import Protocol

__all__ = ["keep_log_quiet"]


class ChosenSettings(Protocol):
    """Settings that know which of them were set."""

    @property
    def model_fields_set(self) -> Collection[str]:
        """Names of the settings that are not left at their defaults."""
        ...


def keep_log_quiet(settings: ChosenSettings) -> None:
    """Unless CONCLAVE_LOG_LEVEL is set, log from warnings up, and from errors up where a person watches a terminal.

    A result names every failure itself.
    """
    if "log_level" not in settings.model_fields_set:
        watched = sys.stderr is not None and sys.stderr.isatty()
        logging.getLogger().setLevel(logging.ERROR if watched else logging.WARNING)
