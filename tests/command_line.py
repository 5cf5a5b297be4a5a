"""Commands run in this process: what they wrote, how they ended, and a log that is afterwards as it was before."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from api.cli.main import execute

__all__ = ["Command", "Ran", "commands"]


class Ran(NamedTuple):
    """How a command ended and what it wrote."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.stdout)

    @property
    def words(self) -> str:
        """Standard output, whatever width it was written for."""
        return " ".join(self.stdout.split())


Command = Callable[..., Ran]


@contextmanager
def commands(capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Within it `run("list", "--json")` runs that command."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        code = execute(arguments)
        return Ran(code, *capsys.readouterr())

    try:
        yield run
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
