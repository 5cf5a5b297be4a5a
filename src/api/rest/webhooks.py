"""The resource `/v1/webhooks/keys`: the public keys that receivers of webhooks verify with, which need no key to be read."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI
from starlette.responses import Response

from api.rest.callers import OpenConclave
from api.rest.json_response import JsonResponse
from api.rest.operation import describe

__all__ = ["add_webhooks"]


def add_webhooks(app: FastAPI) -> None:
    """Put the resource into `app`."""
    app.add_api_route(
        "/v1/webhooks/keys",
        webhook_keys,
        methods=["GET"],
        **describe(
            "operations",
            "getWebhookKeys",
            "The public keys that webhooks are signed with (JWK set, RFC 7517)",
            {200: "WebhookKeys"},
        ),
    )


async def webhook_keys(conclave: OpenConclave) -> Response:
    """The key that signs, then those that did until lately; empty where no webhooks are sent."""
    return JsonResponse(dict(await asyncio.to_thread(conclave.webhook_keys)))
