"""What is posted to webhooks: the end of a deliberation, and the deliberation as it is shown, kept to a bound."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from application.ports.webhook_outbox import WebhookDelivery

__all__ = ["MAX_BODY_BYTES", "webhook_body"]

MAX_BODY_BYTES = 256 * 1024

# Characters of a text and items of a list, in the order in which it is tried.
_BOUNDS: tuple[tuple[int, int | None], ...] = ((2_000, None), (200, None), (200, 5))
_ALWAYS = ("id", "status", "created_at", "started_at", "finished_at", "orchestrator", "simulated", "roll_call", "usage")
_OF_OUTCOME = ("status", "decision", "rule", "margin")


def webhook_body(delivery: WebhookDelivery, deliberation: Mapping[str, Any], *, at: str | None) -> bytes:
    """The JSON of one message, at most `MAX_BODY_BYTES` long.

    A deliberation that is longer has its texts cut, then its lists, and in the end only what it came to is left; then `"truncated": true`
    stands beside it. `at` is the moment of its end, RFC 3339.
    """
    facts = {"type": delivery.event, "at": at, "deliberation_id": delivery.deliberation_id}
    whole = _encoded({**facts, "deliberation": deliberation})
    if len(whole) <= MAX_BODY_BYTES:
        return whole
    for bounds in _BOUNDS:
        cut = _encoded({**facts, "deliberation": _shortened(deliberation, *bounds), "truncated": True})
        if len(cut) <= MAX_BODY_BYTES:
            return cut
    outcome = deliberation.get("outcome")
    bare = {name: deliberation.get(name) for name in _ALWAYS}
    bare["outcome"] = None if outcome is None else {name: outcome.get(name) for name in _OF_OUTCOME}
    return _encoded({**facts, "deliberation": _shortened(bare, *_BOUNDS[-1]), "truncated": True})


def _encoded(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _shortened(value: Any, characters: int, items: int | None) -> Any:
    if isinstance(value, str):
        return value if len(value) <= characters else f"{value[: characters - 1]}…"
    if isinstance(value, Mapping):
        return {name: _shortened(each, characters, items) for name, each in value.items()}
    if isinstance(value, list):
        return [_shortened(each, characters, items) for each in value[:items]]
    return value
