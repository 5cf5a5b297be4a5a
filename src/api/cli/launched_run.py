"""A run that a server starts: its command line comes by standard input, because everybody on the machine can read arguments."""

from __future__ import annotations

import json
import sys
from typing import TextIO

from api.cli.main import execute

__all__ = ["arguments_from"]


def arguments_from(stream: TextIO) -> list[str]:
    """The command line that stands there as a JSON list of texts. Raises `ValueError` for anything else."""
    arguments = json.load(stream)
    if not isinstance(arguments, list) or not all(isinstance(argument, str) for argument in arguments):
        raise ValueError("a list of texts was expected on standard input")
    return arguments


if __name__ == "__main__":
    sys.exit(execute(arguments_from(sys.stdin)))
