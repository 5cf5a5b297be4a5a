"""`conclave serve` as a process, and the other commands against it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.llm_server.handle import LlmServer

DEADLINE_S = 60.0
KEY = "operator-secret-1"


@contextmanager
def serving(
    *arguments: str, settings: Mapping[str, str], stdout: int = subprocess.DEVNULL
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server of its own on a free port, and the address that it says it listens on."""
    process = subprocess.Popen(
        [sys.executable, "-m", "api.cli.main", "serve", "--port", "0", *arguments],
        env={**os.environ, **settings},
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        url = ""
        for line in process.stderr:
            if found := re.fullmatch(r"conclave: listening on (\S+), Ctrl-C stops\n", line):
                url = found.group(1)
                break
        yield process, url
    finally:
        process.kill()
        process.communicate()


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "api.cli.main", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, llm_server_process: LlmServer) -> Iterator[str]:
    """The address of a server that wants keys, whose agents are at the far end."""
    settings = {
        "CONCLAVE_DATA_DIR": str(tmp_path_factory.mktemp("served")),
        "CONCLAVE_ORCHESTRATOR": "openai",
        "CONCLAVE_LLM_BASE_URL": llm_server_process.base_url,
        "CONCLAVE_API_KEYS": f"alice:operator:{KEY},bob:observer:observer-secret-1",
    }
    with serving(settings=settings) as (_, url):
        yield url


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_server_says_where_it_is_and_ends_on_a_signal(tmp_path: Path, number: signal.Signals, code: int) -> None:
    settings = {"CONCLAVE_DATA_DIR": str(tmp_path), "CONCLAVE_ORCHESTRATOR": "simulated"}
    with serving(settings=settings) as (process, url):
        with urllib.request.urlopen(f"{url}/healthz", timeout=DEADLINE_S) as response:
            assert response.status == 200
        process.send_signal(number)
        assert process.wait(DEADLINE_S) == code


def test_a_script_learns_the_address_from_one_document(tmp_path: Path) -> None:
    settings = {"CONCLAVE_DATA_DIR": str(tmp_path), "CONCLAVE_ORCHESTRATOR": "simulated"}
    process = subprocess.Popen(
        [sys.executable, "-m", "api.cli.main", "serve", "--port", "0", "--json"],
        env={**os.environ, **settings},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        written = ""
        while not written.endswith("}\n"):
            written += process.stdout.readline()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", json.loads(written)["urls"][0])
    finally:
        process.kill()
        process.communicate()


def test_without_keys_no_other_machine_is_served(tmp_path: Path) -> None:
    ran = run("serve", "--host", "0.0.0.0", CONCLAVE_DATA_DIR=str(tmp_path), CONCLAVE_ORCHESTRATOR="simulated")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "CONCLAVE_API_KEYS" in ran.stderr.splitlines()[-1]


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ran = run("serve", "--port", port, CONCLAVE_DATA_DIR=str(tmp_path), CONCLAVE_ORCHESTRATOR="simulated")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert re.match(rf"conclave: --port: .*{port}.*", ran.stderr.splitlines()[-1])


def test_a_deliberation_is_held_there_and_read_from_there(guarded: str, llm_server: LlmServer) -> None:
    held = run(
        *("deliberate", "Why?", "--option", "yes", "--option", "no", "--agents", "3", "--json", "--server", guarded),
        CONCLAVE_API_KEY=KEY,
    )
    assert held.returncode == 0, held.stderr
    document = json.loads(held.stdout)
    assert document["roll_call"]["answered"] == 3
    shown = run("show", document["id"][:8], "--json", "--server", guarded, CONCLAVE_API_KEY=KEY)
    assert json.loads(shown.stdout) == document
    read = run("show", document["id"], "--server", guarded, CONCLAVE_API_KEY=KEY)
    assert f"Show this again: conclave show {document['id'][:8]} --server {guarded}\n" in read.stdout
    assert "- archon-1: " in read.stdout
    listed = run("list", "--limit", "1", "--server", guarded, CONCLAVE_API_KEY=KEY)
    assert listed.stdout.startswith(document["id"])


def test_ctrl_c_cancels_it_there(guarded: str, llm_server: LlmServer) -> None:
    llm_server.configure(fault="hang")
    process = subprocess.Popen(
        [sys.executable, "-m", "api.cli.main", "deliberate", "Why?", "--agents", "2", "--json", "--server", guarded],
        env={**os.environ, "CONCLAVE_API_KEY": KEY},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        llm_server.wait_until(in_flight_at_least=2, timeout_seconds=DEADLINE_S)
        process.send_signal(signal.SIGINT)
        stdout, _ = process.communicate(timeout=DEADLINE_S)
        llm_server.wait_until(in_flight_at_most=0, timeout_seconds=DEADLINE_S)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    document = json.loads(stdout)
    assert document["status"] == "cancelled"
    late = run("cancel", document["id"], "--server", guarded, CONCLAVE_API_KEY=KEY)
    assert (late.returncode, late.stdout) == (1, "")
    assert "already ended" in late.stderr


@pytest.mark.parametrize(
    ("arguments", "key", "code", "said"),
    [
        (("deliberate", "q", "--option", "one"), KEY, 2, "--option: has 1 option, 2 to 50"),
        (("deliberate", "q", "--roster", "nobody"), KEY, 2, "--roster: is not known"),
        (("deliberate", "q"), "observer-secret-1", 2, "CONCLAVE_API_KEY"),
        (("list",), "wrong-secret-1", 2, "CONCLAVE_API_KEY"),
        (("list",), "", 2, "CONCLAVE_API_KEY"),
        (("list", "--status", "sleeping"), KEY, 2, "--status"),
        (("show", "00000000-0000-4000-8000-000000000000"), KEY, 2, "no such deliberation"),
        (("show", "../../healthz"), KEY, 2, "(404)"),
    ],
)
def test_what_the_server_refuses_is_one_clear_line(
    guarded: str, arguments: tuple[str, ...], key: str, code: int, said: str
) -> None:
    ran = run(*arguments, "--server", guarded, CONCLAVE_API_KEY=key)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert re.fullmatch(r"conclave: [^\n]+\n", ran.stderr)
    assert said in ran.stderr
    assert key not in ran.stderr or not key
