"""The far end of the demonstration: an OpenAI-compatible endpoint on loopback that gives recorded replies at a pace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

__all__ = ["RecordedReply", "recorded_model_app"]

_RETRY_AFTER_S = "1"
_CHARACTERS_A_TOKEN = 4


class RecordedReply(Protocol):
    """One reply, as `infrastructure.demonstration.voices` has it."""

    @property
    def status(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def share(self) -> float: ...
    @property
    def hangs(self) -> bool: ...


def recorded_model_app(reply_to: Callable[[str], RecordedReply], *, model: str, seconds: float) -> Starlette:
    """The application: `/v1/models` and `/v1/chat/completions`. A reply takes its share of `seconds`; one that hangs never comes."""

    async def models(_request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": model, "object": "model"}]})

    async def complete(request: Request) -> Response:
        body = await request.json()
        prompt = "\n".join(str(message["content"]) for message in body["messages"])
        found = reply_to(prompt)
        if found.hangs:
            # Until the caller has had enough of it, who is told nothing then.
            while (await request.receive())["type"] != "http.disconnect":
                pass
            return Response(status_code=503)
        await asyncio.sleep(seconds * found.share)
        if found.status != 200:
            return JSONResponse({"error": {"message": "recorded"}}, found.status, {"Retry-After": _RETRY_AFTER_S})
        return JSONResponse(_completion(found.text, prompt, model))

    return Starlette(routes=[Route("/v1/models", models), Route("/v1/chat/completions", complete, methods=["POST"])])


def _completion(text: str, prompt: str, model: str) -> dict[str, Any]:
    taken = {"prompt_tokens": len(prompt) // _CHARACTERS_A_TOKEN, "completion_tokens": len(text) // _CHARACTERS_A_TOKEN}
    return {
        "object": "chat.completion",
        "model": model,
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {**taken, "total_tokens": sum(taken.values())},
    }
