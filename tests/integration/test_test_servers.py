"""The servers that the tests stand on: real, durable, private, and gone when the run is."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from tests.servers.keeper import Keeper, ServerFailedError
from tests.servers.loopback_server import LoopbackServer
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

_ABANDONED = """
import sys
from tests.servers.{module} import {name}
server = {name}()
server.start()
print(server.pid, server.folder, flush=True)
sys.stdin.read()
"""


def test_postgres_answers_in_a_database_of_the_tests_own(postgres_server: PostgresServer, postgres_url: str) -> None:
    assert postgres_url.startswith("postgresql+psycopg://")
    database = postgres_url.rpartition("/")[2]
    assert _query(postgres_server, "SELECT current_database()", database=database) == database


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes", "synchronous_commit"])
def test_postgres_is_as_durable_as_in_production(postgres_server: PostgresServer, setting: str) -> None:
    assert _query(postgres_server, "SELECT setting FROM pg_settings WHERE name = %s", setting) == "on"


def test_postgres_listens_on_loopback_alone(postgres_server: PostgresServer) -> None:
    assert _query(postgres_server, "SHOW listen_addresses") == "127.0.0.1"
    assert _query(postgres_server, "SHOW unix_socket_directories") == ""


def test_postgres_refuses_a_caller_without_its_password(postgres_server: PostgresServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://conclave:guess@127.0.0.1:{postgres_server.port}/postgres")


def test_each_test_gets_a_database_that_was_not_there_before(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    with psycopg.connect(postgres_server.conninfo(postgres_url.rpartition("/")[2])) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    assert tables == (0,)


def test_postgres_keeps_its_data_and_port_when_killed_and_started_again() -> None:
    with PostgresServer() as server:
        with psycopg.connect(server.conninfo()) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 72 AS agents")
        port, first = server.port, server.pid
        server.kill()
        assert not server.running
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.conninfo())
        server.start()
        assert (server.port, server.pid != first) == (port, True)
        assert _query(server, "SELECT agents FROM kept") == 72
        server.stop(immediate=True)
        server.start()
        server.restart()
        assert _query(server, "SELECT agents FROM kept") == 72


def test_redis_answers_and_is_empty(redis_server: RedisServer, redis_url: str) -> None:
    assert redis_url.startswith("redis://")
    assert redis_server.command("PING") == "+PONG"
    assert redis_server.command("DBSIZE") == ":0"


def test_redis_keeps_its_data_and_port_when_killed_and_started_again() -> None:
    with RedisServer() as server:
        assert server.command("SET", "kept", "seventy two") == "+OK"
        port, first = server.port, server.pid
        server.kill()
        with pytest.raises(ConnectionRefusedError):
            server.command("PING")
        server.start()
        assert (server.port, server.pid != first) == (port, True)
        assert server.command("STRLEN", "kept") == ":11"
        server.restart()
        assert server.command("STRLEN", "kept") == ":11"


@pytest.mark.parametrize("server", [PostgresServer, RedisServer])
def test_a_closed_server_leaves_no_process_and_no_folder(server: Callable[[], LoopbackServer]) -> None:
    with server() as running:
        pid, folder = running.pid, running.folder
        assert pid is not None
        assert _alive(pid)
        assert folder.is_dir()
    assert not _alive(pid)
    assert not _descendants_in(folder)
    assert not folder.exists()


@pytest.mark.parametrize(("module", "name"), [("postgres", "PostgresServer"), ("redis", "RedisServer")])
def test_a_server_does_not_outlive_a_run_that_was_killed(module: str, name: str, repository_root: Path) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", _ABANDONED.format(module=module, name=name)],
        cwd=repository_root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with run:
        assert run.stdout is not None
        assert run.stderr is not None
        pid, folder = run.stdout.readline().split(maxsplit=1)
        assert _alive(int(pid))
        run.kill()
        # The warden holds the other end of standard error, so its end is the end of the warden too.
        assert run.stderr.read() == ""
    assert not _alive(int(pid))
    assert not Path(folder.strip()).exists()


def test_a_process_is_reported_as_ended_only_when_its_orphans_are_gone() -> None:
    keeper = Keeper("orphans")
    try:
        keeper.run(["/bin/sh", "-c", "sleep 600 & echo $!"])
        assert keeper.wait(20.0) == 0
        assert not _alive(int(keeper.log.read_text()))
    finally:
        keeper.close()


def test_a_server_that_cannot_start_says_why() -> None:
    keeper = Keeper("broken")
    try:
        with pytest.raises(ServerFailedError, match="no-such-program"):
            keeper.run(["no-such-program"])
        keeper.run(["/bin/sh", "-c", "echo the port is taken; exit 3"])
        assert keeper.wait(20.0) == 3
        assert "the port is taken" in str(keeper.failure("ended"))
    finally:
        keeper.close()


def _query(server: PostgresServer, statement: LiteralString, *values: str, database: str = "postgres") -> object:
    with psycopg.connect(server.conninfo(database)) as connection:
        row = connection.execute(statement, values).fetchone()
    assert row is not None
    return row[0]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _descendants_in(folder: Path) -> list[str]:
    """Command lines of processes that name the folder, whoever their parent is now."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_text(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            lines.append(line)
    return lines
