"""Receives the deliveries of a Conclave server: whether one is genuine, whole, fresh and not taken before.

The signature (RFC 9421, Ed25519) is checked by `http-message-signatures`, which is imported when the first delivery is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import heapq
import json
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from conclave_client.deliberation import Deliberation
from conclave_client.document import UnexpectedDocumentError, read_document
from conclave_client.errors import DeliveryRepeatedError, UnusableArgumentError, WebhookRefusedError

__all__ = ["MAX_AGE_S", "REMEMBERED_S", "Delivery", "DeliveryLedger", "SeenDeliveries", "WebhookKeys", "verify"]

MAX_AGE_S = 300.0
# The same delivery is sent again, freshly signed, until it is answered or the sender gives up.
REMEMBERED_S = 7 * 24 * 3600.0
_AHEAD_S = 30
_TAG = "conclave-webhook"
_ALGORITHM = "ed25519"
_COVERED = ("@method", "@target-uri", "content-type", "content-digest", "conclave-delivery", "conclave-event")
_SIGNED_HEADERS = frozenset({*_COVERED[2:], "signature", "signature-input"})
_MOST_HEADER_CHARACTERS = 8192
_MOST_ID_CHARACTERS = 128


@dataclass(frozen=True, slots=True)
class WebhookKeys:
    """The public keys that deliveries may be signed with: 32 bytes each, by their thumbprints (RFC 7638)."""

    keys: Mapping[str, bytes]

    @classmethod
    def read(cls, document: Any) -> WebhookKeys:
        """The Ed25519 keys of a JWK set (RFC 7517, RFC 8037), such as `GET /v1/webhooks/keys` answers; keys of other kinds are passed over.

        Raises `UnusableArgumentError` for anything else, and for a key that is not called by its thumbprint.
        """
        entries = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(entries, list):
            raise UnusableArgumentError("keys", "are no JWK set")
        return cls(dict(_key(entry) for entry in entries if _is_ed25519(entry)))


def _is_ed25519(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("kty") == "OKP" and entry.get("crv") == "Ed25519"


def _key(entry: Mapping[str, Any]) -> tuple[str, bytes]:
    x = entry.get("x")
    try:
        raw = base64.b64decode(f"{x}{'=' * (-len(str(x)) % 4)}", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        raise UnusableArgumentError("keys", "hold an Ed25519 key that is not 32 bytes")
    canonical = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": _base64url(raw)}, separators=(",", ":"))
    thumbprint = _base64url(hashlib.sha256(canonical.encode()).digest())
    if entry.get("kid", thumbprint) != thumbprint:
        raise UnusableArgumentError("keys", "hold a key that is not called by its thumbprint")
    return thumbprint, raw


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class DeliveryLedger(Protocol):
    """Remembers which deliveries were taken, for all processes that receive them."""

    def add(self, delivery_id: str, *, until: float) -> bool:
        """Remember it until that time (seconds since 1970), at once and for good; False when it is remembered already."""
        ...


class SeenDeliveries:
    """A ledger in the memory of this process, of the `most` newest deliveries. Threads may share it."""

    def __init__(self, *, most: int = 100_000) -> None:
        if most < 1:
            raise UnusableArgumentError("most", "must be 1 or more")
        self._most = most
        self._lock = threading.Lock()
        self._until: dict[str, float] = {}
        self._order: list[tuple[float, str]] = []

    def add(self, delivery_id: str, *, until: float) -> bool:
        """Remember it, and forget what is over or too much."""
        with self._lock:
            if delivery_id in self._until:
                return False
            self._until[delivery_id] = until
            heapq.heappush(self._order, (until, delivery_id))
            while len(self._until) > self._most or self._order[0][0] < until - REMEMBERED_S:
                oldest, forgotten = heapq.heappop(self._order)
                # One that was discarded may have been added again, for longer.
                if self._until.get(forgotten) == oldest:
                    del self._until[forgotten]
            return True

    def discard(self, delivery_id: str) -> None:
        """Forget it, so that the sender's next try is taken: what was to be done about it was not done."""
        with self._lock:
            self._until.pop(delivery_id, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What a server had to say: the terminal event of a deliberation, and the deliberation as it ended."""

    id: str
    event: str
    at: str
    deliberation_id: str
    deliberation: Deliberation
    document: Mapping[str, Any] = field(repr=False)


def verify(
    *,
    method: str,
    url: str,
    headers: Mapping[str, str] | Iterable[tuple[str, str]],
    body: bytes,
    keys: WebhookKeys,
    seen: DeliveryLedger,
    max_age_s: float = MAX_AGE_S,
    now: float | None = None,
) -> Delivery:
    """The delivery in a request, once it is known to be the server's, whole, at most `max_age_s` old, and the first of its id.

    `url` is the address that the server was told (CONCLAVE_WEBHOOKS), which a proxy may have changed on the way; `body` the bytes as
    they came; `now` is in seconds since 1970. Raises `WebhookRefusedError`, and `DeliveryRepeatedError` for one that `seen` knows.
    """
    moment = time.time() if now is None else now
    found = _headers(headers)
    created = _check_signature(method, url, found, body, keys)
    if created < moment - max_age_s:
        raise WebhookRefusedError(f"it was signed more than {max_age_s:g} s ago")
    if created > moment + _AHEAD_S:
        raise WebhookRefusedError("it was signed in the future: compare the clocks")
    delivery = _read(found, body)
    if not seen.add(delivery.id, until=moment + REMEMBERED_S):
        raise DeliveryRepeatedError(delivery.id)
    return delivery


def _headers(given: Mapping[str, str] | Iterable[tuple[str, str]]) -> dict[str, str]:
    """The signed headers and the signature, by names in lower case. Each may come once: of two, who knows which one was meant."""
    found: dict[str, str] = {}
    for name, value in given.items() if isinstance(given, Mapping) else given:
        name = name.lower()  # noqa: PLW2901
        if name not in _SIGNED_HEADERS:
            continue
        if name in found or len(value) > _MOST_HEADER_CHARACTERS:
            raise WebhookRefusedError(f"the header {name} is there twice, or too long")
        found[name] = value
    missing = sorted(_SIGNED_HEADERS - set(found))
    if missing:
        raise WebhookRefusedError(f"it lacks the header {', '.join(missing)}")
    return found


@dataclass(frozen=True, slots=True)
class _Message:
    """A request as `http-message-signatures` looks at it."""

    method: str
    url: str
    headers: Mapping[str, str]


def _check_signature(method: str, url: str, headers: Mapping[str, str], body: bytes, keys: WebhookKeys) -> float:
    """When it was signed, in seconds since 1970."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from http_message_signatures import HTTPMessageVerifier, MappingKeyResolver
    from http_message_signatures.algorithms import ED25519
    from http_message_signatures.exceptions import HTTPMessageSignaturesException

    class Verifier(HTTPMessageVerifier):
        def validate_created_and_expires(self, sig_input: Any, max_age: Any = None) -> None:
            """Left to `verify`, whose clock it is."""

    resolver = MappingKeyResolver(
        public_keys={name: Ed25519PublicKey.from_public_bytes(raw) for name, raw in keys.keys.items()}, private_keys={}
    )
    verifier = Verifier(signature_algorithm=ED25519, key_resolver=resolver)
    try:
        results = verifier.verify(
            _Message(method.upper(), url, headers),
            max_age=None,
            expect_tag=_TAG,
            require_components=_COVERED,
            body=body,
        )
    except HTTPMessageSignaturesException as error:
        # The library says nothing where the signature is just another one.
        why = f" ({str(error)[:200]})" if str(error) else ""
        raise WebhookRefusedError(f"its signature does not verify{why}") from None
    if len(results) != 1:
        raise WebhookRefusedError("it is signed more than once")
    parameters = results[0].parameters
    if parameters.get("alg") != _ALGORITHM or not parameters.get("nonce"):
        raise WebhookRefusedError("its signature names no algorithm, or has no nonce")
    created, expires = parameters.get("created"), parameters.get("expires")
    if type(created) is not int or type(expires) is not int or not 0 <= expires - created <= MAX_AGE_S:
        raise WebhookRefusedError(
            f"its signature does not say when it was made, or is good for more than {MAX_AGE_S:g} s"
        )
    return float(created)


def _read(headers: Mapping[str, str], body: bytes) -> Delivery:
    delivery_id, event = headers["conclave-delivery"], headers["conclave-event"]
    if not delivery_id or len(delivery_id) > _MOST_ID_CHARACTERS:
        raise WebhookRefusedError("it has no id")
    if headers["content-type"].partition(";")[0].strip().lower() != "application/json":
        raise WebhookRefusedError("its body is not JSON")
    try:
        document = json.loads(body)
        if not isinstance(document, dict):
            raise WebhookRefusedError("its body is no object")
        deliberation = read_document(Deliberation, document.get("deliberation"))
    except (ValueError, RecursionError) as error:
        said = f": {error}" if isinstance(error, UnexpectedDocumentError) else ""
        raise WebhookRefusedError(f"its body cannot be read{said}") from None
    at, deliberation_id = document.get("at"), document.get("deliberation_id")
    if document.get("type") != event or deliberation_id != deliberation.id or not isinstance(at, str):
        raise WebhookRefusedError("its body says something else than its head")
    return Delivery(
        id=delivery_id,
        event=event,
        at=at,
        deliberation_id=deliberation.id,
        deliberation=deliberation,
        document=document,
    )
