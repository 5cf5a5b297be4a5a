"""How one operation is described in the OpenAPI document, by the names of the schemas that `api.rest.schemas` gathers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

__all__ = ["describe", "describe_stream", "reference"]

_TEXT = {"type": "string"}
_BYTES = {"type": "string", "format": "binary"}
_STREAM = "text/event-stream"


def reference(schema: str) -> dict[str, str]:
    """A pointer to a schema among the document's components."""
    return {"$ref": f"#/components/schemas/{schema}"}


def describe(
    tag: str,
    operation_id: str,
    summary: str,
    answers: Mapping[int, str],
    refusals: Sequence[int] = (),
    *,
    body: str | None = None,
    media_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What `add_api_route` wants to know about an operation.

    `answers` names the schema of each good status (empty: plain text or bytes; for a stream of events that of their data), `refusals`
    the statuses of problem documents, `headers` the request headers that it reads.
    """
    responses: dict[int | str, dict[str, Any]] = {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {media_type: {"schema": _schema(schema, media_type)}},
        }
        for status, schema in answers.items()
    }
    refused = {"application/problem+json": {"schema": reference("Problem")}}
    for status in refusals:
        responses[status] = {"description": HTTPStatus(status).phrase, "content": refused}
    responses["default"] = {"description": "Any other refusal", "content": refused}
    extra: dict[str, Any] = {}
    if body is not None:
        extra["requestBody"] = {"required": True, "content": {"application/json": {"schema": reference(body)}}}
    if headers:
        extra["parameters"] = [
            {"name": name, "in": "header", "required": False, "schema": _TEXT, "description": text}
            for name, text in headers.items()
        ]
    return {
        "tags": [tag],
        "operation_id": operation_id,
        "summary": summary,
        "status_code": min(answers),
        "responses": responses,
        "response_model": None,
        # The framework's own would add its media type to every answer, whatever that is.
        "response_class": Response,
        "openapi_extra": extra,
    }


def _schema(schema: str, media_type: str) -> dict[str, Any]:
    if media_type == _STREAM:
        words = f"Server-sent events (HTML, section 9.2). The data of each is a document of the kind {schema} as JSON."
        return {**_TEXT, "description": words, "contentMediaType": _STREAM, "contentSchema": reference(schema)}
    if schema:
        return reference(schema)
    return _BYTES if media_type == "application/octet-stream" else _TEXT


def describe_stream(tag: str, operation_id: str, summary: str, schema: str) -> dict[str, Any]:
    """The same for a stream of server-sent events, each of which has that schema as its data."""
    return describe(
        tag,
        operation_id,
        summary,
        {200: schema},
        (401, 403, 404, 422, 429, 503),
        media_type=_STREAM,
        headers={"Last-Event-ID": "The sequence number of the last event seen; the stream goes on right after it."},
    )
