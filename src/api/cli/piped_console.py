"""A console whose reader may leave: what that means is for the command to say, not for the library."""

from __future__ import annotations

import errno
import os

from rich.console import Console

__all__ = ["PipedConsole"]


class PipedConsole(Console):
    """Raises `BrokenPipeError` when nobody reads any more, where the console it is made of ends the process as a failure."""

    def on_broken_pipe(self) -> None:
        """Pass on what was met."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
