"""Turns the name of a fault into what goes on the wire in place of a good answer."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace
from typing import Any

from tests.llm_server.reply import Occasion, Reply
from tests.llm_server.wire import chunk, render, render_chunked_head

BLOCK = b"a" * (256 * 1024)
UNSEEN_OPTION = "an option that nobody offered"


def throttled(occasion: Occasion) -> Reply:
    settings = occasion.settings
    headers = {} if settings.retry_after is None else {"Retry-After": f"{settings.retry_after:g}"}
    if settings.retry_after_date is not None:
        moment = time.gmtime(time.time() + settings.retry_after_date)
        headers = {"Retry-After": time.strftime("%a, %d %b %Y %H:%M:%S GMT", moment)}
    return occasion.error(
        429,
        "Rate limit reached.",
        kind="requests",
        code="rate_limit_exceeded",
        retry_after_s=settings.retry_after,
        headers=headers,
    )


def status_500(occasion: Occasion) -> Reply:
    return occasion.error(500, "The server had an error.", kind="server_error")


def status_503(occasion: Occasion) -> Reply:
    return occasion.error(503, "The model is overloaded.", kind="server_error", code="overloaded")


def unauthorized(occasion: Occasion) -> Reply:
    return occasion.error(401, "Incorrect API key provided.", kind="invalid_request_error", code="invalid_api_key")


def unknown_model(occasion: Occasion) -> Reply:
    message = f"The model {occasion.request.model!r} does not exist."
    return occasion.error(404, message, kind="invalid_request_error", code="model_not_found")


def response_format_refused(occasion: Occasion) -> Reply:
    message = "'response_format' of type 'json_schema' is not supported with this model."
    return occasion.error(400, message, kind="invalid_request_error", code="unsupported_parameter")


def error_object(occasion: Occasion) -> Reply:
    document = {"error": {"message": "Something went wrong upstream.", "type": "server_error", "code": 500}}
    return Reply(render(200, json.dumps(document).encode()))


def redirect(occasion: Occasion) -> Reply:
    status = occasion.settings.redirect_status
    return Reply(render(status, b"", headers={"Location": occasion.settings.location}), status=status)


def reset(occasion: Occasion) -> Reply:
    return Reply(status=None, ending="reset")


def empty(occasion: Occasion) -> Reply:
    return occasion.saying("")


def null_content(occasion: Occasion) -> Reply:
    return occasion.saying(None)


def no_choices(occasion: Occasion) -> Reply:
    body = json.dumps({**occasion.completion.document(), "choices": []}).encode()
    return Reply(render(200, body, headers=occasion.headers), bill=occasion.bill)


def empty_body(occasion: Occasion) -> Reply:
    return Reply(render(200, b""))


def garbage(occasion: Occasion) -> Reply:
    return Reply(render(200, b"\x80\xff\xfe{]\x00 not json \xc3\x28" * 8))


def html(occasion: Occasion) -> Reply:
    page = (
        b"<!DOCTYPE html><html><head><title>Sign in</title></head><body><h1>Sign in to the network</h1></body></html>"
    )
    return Reply(render(200, page, content_type="text/html; charset=utf-8"))


def not_ballot(occasion: Occasion) -> Reply:
    return occasion.saying("I would rather talk about the weather, which has been fine of late.")


def wrong_schema(occasion: Occasion) -> Reply:
    return occasion.saying(json.dumps({"answer": {"choice": ["first"]}, "confidence": "very", "reasoning": 7}))


def unknown_option(occasion: Occasion) -> Reply:
    document = {"answer": UNSEEN_OPTION, "confidence": 0.9, "reasoning": "It should have been on the list."}
    return occasion.saying(json.dumps(document))


def prose(occasion: Occasion) -> Reply:
    content = (
        f"I weighed the matter as asked.\n\n```json\n{occasion.completion.content}\n```\n\nAsk me again if need be."
    )
    return occasion.saying(content)


def cut_off(occasion: Occasion) -> Reply:
    content = occasion.completion.content or ""
    return occasion.saying(content[: len(content) // 2], finish_reason="length")


def nul(occasion: Occasion) -> Reply:
    reasoning = "before \x00 between \ud800 and \udfff after"
    try:
        ballot: Any = json.loads(occasion.completion.content or "{}")
    except ValueError:
        ballot = {}
    ballot = ballot if isinstance(ballot, dict) else {"answer": ballot, "confidence": 0.5}
    return occasion.saying(json.dumps({**ballot, "reasoning": reasoning}))


def nul_content(occasion: Occasion) -> Reply:
    return occasion.saying("\x00\ud800\x00\udfff" * 4)


def negative_usage(occasion: Occasion) -> Reply:
    return occasion.using(prompt_tokens=-1_000_000, completion_tokens=-1)


def absurd_usage(occasion: Occasion) -> Reply:
    return occasion.using(prompt_tokens=10**30, completion_tokens=10**30)


def bad_status_line(occasion: Occasion) -> Reply:
    return Reply(b"HTTP/one.two OK then\r\n\r\n", status=None, ending="close")


def truncated(occasion: Occasion) -> Reply:
    good = occasion.good()
    body_at = good.index(b"\r\n\r\n") + 4
    return Reply(good[: body_at + (len(good) - body_at) // 2], ending="close")


def huge(occasion: Occasion) -> Reply:
    size = occasion.settings.size_bytes
    document = json.dumps({**occasion.completion.document(), "usage": None, "choices": [_choice("@")]}).encode()
    before, _, after = document.partition(b"@")

    async def parts() -> AsyncGenerator[bytes, None]:
        for at in range(0, size, len(BLOCK)):
            yield BLOCK[: size - at]
        yield after

    return Reply(render(200, before, announced_length=len(before) + size + len(after)), parts=parts)


def endless(occasion: Occasion) -> Reply:
    head, first = render_chunked_head(content_type="application/json"), b'{"choices":[{"message":{"content":"'
    block = chunk(BLOCK[: 64 * 1024])
    if occasion.request.stream:
        event = {"choices": [{"index": 0, "delta": {"content": "endless "}, "finish_reason": None}]}
        head, first = render_chunked_head(content_type="text/event-stream"), b": an answer without an end\n\n"
        block = chunk(f"data: {json.dumps(event)}\n\n".encode() * 400)

    async def parts() -> AsyncGenerator[bytes, None]:
        yield chunk(first)
        while True:
            yield block

    return Reply(head, parts=parts)


def hang(occasion: Occasion) -> Reply:
    async def parts() -> AsyncGenerator[bytes, None]:
        await asyncio.get_running_loop().create_future()
        yield b""

    return Reply(status=None, parts=parts)


def hold(occasion: Occasion) -> Reply:
    async def parts() -> AsyncGenerator[bytes, None]:
        await occasion.gate()
        yield occasion.good()

    return Reply(parts=parts, bill=occasion.bill)


def drip(occasion: Occasion) -> Reply:
    good = occasion.good()
    body_at = good.index(b"\r\n\r\n") + 4

    async def parts() -> AsyncGenerator[bytes, None]:
        for at in range(body_at, len(good)):
            if at > body_at:
                await asyncio.sleep(occasion.settings.interval_seconds)
            yield good[at : at + 1]

    return Reply(good[:body_at], parts=parts, bill=occasion.bill)


def slow_start(occasion: Occasion) -> Reply:
    async def parts() -> AsyncGenerator[bytes, None]:
        await asyncio.sleep(occasion.settings.delay_seconds)
        yield occasion.good()

    return Reply(parts=parts, bill=occasion.bill)


def cut_stream(occasion: Occasion) -> Reply:
    """A stream that ends as HTTP wants it, but before its finish; otherwise as `truncated`."""
    if not occasion.request.stream:
        return truncated(occasion)
    return Reply(_stream_head(occasion) + b"".join(_first_events(occasion)) + chunk(b""))


def garbage_event(occasion: Occasion) -> Reply:
    """An event in the middle of the stream that is no JSON; otherwise as `garbage`."""
    if not occasion.request.stream:
        return garbage(occasion)
    odd = chunk(b"data: {\x80 not json\n\n")
    return Reply(_stream_head(occasion) + b"".join([*_first_events(occasion), odd, *_later_events(occasion)]))


def error_event(occasion: Occasion) -> Reply:
    """An error in the middle of the stream, after which it ends; otherwise as `error_object`."""
    if not occasion.request.stream:
        return error_object(occasion)
    document = {"error": {"message": "The server had an error while it wrote.", "type": "server_error", "code": 500}}
    event = chunk(f"data: {json.dumps(document)}\n\n".encode())
    return Reply(_stream_head(occasion) + b"".join([*_first_events(occasion), event]) + chunk(b""))


def idle_stream(occasion: Occasion) -> Reply:
    """Some events, then nothing for `delay_seconds`, then the rest; otherwise half of the body before that pause."""
    good = occasion.good()
    first = good[: (good.index(b"\r\n\r\n") + 4 + len(good)) // 2]
    if occasion.request.stream:
        first = _stream_head(occasion) + b"".join(_first_events(occasion))

    async def parts() -> AsyncGenerator[bytes, None]:
        await asyncio.sleep(occasion.settings.delay_seconds)
        if occasion.request.stream:
            yield b"".join(_later_events(occasion))
        else:
            yield good[len(first) :]

    return Reply(first, parts=parts, bill=occasion.bill)


def late_event(occasion: Occasion) -> Reply:
    """The head at once, and after `delay_seconds` the first byte of the body."""
    good = occasion.good()
    body_at = good.index(b"\r\n\r\n") + 4

    async def parts() -> AsyncGenerator[bytes, None]:
        await asyncio.sleep(occasion.settings.delay_seconds)
        yield good[body_at:]

    return Reply(good[:body_at], parts=parts, bill=occasion.bill)


def told_usage(occasion: Occasion) -> Reply:
    settings = occasion.settings
    return occasion.using(prompt_tokens=settings.prompt_tokens, completion_tokens=settings.completion_tokens)


def no_usage(occasion: Occasion) -> Reply:
    silent = replace(occasion.completion, tells_usage=False)
    return Reply(silent.response(occasion.request, headers=occasion.headers), bill=occasion.bill)


def _stream_head(occasion: Occasion) -> bytes:
    return render_chunked_head(content_type="text/event-stream", headers=occasion.headers)


def _first_events(occasion: Occasion) -> list[bytes]:
    return occasion.completion.events(include_usage=occasion.request.include_usage)[: occasion.settings.events]


def _later_events(occasion: Occasion) -> list[bytes]:
    events = occasion.completion.events(include_usage=occasion.request.include_usage)
    return [*events[occasion.settings.events :], chunk(b"")]


def _choice(content: str) -> dict[str, Any]:
    return {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}


FAULTS: Mapping[str, Callable[[Occasion], Reply]] = {
    "400_response_format": response_format_refused,
    "401": unauthorized,
    "404_model": unknown_model,
    "429": throttled,
    "500": status_500,
    "503": status_503,
    "absurd_usage": absurd_usage,
    "bad_status_line": bad_status_line,
    "cut_off": cut_off,
    "cut_stream": cut_stream,
    "drip": drip,
    "empty": empty,
    "empty_body": empty_body,
    "endless": endless,
    "error_event": error_event,
    "error_object": error_object,
    "garbage": garbage,
    "garbage_event": garbage_event,
    "hang": hang,
    "hold": hold,
    "html": html,
    "huge": huge,
    "idle_stream": idle_stream,
    "late_event": late_event,
    "negative_usage": negative_usage,
    "no_choices": no_choices,
    "no_usage": no_usage,
    "not_ballot": not_ballot,
    "nul": nul,
    "nul_content": nul_content,
    "null_content": null_content,
    "prose": prose,
    "redirect": redirect,
    "reset": reset,
    "slow_start": slow_start,
    "told_usage": told_usage,
    "truncated": truncated,
    "unknown_option": unknown_option,
    "wrong_schema": wrong_schema,
}
