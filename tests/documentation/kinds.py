"""What data in the pages is, and whether the program would take it.

`<!-- is: KIND -->` before a block says it; the kinds are the names in `_READERS`, and of the REST interface

    request METHOD PATH      a body that is taken
    answer METHOD PATH       what is answered, whole
    schema NAME              a schema of the OpenAPI document, whole
    part of NAME             the same with fields left out, none of them unknown
"""

from __future__ import annotations

import asyncio
import json
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from api.main import create_app
from api.requests import DeliberationRequest
from api.webhook_body import webhook_body
from domain.witness.entry import certificate
from infrastructure.orchestrators.providers_file import read_providers_file
from infrastructure.pantheon.roles_file import read_roles_file
from infrastructure.rosters.file_roster_source import FileRosterSource
from infrastructure.soak.file_documents import response_in
from tests.conclave_fixture import open_stub_conclave
from tests.deliberation_specimens import deliberation
from tests.documentation.blocks import Block
from tests.documentation.command_tree import problems_of

if TYPE_CHECKING:
    from application.ports.webhook_outbox import WebhookDelivery

__all__ = ["check", "openapi"]


@cache
def openapi() -> dict[str, Any]:
    """The OpenAPI document of the server."""

    async def made() -> dict[str, Any]:
        async with open_stub_conclave() as conclave:
            return create_app(conclave).openapi()

    return asyncio.run(made())


def check(block: Block, folder: Path) -> None:
    """Raises `ValueError`, or whatever the program's own reader raises, for what is not what it is said to be."""
    kind = block.notes.get("is") or _told_by_itself(block)
    if kind is None:
        known = ", ".join(sorted(_READERS))
        raise ValueError(
            f"say what it is by a comment before it: <!-- is: request METHOD PATH -->, answer METHOD PATH, schema NAME, "
            f"part of NAME, or one of {known}"
        )
    if kind in _READERS:
        _READERS[kind](block.text, folder)
        return
    word, _, rest = kind.partition(" ")
    if block.language != "json" or word not in {"request", "answer", "schema", "part"}:
        raise ValueError(f"nobody knows the kind {kind!r}")
    document = json.loads(block.text)
    problems = list(_problems(document, _schema_of(word, rest), partial=word == "part"))
    if problems:
        raise ValueError("; ".join(problems))
    if kind in {"request POST /v1/deliberations", "request POST /v1/quotes"}:
        DeliberationRequest.read(document, FileRosterSource())


def _told_by_itself(block: Block) -> str | None:
    """TOML tells by its tables what it is."""
    if block.language == "toml":
        tables = set(tomllib.loads(block.text))
        if tables & {"providers", "routes"}:
            return "providers file"
        if "agents" in tables:
            return "roster"
    if block.language == "yaml":
        tables = set(yaml.safe_load(block.text))
        if tables & {"scrape_configs", "rule_files"}:
            return "configuration of Prometheus"
        if "services" in tables:
            return "compose file"
    return None


def _schema_of(word: str, rest: str) -> dict[str, Any]:
    if word in {"schema", "part"}:
        name = rest.removeprefix("of ")
        if name not in openapi()["components"]["schemas"]:
            raise ValueError(f"the OpenAPI document has no schema {name!r}")
        return {"$ref": f"#/components/schemas/{name}"}
    method, _, path = rest.partition(" ")
    operation = _operation(method, path)
    if word == "request":
        found: dict[str, Any] = operation["requestBody"]["content"]["application/json"]["schema"]
        return found
    done = next(answer for status, answer in sorted(operation["responses"].items()) if status.startswith("2"))
    shown: dict[str, Any] = done["content"]["application/json"]["schema"]
    return shown


def _operation(method: str, path: str) -> dict[str, Any]:
    for known, operations in openapi()["paths"].items():
        if _shape(known) == _shape(path) and method.lower() in operations:
            found: dict[str, Any] = operations[method.lower()]
            return found
    raise ValueError(f"there is no {method} {path}")


def _shape(path: str) -> list[str]:
    return ["{}" if part.startswith("{") else part for part in path.partition("?")[0].split("/")]


def _problems(document: object, schema: dict[str, Any], *, partial: bool) -> Iterator[str]:
    components = openapi()["components"]
    whole = _narrowed({**schema, "components": components}, partial=partial)
    for error in Draft202012Validator(whole).iter_errors(document):
        yield f"{'/'.join(map(str, error.absolute_path)) or 'the document'}: {error.message}"


def _narrowed(part: Any, *, partial: bool) -> Any:
    """The schema without fields that it does not name, and of a part without demands for fields."""
    if isinstance(part, list):
        return [_narrowed(each, partial=partial) for each in part]
    if not isinstance(part, dict):
        return part
    narrowed = {
        name: _narrowed(value, partial=partial) for name, value in part.items() if not (partial and name == "required")
    }
    if part.get("type") == "object" and "properties" in part and "additionalProperties" not in part:
        narrowed["additionalProperties"] = False
    return narrowed


def _providers(text: str, folder: Path) -> None:
    path = folder / "providers.toml"
    path.write_text(text, encoding="utf-8")
    read_providers_file(path, lambda _: "a-key-of-nobody")


def _part_of_providers(text: str, folder: Path) -> None:
    whole = '[providers.openai]\nbase_url = "https://api.openai.com/v1"\nmodels = ["gpt-5.4-mini"]\n'
    _providers(text if "providers" in tomllib.loads(text) else whole + text, folder)


def _roster(text: str, folder: Path) -> None:
    name = tomllib.loads(text)["name"]
    for agent in tomllib.loads(text)["agents"]:
        if "crew" in agent:
            file = folder / str(agent["crew"]).partition(":")[0]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    source = FileRosterSource(folder, takes_crews=True)
    assert not source.problems(), source.problems()
    source.get(name)


def _roles(text: str, folder: Path) -> None:
    for role in tomllib.loads(text).values():
        if "function" in role:
            module, _, function = role["function"].partition(":")
            (folder / f"{module}.py").write_text(f"def {function}(seen):\n    return None\n", encoding="utf-8")
    path = folder / "roles.toml"
    path.write_text(text, encoding="utf-8")
    read_roles_file(path)


def _soak_message(text: str, _folder: Path) -> None:
    message = json.loads(text)
    known = {"messageId", "type", "timestamp", "cycle", "priority", "data"}
    if set(message) != known or message["type"] not in {"ping", "compute", "memory_test"}:
        raise ValueError(f"a message has {sorted(known)!r} and one of three types")


def _soak_response(text: str, _folder: Path) -> None:
    document = json.loads(text)
    name = f"response-{document['agentId']}-{document['messageId']}.json"
    response_in(text.encode(), name, None)


def _certificate(text: str, _folder: Path) -> None:
    made = {**certificate(deliberation()), "record": {"entries": 0, "root_hash": ""}}
    shown = json.loads(text)
    for part in ("participation", "record"):
        if shown[part].keys() != made[part].keys():
            raise ValueError(f"{part} has {sorted(made[part])!r}")
    if shown.keys() != made.keys():
        raise ValueError(f"a certificate has {sorted(made)!r}")


def _mcp(text: str, _folder: Path) -> None:
    for server in json.loads(text)["mcpServers"].values():
        line = " ".join([server["command"].rpartition("/")[2], *server.get("args", ())])
        if problems := list(problems_of(line)):
            raise ValueError("; ".join(problems))


def _webhook(text: str, _folder: Path) -> None:
    body = json.loads(text)
    delivery = cast("WebhookDelivery", SimpleNamespace(event=body["type"], deliberation_id=body["deliberation_id"]))
    made = json.loads(webhook_body(delivery, {}, at=None))
    if body.keys() != made.keys():
        raise ValueError(f"the body has {sorted(made)!r}")
    if problems := list(_problems(body["deliberation"], _schema_of("part", "of Deliberation"), partial=True)):
        raise ValueError("; ".join(problems))


def _prometheus(text: str, _folder: Path) -> None:
    document = yaml.safe_load(text)
    known = {"global", "scrape_configs", "rule_files", "alerting", "groups"}
    if not set(document) <= known:
        raise ValueError(f"Prometheus knows {sorted(known)!r}, not {sorted(set(document) - known)!r}")
    for job in document.get("scrape_configs", ()):
        if job.get("metrics_path", "/metrics") != "/metrics" or not (
            {"static_configs", "dns_sd_configs", "file_sd_configs"} & set(job)
        ):
            raise ValueError(f"the job {job.get('job_name')!r} finds no metrics of ours")


def _compose(text: str, _folder: Path) -> None:
    if not all(
        {"image", "build", "extends", "environment"} & set(service)
        for service in yaml.safe_load(text)["services"].values()
    ):
        raise ValueError("each service of a compose file says what it is made of")


_READERS: dict[str, Callable[[str, Path], None]] = {
    "providers file": _providers,
    "part of a providers file": _part_of_providers,
    "roster": _roster,
    "roles of a pantheon": _roles,
    "soak message": _soak_message,
    "soak response": _soak_response,
    "certificate of an end": _certificate,
    "configuration of an MCP client": _mcp,
    "configuration of Prometheus": _prometheus,
    "compose file": _compose,
    "body of a webhook": _webhook,
}
