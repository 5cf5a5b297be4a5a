"""Answers requests for embeddings: a vector of the words of each text, so that texts of the same words are alike."""

import json
import math
from hashlib import sha256
from typing import Any

from tests.llm_server.reply import Reply, error_reply, json_reply

DIMENSIONS = 64
UNKNOWN_MODEL = "missing"
"""A model of this name is not there, so that a refusal can be had."""


def embeddings_reply(body: bytes) -> Reply:
    """The vectors in an order that is not that of the texts, as the API allows; an error for what is no such request."""
    try:
        document = json.loads(body)
        model, texts = document["model"], document["input"]
    except (ValueError, LookupError, TypeError):
        return error_reply(400, "`model` and `input` must be given", kind="invalid_request_error")
    if model == UNKNOWN_MODEL:
        return error_reply(404, f"The model {model!r} does not exist", kind="invalid_request_error")
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        return error_reply(400, "`input` must be a list of texts", kind="invalid_request_error")
    tokens = math.ceil(sum(map(len, texts)) / 4)
    data: list[dict[str, Any]] = [
        {"object": "embedding", "index": place, "embedding": _vector(text)} for place, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json_reply({"object": "list", "model": model, "data": data[::-1], "usage": usage})


def _vector(text: str) -> list[float]:
    found = [0.0] * DIMENSIONS
    for word in text.casefold().split():
        digest = sha256(word.strip(".,;!?").encode()).digest()
        found[digest[0] % DIMENSIONS] += 1.0 if digest[1] & 1 else -1.0
    length = math.sqrt(math.fsum(number * number for number in found)) or 1.0
    return [number / length for number in found]
