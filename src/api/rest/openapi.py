"""The OpenAPI document: the routes as the framework knows them, the schemas of the contract, and how to show a key."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import Response

from api.rest.examples import EXAMPLES, TEXTS
from api.rest.json_response import JsonResponse
from api.rest.operation import reference
from api.rest.problems import PROBLEMS, problem_document
from api.rest.schemas import component_schemas

__all__ = ["add_openapi", "describe_application", "openapi"]

_DESCRIPTION = (
    "Puts one question to up to 72 agents at once and accounts for every one of them. Errors are problem documents (RFC 9457). "
    "A server with keys wants one in every call under /v1 but those of the log; without keys it answers its own machine alone."
)
_TAGS = [
    {"name": "deliberations", "description": "Put a question, follow it, read what came of it, stop it."},
    {"name": "runs", "description": "Swarms, pantheons and soaks, each in a process of its own."},
    {"name": "witness", "description": "The log, which anybody may check: it holds no text, and needs no key."},
    {"name": "rosters", "description": "Who can be asked."},
    {"name": "money", "description": "What a deliberation would take, and what calls took."},
    {"name": "operations", "description": "How the server does."},
]


# Read without a key: the log, which holds no text, and what receivers of webhooks verify with.
_OPEN = ("/v1/witness/", "/v1/webhooks/")
_PROBLEM = "application/problem+json"
# The kinds of problem that only some resources have, by where those stand.
_AT_HOME = {
    "agent-already-active": ("/v1/deliberations",),
    "agent-pool-exhausted": ("/v1/deliberations",),
    "bus-unavailable": ("/v1/runs",),
    "deliberation-ended": ("/v1/deliberations/",),
    "deliberation-not-found": ("/v1/deliberations/",),
    "halt-channel-unreachable": ("/v1/halt",),
    "halt-not-clearable": ("/v1/halt",),
    "idempotency-in-progress": ("/v1/deliberations", "/v1/runs"),
    "idempotency-key-reused": ("/v1/deliberations", "/v1/runs"),
    "illegal-transition": ("/v1/deliberations/",),
    "invalid-population": ("/v1/runs",),
    "invalid-roster": ("/v1/deliberations", "/v1/quotes", "/v1/rosters"),
    "invalid-run": ("/v1/runs",),
    "invalid-specification": ("/v1/deliberations", "/v1/quotes"),
    "log-unverified": ("/v1/deliberations", "/v1/halt", "/v1/witness/"),
    "not-halted": ("/v1/halt",),
    "queue-full": ("/v1/deliberations",),
    "record-mismatch": ("/v1/deliberations/",),
    "roster-not-found": ("/v1/rosters/",),
    "run-ended": ("/v1/runs/",),
    "run-not-found": ("/v1/runs/",),
    "system-halted": ("/v1/deliberations", "/v1/runs"),
    "too-many-runs": ("/v1/runs",),
    "too-many-streams": ("/v1/deliberations/", "/v1/runs/"),
    "unreadable-ballot": ("/v1/deliberations/",),
    "verification-refused": ("/v1/deliberations/", "/v1/witness/"),
}
_HEADERS = {
    "Location": {"description": "Where what was accepted is found.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds after which to come back.", "schema": {"type": "integer", "minimum": 1}},
    "WWW-Authenticate": {"description": "`Bearer`.", "schema": {"type": "string"}},
}
_WEBHOOK_HEADERS = {
    "Conclave-Delivery": "Which delivery it is; the same at each try.",
    "Conclave-Event": "The `type` of the body.",
    "Content-Digest": "SHA-256 of the body (RFC 9530).",
    "Signature-Input": "What is signed, when, and by which key (RFC 9421); the label is `conclave`, the tag `conclave-webhook`.",
    "Signature": "An Ed25519 signature by a key of `/v1/webhooks/keys`.",
}


def add_openapi(app: FastAPI) -> None:
    """Put the document into `app`; it needs no key."""
    app.openapi = lambda: describe_application(app)  # type: ignore[method-assign]
    app.add_api_route("/openapi.json", openapi, methods=["GET"], include_in_schema=False, response_model=None)


async def openapi(request: Request) -> Response:
    """The document, as it is served."""
    # The first time it takes longer to make than an event loop should be held.
    document = await asyncio.to_thread(describe_application, request.app)
    return JsonResponse(document, headers={"Cache-Control": "no-cache"})


def describe_application(app: FastAPI) -> dict[str, Any]:
    """The document (OpenAPI 3.1), from which a client can be generated. Made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title="Conclave",
            version=app.version,
            summary="One question, seventy-two agents, every one accounted for.",
            description=_DESCRIPTION,
            routes=app.routes,
            tags=_TAGS,
            license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        )
        schemas = {**document.get("components", {}).get("schemas", {}), **component_schemas()}
        for name, example in EXAMPLES.items():
            schemas[name]["examples"] = [example]
        document["components"] = {
            "schemas": schemas,
            "examples": {slug: _problem_example(slug) for slug, kind in PROBLEMS.items() if kind.status != 500},
            "headers": _HEADERS,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "One of the secrets of CONCLAVE_API_KEYS.",
                }
            },
        }
        for path, operations in document["paths"].items():
            for operation in operations.values():
                if path.startswith("/v1/") and not path.startswith(_OPEN):
                    # The empty alternative is the local caller of a server without keys.
                    operation["security"] = [{"bearer": []}, {}]
                if path.startswith("/v1/"):
                    _add_refused_query(operation["responses"])
                for status, answer in operation["responses"].items():
                    _complete(path, operation["operationId"], status, answer)
        document["webhooks"] = {"deliberationEnded": {"post": _webhook()}}
        app.openapi_schema = document
    return app.openapi_schema


def _add_refused_query(responses: dict[str, Any]) -> None:
    """Whatever a call takes, a parameter that it does not have is refused."""
    default = responses.pop("default")
    responses.setdefault(
        "422",
        {"description": HTTPStatus(422).phrase, "content": {_PROBLEM: {"schema": reference("Problem")}}},
    )
    found = sorted(responses.items())
    responses.clear()
    responses.update(found, default=default)


def _complete(path: str, operation_id: str, status: str, answer: dict[str, Any]) -> None:
    """Add to one answer of an operation its headers, and what it looks like where its schema does not show that."""
    headers = {
        "202": ["Location"] if path in {"/v1/deliberations", "/v1/runs"} else [],
        "401": ["WWW-Authenticate"],
        "429": ["Retry-After"],
        "503": ["Retry-After"],
    }.get(status, [])
    if headers:
        answer["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in headers}
    for media_type, content in answer["content"].items():
        if media_type == _PROBLEM:
            content["examples"] = {
                slug: {"$ref": f"#/components/examples/{slug}"} for slug in _slugs(path, status, operation_id)
            }
        elif operation_id in TEXTS and status == "200":
            content["example"] = TEXTS[operation_id]


def _slugs(path: str, status: str, operation_id: str) -> list[str]:
    """The kinds of problem that this operation can answer with this status; any other refusal is one for every path."""
    if status == "default":
        return ["not-found", "method-not-allowed"]
    streams = operation_id.startswith("stream")
    return [
        slug
        for slug, kind in PROBLEMS.items()
        if str(kind.status) == status
        and path.startswith(_AT_HOME.get(slug, ""))
        and (streams or slug != "too-many-streams")
    ]


def _problem_example(slug: str) -> Mapping[str, Any]:
    kind = PROBLEMS[slug]
    again = "" if kind.retry_after_s is None else f" Coming back after {kind.retry_after_s} s may help."
    return {"summary": kind.title, "value": problem_document(slug, f"{kind.title}.{again}")}


def _webhook() -> dict[str, Any]:
    """What the addresses in CONCLAVE_WEBHOOKS are sent."""
    return {
        "operationId": "receiveDeliberationEnded",
        "tags": ["deliberations"],
        "summary": "Told to each address in CONCLAVE_WEBHOOKS when a deliberation has ended",
        "description": "Sent again, freshly signed, until it is answered with a status from 200 to 299. Believe it only once its signature "
        "is verified, and its id was not seen before.",
        "parameters": [
            {"name": name, "in": "header", "required": True, "schema": {"type": "string"}, "description": text}
            for name, text in _WEBHOOK_HEADERS.items()
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": reference("WebhookDelivery")}}},
        "responses": {"2XX": {"description": "Taken."}, "default": {"description": "Not taken: it is sent again."}},
    }
