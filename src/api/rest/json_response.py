"""JSON on its way out, from documents that are already what the contract wants: encoded once, validated by nobody."""

from __future__ import annotations

from typing import Any

from pydantic_core import to_json
from starlette.responses import Response

__all__ = ["JsonResponse", "encode"]


def encode(document: Any) -> bytes:
    """`document` as compact UTF-8 JSON. Raises `ValueError` for a lone surrogate, which no accepted text holds."""
    return to_json(document, inf_nan_mode="null")


class JsonResponse(Response):
    """A document as `application/json`."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The document, encoded."""
        return encode(content)
