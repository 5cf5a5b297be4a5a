"""The OpenAPI document as a server gives it out: made beside the event loop, and once."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request

from api.main import create_app
from api.rest import openapi
from tests.conclave_fixture import open_stub_conclave


async def test_the_document_is_made_beside_the_event_loop_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    def noted(**parts: Any) -> dict[str, Any]:
        threads.append(threading.get_ident())
        return get_openapi(**parts)

    monkeypatch.setattr(openapi, "get_openapi", noted)
    async with open_stub_conclave() as conclave:
        app: FastAPI = create_app(conclave)
        request = Request({"type": "http", "app": app, "headers": []})
        answers = [await openapi.openapi(request) for _ in range(2)]
    assert {json.loads(bytes(answer.body))["info"]["title"] for answer in answers} == {"Conclave"}
    assert len(threads) == 1
    assert threading.get_ident() not in threads
