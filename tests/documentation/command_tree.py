"""Whether a command line of a page names commands and options that there are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from typing import Any

from typer.main import get_command

from api.cli.main import build_app
from tests.documentation.blocks import REPOSITORY

__all__ = ["command_lines", "problems_of"]

_CALL = re.compile(r"(?:^|[\s;&|(`$])conclave(?P<words>(?: [^\n;&|]*)?)")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
_MAKE = re.compile(r"(?:^|[\s;&|(])make((?: [A-Z]+=(?:\"[^\"]*\"|\S*))*) (?P<verb>[a-z][a-z-]*)", re.MULTILINE)


@cache
def _root() -> Any:
    return get_command(build_app())


@cache
def _verbs() -> frozenset[str]:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    return frozenset(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))


def command_lines(script: str) -> Iterator[list[str]]:
    """The words after each `conclave` of a script; comments and what a pipe leads to are left out."""
    joined = re.sub(r"\\\n\s*", " ", script)
    for line in joined.splitlines():
        for found in _CALL.finditer(line):
            yield _words(found["words"])


def problems_of(script: str) -> Iterator[str]:
    """What a reader could not type: unknown commands and options of `conclave`, unknown verbs of make."""
    for found in _MAKE.finditer(script):
        if found["verb"] not in _verbs():
            yield f"make has no verb {found['verb']!r}"
    for words in command_lines(script):
        yield from _problems(words)


def _words(text: str) -> list[str]:
    text = text.partition(" #")[0]
    if text.count("(") < text.count(")"):
        text = text[: text.rindex(")")]
    try:
        return shlex.split(text)
    except ValueError:
        return text.replace("'", " ").replace('"', " ").split()


def _problems(words: list[str]) -> Iterator[str]:
    """`a b · c --x` is `a b` and `a c --x`: how pages list the commands of a group."""
    pieces: list[list[str]] = [[]]
    for word in words:
        if word in {"·", "|"}:
            pieces.append([])
        else:
            pieces[-1].append(word)
    group: list[Any] = []
    for number, piece in enumerate(pieces):
        path = [_root()]
        if number and group:
            path = group
        at = 0
        while at < len(piece) and piece[at].strip("[]") in getattr(path[-1], "commands", {}):
            path = [*path, path[-1].commands[piece[at].strip("[]")]]
            at += 1
        if number == 0:
            group = path[:-1]
            first = piece[0] if piece else ""
            if at == 0 and re.fullmatch(r"[a-z][a-z-]*", first):
                yield f"conclave has no command {first!r}"
                return
        rest = piece[at:]
        if "--" in rest:
            rest = rest[: rest.index("--")]
        if hasattr(path[-1], "commands") and rest and re.fullmatch(r"[a-z][a-z-]*", rest[0]):
            yield f"{' '.join(step.name or 'conclave' for step in path)} has no command {rest[0]!r}"
            return
        known = {name for step in path[-1:] for parameter in step.params for name in parameter.opts}
        for option in _OPTION.findall(" ".join(rest)):
            if option not in known:
                yield f"{' '.join(step.name or 'conclave' for step in path)} has no option {option!r}"
