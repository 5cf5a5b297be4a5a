"""Holds recordings to giving the same again, to asking nobody, and to keeping no secret."""

from __future__ import annotations

import json
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from application.ports.agent_orchestrator import AgentRequest, ContextBundle
from domain.errors.agent import AgentInvocationError
from domain.errors.configuration import ConfigurationError
from domain.models.budget import Usage
from domain.models.question import AnswerFormat, AnswerKind
from infrastructure.orchestrators.exchange import Heard, Reply
from infrastructure.orchestrators.provider_client import ProviderClient, ReplyFacts
from infrastructure.orchestrators.recorded_replies import RecordingExchange, ReplayExchange, request_sha256
from infrastructure.orchestrators.replay_orchestrator import RecordingOrchestrator, ReplayOrchestrator

KEY = "sk-test-0123456789abcdef"
CONTEXT = ContextBundle("t-1", "Should the city centre be closed to private cars?")


def asking(agent_id: str = "archon-1") -> AgentRequest:
    return AgentRequest(
        agent_id, CONTEXT, persona=f"You are {agent_id}.", model="m-1", expected=AnswerFormat(AnswerKind.VERDICT)
    )


def completion(text: str, **fields: Any) -> Reply:
    document = {"model": "m-1-2026", "choices": [{"message": {"content": text}}], **fields}
    return Reply(200, {"x-ratelimit-remaining-requests": "9", "Set-Cookie": "s=1"}, json.dumps(document).encode())


class ScriptedExchange:
    """Gives one reply after the other."""

    def __init__(self, *replies: Reply) -> None:
        self.host = "models.example"
        self._replies = list(replies)

    def open(self) -> None: ...

    async def close(self) -> None: ...

    async def post(self, path: str, body: bytes, *, most: int, streams: bool, heard: Heard) -> Reply:
        reply = self._replies.pop(0)
        heard(reply.status, reply.headers, reply.body)
        return reply

    async def get(self, path: str, *, most: int) -> Reply:
        return self._replies.pop(0)


Recorder = Callable[..., RecordingOrchestrator]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "recording"


@pytest.fixture
def recording(folder: Path) -> Recorder:
    def open_(*replies: Reply) -> RecordingOrchestrator:
        client = ProviderClient(base_url="https://models.example/v1", api_key=KEY, max_connections=1)
        client.wrap_exchange(lambda _: ScriptedExchange(*replies))
        return RecordingOrchestrator(client, folder)

    return open_


@pytest.fixture
async def replay(folder: Path) -> AsyncIterator[ReplayOrchestrator]:
    async with ReplayOrchestrator(made(folder)) as opened:
        yield opened


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def files_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def remove(folder: Path) -> None:
    folder.rmdir()


async def failure_of(orchestrator: ReplayOrchestrator, request: AgentRequest | None = None) -> AgentInvocationError:
    with pytest.raises(AgentInvocationError) as caught:
        await orchestrator.invoke(request or asking())
    return caught.value


async def test_what_was_recorded_is_given_again(folder: Path, recording: Recorder) -> None:
    usage = {"prompt_tokens": 40, "completion_tokens": 7}
    first = await recording(completion('{"answer": "yes"}', usage=usage)).invoke(asking())
    request = asking()
    again = await ReplayOrchestrator(folder).invoke(request)
    assert (again.content, again.model, again.usage) == (first.content, "m-1-2026", Usage(1, 40, 7))
    assert again.request_id == request.request_id
    assert not again.simulated


async def test_what_was_not_recorded_fails_and_costs_nothing(replay: ReplayOrchestrator) -> None:
    error = await failure_of(replay)
    assert (error.kind, error.retryable, error.usage) == ("not_recorded", False, Usage())
    assert error.agent_id == "archon-1"
    assert "CONCLAVE_RECORD_DIR" in str(error)


async def test_another_word_in_the_request_is_another_request(folder: Path, recording: Recorder) -> None:
    await recording(completion("x")).invoke(asking())
    assert (await failure_of(ReplayOrchestrator(folder), asking("archon-2"))).kind == "not_recorded"


async def test_the_replies_to_a_request_made_twice_come_in_their_order_and_the_last_one_stays(
    folder: Path, recording: Recorder
) -> None:
    recorder = recording(Reply(503, {"Retry-After": "7"}, b"busy"), completion("fine"))
    with pytest.raises(AgentInvocationError):
        await recorder.invoke(asking())
    await recorder.invoke(asking())
    replayer = ReplayOrchestrator(folder)
    error = await failure_of(replayer)
    assert (error.kind, error.retry_after_s) == ("server_error", 7.0)
    assert [(await replayer.invoke(asking())).content for _ in range(3)] == ["fine"] * 3


async def test_a_refused_schema_is_learnt_again_from_the_recording(folder: Path, recording: Recorder) -> None:
    refusal = {"error": {"message": "response_format is not supported with this model"}}
    recorder = recording(Reply(400, {}, json.dumps(refusal).encode()), completion("plain"))
    with pytest.raises(AgentInvocationError):
        await recorder.invoke(asking())
    await recorder.invoke(asking())
    replayer = ReplayOrchestrator(folder)
    assert (await failure_of(replayer)).kind == "unsupported_parameter"
    assert (await replayer.invoke(asking())).content == "plain"
    assert len(files_in(folder)) == 2


async def test_recording_anew_replaces_what_an_earlier_process_recorded(folder: Path, recording: Recorder) -> None:
    for text in ("old", "new"):
        await recording(completion(text)).invoke(asking())
    assert (await ReplayOrchestrator(folder).invoke(asking())).content == "new"


async def test_a_streamed_reply_and_bytes_that_are_no_text_come_back_as_they_were(folder: Path) -> None:
    document = {"choices": [{"message": {"content": "streamed"}, "finish_reason": "stop"}]}
    replies = [Reply(200, {}, b"", document), Reply(500, {}, b"\xff\xfe")]
    recorder = RecordingExchange(ScriptedExchange(*replies), folder)
    for body in (b"1", b"2"):
        await recorder.post("/p", body, most=9, streams=True, heard=lambda *_: None)
    replayer = ReplayExchange(folder)
    found = [await replayer.post("/p", body, most=9, streams=True, heard=lambda *_: None) for body in (b"1", b"2")]
    assert [(each.status, each.body, each.document) for each in found] == [
        (200, b"", document),
        (500, b"\xff\xfe", None),
    ]


async def test_the_list_of_models_is_recorded_too(folder: Path) -> None:
    listed = Reply(200, {}, b'{"data": [{"id": "m-7"}]}')
    client = ProviderClient(base_url="https://models.example/v1", max_connections=1)
    client.wrap_exchange(lambda _: RecordingExchange(ScriptedExchange(listed), folder))
    assert await client.list_models() == ["m-7"]
    client.wrap_exchange(lambda _: ReplayExchange(folder))
    assert await client.list_models() == ["m-7"]


async def test_a_file_is_named_by_the_hash_of_the_bytes_sent_and_holds_neither_key_nor_cookie(
    folder: Path, recording: Recorder
) -> None:
    await recording(completion("x")).invoke(asking())
    client = ProviderClient(base_url="https://models.example/v1", max_connections=1)
    (file,) = files_in(folder)
    assert file.name == f"{request_sha256('/chat/completions', client.body_of(asking(), model='m-1'))}.json"
    told = file.read_text()
    assert not any(secret in told for secret in (KEY, "Bearer", "Cookie"))
    assert json.loads(told)["replies"][0]["headers"] == {"x-ratelimit-remaining-requests": "9"}
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, file)] == [0o700, 0o600]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json",
        b"[]",
        b"{}",
        b'{"version": 2, "replies": [{"status": 200, "body": "x"}]}',
        b'{"version": 1, "replies": []}',
        b'{"version": 1, "replies": [{"status": "200", "body": "x"}]}',
        b'{"version": 1, "replies": [{"status": 200}]}',
        b'{"version": 1, "replies": [{"status": 200, "body_base64": "a"}]}',
        b'{"version": 1, "replies": [{"status": 200, "body_base64": 7}]}',
    ],
)
async def test_a_file_that_is_no_recording_is_no_reply(folder: Path, recording: Recorder, content: bytes) -> None:
    await recording(completion("x")).invoke(asking())
    (file,) = files_in(folder)
    file.write_bytes(content)
    assert (await failure_of(ReplayOrchestrator(folder))).kind == "not_recorded"


async def test_a_replayed_reply_is_heard_as_a_real_one_is(folder: Path, recording: Recorder) -> None:
    await recording(completion("x")).invoke(asking())
    heard: list[tuple[str, ReplyFacts]] = []
    client = ProviderClient(
        base_url="https://models.example/v1", max_connections=1, heard=lambda *told: heard.append(told)
    )
    client.wrap_exchange(lambda _: ReplayExchange(folder))
    await client.complete(asking(), model="m-1")
    assert heard == [("m-1", ReplyFacts(200, None, {"x-ratelimit-remaining-requests": "9"}))]


async def test_a_closed_recording_answers_no_more(replay: ReplayOrchestrator) -> None:
    await replay.close()
    assert (await failure_of(replay)).kind == "closed"


async def test_a_reply_that_cannot_be_recorded_is_still_given(
    folder: Path, recording: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = recording(completion("paid for"))
    remove(folder)
    assert (await recorder.invoke(asking())).content == "paid for"
    assert "was not recorded" in caplog.text


def test_a_folder_that_is_missing_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="CONCLAVE_REPLAY_DIR"):
        ReplayOrchestrator(tmp_path / "nowhere")


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="CONCLAVE_RECORD_DIR"):
        RecordingExchange(ScriptedExchange(), tmp_path / "file" / "folder")
