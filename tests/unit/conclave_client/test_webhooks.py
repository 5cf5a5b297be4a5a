"""A delivery is believed when its signature, its digest, its age and its id all say so, and never twice."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.rest.examples import EXAMPLES
from conclave_client.errors import DeliveryRepeatedError, UnusableArgumentError, WebhookRefusedError
from conclave_client.webhooks import Delivery, SeenDeliveries, WebhookKeys, verify
from infrastructure.webhooks.message_signature import SignedRequest, sign_request

NOW = 1_795_000_000
URL = "https://receiver.example/hooks?from=conclave"
BODY = json.dumps(EXAMPLES["WebhookDelivery"]).encode()
COVERED = ("@method", "@target-uri", "content-type", "content-digest", "conclave-delivery", "conclave-event")


def base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@dataclass(frozen=True)
class Signer:
    """Signs as RFC 9421 says, without the library that verifies."""

    key: Ed25519PrivateKey = field(default_factory=lambda: Ed25519PrivateKey.from_private_bytes(bytes(range(32))))

    @property
    def jwk(self) -> dict[str, str]:
        x = base64url(self.key.public_key().public_bytes_raw())
        thumbprint = hashlib.sha256(f'{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}'.encode()).digest()
        return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": base64url(thumbprint), "use": "sig", "alg": "EdDSA"}

    @property
    def keys(self) -> WebhookKeys:
        return WebhookKeys.read({"keys": [self.jwk]})


SIGNER = Signer()


@dataclass(frozen=True)
class Request:
    """A delivery on its way, and how it is signed."""

    method: str = "POST"
    url: str = URL
    body: bytes = BODY
    delivery: str = "6f1f7d6e-3c1e-4f0e-9a55-0d3b8f3c2a11"
    event: str = "deliberation.completed"
    content_type: str = "application/json"
    created: int = NOW
    lasts: int = 300
    tag: str = "conclave-webhook"
    alg: str | None = "ed25519"
    nonce: str | None = "bm9uY2U"
    covered: tuple[str, ...] = COVERED
    key_id: str = SIGNER.jwk["kid"]
    signed_by: Signer = SIGNER
    label: str = "conclave"
    change: Callable[[dict[str, str]], None] = lambda headers: None

    def headers(self) -> dict[str, str]:
        digest = base64.b64encode(hashlib.sha256(self.body).digest()).decode()
        headers = {
            "content-type": self.content_type,
            "content-digest": f"sha-256=:{digest}:",
            "conclave-delivery": self.delivery,
            "conclave-event": self.event,
        }
        values = {"@method": self.method, "@target-uri": self.url, **headers}
        named = " ".join(f'"{name}"' for name in self.covered)
        parameters = f"({named});created={self.created};expires={self.created + self.lasts}"
        parameters += "" if self.nonce is None else f';nonce="{self.nonce}"'
        parameters += (
            f';keyid="{self.key_id}"' + ("" if self.alg is None else f';alg="{self.alg}"') + f';tag="{self.tag}"'
        )
        lines = [f'"{name}": {values[name]}' for name in self.covered] + [f'"@signature-params": {parameters}']
        signature = base64.b64encode(self.signed_by.key.sign("\n".join(lines).encode())).decode()
        headers["signature-input"] = f"{self.label}={parameters}"
        headers["signature"] = f"{self.label}=:{signature}:"
        self.change(headers)
        return {name.title(): value for name, value in headers.items()}


def taken(request: Request, *, seen: SeenDeliveries | None = None, now: float = NOW + 2, **more: Any) -> Delivery:
    given = {
        "method": request.method,
        "url": request.url,
        "headers": request.headers(),
        "body": request.body,
        "keys": SIGNER.keys,
        **more,
    }
    return verify(**given, seen=seen if seen is not None else SeenDeliveries(), now=now)


def test_a_genuine_delivery_is_taken() -> None:
    found = taken(Request())
    assert (found.id, found.event) == (Request().delivery, "deliberation.completed")
    assert found.deliberation.decision == "no"
    assert found.document == json.loads(BODY)


def test_what_the_service_signs_is_taken() -> None:
    request = Request()
    headers = {name: value for name, value in request.headers().items() if "sign" not in name.lower()}
    del headers["Content-Digest"]
    created, expires = datetime.fromtimestamp(NOW, UTC), datetime.fromtimestamp(NOW + 300, UTC)
    sign_request(
        SignedRequest("POST", URL, headers),
        BODY,
        key_id=request.key_id,
        sign=SIGNER.key.sign,
        created=created,
        expires=expires,
        nonce="n",
    )
    assert taken(request, headers=headers).id == request.delivery


def test_headers_may_come_as_pairs_with_others_among_them() -> None:
    pairs = [*Request().headers().items(), ("Cookie", "a"), ("Cookie", "b"), ("X-Forwarded-For", "x" * 10_000)]
    assert taken(Request(), headers=pairs).id == Request().delivery


def put(name: str, value: str) -> Callable[[dict[str, str]], None]:
    return lambda headers: headers.update({name: value})


def without(name: str) -> Callable[[dict[str, str]], None]:
    def change(headers: dict[str, str]) -> None:
        del headers[name]

    return change


@pytest.mark.parametrize("name", ["content-type", "content-digest", "conclave-delivery", "conclave-event", "signature"])
def test_without_one_of_its_headers_it_is_refused(name: str) -> None:
    with pytest.raises(WebhookRefusedError, match=name):
        taken(Request(change=without(name)))


@pytest.mark.parametrize(
    "change",
    [
        put("conclave-event", "deliberation.halted"),
        put("conclave-delivery", "another"),
        put("content-type", "application/json; charset=utf-8"),
        put("content-digest", f"sha-256=:{base64.b64encode(bytes(32)).decode()}:"),
        put("signature", f"conclave=:{base64.b64encode(bytes(64)).decode()}:"),
        put("signature", "conclave=:!:"),
        put("signature", ""),
        put("signature-input", ""),
        put("signature-input", 'conclave=("@method");created=1'),
        put("signature-input", "\x00"),
        put("signature-input", "conclave=(" * 800),
    ],
)
def test_a_changed_header_is_refused(change: Callable[[dict[str, str]], None]) -> None:
    with pytest.raises(WebhookRefusedError, match="does not verify") as refused:
        taken(Request(change=change))
    assert "()" not in str(refused.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "PUT"},
        {"url": URL + "&x=1"},
        {"url": "https://other.example/hooks?from=conclave"},
        {"body": BODY + b" "},
        {"body": b""},
        {"keys": WebhookKeys({})},
        {"keys": Signer(Ed25519PrivateKey.generate()).keys},
    ],
)
def test_what_was_not_signed_by_this_server_for_this_place_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(WebhookRefusedError, match="does not verify") as refused:
        taken(Request(), **wrong)
    assert "()" not in str(refused.value)


@pytest.mark.parametrize("left_out", COVERED)
def test_a_signature_that_leaves_something_out_is_refused(left_out: str) -> None:
    with pytest.raises(WebhookRefusedError, match="does not verify"):
        taken(Request(covered=tuple(name for name in COVERED if name != left_out)))


@pytest.mark.parametrize(
    "request_",
    [
        Request(tag="another-application"),
        Request(alg="rsa-pss-sha512"),
        Request(alg=None),
        Request(nonce=None),
        Request(nonce=""),
        Request(lasts=301),
        Request(lasts=-1),
        Request(signed_by=Signer(Ed25519PrivateKey.generate())),
        Request(content_type="text/plain"),
        Request(delivery="x" * 129),
        Request(event="deliberation.failed"),
        Request(body=b"[]"),
        Request(body=b"{"),
        Request(body=b"[" * 100_000),
        Request(body=json.dumps({**EXAMPLES["WebhookDelivery"], "deliberation_id": "d-2"}).encode()),
        Request(body=json.dumps({**EXAMPLES["WebhookDelivery"], "deliberation": None}).encode()),
        Request(body=json.dumps({**EXAMPLES["WebhookDelivery"], "at": 7}).encode()),
    ],
)
def test_what_no_server_of_conclave_sends_is_refused(request_: Request) -> None:
    with pytest.raises(WebhookRefusedError):
        taken(request_)


def test_a_header_that_comes_twice_is_refused() -> None:
    pairs = [*Request().headers().items(), ("conclave-event", "deliberation.completed")]
    with pytest.raises(WebhookRefusedError, match="twice"):
        taken(Request(), headers=pairs)


def test_a_second_signature_is_not_looked_for_the_better_one() -> None:
    def doubled(headers: dict[str, str]) -> None:
        for name in ("signature", "signature-input"):
            headers[name] += ", " + headers[name].replace("conclave=", "other=", 1)

    with pytest.raises(WebhookRefusedError, match="more than once"):
        taken(Request(change=doubled))


@pytest.mark.parametrize(("late_s", "is_taken"), [(0, True), (300, True), (301, False), (-30, True), (-31, False)])
def test_a_delivery_is_good_for_five_minutes(late_s: int, is_taken: bool) -> None:
    if is_taken:
        taken(Request(), now=NOW + late_s)
        return
    with pytest.raises(WebhookRefusedError, match="signed"):
        taken(Request(), now=NOW + late_s)


def test_the_same_delivery_is_taken_once() -> None:
    seen = SeenDeliveries()
    taken(Request(), seen=seen)
    with pytest.raises(DeliveryRepeatedError):
        taken(Request(), seen=seen)


def test_a_delivery_that_is_sent_again_later_is_taken_once_too() -> None:
    seen = SeenDeliveries()
    taken(Request(), seen=seen)
    with pytest.raises(DeliveryRepeatedError):
        taken(Request(created=NOW + 3600, nonce="another"), seen=seen, now=NOW + 3601)


def test_a_delivery_whose_work_was_not_done_can_be_taken_again() -> None:
    seen = SeenDeliveries()
    first = taken(Request(), seen=seen)
    seen.discard(first.id)
    assert taken(Request(), seen=seen) == first


def test_a_refused_delivery_takes_nobodys_place() -> None:
    seen = SeenDeliveries()
    with pytest.raises(WebhookRefusedError):
        taken(Request(signed_by=Signer(Ed25519PrivateKey.generate())), seen=seen)
    assert taken(Request(), seen=seen).id == Request().delivery


def test_what_is_remembered_is_bounded() -> None:
    seen = SeenDeliveries(most=3)
    assert all(seen.add(str(number), until=NOW + number) for number in range(10))
    assert not seen.add("9", until=NOW + 9)
    assert seen.add("0", until=NOW + 20)


def test_one_that_was_forgotten_and_taken_again_is_remembered_for_as_long() -> None:
    seen = SeenDeliveries(most=1)
    seen.add("a", until=NOW)
    seen.discard("a")
    seen.add("a", until=NOW + 10)
    seen.add("b", until=NOW + 5)
    assert not seen.add("a", until=NOW + 11)


def test_a_ledger_that_remembers_nothing_is_none() -> None:
    with pytest.raises(UnusableArgumentError):
        SeenDeliveries(most=0)


def test_keys_of_other_kinds_are_passed_over() -> None:
    rsa = {"kty": "RSA", "n": "AQAB", "e": "AQAB"}
    assert WebhookKeys.read({"keys": [rsa, SIGNER.jwk, 7]}) == SIGNER.keys


def test_a_server_without_webhooks_has_no_keys() -> None:
    assert WebhookKeys.read({"keys": []}).keys == {}


@pytest.mark.parametrize(
    "document",
    [
        None,
        {},
        {"keys": {}},
        {"keys": [{**SIGNER.jwk, "x": "AAAA"}]},
        {"keys": [{**SIGNER.jwk, "x": None}]},
        {"keys": [{**SIGNER.jwk, "x": "ä"}]},
        {"keys": [{**SIGNER.jwk, "kid": "another"}]},
    ],
)
def test_what_is_no_set_of_keys_is_refused(document: Any) -> None:
    with pytest.raises(UnusableArgumentError):
        WebhookKeys.read(document)


def test_the_example_of_a_thumbprint_in_rfc_8037_comes_out() -> None:
    (key_id,) = WebhookKeys.read({"keys": [{**EXAMPLES["WebhookKeys"]["keys"][0]}]}).keys
    assert key_id == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_the_request_as_it_stands_is_what_is_signed() -> None:
    original = Request()
    with pytest.raises(WebhookRefusedError):
        taken(replace(original, url=URL.replace("?", "/?")), headers=original.headers())
