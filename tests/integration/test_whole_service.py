"""The whole service as its users have it: on the embedded model, on a real Postgres, and after a kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from api.bootstrap import Purpose, open_conclave, upgrade_database
from api.requests import DeliberationRequest
from domain.models.deliberation import Deliberation, DeliberationStatus
from infrastructure.settings import load_settings
from tests.llm_server.handle import LlmServer
from tests.servers.keeper import free_port

BODY = {"question": "Should the city centre be closed to private cars?", "agents": {"count": 3}}


async def asked(environ: dict[str, str], body: dict[str, Any]) -> tuple[Deliberation, int]:
    async with open_conclave(load_settings(environ, None), purpose=Purpose.SERVE) as conclave:
        specification = DeliberationRequest.read(body, conclave.rosters).specification(conclave.rosters)
        accepted = await conclave.deliberations.submit(specification)
        ended = await conclave.deliberations.wait(accepted.id, timeout_s=120)
        return ended, len(await conclave.outputs.outputs(ended.id))


async def test_a_small_deliberation_runs_on_the_embedded_model(tmp_path: Path) -> None:
    environ = {"CONCLAVE_DATA_DIR": str(tmp_path), "CONCLAVE_ORCHESTRATOR": "local"}
    ended, outputs = await asked(environ, {**BODY, "seed": 1})
    assert (ended.status, ended.orchestrator, ended.simulated) == (DeliberationStatus.COMPLETED, "local", False)
    assert (ended.roll_call.asked, ended.roll_call.took_part, outputs) == (3, 3, 3)
    assert ended.models == ("SmolLM2-135M-Instruct.Q4_1",)
    assert ended.usage.output_tokens > 0


async def test_a_deliberation_runs_on_postgres(tmp_path: Path, postgres_url: str, llm_server: LlmServer) -> None:
    environ = {
        "CONCLAVE_DATA_DIR": str(tmp_path),
        "CONCLAVE_DATABASE_URL": postgres_url,
        "CONCLAVE_LLM_BASE_URL": llm_server.base_url,
    }
    upgrade_database(load_settings(environ, None))
    ended, outputs = await asked(environ, {**BODY, "agents": {"count": 72}})
    assert (ended.status, ended.roll_call.asked, outputs) == (DeliberationStatus.COMPLETED, 72, 72)


@contextmanager
def serving(folder: Path, llm: LlmServer, port: int) -> Iterator[subprocess.Popen[bytes]]:
    environ = {
        **os.environ,
        "CONCLAVE_DATA_DIR": str(folder),
        "CONCLAVE_LLM_BASE_URL": llm.base_url,
        "CONCLAVE_PORT": str(port),
    }
    process = subprocess.Popen([sys.executable, "-m", "api.cli.main", "serve"], env=environ, stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if b"listening" in line:
                break
        yield process
    finally:
        process.kill()
        process.communicate()


def call(port: int, method: str, path: str, body: object = None) -> Any:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Content-Type": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def test_after_a_kill_a_deliberation_goes_on_and_no_finished_call_is_made_again(
    tmp_path: Path, llm_server: LlmServer
) -> None:
    llm_server.configure(faults=[{"nth": 3, "fault": "hang"}])
    port = free_port()
    with serving(tmp_path, llm_server, port) as process:
        accepted = call(port, "POST", "/v1/deliberations", BODY)
        llm_server.wait_until(in_flight_at_least=1, ended_at_least=2)
        while len(call(port, "GET", f"/v1/deliberations/{accepted['id']}/outputs")["items"]) < 2:
            continue
        process.send_signal(signal.SIGKILL)
        process.wait()
    with serving(tmp_path, llm_server, port):
        until = time.monotonic() + 30
        while (found := call(port, "GET", f"/v1/deliberations/{accepted['id']}"))["status"] == "running":
            assert time.monotonic() < until
    counts = found["roll_call"]
    assert (found["status"], counts["answered"] + counts["abstained"], counts["asked"]) == ("completed", 3, 3)
    assert (found["usage"]["calls"], llm_server.stats()["requests"]) == (4, 4)
