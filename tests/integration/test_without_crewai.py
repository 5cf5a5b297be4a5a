"""CrewAI is an extra: everything else works where it is not there, and nothing of ours brings it in unasked."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from api.bootstrap import Purpose, open_conclave
from domain.errors.configuration import ConfigurationError
from infrastructure.orchestrators.crewai_orchestrator import CrewAIAdapter
from infrastructure.settings import load_settings
from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub


def test_crewai_is_not_among_the_packages_that_these_tests_run_with() -> None:
    assert importlib.util.find_spec("crewai") is None
    assert importlib.util.find_spec("crewai_core") is None


def test_the_adapter_is_there_without_crewai_and_imports_nothing_of_it() -> None:
    code = "import sys, infrastructure.orchestrators.crewai_orchestrator; print('crewai' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


async def test_starting_the_adapter_without_crewai_says_how_to_install_it() -> None:
    adapter = CrewAIAdapter(models=AgentOrchestratorStub())
    with pytest.raises(ConfigurationError, match=r"uv pip install 'archon-conclave\[crewai\]'"):
        await adapter.start()
    await adapter.close()


async def test_a_service_that_shall_ask_through_crewai_does_not_start_without_it(tmp_path: Path) -> None:
    environ = {
        "CONCLAVE_DATA_DIR": str(tmp_path),
        "CONCLAVE_ORCHESTRATOR": "crewai",
        "CONCLAVE_LLM_BASE_URL": "http://localhost:1/v1",
    }
    with pytest.raises(ConfigurationError, match="needs CrewAI"):
        async with open_conclave(load_settings(environ, None), purpose=Purpose.ASK):
            pass
