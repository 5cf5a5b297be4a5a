"""The OpenAPI document is good enough to generate a client from, and says what the server really answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from starlette.routing import Route

from api.conclave import Conclave
from api.documents import (
    deliberation_document,
    event_document,
    output_document,
    quote_document,
    roster_document,
    usage_item_document,
)
from api.main import create_app
from api.requests import DeliberationRequest, RecountRequest, ResolutionRequest
from api.rest import schemas
from api.rest.examples import EXAMPLES, TEXTS
from api.rest.problems import PROBLEMS
from api.rest.record_schemas import WebhookKeys
from application.ports.usage_reader import UsageItem
from tests.conclave_fixture import open_stub_conclave


@pytest.fixture
async def conclave() -> AsyncIterator[Conclave]:
    async with open_stub_conclave() as opened:
        yield opened


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    async def described() -> dict[str, Any]:
        async with open_stub_conclave() as opened:
            return create_app(opened).openapi()

    return asyncio.run(described())


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        for name, value in part.items():
            if name == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in document["paths"].values() for operation in path.values()]


def answers(document: dict[str, Any]) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Each operation's name, the status, the media type and what is said of it."""
    for operation in operations(document):
        for status, answer in operation["responses"].items():
            for media_type, content in answer["content"].items():
                yield operation["operationId"], status, media_type, content


async def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for found in set(references(document)):
        place: Any = document
        for step in found.removeprefix("#/").split("/"):
            place = place[step]


async def test_every_schema_is_reached_from_a_call(document: dict[str, Any]) -> None:
    waiting, reached = [*references(document["paths"]), *references(document["webhooks"])], set[str]()
    while waiting:
        name = waiting.pop().rpartition("/")[2]
        if name not in reached and name in document["components"]["schemas"]:
            reached.add(name)
            waiting += references(document["components"]["schemas"][name])
    assert reached == set(document["components"]["schemas"])


async def test_every_route_of_the_interface_is_described_and_nothing_else(conclave: Conclave) -> None:
    app = create_app(conclave)
    described = {(path, method) for path, calls in app.openapi()["paths"].items() for method in calls}
    served = {
        (route.path.replace(":path}", "}"), method.lower())
        for route in app.routes
        if isinstance(route, Route) and (route.path.startswith("/v1/") or route.path.endswith(("z", "/metrics")))
        for method in route.methods or ()
    }
    assert described == served


async def test_an_answer_is_described_in_one_media_type(document: dict[str, Any]) -> None:
    assert all(
        len(answer["content"]) == 1 for operation in operations(document) for answer in operation["responses"].values()
    )


REQUESTS = {model.__name__: model for model in (DeliberationRequest, RecountRequest, ResolutionRequest)}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_what_its_schema_says(name: str, document: dict[str, Any]) -> None:
    model = REQUESTS.get(name) or (WebhookKeys if name == "WebhookKeys" else getattr(schemas, name))
    (example,) = document["components"]["schemas"][name]["examples"]
    model.model_validate(example)


async def test_the_example_of_a_request_would_be_accepted(conclave: Conclave) -> None:
    specification = DeliberationRequest.read(EXAMPLES["DeliberationRequest"], conclave.rosters).specification(
        conclave.rosters
    )
    RecountRequest.read(EXAMPLES["RecountRequest"]).rule.of(specification.question.answer)


async def test_whatever_is_sent_and_answered_has_an_example(document: dict[str, Any]) -> None:
    bodies = [
        call["requestBody"]["content"]["application/json"] for call in operations(document) if "requestBody" in call
    ]
    named = [found for body in bodies for found in references(body)]
    for operation_id, _status, media_type, content in answers(document):
        if media_type == "application/json":
            named += references(content)
        elif media_type not in {"application/problem+json", "application/octet-stream"}:
            assert content["example"] == TEXTS[operation_id]
    assert {name.rpartition("/")[2] for name in named} <= set(EXAMPLES)


async def test_a_refusal_shows_the_problems_of_its_own_status(document: dict[str, Any]) -> None:
    for operation_id, status, media_type, content in answers(document):
        if media_type == "application/problem+json":
            assert content["examples"], (operation_id, status)
            assert status == "default" or {PROBLEMS[slug].status for slug in content["examples"]} == {int(status)}


async def test_a_stream_is_described_by_what_its_events_hold(document: dict[str, Any]) -> None:
    streams = {name: content for name, _, media_type, content in answers(document) if media_type == "text/event-stream"}
    held = {name: content["schema"]["contentSchema"]["$ref"].rpartition("/")[2] for name, content in streams.items()}
    assert held == {"streamEvents": "Event", "streamRunEvents": "RunEvent"}


async def test_where_coming_back_helps_the_header_that_says_when_is_described(document: dict[str, Any]) -> None:
    for operation in operations(document):
        for status in {"429", "503"} & set(operation["responses"]):
            assert "Retry-After" in operation["responses"][status]["headers"]


async def test_every_call_of_the_contract_is_there(document: dict[str, Any]) -> None:
    assert {(path, method) for path, calls in document["paths"].items() for method in calls} == {
        ("/v1/deliberations", "post"),
        ("/v1/deliberations", "get"),
        ("/v1/deliberations/{deliberation_id}", "get"),
        ("/v1/deliberations/{deliberation_id}/outputs", "get"),
        ("/v1/deliberations/{deliberation_id}/events", "get"),
        ("/v1/deliberations/{deliberation_id}/cancel", "post"),
        ("/v1/deliberations/{deliberation_id}/bundle", "get"),
        ("/v1/deliberations/{deliberation_id}/minutes", "get"),
        ("/v1/deliberations/{deliberation_id}/report", "get"),
        ("/v1/deliberations/{deliberation_id}/recount", "post"),
        ("/v1/deliberations/{deliberation_id}/resolution", "post"),
        ("/v1/track-record", "get"),
        ("/v1/runs", "post"),
        ("/v1/runs", "get"),
        ("/v1/runs/{run_id}", "get"),
        ("/v1/runs/{run_id}/events", "get"),
        ("/v1/runs/{run_id}/cancel", "post"),
        ("/v1/witness/checkpoint", "get"),
        ("/v1/witness/tile/{path}", "get"),
        ("/v1/witness/entries/{index}", "get"),
        ("/v1/witness/proofs/inclusion", "get"),
        ("/v1/witness/proofs/consistency", "get"),
        ("/v1/quotes", "post"),
        ("/v1/usage", "get"),
        ("/v1/rosters", "get"),
        ("/v1/rosters/{name}", "get"),
        ("/v1/pool", "get"),
        ("/v1/halt", "get"),
        ("/v1/halt", "post"),
        ("/v1/halt", "delete"),
        ("/v1/webhooks/keys", "get"),
        ("/healthz", "get"),
        ("/readyz", "get"),
        ("/metrics", "get"),
    }


async def test_every_operation_has_a_name_of_its_own_and_a_tag_that_is_explained(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for operation in operations(document)]
    assert len(set(names)) == len(names)
    explained = {tag["name"] for tag in document["tags"]}
    assert all(set(operation["tags"]) <= explained for operation in operations(document))


async def test_every_operation_says_how_it_refuses(document: dict[str, Any]) -> None:
    for operation in operations(document):
        assert "application/problem+json" in operation["responses"]["default"]["content"]


async def test_every_call_of_the_contract_says_that_it_may_refuse_what_it_was_asked_with(
    document: dict[str, Any],
) -> None:
    for path, operations_of_path in document["paths"].items():
        for operation in operations_of_path.values():
            assert ("422" in operation["responses"]) == path.startswith("/v1/"), path
            assert list(operation["responses"])[-1] == "default"


async def test_what_reads_the_store_says_that_the_store_may_be_away(document: dict[str, Any]) -> None:
    reads = [path for path in document["paths"] if path.startswith(("/v1/deliberations", "/v1/runs", "/v1/usage"))]
    assert len(reads) > 5
    for path in reads:
        for method, operation in document["paths"][path].items():
            assert "503" in operation["responses"], f"{method} {path}"


async def test_calls_under_v1_but_those_of_the_log_and_of_webhooks_take_a_key(document: dict[str, Any]) -> None:
    secured = {path for path, calls in document["paths"].items() for call in calls.values() if "security" in call}
    open_paths = ("/v1/witness/", "/v1/webhooks/")
    assert secured == {
        path for path in document["paths"] if path.startswith("/v1/") and not path.startswith(open_paths)
    }
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


async def test_the_body_of_a_submission_is_the_request_that_is_really_read(document: dict[str, Any]) -> None:
    body = document["paths"]["/v1/deliberations"]["post"]["requestBody"]
    assert body["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/DeliberationRequest"}
    described = document["components"]["schemas"]["DeliberationRequest"]
    assert set(described["properties"]) == set(DeliberationRequest.model_fields)
    assert described["required"] == ["question"]


async def test_the_described_documents_are_the_ones_that_are_answered(conclave: Conclave) -> None:
    body = {
        "question": "?",
        "answer": {"kind": "choice", "options": ["a", "b", "c"]},
        "protocol": {"kind": "poll", "wave_size": 50},
        "metadata": {"origin": "test"},
        "seed": 1,
    }
    specification = DeliberationRequest.read(body, conclave.rosters).specification(conclave.rosters)
    accepted = await conclave.deliberations.submit(specification)
    ended = await conclave.deliberations.wait(accepted.id, timeout_s=60)
    for deliberation in (accepted, ended):
        schemas.Deliberation.model_validate(deliberation_document(deliberation))
    for record in await conclave.outputs.outputs(ended.id):
        schemas.Output.model_validate(output_document(record))
    async for event in conclave.deliberations.events(ended.id):
        assert event is not None
        schemas.Event.model_validate(event_document(event))
    schemas.Roster.model_validate(roster_document(conclave.rosters.get("archons")))
    schemas.Quote.model_validate(quote_document(conclave.quotes.quote(specification)))
    page = await conclave.deliberations.page(status=None, key_name=None, limit=1, cursor=None)
    schemas.Deliberation.model_validate(deliberation_document(page.items[0]))
    schemas.UsagePage.model_validate({"items": [usage_item_document(UsageItem("openai", 1, 2, 3, 0.1, 0.2, 4))]})


async def test_what_is_quoted_is_described_as_what_would_be_submitted(document: dict[str, Any]) -> None:
    bodies = [document["paths"][path]["post"]["requestBody"] for path in ("/v1/quotes", "/v1/deliberations")]
    assert bodies[0] == bodies[1]


async def test_usage_is_summed_up_by_what_the_contract_names(document: dict[str, Any]) -> None:
    (parameter,) = document["paths"]["/v1/usage"]["get"]["parameters"]
    assert (parameter["name"], parameter["required"]) == ("by", True)
    named = parameter["schema"].get("enum") or document["components"]["schemas"]["UsageBy"]["enum"]
    assert named == ["deliberation", "key", "provider", "model", "day"]
