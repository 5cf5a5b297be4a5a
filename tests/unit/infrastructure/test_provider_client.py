"""Holds the client to what it says before anything is sent: whom it asks, in which dialect, and which setting is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from application.ports.agent_orchestrator import AgentRequest, ContextBundle
from domain.errors.configuration import ConfigurationError
from domain.errors.dependency import DependencyUnavailableError
from domain.models.question import AnswerFormat, AnswerKind
from infrastructure.orchestrators.chat_request import Dialect
from infrastructure.orchestrators.exchange import Heard, Reply, pace_headers
from infrastructure.orchestrators.provider_client import ProviderClient
from infrastructure.orchestrators.provider_refusal import SettingNames

NAMES = SettingNames("base_url of [providers.p]", "P_API_KEY", "models of [providers.p]")
REQUEST = AgentRequest("archon-1", ContextBundle("t", "Should we?"), expected=AnswerFormat(AnswerKind.VERDICT), seed=7)


def client(
    base_url: str = "https://models.example:8443/v1", *, key: str | None = None, **dialect: Any
) -> ProviderClient:
    return ProviderClient(
        base_url=base_url,
        api_key=key,
        max_connections=1,
        dialect=Dialect(**dialect),
        names=NAMES,
    )


@pytest.mark.parametrize(
    ("base_url", "key", "variable"),
    [("ftp://models.example", None, NAMES.base_url), ("https://models.example", "two words", NAMES.api_key)],
)
def test_a_setting_that_cannot_be_used_is_named_as_its_provider_names_it(
    base_url: str, key: str | None, variable: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        client(base_url, key=key)
    assert caught.value.variable == variable


def test_the_host_is_told_with_its_port_and_without_the_path() -> None:
    assert client().host == "models.example:8443"


def test_what_a_provider_can_do_is_what_it_is_asked() -> None:
    full = json.loads(client().body_of(REQUEST, model="m"))
    assert {"response_format", "max_tokens", "temperature", "seed"} <= full.keys()
    assert "stream" not in full
    plain = client(structured=False, limit_name="max_completion_tokens", temperature=False, seed=False, stream=True)
    asked = json.loads(plain.body_of(REQUEST, model="m"))
    assert asked.keys() == {"model", "messages", "max_completion_tokens", "stream", "stream_options"}
    assert (asked["stream"], asked["stream_options"]) == (True, {"include_usage": True})


def test_the_prompt_is_every_message_that_is_sent() -> None:
    asked = json.loads(client().body_of(REQUEST, model="m"))
    assert client().prompt_of(REQUEST) == "\n\n".join(message["content"] for message in asked["messages"])


@pytest.mark.parametrize(
    ("complaint", "left"),
    [
        ("Unknown parameter: 'stream_options'", {"stream": True, "stream_usage": False}),
        ("streaming is not supported for this model", {"stream": False, "stream_usage": True}),
        ("Unsupported value: 'temperature'", {"temperature": False}),
    ],
)
def test_a_dialect_loses_what_is_refused_and_nothing_else(complaint: str, left: dict[str, bool]) -> None:
    plainer = Dialect(stream=True).without_what_is_refused(complaint)
    assert plainer == Dialect(**{"stream": True, **left})  # type: ignore[arg-type]


def test_a_complaint_about_streams_says_nothing_to_who_does_not_stream() -> None:
    assert Dialect().without_what_is_refused("stream is not supported") is None


async def test_a_provider_that_does_not_list_its_models_is_a_dependency_away() -> None:
    class Refusing:
        host = "models.example"

        def open(self) -> None: ...

        async def close(self) -> None: ...

        async def post(self, path: str, body: bytes, *, most: int, streams: bool, heard: Heard) -> Reply:
            raise AssertionError("nobody was to be asked")

        async def get(self, path: str, *, most: int) -> Reply:
            return Reply(401, {}, b"")

    asking = client()
    asking.wrap_exchange(lambda _: Refusing())
    with pytest.raises(DependencyUnavailableError, match="P_API_KEY"):
        await asking.list_models()


def test_headers_of_the_pace_are_few_short_and_printable() -> None:
    many = {f"X-RateLimit-{n}": "1" for n in range(100)}
    assert len(pace_headers(many)) == 32
    odd = {
        "X-RateLimit-A": "x" * 1000,
        "RateLimit-B": "a\x1bb",
        "Set-Cookie": "s",
        "Retry-After": "3",
        "ratelimit": "r=5",
    }
    assert pace_headers(odd) == {"x-ratelimit-a": "x" * 128, "retry-after": "3", "ratelimit": "r=5"}
