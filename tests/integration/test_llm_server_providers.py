"""Proves the oracle where money and limits are judged by it: its rates, its bill, its dialects and its broken streams."""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.llm_questions import OPTIONS, Answer, ask, ask_concurrently, asking, send
from tests.llm_server.dialects import DIALECTS
from tests.llm_server.handle import LlmServer, LlmServerError
from tests.llm_server.rate_limit import RateLimit, admit, most_in_window

SSE: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture
def server(llm_server: LlmServer) -> LlmServer:
    return llm_server


@pytest.fixture(scope="module", params=DIALECTS)
def speaker(request: pytest.FixtureRequest) -> Iterator[LlmServer]:
    """A server of each dialect."""
    with LlmServer(dialect=request.param) as server:
        yield server


def events(answer: Answer) -> list[Any]:
    found = [block.removeprefix("data: ") for block in answer.body.decode().split("\n\n") if block]
    return [event if event == "[DONE]" else json.loads(event) for event in found]


# Rates


def test_no_window_admits_more_requests_than_its_limit_and_the_next_is_let_in_when_the_oldest_leaves() -> None:
    limit = RateLimit(requests=2, seconds=10.0)
    assert [admit([limit], now=now, tokens=0) for now in (0.0, 4.0, 5.0, 9.5)] == [0.0, 0.0, 5.0, 0.5]
    assert [admit([limit], now=now, tokens=0) for now in (10.0, 10.1, 14.0)] == [0.0, pytest.approx(3.9), 0.0]


def test_tokens_are_limited_beside_requests_and_what_can_never_fit_waits_a_whole_window() -> None:
    limit = RateLimit(tokens=100, seconds=10.0)
    assert admit([limit], now=0.0, tokens=60) == 0.0
    assert admit([limit], now=1.0, tokens=40) == 0.0
    assert admit([limit], now=2.0, tokens=60) == 8.0
    assert admit([limit], now=2.0, tokens=70) == 9.0
    assert admit([limit], now=2.0, tokens=101) == 10.0


def test_what_one_limit_refuses_takes_nothing_from_the_other() -> None:
    wide, narrow = RateLimit(requests=9), RateLimit(requests=1)
    assert admit([wide, narrow], now=0.0, tokens=0) == 0.0
    assert admit([wide, narrow], now=1.0, tokens=0) == 59.0
    assert len(wide.taken) == 1


def test_a_refused_request_may_count_against_the_limit_as_well() -> None:
    limit = RateLimit(requests=1, seconds=10.0, counts_refused=True)
    assert [admit([limit], now=now, tokens=0) for now in (0.0, 9.0, 18.0)] == [0.0, 1.0, 1.0]


def test_the_fullest_window_is_found_and_its_length_is_open_at_one_end() -> None:
    assert most_in_window([0.0, 1.0, 5.0, 5.5, 5.8, 5.9, 6.0], seconds=1.0) == 4
    assert most_in_window([0.0, 1.0, 2.0], seconds=1.0) == 1
    assert most_in_window([], seconds=1.0) == 0


async def test_of_a_burst_only_as_many_are_admitted_as_the_rate_allows(server: LlmServer) -> None:
    server.configure(rates=[{"requests": 5, "seconds": 60}])
    answers = await ask_concurrently(server, [f"agent {n}" for n in range(12)])
    assert sorted(answer.status for answer in answers) == [200] * 5 + [429] * 7
    assert server.stats()["by_fault"] == {"rate_limit": 7}
    assert (server.most_in_window(), server.most_in_window(model="another")) == (12, 0)


def test_a_refusal_says_when_to_come_back_and_then_it_is_true(server: LlmServer) -> None:
    server.configure(rates=[{"requests": 1, "seconds": 0.3}])
    ask(server)
    refused = ask(server)
    wait_s = int(refused.headers["retry-after-ms"]) / 1000
    assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
    assert 0 < wait_s <= 0.3
    while ask(server).status == 429:
        pass
    first, asked_early, *_, admitted = (entry["arrived_monotonic"] for entry in server.journal())
    assert asked_early + wait_s == pytest.approx(first + 0.3, abs=0.002)
    assert admitted >= first + 0.3


def test_headers_tell_how_the_limits_stand(server: LlmServer) -> None:
    server.configure(rates=[{"requests": 3}, {"tokens": 90_000}], usage={"prompt_tokens": 100, "completion_tokens": 20})
    ask(server)
    headers = ask(server).headers
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("3", "1")
    assert (headers["x-ratelimit-limit-tokens"], headers["x-ratelimit-remaining-tokens"]) == ("90000", "89760")
    assert headers["x-ratelimit-reset-requests"].endswith("s")


def test_a_rate_may_hold_for_one_model_alone(server: LlmServer) -> None:
    server.configure(rates=[{"model": "small", "requests": 1}])
    assert [ask(server, model=model).status for model in ("small", "small", "large", "large")] == [200, 429, 200, 200]


@pytest.mark.parametrize("rate", [{"seconds": 1}, {"requests": 1, "minute": 1}, {"requests": "many"}])
def test_a_rate_not_understood_is_refused(server: LlmServer, rate: dict[str, Any]) -> None:
    with pytest.raises(LlmServerError, match="rates"):
        server.configure(rates=[rate])


def test_a_fraction_of_prompts_is_throttled_at_its_first_call_only(server: LlmServer) -> None:
    server.configure(faults=[{"fault": "429", "fraction": 0.3, "times": 1, "retry_after": 7}])
    prompts = [f"agent {n}" for n in range(50)]
    first = [ask(server, prompt) for prompt in prompts]
    refused = [answer for answer in first if answer.status == 429]
    assert 5 <= len(refused) <= 25
    assert {answer.headers["Retry-After"] for answer in refused} == {"7"}
    assert {ask(server, prompt).status for prompt in prompts} == {200}


def test_a_fraction_of_calls_is_throttled_whatever_their_prompt(server: LlmServer) -> None:
    server.configure(faults=[{"fault": "429", "fraction": 0.3, "each_call": True}])
    statuses = [ask(server, "the same").status for _ in range(50)]
    assert 5 <= statuses.count(429) <= 25
    server.configure(faults=[{"fault": "429", "fraction": 0.3, "each_call": True}])
    assert statuses == [ask(server, "the same").status for _ in range(50)]


# The bill


def test_the_bill_counts_each_whole_answer_by_model(server: LlmServer) -> None:
    told = [ask(server, f"agent {n}", model=model).document["usage"] for n, model in enumerate("aab")]
    assert server.bill() == {
        "answered": {
            model: {
                "calls": len(usages),
                "prompt_tokens": sum(usage["prompt_tokens"] for usage in usages),
                "completion_tokens": sum(usage["completion_tokens"] for usage in usages),
            }
            for model, usages in (("a", told[:2]), ("b", told[2:]))
        },
        "abandoned": {},
    }


@pytest.mark.parametrize("fault", ["429", "500", "401", "404_model", "error_object", "html", "truncated", "reset"])
def test_what_is_no_answer_is_not_billed(server: LlmServer, fault: str) -> None:
    server.configure(fault=fault)
    with asking(server):
        server.wait_until(ended_at_least=1)
    assert server.bill() == {"answered": {}, "abandoned": {}}


@pytest.mark.parametrize("fault", ["empty", "not_ballot", "cut_off", "unknown_option", "no_choices"])
def test_a_bad_answer_is_billed_like_a_good_one(server: LlmServer, fault: str) -> None:
    ask(server)
    good = server.bill()["answered"]
    server.reset()
    server.configure(fault=fault)
    ask(server)
    assert server.bill()["answered"] == good


@pytest.mark.parametrize(
    "fault",
    [
        "negative_usage",
        "absurd_usage",
        "no_usage",
        {"fault": "told_usage", "prompt_tokens": 1, "completion_tokens": -2},
    ],
)
def test_what_a_reply_claims_does_not_change_the_bill(server: LlmServer, fault: Any) -> None:
    true = ask(server).document["usage"]
    server.configure(fault=fault)
    assert ask(server).document["usage"] != true
    [account] = server.bill()["answered"].values()
    assert account == {
        "calls": 2,
        "prompt_tokens": 2 * true["prompt_tokens"],
        "completion_tokens": 2 * true["completion_tokens"],
    }


def test_usage_can_be_fixed(server: LlmServer) -> None:
    server.configure(usage={"prompt_tokens": 1000, "completion_tokens": 50})
    assert ask(server).document["usage"] == {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050}


def test_an_answer_whose_client_left_stands_apart(server: LlmServer) -> None:
    server.configure(fault="hold", usage={"prompt_tokens": 7, "completion_tokens": 3})
    with asking(server):
        server.wait_until(held_at_least=1)
    server.wait_until(disconnects_at_least=1)
    account = {"calls": 1, "prompt_tokens": 7, "completion_tokens": 3}
    assert server.bill() == {"answered": {}, "abandoned": {"test-model": account}}


# Dialects


def test_each_dialect_answers_what_it_is_asked_plainly(speaker: LlmServer) -> None:
    speaker.reset()
    answer = ask(speaker, 'Choose one of ["yes", "no", "weekends only"].', response_format=None)
    assert answer.ballot["answer"] in OPTIONS
    assert answer.document["usage"]["total_tokens"] > answer.document["usage"]["completion_tokens"] > 0


def test_each_dialect_says_an_error_in_its_own_shape(speaker: LlmServer) -> None:
    speaker.reset()
    speaker.configure(fault={"fault": "429", "retry_after": 3})
    answer = ask(speaker, response_format=None)
    shapes = {
        "openai": lambda document: document["error"]["code"] == "rate_limit_exceeded",
        "anthropic": lambda document: document["error"]["type"] == "rate_limit_error",
        "gemini": lambda document: document[0]["error"]["details"][0]["retryDelay"] == "3s",
        "local": lambda document: isinstance(document["error"], str),
    }
    fitting = [name for name, fits in shapes.items() if _fits(fits, answer.document)]
    assert answer.status == 429
    assert fitting == [speaker.dialect]


def test_each_dialect_refuses_what_is_not_its_own(speaker: LlmServer) -> None:
    speaker.reset()
    asked = {
        "seed": ask(speaker, seed=1, response_format=None).status,
        "schema": ask(speaker).status,
        "max_tokens": ask(speaker, model="o3-test", max_tokens=9, response_format=None).status,
    }
    refused = {"openai": {"max_tokens"}, "anthropic": set(), "gemini": {"seed"}, "local": {"schema"}}[speaker.dialect]
    assert {name for name, status in asked.items() if status == 400} == refused


def test_each_dialect_tells_its_limits_in_its_own_headers(speaker: LlmServer) -> None:
    speaker.reset()
    speaker.configure(rates=[{"requests": 1}])
    ask(speaker, response_format=None)
    headers = {name.lower() for name in ask(speaker, response_format=None).headers}
    told = {
        "openai": {"retry-after", "retry-after-ms", "x-ratelimit-remaining-requests"},
        "anthropic": {"retry-after", "anthropic-ratelimit-requests-remaining", "x-ratelimit-remaining-requests"},
        "gemini": set(),
        "local": {"retry-after"},
    }
    known = set().union(*told.values())
    assert headers & known == told[speaker.dialect]


def test_each_dialect_lists_its_models(speaker: LlmServer) -> None:
    speaker.reset()
    [model] = send(speaker, "GET", "/v1/models").document["data"]
    assert model["id"] == ("models/test-model" if speaker.dialect == "gemini" else "test-model")


def test_a_provider_that_ignores_schemas_puts_its_ballot_into_prose() -> None:
    with LlmServer(dialect="anthropic") as server:
        server.configure(faults=[{"fault": "503", "contains": "twice"}, {"fault": "401", "contains": "who"}])
        before, ballot, _ = ask(server).content.split("```")
        assert before.strip()
        assert json.loads(ballot.removeprefix("json"))["answer"] in OPTIONS
        assert (ask(server, "twice").status, ask(server, "who").status) == (529, 401)


def test_thinking_is_billed_as_written_and_may_stand_in_the_total_alone(server: LlmServer) -> None:
    server.configure(usage={"prompt_tokens": 10, "completion_tokens": 5, "thinking_tokens": 80})
    within = ask(server).document["usage"]
    server.configure(dialect="gemini")
    apart = ask(server).document["usage"]
    assert (within["completion_tokens"], within["total_tokens"]) == (85, 95)
    assert (apart["completion_tokens"], apart["total_tokens"]) == (5, 95)
    assert server.bill()["answered"]["test-model"]["completion_tokens"] == 170


def test_a_wrong_key_may_be_told_as_a_bad_request(server: LlmServer) -> None:
    server.configure(dialect="gemini", fault="401")
    assert ask(server).status == 400


def _fits(fits: Any, document: Any) -> bool:
    try:
        return bool(fits(document))
    except (KeyError, TypeError):
        return False


# Streams


def test_a_stream_ends_with_its_usage_in_each_dialect(speaker: LlmServer) -> None:
    speaker.reset()
    *chunks, done = events(ask(speaker, response_format=None, **SSE))
    assert done == "[DONE]"
    assert [chunk["usage"]["total_tokens"] > 0 for chunk in chunks if "usage" in chunk] == [True]
    assert (chunks[-1]["choices"] == []) == (speaker.dialect != "gemini")


def test_a_cut_stream_ends_well_as_http_and_lacks_its_finish(server: LlmServer) -> None:
    server.configure(fault="cut_stream")
    chunks = events(ask(server, **SSE))
    assert len(chunks) == 3
    assert "[DONE]" not in chunks
    assert {chunk["choices"][0]["finish_reason"] for chunk in chunks} == {None}
    assert server.bill()["answered"] == {}


def test_a_garbage_event_stands_in_the_middle_of_a_stream(server: LlmServer) -> None:
    server.configure(fault={"fault": "garbage_event", "events": 1})
    blocks = ask(server, **SSE).body.split(b"\n\n")
    with pytest.raises(UnicodeDecodeError):
        json.loads(blocks[1].partition(b"data: ")[2])
    assert blocks[-2] == b"data: [DONE]"


def test_an_error_event_ends_a_stream(server: LlmServer) -> None:
    server.configure(fault="error_event")
    assert set(events(ask(server, **SSE))[-1]) == {"error"}


@pytest.mark.parametrize(("fault", "before"), [("late_event", 0), ("idle_stream", 3)])
async def test_a_stream_may_begin_and_then_be_silent(server: LlmServer, fault: str, before: int) -> None:
    server.configure(fault={"fault": fault, "delay_seconds": 0.3})
    body = json.dumps({"model": "test-model", "messages": [{"role": "user", "content": "?"}], **SSE})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(head.encode() + body.encode())
    assert b" 200 " in (await reader.readuntil(b"\r\n\r\n")).splitlines()[0]
    for _ in range(before):
        await reader.readuntil(b"}\n\n\r\n")
    silent_from = time.monotonic()
    rest = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert time.monotonic() - silent_from > 0.2
    assert rest.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
