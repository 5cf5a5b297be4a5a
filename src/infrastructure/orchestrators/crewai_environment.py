"""Tells CrewAI by the environment to keep to itself, and puts the environment back when the last one that needs it is done."""

from __future__ import annotations

import os
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

__all__ = ["CrewAIEnvironment", "for_the_import"]

# Not OTEL_SDK_DISABLED, which would silence our own traces as well.
_SWITCHES = {
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_DISABLE_TRACKING": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "CREWAI_DISABLE_VERSION_CHECK": "true",
    "ANONYMIZED_TELEMETRY": "False",
}
_STORAGE = "CREWAI_STORAGE_DIR"


class CrewAIEnvironment:
    """The switches that CrewAI reads while it runs: set while at least one of these is entered, then as they were before."""

    _lock: ClassVar[threading.Lock] = threading.Lock()
    _entered: ClassVar[int] = 0
    _before: ClassVar[dict[str, str | None]] = {}

    def __init__(self, storage_dir: Path) -> None:
        """`storage_dir` is where CrewAI would keep what it keeps; nothing of ours does, so it is not made here."""
        self._storage_dir = storage_dir
        self._is_entered = False

    def enter(self) -> None:
        """Set them; does nothing the second time. Where several are entered, the first one's folder counts."""
        with self._lock:
            if self._is_entered:
                return
            self._is_entered = True
            if CrewAIEnvironment._entered == 0:
                wanted = {**_SWITCHES, _STORAGE: str(self._storage_dir.absolute())}
                CrewAIEnvironment._before = {name: os.environ.get(name) for name in wanted}
                os.environ.update(wanted)
            CrewAIEnvironment._entered += 1

    def leave(self) -> None:
        """Put them back if nobody else needs them; does nothing the second time."""
        with self._lock:
            if not self._is_entered:
                return
            self._is_entered = False
            CrewAIEnvironment._entered -= 1
            if CrewAIEnvironment._entered == 0:
                _put_back(CrewAIEnvironment._before)


@contextmanager
def for_the_import(storage_dir: Path) -> Iterator[None]:
    """What is besides kept from CrewAI while it is imported, and what it changed put back.

    It sees neither the Redis that it would lock in, nor the `.env` that it would load, nor a login or settings in the user's home,
    where it would else leave a key and a folder; and `storage_dir` in the place of the system's temporary folder, which it would
    try out. What it warns of then is nobody's business here, and the function that it puts in the place of `warnings.warn` is
    taken back.
    """
    warn, temporary = warnings.warn, tempfile.tempdir
    tempfile.tempdir = str(storage_dir.absolute())
    before = dict(os.environ)
    os.environ.pop("REDIS_URL", None)
    os.environ["PYTHON_DOTENV_DISABLED"] = "1"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _find_no_login()
            yield
    finally:
        warnings.warn, tempfile.tempdir = warn, temporary
        _put_back({name: before.get(name) for name in {*before, *os.environ}})


def _find_no_login() -> None:
    from crewai_core import settings
    from crewai_core.auth import token

    def no_token() -> str:
        raise token.AuthError("Conclave uses nobody's account")

    token.get_auth_token = no_token
    settings.get_writable_config_path = lambda: None


def _put_back(before: dict[str, str | None]) -> None:
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
