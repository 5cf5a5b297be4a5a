"""Signs the messages to webhooks (RFC 9421, RFC 9530); the only file that knows the package for it."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from http_message_signatures import HTTPMessageSignaturesException, HTTPMessageSigner, algorithms

__all__ = ["COVERED", "LABEL", "TAG", "SignedRequest", "sign_request"]

LABEL = "conclave"
TAG = "conclave-webhook"
COVERED = ("@method", "@target-uri", "content-type", "content-digest", "conclave-delivery", "conclave-event")


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """What is about to be sent, as the signature sees it; `headers` gain the digest and the signature."""

    method: str
    url: str
    headers: MutableMapping[str, str]


def sign_request(
    request: SignedRequest,
    body: bytes | None,
    *,
    key_id: str,
    sign: Callable[[bytes], bytes],
    created: datetime,
    expires: datetime | None = None,
    nonce: str | None = None,
    tag: str | None = TAG,
    label: str = LABEL,
    covered: Sequence[str] = COVERED,
    names_algorithm: bool = True,
) -> None:
    """Add `Content-Digest` (where there is a body), `Signature-Input` and `Signature` to the headers.

    `sign` makes an Ed25519 signature (64 bytes). Raises `ValueError` for an address or a header that cannot be signed.
    """
    signer = HTTPMessageSigner(signature_algorithm=algorithms.ED25519)
    try:
        prepared = signer.prepare(
            request,
            key_id=key_id,
            created=created,
            expires=expires,
            nonce=nonce,
            label=label,
            tag=tag,
            include_alg=names_algorithm,
            covered_component_ids=covered,
            body=body,
        )
        signer.apply(request, prepared, sign(prepared.signature_base))
    except HTTPMessageSignaturesException as error:
        raise ValueError(f"the request cannot be signed: {error}") from error
