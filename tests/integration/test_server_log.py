"""The log of a server as a whole process: every line of it is for the same reader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def test_whatever_a_server_says_in_json_is_json(tmp_path: Path) -> None:
    environment = os.environ | {
        "CONCLAVE_DATA_DIR": str(tmp_path),
        "CONCLAVE_ORCHESTRATOR": "simulated",
        "CONCLAVE_LOG_FORMAT": "json",
    }
    command = [sys.executable, "-m", "api.cli.main", "serve", "--port", "0"]
    sources = Path(__file__).resolve().parents[2] / "src"
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, cwd=sources) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(json.loads(line)["event"])
            if said[-1].startswith("listening on"):
                process.terminate()
        assert process.wait(20) == 0
    assert any(event.startswith("Simulated:") for event in said)
