"""What every server that tests start has in common: a port, a private folder, and a life that a test can interrupt."""

import signal
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers.keeper import Keeper, free_port

_START_SECONDS = 30.0
_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.02
_ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC"}


class LoopbackServer(ABC):
    """One server on 127.0.0.1 that ends and vanishes with whoever started it, a killed test run included.

    The port and the data survive `stop`, `kill` and `restart`; only `close` (or the end of the test run) removes them.
    """

    def __init__(self, name: str, *, stop_signal: signal.Signals, immediate_signal: signal.Signals) -> None:
        self._keeper = Keeper(name, last_signal=immediate_signal)
        self._stop_signal = stop_signal
        self._immediate_signal = immediate_signal
        self.port = free_port()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def running(self) -> bool:
        """Whether the server process is alive."""
        return self._keeper.running

    @property
    def pid(self) -> int | None:
        """Id of the latest server process, None before the first start."""
        return self._keeper.pid

    @property
    def folder(self) -> Path:
        """The private folder with the data and the log."""
        return self._keeper.folder

    def start(self) -> None:
        """Return once the server answers. Raises `ServerFailedError` with the end of its log otherwise."""
        self._keeper.run(self._command(), environment=_ENVIRONMENT)
        for _ in range(round(_START_SECONDS / _POLL_SECONDS)):
            if (code := self._keeper.wait(_POLL_SECONDS)) is not None:
                raise self._keeper.failure(f"ended with {code!r} while starting on port {self.port!r}")
            if self._answers():
                return
        raise self._keeper.failure(f"did not answer on port {self.port!r} within {_START_SECONDS} s")

    def stop(self, *, immediate: bool = False) -> None:
        """Return once no process of the server is left.

        It writes out what is finished and cuts off whoever is connected; `immediate` leaves no time for that, so that
        the next start recovers as after a crash.
        """
        self._end(self._immediate_signal if immediate else self._stop_signal)

    def kill(self) -> None:
        """SIGKILL, as the kernel would without memory; return once no process of the server is left."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop if running, then start on the same port with the same data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop and remove everything; the server cannot be started again."""
        self._keeper.close()

    @abstractmethod
    def _command(self) -> Sequence[str | Path]:
        """Program and arguments; makes the data first where there is none."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether a client is served right now."""

    def _run_to_its_end(self, command: Sequence[str | Path]) -> None:
        """Run another program in the server's place, for at most the time that a start may take."""
        self._keeper.run(command, environment=_ENVIRONMENT)
        if (code := self._keeper.wait(_START_SECONDS)) != 0:
            raise self._keeper.failure(f"could not be prepared: {Path(command[0]).name!r} ended with {code!r}")

    def _end(self, number: signal.Signals) -> None:
        if not self._keeper.running:
            return
        self._keeper.signal(number)
        if self._keeper.wait(_STOP_SECONDS) is None:
            self._keeper.signal(signal.SIGKILL)
            raise self._keeper.failure(f"did not end within {_STOP_SECONDS} s of {number.name}")
