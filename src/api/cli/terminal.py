"""Standard output and standard error as the commands use them: results on one, complaints and progress on the other."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TextIO

from api.cli.plain_text import visible

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["MAX_WIDTH", "again", "complain", "print_document", "progress_console", "result_console"]

MAX_WIDTH = 100
"""Cells: longer lines are hard to read, however wide the terminal."""

_UNKNOWN_WIDTH = 80


def result_console() -> Console:
    """Standard output. Colours only on a terminal that has them and without NO_COLOR; nothing in a text is markup."""
    return _console(sys.stdout)


def progress_console() -> Console | None:
    """Standard error where a person watches it, None where it is a file or a pipe."""
    return _console(sys.stderr) if sys.stderr is not None and sys.stderr.isatty() else None


def _console(stream: TextIO) -> Console:
    from rich.console import ConsoleDimensions

    from api.cli.piped_console import PipedConsole

    console = PipedConsole(file=stream, highlight=False, markup=False, emoji=False)
    if console.width < 1:
        # COLUMNS is taken at its word, also where it says that nothing fits.
        console.width = _UNKNOWN_WIDTH
    if console.is_dumb_terminal:
        # Taken for 80 cells wide otherwise, whatever it is and whatever width it is given without a height.
        columns = shutil.get_terminal_size((console.width, console.height)).columns
        console.size = ConsoleDimensions(min(columns, MAX_WIDTH), console.height)
    elif console.width > MAX_WIDTH:
        console.width = MAX_WIDTH
    return console


def print_document(document: Mapping[str, Any]) -> None:
    """One JSON document on standard output, in ASCII, so that no encoding and no terminal can misread it."""
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


def complain(message: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"conclave: {visible(message)}\n")
    sys.stderr.flush()


def again(deliberation_id: str, server: str | None) -> str:
    """The command that shows this deliberation once more."""
    return visible(f"conclave show {deliberation_id}" + (f" --server {server}" if server else ""))
