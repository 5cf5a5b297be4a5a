"""The OpenAPI document: the routes as the framework knows them, the schemas of the contract, and how to show a key."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.rest.schemas import component_schemas

__all__ = ["describe_application"]

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
        document["components"] = {
            "schemas": {**document.get("components", {}).get("schemas", {}), **component_schemas()},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "One of the secrets of CONCLAVE_API_KEYS.",
                }
            },
        }
        for path, operations in document["paths"].items():
            if path.startswith("/v1/") and not path.startswith("/v1/witness/"):
                for operation in operations.values():
                    # The empty alternative is the local caller of a server without keys.
                    operation["security"] = [{"bearer": []}, {}]
        app.openapi_schema = document
    return app.openapi_schema
