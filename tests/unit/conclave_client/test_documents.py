"""The client's documents are the server's, field by field, and a newer or older server does not break them."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Any

import pytest

from api.rest.examples import EXAMPLES
from api.rest.schemas import component_schemas
from conclave_client import deliberation, outcome, output, records, worth
from conclave_client.deliberation import Deliberation
from conclave_client.document import Document, UnexpectedDocumentError, read_document
from conclave_client.output import Output
from conclave_client.records import Event, Halt, Pool, Quote, Resolution, Run

SCHEMAS = component_schemas()
MODULES = (deliberation, outcome, output, records, worth)
KINDS: Mapping[str, type[Document]] = {
    name: getattr(module, name)
    for module in MODULES
    for name in module.__all__
    if isinstance(getattr(module, name), type) and name in SCHEMAS
}
# What is called otherwise, because a caller reads these names without a server around them.
RENAMED = {"Agents": "AgentsAsked", "Answer": "AnswerKind", "Usage": "TokenUsage"}
PLAIN: Mapping[str, set[type]] = {
    "string": {str},
    "integer": {int},
    "number": {float},
    "boolean": {bool},
    "null": {NoneType},
}
# Read by nobody but through the things that stand in them, and refusals, which become errors.
NOT_READ = {"FieldError", "Problem", "Topics", "WebhookKey", "WebhookKeys", "WebhookDelivery"}


def alternatives(schema: Mapping[str, Any]) -> Iterator[Any]:
    """What a value of that schema may be, in the client's terms: plain types, names of documents, and containers of such."""
    if "anyOf" in schema:
        for each in schema["anyOf"]:
            yield from alternatives(each)
    elif "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        yield RENAMED.get(name, name)
    elif schema.get("type") == "array":
        yield ("list", frozenset(alternatives(schema["items"])))
    elif schema.get("type") == "object":
        inner = schema.get("additionalProperties")
        yield ("object", frozenset(alternatives(inner)) if isinstance(inner, dict) else "anything")
    elif "type" in schema:
        yield from PLAIN[schema["type"]]


def annotated(hint: Any) -> Iterator[Any]:
    """The same of an annotation."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        yield ("list", frozenset(annotated(inner[0])))
    elif origin is not None and issubclass(origin if isinstance(origin, type) else object, Mapping):
        yield ("object", "anything" if inner[1] is Any else frozenset(annotated(inner[1])))
    elif inner:
        for each in inner:
            yield from annotated(each)
    else:
        yield hint.__name__ if isinstance(hint, type) and dataclasses.is_dataclass(hint) else hint


def documents() -> Iterator[tuple[str, type[Document]]]:
    for name in SCHEMAS:
        called = RENAMED.get(name, name)
        found = [getattr(module, called, None) for module in MODULES]
        kind = next((each for each in found if isinstance(each, type)), None)
        if kind is not None and not name.endswith(("Request", "Page")):
            yield name, kind


@pytest.mark.parametrize(("name", "kind"), list(documents()))
def test_a_document_has_the_fields_that_the_server_describes(name: str, kind: type[Document]) -> None:
    described = SCHEMAS[name]["properties"]
    hints = typing.get_type_hints(kind)
    fields = {each.metadata.get("name in JSON", each.name): each for each in dataclasses.fields(kind)}
    del fields["document"]
    assert set(fields) == set(described)
    for field_name, schema in described.items():
        expected = {found for found in alternatives(schema) if found != ("list", frozenset())}
        assert set(annotated(hints[fields[field_name].name])) == expected, (name, field_name)


def test_no_document_of_the_server_is_left_out() -> None:
    read = {name for name, _ in documents()}
    left = {name for name in SCHEMAS if not name.endswith(("Request", "Page", "HaltReason"))} - read
    assert left == NOT_READ


@pytest.mark.parametrize("name", sorted(KINDS.keys() & EXAMPLES.keys()))
def test_the_examples_of_the_server_are_read(name: str) -> None:
    found = read_document(KINDS[name], EXAMPLES[name])
    assert found.document == EXAMPLES[name]


def test_a_field_of_a_newer_server_is_kept_and_breaks_nothing() -> None:
    newer = {**EXAMPLES["Deliberation"], "mood": "calm", "usage": {**EXAMPLES["Deliberation"]["usage"], "joules": 3}}
    found = read_document(Deliberation, newer)
    assert found.document["mood"] == "calm"
    assert found.usage.document["joules"] == 3


def test_what_an_older_server_does_not_say_is_none_where_it_may_be() -> None:
    older = {name: value for name, value in EXAMPLES["Deliberation"].items() if name not in {"worth", "control"}}
    assert read_document(Deliberation, older).worth is None


@pytest.mark.parametrize("field", ["id", "status", "roll_call", "models", "erased"])
def test_what_no_deliberation_is_without_is_missed(field: str) -> None:
    without = {name: value for name, value in EXAMPLES["Deliberation"].items() if name != field}
    with pytest.raises(UnexpectedDocumentError, match=f"/{field} is missing"):
        read_document(Deliberation, without)


@pytest.mark.parametrize(
    ("kind", "name", "field", "value"),
    [
        (Pool, "Pool", "active", 3.0),
        (Pool, "Pool", "active", None),
        (Quote, "Quote", "calls", []),
        (Halt, "Halt", "channels", {"file": {"halted": "no", "reachable": True}}),
        (Output, "Output", "answer", {"a": 1}),
        (Output, "Output", "usage", {}),
        (Event, "Event", "sequence", True),
        (Run, "Run", "arguments", None),
        (Deliberation, "Deliberation", "models", "openai/small"),
        (Deliberation, "Deliberation", "rounds", [None]),
        (Resolution, "Resolution", "brier", 10**400),
    ],
)
def test_a_value_of_another_kind_is_refused(kind: type[Document], name: str, field: str, value: Any) -> None:
    with pytest.raises(UnexpectedDocumentError, match=f"/{field}"):
        read_document(kind, {**EXAMPLES[name], field: value})


def test_words_of_pythons_own_have_other_names() -> None:
    (found,) = read_document(Resolution, EXAMPLES["Resolution"]).calibration
    assert (found.low, found.high) == (0.7, 0.8)


def test_a_document_is_compared_by_what_it_says_and_cannot_be_changed() -> None:
    found = read_document(Pool, EXAMPLES["Pool"])
    assert found == read_document(Pool, {**EXAMPLES["Pool"], "mood": "calm"})
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.active = 4  # type: ignore[misc]
