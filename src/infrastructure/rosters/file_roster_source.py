"""Rosters out of files: the built-in ones that are shipped, and the operator's own from a folder."""

from __future__ import annotations

import json
import logging
import os
import re
import reprlib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn

from domain.errors.deliberation import InvalidRosterError, InvalidSpecificationError, RosterNotFoundError
from domain.models.agent import Agent, CrewReference, Persona, Roster
from domain.models.text import MAX_PERSONA_BYTES, text_problem
from infrastructure.rosters.crew_files import crew_problem

__all__ = ["BUILT_IN", "MAX_ROSTER_BYTES", "FileRosterSource"]

BUILT_IN = ("archons",)
MAX_ROSTER_BYTES = 2 * 1024 * 1024

_logger = logging.getLogger(__name__)
_SUFFIXES = (".toml", ".json")
_TYPES: Mapping[str, tuple[type, str]] = {
    "object": (dict, "a table"),
    "array": (list, "a list"),
    "string": (str, "a text"),
}


@dataclass(frozen=True, slots=True)
class _Broken:
    """What is wrong with which file; an error made anew for each caller does not drag their tracebacks along."""

    source: str
    problem: str

    def error(self) -> InvalidRosterError:
        return InvalidRosterError(source=self.source, problem=self.problem)


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it was when it was last read: what told it apart, the names it is asked for by, and what came of it."""

    state: tuple[int, ...]
    names: tuple[str, ...]
    result: Roster | _Broken


class FileRosterSource:
    """Gives exactly what a file says, or says what is wrong in it; one bad file takes no other roster with it.

    The operator's files are `*.toml` and `*.json` right in `user_folder`, of the form of `roster.schema.json`; one without a
    `name` is asked for by its file name. Links, folders and hidden files are not looked at. A file is read when it is first
    needed and again when it has changed. A file that takes the name of a built-in roster, or of another file, is refused. A member's
    `crew` lies below the folder too, and is taken only with `takes_crews`: elsewhere nobody could ask it.
    """

    def __init__(self, user_folder: Path | None = None, *, takes_crews: bool = False) -> None:
        self._folder = user_folder
        self._takes_crews = takes_crews
        self._files: dict[Path, _File] = {}

    def names(self) -> Sequence[str]:
        """The names of all rosters that can be used, sorted."""
        found, _ = self._look()
        return sorted({*BUILT_IN, *(name for name, result in found.items() if isinstance(result, Roster))})

    def get(self, name: str) -> Roster:
        """The roster of that name. Raises `RosterNotFoundError`, or `InvalidRosterError` when its file is unusable."""
        if name in BUILT_IN:
            return _built_in(name)
        found, problems = self._look()
        result = found.get(name)
        if isinstance(result, Roster):
            return result
        if result is not None:
            raise result.error()
        if self._folder is not None and not self._files and problems:
            raise problems[0].error()
        raise RosterNotFoundError(known=self.names())

    def problems(self) -> Sequence[InvalidRosterError]:
        """What is wrong in the operator's folder: an error for each file that cannot be used."""
        return [problem.error() for problem in self._look()[1]]

    def _look(self) -> tuple[Mapping[str, Roster | _Broken], Sequence[_Broken]]:
        """The operator's rosters by name, broken ones by every name that they may be asked for, and all problems."""
        if self._folder is None:
            return {}, []
        try:
            paths = sorted(_roster_files(self._folder))
        except OSError as error:
            self._files = {}
            return {}, [_Broken(self._folder.name, f"the folder cannot be read: {error.strerror}")]
        self._files = {path: self._up_to_date(path) for path in paths}
        usable: dict[str, Roster | _Broken] = {}
        broken: dict[str, Roster | _Broken] = {}
        problems: list[_Broken] = []
        for path, file in self._files.items():
            if isinstance(file.result, _Broken):
                broken |= dict.fromkeys(file.names, file.result)
                problems.append(file.result)
            elif file.result.name in usable:
                clash = _Broken(path.name, f"another file has a roster named {file.result.name!r} too: rename one")
                usable[file.result.name] = clash
                problems.append(clash)
            else:
                usable[file.result.name] = file.result
        return {**broken, **usable}, problems

    def _up_to_date(self, path: Path) -> _File:
        known = self._files.get(path)
        try:
            stat = path.stat(follow_symlinks=False)
            state = (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino)
            if known is not None and known.state == state:
                return known
            with path.open("rb") as opened:
                content = opened.read(MAX_ROSTER_BYTES + 1)
        except OSError as error:
            return _File((), (path.stem,), _Broken(path.name, f"cannot be read: {error.strerror}"))
        file = _read(path, content, state, takes_crews=self._takes_crews)
        if isinstance(file.result, _Broken):
            _logger.warning("%s", file.result.error(), extra={"kind": InvalidRosterError.slug})
        return file


def _roster_files(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            if path.suffix in _SUFFIXES and not entry.name.startswith(".") and entry.is_file(follow_symlinks=False):
                yield path


def _read(path: Path, content: bytes, state: tuple[int, ...], *, takes_crews: bool) -> _File:
    names: tuple[str, ...] = (path.stem,)
    try:
        document = _document(path.name, content)
        document.setdefault("name", path.stem)
        if isinstance(document["name"], str):
            names = (path.stem, document["name"])
        roster = _roster(path.name, document)
        if roster.name in BUILT_IN:
            _refuse(path.name, f"the name {roster.name!r} belongs to a built-in roster: choose another")
        _refuse_crews(path, roster, takes_crews=takes_crews)
    except InvalidRosterError as error:
        return _File(state, names, _Broken(error.source, error.problem))
    return _File(state, names, roster)


def _refuse_crews(path: Path, roster: Roster, *, takes_crews: bool) -> None:
    for number, agent in enumerate(roster.agents):
        if agent.crew is None:
            continue
        if not takes_crews:
            _refuse(path.name, f"/agents/{number}/crew is asked with CONCLAVE_ORCHESTRATOR=crewai alone")
        if problem := crew_problem(path.parent, agent.crew.source):
            _refuse(path.name, f"/agents/{number}/crew {problem}")


@cache
def _built_in(name: str) -> Roster:
    file = f"{name}.toml"
    return _roster(file, _document(file, files("infrastructure.rosters").joinpath(file).read_bytes()))


@cache
def _schema() -> Mapping[str, Any]:
    schema: dict[str, Any] = json.loads(files("infrastructure.rosters").joinpath("roster.schema.json").read_bytes())
    return schema


def _document(source: str, content: bytes) -> dict[str, Any]:
    """The table that a TOML or JSON file holds, every key in it once."""
    if len(content) > MAX_ROSTER_BYTES:
        _refuse(source, f"is longer than {MAX_ROSTER_BYTES} bytes")
    document: object
    try:
        text = content.decode("utf-8-sig")
        if source.endswith(".json"):
            document = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_no_number)
        else:
            document = tomllib.loads(text)
    except UnicodeDecodeError as error:
        _refuse(source, f"is not UTF-8 at byte {error.start}")
    except RecursionError:
        _refuse(source, "is nested too deeply")
    except ValueError as error:
        _refuse(source, f"cannot be parsed: {error}")
    if not isinstance(document, dict):
        _refuse(source, "does not hold a table with the fields 'name' and 'agents'")
    return document


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"the key {reprlib.repr(key)} stands twice in a table")
        table[key] = value
    return table


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _roster(source: str, document: Mapping[str, Any]) -> Roster:
    if problem := _problem(document, _schema(), ""):
        _refuse(source, problem)
    agents = [
        Agent(entry["id"], Persona(entry["persona"], entry.get("name", "")), entry.get("model"), _crew(entry))
        for entry in document["agents"]
    ]
    for number, entry in enumerate(document["agents"]):
        if "tools" in entry and "crew" not in entry:
            _refuse(source, f"/agents/{number}/tools are those of a 'crew', and there is none")
    try:
        return Roster.assemble(document["name"], agents, description=document.get("description", ""))
    except InvalidSpecificationError as error:
        first = error.problems[0]
        _refuse(source, f"{first.pointer} {first.message}")


def _crew(entry: Mapping[str, Any]) -> CrewReference | None:
    return CrewReference(entry["crew"], tuple(entry.get("tools", ()))) if "crew" in entry else None


def _problem(value: Any, schema: Mapping[str, Any], pointer: str) -> str | None:
    """The first way in which `value` breaks `schema`, or None.

    Knows the keywords of JSON Schema 2020-12 that `roster.schema.json` uses, so that file and check cannot drift apart.
    """
    if "$ref" in schema:
        schema = _schema()["$defs"][schema["$ref"].rpartition("/")[2]]
    type_, noun = _TYPES[schema["type"]]
    if not isinstance(value, type_):
        return f"{pointer or 'it'} is not {noun}"
    if isinstance(value, dict):
        return _table_problem(value, schema, pointer)
    if isinstance(value, list):
        return _list_problem(value, schema, pointer)
    return _text_problem(str(value), schema, pointer)


def _table_problem(table: Mapping[str, Any], schema: Mapping[str, Any], pointer: str) -> str | None:
    where = pointer or "it"
    for key in table:
        if key not in schema["properties"]:
            return f"{where} has the unknown field {reprlib.repr(key)}"
    for key in schema["required"]:
        if key not in table:
            return f"{where} has no {key!r}"
    found = (_problem(value, schema["properties"][key], f"{pointer}/{key}") for key, value in table.items())
    return next(filter(None, found), None)


def _list_problem(entries: Sequence[Any], schema: Mapping[str, Any], pointer: str) -> str | None:
    if not schema["minItems"] <= len(entries) <= schema["maxItems"]:
        return f"{pointer} has {len(entries)} entries, {schema['minItems']} to {schema['maxItems']} are taken"
    found = (_problem(entry, schema["items"], f"{pointer}/{number}") for number, entry in enumerate(entries))
    if problem := next(filter(None, found), None):
        return problem
    if schema.get("uniqueItems") and len(set(entries)) < len(entries):
        return f"{pointer} has an entry twice"
    return None


def _text_problem(text: str, schema: Mapping[str, Any], pointer: str) -> str | None:
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    if most is not None and len(text) > most:
        return f"{pointer} has {len(text)} characters, at most {most} are taken"
    if len(text) >= max(least, 1) and (problem := text_problem(text, max_bytes=MAX_PERSONA_BYTES)):
        return f"{pointer} {problem}"
    if len(text) < least:
        return f"{pointer} must not be empty"
    if (pattern := schema.get("pattern")) and not re.fullmatch(pattern, text):
        return f"{pointer} is {reprlib.repr(text)}, which does not match {pattern}"
    return None


def _refuse(source: str, problem: str) -> NoReturn:
    raise InvalidRosterError(source=source, problem=problem)
