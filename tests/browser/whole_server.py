"""A server with everything that users have, in a process and a data folder of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conclave_fixture import Client

__all__ = ["whole_server"]

_PORT = re.compile(r"http://127\.0\.0\.1:(\d+)")


@contextmanager
def whole_server(folder: Path, **settings: str) -> Iterator[Client]:
    """`conclave serve` on a free port; `settings` are named without their prefix, in small letters."""
    given = {"CONCLAVE_DATA_DIR": str(folder / "data"), "CONCLAVE_ORCHESTRATOR": "simulated"}
    given |= {f"CONCLAVE_{name.upper()}": value for name, value in settings.items()}
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "api.cli.main", "serve", "--port", "0", "--json"],
            env={**os.environ, **given},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert process.stdout is not None
        while (found := _PORT.search(process.stdout.readline())) is None:
            assert process.poll() is None, (folder / "log").read_text()
        yield Client(int(found[1]))
    finally:
        process.terminate()
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
