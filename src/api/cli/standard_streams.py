"""Standard input, output and error for a process that was started without some of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["open_standard_streams"]


def open_standard_streams() -> None:
    """Open the null device wherever one of the three is closed: what is read there has ended, what is written there is dropped.

    Left closed, its number goes to the next file that is opened, a database say, which then gets what was meant for the stream; and
    event loops end the process when they are given such a number to close.
    """
    for number, flags in enumerate((os.O_RDONLY, os.O_WRONLY, os.O_WRONLY)):
        if not _is_open(number):
            # The lowest free number is given away first, and those below are open by now.
            os.set_inheritable(os.open(os.devnull, flags), True)
    nowhere = Path(os.devnull)
    # Python had no stream for what was closed when it started, whatever has its number since.
    if sys.stdin is None:
        sys.stdin = nowhere.open(encoding="utf-8")
    if sys.stdout is None:
        sys.stdout = nowhere.open("w", encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = nowhere.open("w", encoding="utf-8")


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
