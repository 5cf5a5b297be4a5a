"""Signatures of messages: those of the RFC's own example, and every part of ours covered."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest

from infrastructure.webhooks.message_signature import COVERED, SignedRequest, sign_request
from infrastructure.witness.ed25519 import SigningKey, verify_signature

# RFC 9421, appendix B.1.4: the private key in PKCS #8, of which the last 32 bytes are the seed.
KEY = SigningKey.from_seed(base64.b64decode("MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF")[-32:])
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_the_example_of_the_rfc_is_signed_as_it_stands_there() -> None:
    # Appendices B.2 and B.2.6, but for the digest, which that signature does not cover.
    headers = {
        "Host": "example.com",
        "Date": "Tue, 20 Apr 2021 02:07:55 GMT",
        "Content-Type": "application/json",
        "Content-Length": "18",
    }
    bases: list[bytes] = []

    def sign(base: bytes) -> bytes:
        bases.append(base)
        return KEY.sign(base)

    sign_request(
        SignedRequest("POST", "https://example.com/foo?param=Value&Pet=dog", headers),
        None,
        key_id="test-key-ed25519",
        sign=sign,
        created=datetime.fromtimestamp(1618884473, UTC),
        tag=None,
        label="sig-b26",
        covered=("date", "@method", "@path", "@authority", "content-type", "content-length"),
        names_algorithm=False,
    )
    assert bases == [
        b'"date": Tue, 20 Apr 2021 02:07:55 GMT\n'
        b'"@method": POST\n'
        b'"@path": /foo\n'
        b'"@authority": example.com\n'
        b'"content-type": application/json\n'
        b'"content-length": 18\n'
        b'"@signature-params": ("date" "@method" "@path" "@authority" "content-type" "content-length")'
        b';created=1618884473;keyid="test-key-ed25519"'
    ]
    assert headers["Signature"] == (
        "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:"
    )
    assert headers["Signature-Input"] == (
        'sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length")'
        ';created=1618884473;keyid="test-key-ed25519"'
    )


def test_a_message_has_its_digest_and_a_signature_over_every_part_that_means_something() -> None:
    headers = {"Content-Type": "application/json", "Conclave-Delivery": "d-1", "Conclave-Event": "deliberation.failed"}
    bases: list[bytes] = []

    def sign(base: bytes) -> bytes:
        bases.append(base)
        return KEY.sign(base)

    sign_request(
        SignedRequest("POST", "https://hooks.example/a?b=c", headers),
        b'{"hello": "world"}',
        key_id="k",
        sign=sign,
        created=NOON,
        expires=datetime(2026, 1, 1, 12, 5, tzinfo=UTC),
        nonce="n",
    )
    digest = "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"
    assert headers["Content-Digest"] == digest
    components, _, parameters = headers["Signature-Input"].partition(")")
    assert components == "conclave=(" + " ".join(f'"{name}"' for name in COVERED)
    assert set(parameters.split(";")[1:]) == {
        "created=1767268800",
        "expires=1767269100",
        'nonce="n"',
        'keyid="k"',
        'alg="ed25519"',
        'tag="conclave-webhook"',
    }
    assert bases[0].decode().splitlines()[:-1] == [
        '"@method": POST',
        '"@target-uri": https://hooks.example/a?b=c',
        '"content-type": application/json',
        f'"content-digest": {digest}',
        '"conclave-delivery": d-1',
        '"conclave-event": deliberation.failed',
    ]
    signature = base64.b64decode(headers["Signature"].removeprefix("conclave=:").removesuffix(":"))
    assert verify_signature(KEY.public_key, bases[0], signature)


def test_what_cannot_be_signed_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be signed"):
        sign_request(
            SignedRequest("POST", "https://hooks.example/a b", {}), b"", key_id="k", sign=KEY.sign, created=NOON
        )
