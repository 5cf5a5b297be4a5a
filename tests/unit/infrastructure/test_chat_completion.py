"""Holds the reader of chat completions to naming each unusable reply, and to believing no impossible count."""

from __future__ import annotations

import json
from typing import Any

import pytest

from domain.errors.agent import AgentInvocationError
from domain.models.budget import Usage
from domain.models.roll_call import AgentState
from infrastructure.orchestrators.chat_completion import ChatCompletion, read_completion, read_models

HOST = "models.example"


def body(message: object = None, *, finish_reason: object = "stop", **fields: Any) -> bytes:
    choice = {
        "index": 0,
        "message": {"content": "fine"} if message is None else message,
        "finish_reason": finish_reason,
    }
    return json.dumps({"model": "m-1", "choices": [choice], **fields}).encode()


def read(reply: bytes, request_body: bytes = b"a" * 400) -> ChatCompletion:
    return read_completion(reply, host=HOST, request_body=request_body)


def refused(reply: bytes) -> AgentInvocationError:
    with pytest.raises(AgentInvocationError) as caught:
        read(reply)
    return caught.value


def test_a_completion_is_read_with_model_and_usage() -> None:
    reply = body(usage={"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17})
    assert read(reply) == ChatCompletion("fine", "m-1", False, 12, 5)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b" \n ",
        b"not json",
        b"<html><body>sign in</body></html>",
        b"\x80\xff\xfe{]\x00",
        b'"a string"',
        b"[]",
        b"null",
        b"12",
        b'{"choices": [',
        b"[" * 500_000,
        b'{"a":' * 100_000,
        b'{"usage": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_json_object_is_unreadable(reply: bytes) -> None:
    error = refused(reply)
    assert (error.kind, error.state, error.retryable) == ("unreadable_reply", AgentState.INVALID, False)


@pytest.mark.parametrize(
    "reply",
    [
        b"{}",
        json.dumps({"choices": None}).encode(),
        json.dumps({"choices": []}).encode(),
        json.dumps({"choices": ["text"]}).encode(),
        json.dumps({"choices": {"0": {}}}).encode(),
        json.dumps({"choices": [{}]}).encode(),
        json.dumps({"choices": [{"message": "text"}]}).encode(),
        body({"role": "assistant"}),
        body({"content": None}),
        body({"content": ""}),
        body({"content": " \n\t"}),
        body({"content": 7}),
        body({"content": {"text": "x"}}),
        body({"content": []}),
        body({"content": [{"type": "image"}, 3, None]}),
        body({"content": None, "refusal": ""}),
        body({"content": None, "tool_calls": [{"id": "1"}]}),
    ],
)
def test_a_reply_without_a_text_is_empty(reply: bytes) -> None:
    error = refused(reply)
    assert (error.kind, error.state, error.retryable) == ("empty_reply", AgentState.INVALID, False)


@pytest.mark.parametrize(("finish_reason", "cause"), [("length", "max_output_tokens"), ("content_filter", "filter")])
def test_an_empty_reply_says_why_where_that_is_known(finish_reason: str, cause: str) -> None:
    assert cause in str(refused(body({"content": None}, finish_reason=finish_reason)))


def test_parts_are_joined() -> None:
    parts = [{"type": "text", "text": '{"answer"'}, {"type": "text", "text": ': "yes"}'}, "!"]
    assert read(body({"content": parts})).content == '{"answer": "yes"}!'


def test_a_refusal_is_kept_as_the_content() -> None:
    assert read(body({"content": None, "refusal": "I would rather not."})).content == "I would rather not."
    assert read(body({"content": [{"type": "refusal", "refusal": "No."}]})).content == "No."


def test_a_reply_that_ran_into_the_token_limit_is_marked() -> None:
    assert read(body(finish_reason="length")).cut_off
    assert not read(body(finish_reason="stop")).cut_off


@pytest.mark.parametrize(
    ("error", "kind", "state", "retryable"),
    [
        ({"message": "upstream", "code": 500}, "provider_error", AgentState.FAILED, True),
        ({"message": "upstream"}, "provider_error", AgentState.FAILED, True),
        ("upstream", "provider_error", AgentState.FAILED, True),
        (["upstream"], "provider_error", AgentState.FAILED, True),
        ({"message": "upstream", "code": ["x"]}, "provider_error", AgentState.FAILED, True),
        ({"message": "bad", "code": 400}, "provider_error", AgentState.FAILED, False),
        ({"message": "slow down", "code": 429}, "rate_limited", AgentState.THROTTLED, True),
        ({"message": "pay", "code": "insufficient_quota"}, "quota_exhausted", AgentState.THROTTLED, False),
    ],
)
@pytest.mark.parametrize("place", ["document", "choice"])
def test_an_error_object_in_a_good_reply_is_the_providers_failure(
    place: str, error: object, kind: str, state: AgentState, retryable: bool
) -> None:
    document = {"error": error} if place == "document" else {"choices": [{"error": error, "finish_reason": "error"}]}
    raised = refused(json.dumps(document).encode())
    assert (raised.kind, raised.state, raised.retryable) == (kind, state, retryable)


@pytest.mark.parametrize(
    "count", [-1, 10_000_001, 10**30, 1.5, "12", None, True, [], {}, 1e300, float("nan"), float("inf")]
)
def test_an_impossible_count_of_tokens_is_replaced_by_an_estimate(count: object) -> None:
    completion = read(body(usage={"prompt_tokens": count, "completion_tokens": count}), request_body=b"a" * 41)
    assert (completion.input_tokens, completion.output_tokens) == (42, 4)


@pytest.mark.parametrize("usage", [None, [], "many", 7])
def test_missing_usage_is_estimated(usage: object) -> None:
    completion = read(body(usage=usage), request_body=b"a" * 41)
    assert (completion.input_tokens, completion.output_tokens) == (42, 4)


def test_counts_written_as_whole_floats_are_believed() -> None:
    assert read(body(usage={"prompt_tokens": 12.0, "completion_tokens": 0})).input_tokens == 12


@pytest.mark.parametrize(
    ("usage", "output_tokens"),
    [
        ({"prompt_tokens": 21, "completion_tokens": 0, "total_tokens": 81}, 60),
        ({"prompt_tokens": 21, "completion_tokens": 30, "total_tokens": 51}, 30),
        ({"prompt_tokens": 21, "completion_tokens": 30, "total_tokens": 30}, 30),
        ({"prompt_tokens": 21, "completion_tokens": 30, "total_tokens": 10**30}, 30),
        ({"prompt_tokens": 21, "completion_tokens": 30, "total_tokens": -5}, 30),
        ({"prompt_tokens": 21, "completion_tokens": 30, "total_tokens": None}, 30),
    ],
)
def test_what_a_model_thought_counts_where_only_the_total_tells_it(usage: object, output_tokens: int) -> None:
    assert read(body(usage=usage)).output_tokens == output_tokens


USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


@pytest.mark.parametrize(
    ("reply", "usage"),
    [
        (body({"content": None}, usage=USAGE), Usage(1, 9, 3)),
        (body({"content": ""}, usage={**USAGE, "completion_tokens": -3}), None),
        (body({"content": ""}, usage={**USAGE, "prompt_tokens": 10**12}), None),
        (body({"content": ""}), None),
        (json.dumps({"error": {"message": "x"}, "usage": USAGE}).encode(), Usage(1, 9, 3)),
        (json.dumps({"error": {"message": "x"}}).encode(), None),
        (json.dumps({"error": {"message": "x", "code": 429}}).encode(), Usage()),
        (json.dumps({"choices": [{"error": {"message": "x", "code": 429}}]}).encode(), None),
        (b"<html></html>", None),
        (b"", None),
    ],
)
def test_an_unusable_reply_says_what_it_took_where_that_is_known(reply: bytes, usage: Usage | None) -> None:
    assert refused(reply).usage == usage


@pytest.mark.parametrize("model", [None, "", "  ", 7, "m" * 257, "a\x1b[31mb", "line\nbreak"])
def test_a_name_that_no_model_has_is_not_repeated(model: object) -> None:
    assert read(body(model=model)).model is None


def test_lone_surrogates_and_nuls_in_the_content_are_left_to_the_fan_out() -> None:
    assert read(body({"content": "\x00\ud800"})).content == "\x00\ud800"


def test_models_are_listed_in_their_order() -> None:
    listed = json.dumps({"data": [{"id": "b"}, {"id": "a"}, {"id": 3}, "c", {"name": "d"}]}).encode()
    assert read_models(listed, host=HOST) == ["b", "a"]


@pytest.mark.parametrize("reply", [b"{}", b'{"data": null}', b'{"data": {"id": "a"}}'])
def test_a_list_without_models_is_empty(reply: bytes) -> None:
    assert read_models(reply, host=HOST) == []


@pytest.mark.parametrize(
    ("reply", "kind"),
    [(b"[]", "unreadable_reply"), (b"<html>", "unreadable_reply"), (b'{"error": "x"}', "provider_error")],
)
def test_what_is_no_list_of_models_is_refused(reply: bytes, kind: str) -> None:
    with pytest.raises(AgentInvocationError) as caught:
        read_models(reply, host=HOST)
    assert caught.value.kind == kind
