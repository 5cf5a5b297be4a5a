"""How a command that runs until it is stopped tells where it listens and what to know: in words, in the log, or as one document."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from api.cli.terminal import complain, print_document

__all__ = ["Announcer"]


class Announcer:
    """Speaks in log lines where the log is JSON, because a line of another form would trip up whoever reads it by a program."""

    def __init__(self, *, log_format: str, logger: logging.Logger, as_json: bool) -> None:
        self._as_json = as_json
        as_log = log_format == "json"
        self._tell: Callable[[str], None] = logger.info if as_log else complain
        self.warn: Callable[[str], None] = logger.warning if as_log else complain

    def listening(self, urls: tuple[str, ...], words: str) -> None:
        """Tell that it runs, and where it can be reached; with `--json` the addresses go to standard output."""
        if self._as_json:
            print_document({"urls": list(urls)})
            sys.stdout.flush()
        else:
            self._tell(words)
