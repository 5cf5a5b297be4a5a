"""Bodies that the REST door refuses, and what every such refusal keeps to."""

from __future__ import annotations

import json
from typing import Any

from tests.conclave_fixture import Answer, RunningServer

__all__ = ["MARKER", "post_refused", "with_fields"]

MARKER = "xyzzy-marker-4711"


def post_refused(server: RunningServer, body: bytes, *, content_type: str = "application/json") -> Answer:
    """The refusal of `body`: a problem document that repeats nothing and leaves nothing behind."""
    before = server.ask("GET", "/v1/deliberations").body
    answer = server.post(body, headers={"Content-Type": content_type})
    assert answer.problem
    assert 400 <= answer.status < 500
    assert MARKER not in answer.body.decode()
    assert len(answer.body) < 16 * 1024
    assert server.ask("GET", "/v1/deliberations").body == before
    return answer


def with_fields(**fields: Any) -> bytes:
    """A body that asks a question with the marker in it, and has these fields beside it."""
    return json.dumps({"question": f"{MARKER}?", **fields}).encode()
