"""`conclave mcp` as other agents start it: over real standard input and output, against a test LLM server, and over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import StdioServerParameters
from mcp.client.client import Client
from mcp.client.stdio import stdio_client

from api.bootstrap import Purpose, open_conclave
from infrastructure.settings import load_settings
from tests.command_line import Command, commands
from tests.conclave_fixture import REPOSITORY, running_server
from tests.llm_server.handle import LlmServer
from tests.patience import eventually, eventually_in_loop
from tests.servers.keeper import free_port

QUESTION = {"question": "Should the city centre be closed to private cars?", "options": ["yes", "no"]}
PATIENCE_S = 60.0


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    with commands(capsys) as started:
        yield started


def environment(folder: Path, **settings: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CONCLAVE_", "OPENAI_"))}
    named = {f"CONCLAVE_{name}": value for name, value in settings.items()}
    return {**kept, "PYTHONPATH": str(REPOSITORY / "src"), "CONCLAVE_DATA_DIR": str(folder), **named}


def started(folder: Path, *arguments: str, **settings: str) -> Client:
    """A client whose server process is started with it."""
    command = ["-m", "api.cli.main", "mcp", *arguments]
    parameters = StdioServerParameters(
        command=sys.executable, args=command, env=environment(folder, **settings), cwd=folder
    )
    return Client(stdio_client(parameters))


async def answered(client: Client, name: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(name, arguments)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return dict(result.structured_content)


async def test_one_deliberation_goes_from_question_to_verified_result(tmp_path: Path, llm_server: LlmServer) -> None:
    async with open_conclave(load_settings({"CONCLAVE_DATA_DIR": str(tmp_path)}, None), purpose=Purpose.READ) as kept:
        key = str(kept.witness.verifier_key)
    async with started(tmp_path, "--key", key, "--wait", "60", LLM_BASE_URL=llm_server.base_url) as client:
        ended = await answered(client, "deliberate", **QUESTION, agents=3, seed=1)
        own = ended["deliberation_id"]
        outcome = await answered(client, "outcome", deliberation_id=own)
        verified = await answered(client, "verify", deliberation_id=own)
    assert (ended["status"], ended["simulated"], outcome["roll_call"]["asked"]) == ("completed", False, 3)
    assert llm_server.stats()["requests"] == 3
    assert (verified["verified"], verified["key_is_pinned"], verified["key"]) == (True, True, key)
    assert verified["decision"] == outcome["decision"]


async def test_a_call_that_its_client_cancels_stops_the_calls_to_the_model(
    tmp_path: Path, llm_server: LlmServer
) -> None:
    llm_server.configure(faults=[{"fault": "hang"}])
    async with started(tmp_path, LLM_BASE_URL=llm_server.base_url) as client:
        calling = asyncio.create_task(client.call_tool("deliberate", {**QUESTION, "agents": 2}))

        async def both_asked() -> bool:
            return bool((await asyncio.to_thread(llm_server.stats))["requests"] == 2)

        await eventually_in_loop(both_asked)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await asyncio.to_thread(llm_server.wait_until, in_flight_at_most=0, timeout_seconds=20.0)


def test_standard_output_carries_the_protocol_and_nothing_else(tmp_path: Path) -> None:
    opening = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    }
    asking = {
        "jsonrpc": "2.0",
        "id": 2,
        "method": "tools/call",
        "params": {"name": "deliberate", "arguments": {**QUESTION, "agents": 2}},
    }
    begun = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    with subprocess.Popen(
        [sys.executable, "-m", "api.cli.main", "mcp"],
        env=environment(tmp_path, ORCHESTRATOR="simulated", LOG_LEVEL="debug"),
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for message in (opening, begun, asking):
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()
        lines: list[dict[str, Any]] = []
        while not any(line.get("id") == 2 for line in lines):
            lines.append(json.loads(process.stdout.readline()))
        rest, logged = process.communicate(timeout=PATIENCE_S)
    assert rest == ""
    assert all(line["jsonrpc"] == "2.0" for line in lines)
    assert logged
    assert process.returncode == 0


async def test_a_server_is_asked_with_the_key_of_the_environment(tmp_path: Path) -> None:
    secret = "a-long-secret"
    with running_server(keys=f"ann:operator:{secret}") as server:
        url = f"http://127.0.0.1:{server.port}"
        async with started(tmp_path, "--server", url, API_KEY=secret) as client:
            ended = await answered(client, "deliberate", **QUESTION, agents=2)
            verified = await answered(client, "verify", deliberation_id=ended["deliberation_id"])
        kept = await asyncio.to_thread(
            server.ask,
            "GET",
            f"/v1/deliberations/{ended['deliberation_id']}",
            headers={"Authorization": f"Bearer {secret}"},
        )
    assert (ended["status"], verified["verified"], kept.document["status"]) == ("completed", True, "completed")
    assert not (tmp_path / "conclave.db").exists()


def test_over_http_it_answers_on_loopback(tmp_path: Path) -> None:
    port = free_port()

    async def ask() -> dict[str, Any]:
        async with Client(f"http://127.0.0.1:{port}/mcp") as client:
            return await answered(client, "deliberate", **QUESTION, agents=2)

    def listens() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        return True

    with subprocess.Popen(
        [sys.executable, "-m", "api.cli.main", "mcp", "--http", str(port)],
        env=environment(tmp_path, ORCHESTRATOR="simulated"),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            eventually(listens)
            ended = asyncio.run(ask())
        finally:
            process.terminate()
            process.wait(PATIENCE_S)
    assert ended["status"] == "completed"


def test_without_the_extra_it_says_how_to_install_it(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.cli.mcp.find_spec", lambda name: None)
    ended = run("mcp")
    assert (ended.code, ended.stdout) == (2, "")
    assert "uv pip install 'archon-conclave[mcp]'" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--key", "no vkey"), "as `conclave witness key` prints it"),
        (("--max-cost", "-1"), "--max-cost"),
        (("--wait", "nan"), "--wait"),
        (("--http", "0"), "--http"),
    ],
)
def test_options_that_cannot_be_used_are_refused_before_anything_is_opened(
    run: Command, arguments: tuple[str, ...], words: str
) -> None:
    ended = run("mcp", *arguments)
    assert (ended.code, ended.stdout) == (2, "")
    assert words in ended.stderr
