"""The schema of a request says what the server takes: at each bound that it states, and one step beyond it, both agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from domain.models.protocol import SETTING_BOUNDS, Protocol, ProtocolKind
from tests.conclave_fixture import RunningServer, running_server

MEMBER = {"id": "a", "persona": "p"}
CHOICE = {"kind": "choice", "options": ["a", "b"]}
KINDS = {name: kind.value for kind in ProtocolKind for name in SETTING_BOUNDS if name in Protocol(kind).settings()}


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        yield running


@pytest.fixture(scope="module")
def schemas(server: RunningServer) -> dict[str, Any]:
    """Every schema of the document that the server gives out."""
    found: dict[str, Any] = server.ask("GET", "/openapi.json").document["components"]["schemas"]
    return found


def body_with(schema: str, name: str, value: object) -> dict[str, Any]:
    """A request that has nothing particular but this one field."""
    field = {name: value}
    parts: Mapping[str, Mapping[str, Any]] = {
        "DeliberationRequest": field,
        "AnswerRequest": {"answer": {**CHOICE, **field} if name == "options" else {"kind": "number", **field}},
        "ProtocolRequest": {"protocol": {"kind": KINDS.get(name), **field}},
        "RuleRequest": {"rule": {"kind": "threshold", **field}},
        "AgentsRequest": {"agents": field},
        "MemberRequest": {"agents": {"members": [{**MEMBER, **field}]}},
        "QuorumRequest": {"quorum": field},
        "LimitsRequest": {"limits": field},
        "SamplingRequest": {"sampling": field},
        "ControlRequest": {"control": field},
    }
    return {"question": "?", **parts[schema]}


def several(schema: Mapping[str, Any], count: int) -> list[Any]:
    """So many different items of a list."""
    texts = schema["items"].get("type") == "string"
    return [f"{n} of them" if texts else {**MEMBER, "id": f"agent {n}"} for n in range(count)]


def values_at_the_bounds(schema: Mapping[str, Any]) -> Iterator[object]:
    """At each bound of a field the last value within and the first beyond."""
    step = 1 if schema.get("type") == "integer" else 0.0001
    for part in schema.get("anyOf", ()):
        yield from values_at_the_bounds(part)
    for word, outwards in (("minimum", -step), ("maximum", step), ("exclusiveMinimum", step)):
        if word in schema:
            yield from (schema[word], schema[word] + outwards)
    if "maxLength" in schema:
        yield from ("x" * schema["maxLength"], "x" * (schema["maxLength"] + 1))
    if schema.get("minLength"):
        yield from ("x", "")
    for word, outwards in (("minItems", -1), ("maxItems", 1)):
        if word in schema:
            yield from (several(schema, schema[word]), several(schema, schema[word] + outwards))
    if schema.get("items", {}).get("type") == "string":
        yield from (["a", item] for item in values_at_the_bounds(schema["items"]))
    if "maxProperties" in schema:
        most = schema["maxProperties"]
        yield from ({str(n): "v" for n in range(count)} for count in (most, most + 1))
        yield from ({"k": text} for text in values_at_the_bounds(schema["additionalProperties"]))
        yield from ({str(text): "v"} for text in values_at_the_bounds(schema["propertyNames"]))


def requests_at_the_bounds(schemas: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        body_with(schema, name, value)
        for schema in schemas
        if schema.endswith("Request") and schema not in {"RecountRequest", "ResolutionRequest", "RunRequest"}
        for name, field in schemas[schema]["properties"].items()
        for value in values_at_the_bounds(field)
    ]


def is_described(schemas: Mapping[str, Any], body: object) -> bool:
    document = {"$ref": "#/components/schemas/DeliberationRequest", "components": {"schemas": schemas}}
    return bool(Draft202012Validator(document).is_valid(body))


def test_the_server_takes_what_the_schema_describes_and_nothing_beyond_it(
    server: RunningServer, schemas: dict[str, Any]
) -> None:
    bodies = requests_at_the_bounds(schemas)
    answers = [server.ask("POST", "/v1/quotes", body) for body in bodies]
    assert {answer.status for answer in answers} == {200, 422}
    wrong = [
        (str(body)[:200], answer.document.get("errors"))
        for body, answer in zip(bodies, answers, strict=True)
        if is_described(schemas, body) != (answer.status == 200)
    ]
    assert wrong == []
    assert len(bodies) > 90
    assert 0.4 < sum(answer.status == 200 for answer in answers) / len(answers) < 0.6


@pytest.mark.parametrize(
    "body",
    [
        {"question": ""},
        {"question": "?", "answer": {"kind": "choice", "options": ["a"]}},
        {"question": "?", "answer": {"kind": "ranking"}},
        {"question": "?", "answer": {"options": ["a", "b"]}},
        {"question": "?", "answer": {"kind": "choice", "options": [str(n) for n in range(51)]}},
        {"question": "?", "quorum": {"min_answered_fraction": 2}},
        {"question": "?", "limits": {"max_attempts": 11}},
        {"question": "?", "protocol": {"kind": "delphi", "max_rounds": 11}},
        {"question": "?", "sampling": {"temperature": 3}},
        {"question": "?", "rule": {"kind": "threshold", "fraction": 2}},
        {"question": "?", "sampling": {"max_output_tokens": 0}},
        {"question": "?", "seed": 2**63},
        {"question": "?", "agents": {"count": 73}},
        {"question": "?", "agents": {"members": []}},
    ],
    ids=str,
)
def test_what_the_contract_bounds_the_schema_bounds(
    server: RunningServer, schemas: dict[str, Any], body: dict[str, Any]
) -> None:
    assert not is_described(schemas, body)
    assert server.ask("POST", "/v1/quotes", body).status == 422
