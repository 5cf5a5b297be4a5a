"""Writes the pages of the reference that the program itself knows best: the command line and the REST interface.

`python docs/reference_pages.py` writes them anew; a test holds them to what the program says.
"""

from __future__ import annotations

import asyncio
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from typer.main import get_command

from api.bootstrap import Purpose, open_conclave
from api.cli.main import build_app
from api.main import create_app
from infrastructure.settings import load_settings

__all__ = ["command_line_page", "rest_page", "write"]

FOLDER = Path(__file__).parent / "reference"
_WIDTH = 79
_TOGETHER = ("get", "post", "put", "patch", "delete")


def command_line_page() -> str:
    """Every command with what it takes, as its own help has it."""
    lines = [
        "# Command line",
        "",
        "What `conclave COMMAND --help` says, for every command. All commands take `--json`, which prints one JSON document on standard",
        "output and nothing else, but where the help says otherwise. Settings come from the [environment](settings.md).",
        "",
        "| exit code | means |",
        "|---|---|",
        "| 0 | done |",
        "| 1 | the work ended badly: inquorate, failed, halted, criteria not met |",
        "| 2 | it was used wrongly, or a setting is impossible |",
        "| 3 | verification refused what it was given |",
        "| 4 | a dependency cannot be reached |",
        "| 130 | Ctrl-C; what was counted is still printed |",
        "",
    ]
    root = get_command(build_app())
    for path, command in _commands(root, ("conclave",)):
        if hasattr(command, "commands"):
            continue
        lines += [f"## {' '.join(path)}", "", "<!-- synopsis -->", "```text", *_help_of(command, path), "```", ""]
    return "\n".join(lines)


def _commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        if not inner.hidden:
            yield from _commands(inner, (*path, name))


def _help_of(command: Any, path: tuple[str, ...]) -> list[str]:
    """The help of a command, in the width of a page, whatever terminal this is."""
    context = command.make_context(
        " ".join(path), [], resilient_parsing=True, terminal_width=_WIDTH, max_content_width=_WIDTH
    )
    with context:
        return [line.rstrip() for line in command.get_help(context).rstrip().splitlines()]


def rest_page() -> str:
    """Every call of the REST interface, from the OpenAPI document that the server gives out."""
    document = asyncio.run(_openapi())
    lines = [
        "# REST",
        "",
        "The calls of a server, made from the OpenAPI document that it gives out at `/openapi.json` and shows at `/docs`. How they",
        "are used is told in [Ask from a program](../guides/rest.md). Bodies and answers are JSON (UTF-8) where nothing else is said;",
        "refusals are problem documents (RFC 9457, `application/problem+json`) with `type`, `title`, `status`, `detail` and, of a",
        "body, `errors` with a JSON pointer to each bad field.",
        "",
        "With API keys each call under `/v1`, but those of the log, wants `Authorization: Bearer SECRET`.",
        "",
        "| call | does |",
        "|---|---|",
    ]
    calls = list(_calls(document))
    for method, path, operation in calls:
        lines.append(f"| [`{method.upper()} {path}`](#{_anchor(operation)}) | {operation['summary']} |")
    for tag in dict.fromkeys(operation["tags"][0] for _, _, operation in calls):
        lines += ["", f"## {tag.capitalize()}"]
        for method, path, operation in calls:
            if operation["tags"][0] == tag:
                lines += ["", *_call(method, path, operation)]
    lines += ["", "## Schemas", ""]
    for name, schema in sorted(document["components"]["schemas"].items()):
        lines += _schema(name, schema)
    return "\n".join(lines).rstrip() + "\n"


async def _openapi() -> dict[str, Any]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings({"CONCLAVE_ORCHESTRATOR": "simulated", "CONCLAVE_DATA_DIR": folder}, None)
        async with open_conclave(settings, purpose=Purpose.READ) as conclave:
            return create_app(conclave).openapi()


def _calls(document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for method in _TOGETHER:
            if method in operations:
                yield method, path, operations[method]


def _anchor(operation: Mapping[str, Any]) -> str:
    return str(operation["operationId"]).lower()


def _call(method: str, path: str, operation: Mapping[str, Any]) -> list[str]:
    lines = [f"### {operation['operationId']}", "", f"`{method.upper()} {path}`"]
    if not any(operation.get("security", ())):
        lines[-1] += ", open to everybody"
    lines += ["", _filled(operation.get("description", operation["summary"]))]
    if parameters := operation.get("parameters"):
        lines += ["", "| parameter | in | takes | |", "|---|---|---|---|"]
        for parameter in parameters:
            name = f"`{parameter['name']}`" + (
                " (needed)" if parameter.get("required") and parameter["in"] != "path" else ""
            )
            lines.append(
                f"| {name} | {parameter['in']} | {_type(parameter['schema'])} | {_cell(parameter.get('description', ''))} |"
            )
    if body := operation.get("requestBody"):
        lines += ["", f"Body: {_content(body['content'])}."]
    done, refused = [], []
    for status, answer in operation["responses"].items():
        if status.startswith("2"):
            done.append(f"{status} {_content(answer.get('content', {}))}".rstrip())
        elif status != "default":
            refused.append(status)
    lines += ["", f"Answers {'; '.join(done)}." + (f" Refusals: {', '.join(sorted(refused))}." if refused else "")]
    return lines


def _content(content: Mapping[str, Any]) -> str:
    return ", ".join(
        _type(kind["schema"]) if media == "application/json" else f"`{media}`"
        for media, kind in content.items()
        if kind is not None
    )


def _schema(name: str, schema: Mapping[str, Any]) -> list[str]:
    lines = [f"### {name}", ""]
    if description := schema.get("description"):
        lines += [_filled(description), ""]
    if "enum" in schema:
        return [*lines, f"One of {', '.join(f'`{value}`' for value in schema['enum'])}.", ""]
    if properties := schema.get("properties"):
        needed = schema.get("required", ())
        lines += ["| field | is | |", "|---|---|---|"]
        for field, part in properties.items():
            mark = "" if field in needed else " (may be left out)"
            lines.append(f"| `{field}`{mark} | {_type(part)} | {_cell(part.get('description', ''))} |")
        lines.append("")
    return lines


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return " or ".join(dict.fromkeys(_type(part) for part in schema[word]))
    if "allOf" in schema:
        return " and ".join(_type(part) for part in schema["allOf"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    bounds = [f"{sign} {schema[name]}" for name, sign in _BOUNDS if name in schema]
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    found = words.get(str(kind), str(kind or "anything"))
    if schema.get("format"):
        found += f" ({schema['format']})"
    return f"{found}, {', '.join(bounds)}" if bounds else found


_BOUNDS = (
    ("minimum", "at least"),
    ("exclusiveMinimum", "above"),
    ("maximum", "at most"),
    ("exclusiveMaximum", "below"),
    ("minLength", "characters at least"),
    ("maxLength", "characters at most"),
    ("minItems", "entries at least"),
    ("maxItems", "entries at most"),
)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _filled(text: str) -> str:
    return "\n\n".join(textwrap.fill(" ".join(part.split()), 140).replace("<", "&lt;") for part in text.split("\n\n"))


def write() -> None:
    """Write the pages that differ."""
    for name, page in (("command-line.md", command_line_page()), ("rest.md", rest_page())):
        path = FOLDER / name
        if not path.exists() or path.read_text(encoding="utf-8") != page:
            path.write_text(page, encoding="utf-8")
            sys.stdout.write(f"written anew: {path.name}\n")


if __name__ == "__main__":
    write()
