"""What is acknowledged is on the disk: nothing is answered, called or shown while the sync that makes it durable is held.

A killed process cannot show this, because the page cache outlives it.
"""

from __future__ import annotations

import http.client
import os
import re
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conclave_fixture import Client
from tests.llm_server.handle import LlmServer
from tests.syncs import NotSyncedError, SyncWatch

_SERVE = ["-m", "api.cli.main", "serve", "--port", "0", "--json"]
_POSTGRES = """
import sys
import psycopg
from tests.servers.postgres import PostgresServer

with PostgresServer() as server:
    server.create_database("watched")
    with psycopg.connect(server.conninfo(), autocommit=True) as connection:
        # What nobody waits for is synced by and by: late, so that it is not taken for what somebody waits for.
        connection.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
        connection.execute("SELECT pg_reload_conf()")
    print(server.url("watched"), flush=True)
    sys.stdin.read()
"""
# The server as it would be if somebody took out what makes its commits durable, and what checks that.
_FORGETFUL = """
import sys
from infrastructure.persistence import database, engine
from api.cli.main import execute

prepare_sqlite, prepare_postgres = engine._prepare_sqlite, engine._prepare_postgres

def forget_sqlite(connection, record):
    prepare_sqlite(connection, record)
    connection.execute("PRAGMA synchronous = NORMAL")

def forget_postgres(connection, record):
    prepare_postgres(connection, record)
    connection.execute("SET synchronous_commit = off")
    connection.commit()

engine._prepare_sqlite, engine._prepare_postgres = forget_sqlite, forget_postgres
database.require_durable = engine.require_durable = lambda connection: None
sys.exit(execute(["serve", "--port", "0", "--json"]))
"""
_STEPS = ("accepted", "called", "shown", "ended")
_BODY = {
    "question": "Is it on the disk?",
    "answer": {"kind": "choice", "options": ["yes", "no"]},
    "agents": {"members": [{"id": "one", "persona": "You are alone."}]},
}


@contextmanager
def _process(
    command: Sequence[str], environment: Mapping[str, str], repository: Path
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join([str(repository / "src"), str(repository)])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def _first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.fixture
def watch() -> Iterator[SyncWatch]:
    """Who sees the syncs."""
    with SyncWatch() as opened:
        yield opened


@pytest.fixture(scope="module")
def watched_postgres(repository_root: Path) -> Iterator[tuple[str, SyncWatch]]:
    """A Postgres of its own, whose syncs are seen."""
    with (
        SyncWatch() as watch,
        _process(watch.watched([sys.executable, "-c", _POSTGRES]), {}, repository_root) as process,
    ):
        url = _first_line(process).strip()
        upgrade = [sys.executable, "-m", "api.cli.main", "db", "upgrade"]
        subprocess.run(upgrade, env={**os.environ, "CONCLAVE_DATABASE_URL": url}, check=True, capture_output=True)
        yield url, watch


@contextmanager
def _serving(
    command: Sequence[str], llm: LlmServer, repository: Path, **settings: str
) -> Iterator[tuple[Client, subprocess.Popen[str]]]:
    asks = {"CONCLAVE_LLM_BASE_URL": llm.base_url, "CONCLAVE_LLM_API_KEY": "k", "CONCLAVE_LLM_MODEL": "test-model"}
    with _process(command, {**asks, **settings}, repository) as process:
        assert process.stdout is not None
        address = next(found for line in process.stdout if (found := re.search(r"http://127\.0\.0\.1:(\d+)", line)))
        yield Client(int(address[1])), process


def _steps_that_waited(client: Client, llm: LlmServer, watch: SyncWatch) -> list[str]:
    """Which steps of a deliberation did not happen before a sync had ended."""
    llm.configure(fault="hold")
    found: dict[str, Any] = {}
    waited = []

    def post() -> None:
        found.update(
            client.ask("POST", "/v1/deliberations", _BODY, headers={"Idempotency-Key": secrets.token_hex(8)}).document
        )

    def shows(path: str, what: Callable[[Any], bool]) -> bool:
        return what(client.ask("GET", f"/v1/deliberations/{found['id']}{path}").document)

    happenings: Mapping[str, Callable[[], bool]] = {
        "accepted": lambda: "id" in found,
        "called": lambda: llm.stats()["held"] == 1,
        "shown": lambda: shows("/outputs", lambda page: bool(page["items"])),
        "ended": lambda: shows("", lambda document: document["finished_at"] is not None),
    }
    posting = threading.Thread(target=post)
    posting.start()
    for step, happens in happenings.items():
        if step == "shown":
            assert llm.release() == 1
        try:
            watch.require_first(happens)
            waited.append(step)
        except NotSyncedError:
            continue
    watch.let_go()
    posting.join()
    return waited


def _commands(is_forgetful: bool) -> list[str]:
    return [sys.executable, "-c", _FORGETFUL] if is_forgetful else [sys.executable, *_SERVE]


@pytest.mark.parametrize(("is_forgetful", "waited"), [(False, list(_STEPS)), (True, [])], ids=["ours", "forgetful"])
def test_each_step_waits_for_the_sync_of_sqlite_and_a_server_that_forgets_is_found_out(
    watch: SyncWatch,
    llm_server: LlmServer,
    tmp_path: Path,
    repository_root: Path,
    is_forgetful: bool,
    waited: list[str],
) -> None:
    command = watch.watched(_commands(is_forgetful))
    with _serving(command, llm_server, repository_root, CONCLAVE_DATA_DIR=str(tmp_path)) as (client, _):
        watch.hold("conclave.db-wal")
        assert _steps_that_waited(client, llm_server, watch) == waited


@pytest.mark.parametrize(("is_forgetful", "waited"), [(False, list(_STEPS)), (True, [])], ids=["ours", "forgetful"])
def test_each_step_waits_for_the_sync_of_postgres_and_a_server_that_forgets_is_found_out(
    watched_postgres: tuple[str, SyncWatch],
    llm_server: LlmServer,
    tmp_path: Path,
    repository_root: Path,
    is_forgetful: bool,
    waited: list[str],
) -> None:
    url, watch = watched_postgres
    settings = {"CONCLAVE_DATA_DIR": str(tmp_path), "CONCLAVE_DATABASE_URL": url}
    with _serving(_commands(is_forgetful), llm_server, repository_root, **settings) as (client, _):
        watch.hold("/pg_wal/")
        assert _steps_that_waited(client, llm_server, watch) == waited


def test_a_halt_and_its_end_are_synced_in_log_file_and_folder_and_so_was_the_key_of_the_log(
    watch: SyncWatch, llm_server: LlmServer, tmp_path: Path, repository_root: Path
) -> None:
    command = watch.watched(_commands(is_forgetful=False))
    with _serving(command, llm_server, repository_root, CONCLAVE_DATA_DIR=str(tmp_path)) as (client, _):
        assert _kinds(watch.seen, tmp_path) >= {"witness.key", "folder"}
        for method, kinds in (("POST", {"wal", "HALT", "folder"}), ("DELETE", {"wal", "folder"})):
            before = len(watch.seen)
            assert client.ask(method, "/v1/halt", {"reason": "a drill"}).status == 200
            assert _kinds(watch.seen[before:], tmp_path) >= kinds


def test_a_halt_is_not_acknowledged_while_its_file_is_not_on_the_disk(
    watch: SyncWatch, llm_server: LlmServer, tmp_path: Path, repository_root: Path
) -> None:
    command = watch.watched(_commands(is_forgetful=False))
    answers: list[int] = []
    with _serving(command, llm_server, repository_root, CONCLAVE_DATA_DIR=str(tmp_path)) as (client, _):
        watch.hold(f"{tmp_path}/.HALT.")

        def halt() -> None:
            try:
                answers.append(client.ask("POST", "/v1/halt", {"reason": "a drill"}).status)
            except http.client.HTTPException:
                answers.append(0)

        halting = threading.Thread(target=halt)
        halting.start()
        assert watch.require_first(lambda: bool(answers)) == 1
        halting.join()
    assert answers == [200]


def _kinds(paths: Sequence[str], folder: Path) -> set[str]:
    names = {"wal": "conclave.db-wal", "HALT": "/.HALT.", "witness.key": "/.witness.key."}
    found = {kind for kind, part in names.items() for path in paths if part in path}
    return found | ({"folder"} if str(folder) in paths else set())
