"""A client generated from the document of a running server puts a question and reads what came of it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conclave_fixture import RunningServer, running_server

SECRET = "secret-of-the-generated-client"
PATIENCE_S = 120.0

# Runs in the environment of the generator, which holds nothing of Conclave.
JOURNEY = """
import asyncio, importlib, json, pkgutil, sys, time
import conclave_api
from conclave_api import AuthenticatedClient, Client
from conclave_api.api.deliberations import (get_deliberation, get_minutes, list_deliberations, list_outputs,
    recount_deliberation, stream_events, submit_deliberation)
from conclave_api.api.operations import get_pool, get_webhook_keys, is_alive
from conclave_api.api.witness import get_checkpoint, get_entry, get_tile
from conclave_api.models import Deliberation, DeliberationRequest, Problem, RecountRequest

modules = [found.name for found in pkgutil.walk_packages(conclave_api.__path__, "conclave_api.")]
for name in modules:
    importlib.import_module(name)
url, secret = sys.argv[1:]

def open_client():
    return AuthenticatedClient(base_url=url, token=secret, raise_on_unexpected_status=True)

async def listed():
    async with open_client() as client:
        return await list_deliberations.asyncio(client=client, limit=1)

client = open_client().__enter__()
asked = DeliberationRequest.from_dict({"question": "Why?", "answer": {"kind": "choice", "options": ["a", "b"]},
                                       "agents": {"count": 5}, "seed": 7})
accepted = submit_deliberation.sync(client=client, body=asked, idempotency_key="once")
again = submit_deliberation.sync(client=client, body=asked, idempotency_key="once")
until = time.monotonic() + 60
while (found := get_deliberation.sync(accepted.id, client=client)).status in {"queued", "running"}:
    assert time.monotonic() < until, found
outputs = list_outputs.sync(found.id, client=client)
recount = recount_deliberation.sync(found.id, client=client,
    body=RecountRequest.from_dict({"rule": {"kind": "threshold", "fraction": 0.5}}))
stream = stream_events.sync(found.id, client=client)
page = asyncio.run(listed())
missing = get_deliberation.sync("nothing", client=client)
with Client(base_url=url) as anybody:
    stranger = get_pool.sync_detailed(client=anybody)
tile = get_tile.sync("0/000.p/1", client=client)
checkpoint, entry = get_checkpoint.sync(client=client), get_entry.sync(0, client=client)
minutes, alive, keys = get_minutes.sync(found.id, client=client), is_alive.sync(client=client), get_webhook_keys.sync(client=client)
client.__exit__()
print(json.dumps({
    "modules": len(modules),
    "same": accepted.id == again.id == page.items[0].id,
    "status": found.status,
    "roll_call": found.roll_call.to_dict(),
    "decision": found.outcome.decision,
    "positions": [output.answer for output in outputs.items],
    "recounted": recount.outcome.rule,
    "events": stream.count("event: "),
    "missing": [type(missing).__name__, missing.status, missing.type_],
    "stranger": [stranger.status_code, stranger.parsed.type_],
    "checkpoint": checkpoint.splitlines()[0],
    "leaf": entry.leaf_hash,
    "tile": tile.payload.read().hex(),
    "minutes": minutes[:1],
    "alive": alive.status,
    "webhook_keys": [key.kid for key in keys.keys],
}))
"""


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(keys=f"generated:operator:{SECRET}") as running:
        yield running


@pytest.fixture(scope="module")
def environment(repository_root: Path) -> Path:
    programs = repository_root / ".openapi-venv" / "bin"
    assert (programs / "openapi-python-client").is_file(), "make it with: scripts/environment.sh openapi"
    return programs


def ran(environment: Path, *command: str, **more: str) -> str:
    variables = {**os.environ, "PATH": f"{environment}{os.pathsep}{os.environ['PATH']}", **more}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(scope="module")
def generated(server: RunningServer, environment: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that holds the package `conclave_api`, and what the generator said."""
    folder = tmp_path_factory.mktemp("generated")
    generator, address = str(environment / "openapi-python-client"), f"http://127.0.0.1:{server.port}/openapi.json"
    package = str(folder / "conclave_api")
    options = ("--meta", "none", "--output-path", package, "--fail-on-warning")
    return folder, ran(environment, generator, "generate", "--url", address, *options)


@pytest.fixture(scope="module")
def journey(server: RunningServer, environment: Path, generated: tuple[Path, str]) -> dict[str, Any]:
    url = f"http://127.0.0.1:{server.port}"
    command = (str(environment / "python"), "-W", "error", "-c", JOURNEY, url, SECRET)
    found: dict[str, Any] = json.loads(ran(environment, *command, PYTHONPATH=str(generated[0])))
    return found


def test_the_generator_has_nothing_to_complain_of(generated: tuple[Path, str]) -> None:
    assert generated[1].replace("\n", "") == f"Generating {generated[0] / 'conclave_api'}"


def test_every_operation_has_a_function_of_its_own(generated: tuple[Path, str], server: RunningServer) -> None:
    described = server.ask("GET", "/openapi.json").document["paths"].values()
    names = {operation["operationId"].lower() for calls in described for operation in calls.values()}
    modules = {path.stem.replace("_", "") for path in (generated[0] / "conclave_api" / "api").glob("*/*.py")}
    assert modules - {"init"} == names


def test_a_question_is_put_once_and_answered_to_the_end(journey: dict[str, Any]) -> None:
    roll_call = journey["roll_call"]
    assert (journey["same"], journey["status"]) == (True, "completed")
    assert (roll_call["asked"], roll_call["answered"] + roll_call["abstained"]) == (5, 5)
    assert journey["decision"] in {"a", "b"}
    assert len(journey["positions"]) == 5


def test_the_ballots_are_counted_again_and_the_events_are_there(journey: dict[str, Any]) -> None:
    assert journey["recounted"] == "threshold"
    # Queued, started, the round's beginning and end, two of each agent, and the end.
    assert journey["events"] == 2 + 2 + 2 * 5 + 1


def test_refusals_are_problem_documents(journey: dict[str, Any]) -> None:
    assert journey["missing"] == ["Problem", 404, "urn:conclave:problem:deliberation-not-found"]
    assert journey["stranger"] == [401, "urn:conclave:problem:unauthenticated"]


def test_text_and_bytes_come_as_they_are(journey: dict[str, Any]) -> None:
    assert journey["checkpoint"] == "conclave.test/witness"
    assert journey["tile"] == journey["leaf"]
    assert (journey["minutes"], journey["alive"]) == ("#", "ok")
