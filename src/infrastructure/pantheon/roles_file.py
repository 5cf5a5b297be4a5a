"""Reads the file of roles: which of the nine is given to a function, a model or a deliberation."""

from __future__ import annotations

import importlib
import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from application.services.pantheon.asked_mind import Inquiry
from domain.errors.configuration import ConfigurationError
from domain.models.agent_pool import MAX_CONCURRENT_AGENTS
from domain.models.pantheon import Role
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.text import MAX_PERSONA_BYTES, MAX_QUESTION_BYTES, text_problem
from infrastructure.orchestrators.toml_lines import line_of

__all__ = ["RoleFunction", "read_roles_file"]

VARIABLE = "--roles"

_MAX_BYTES = 256 * 1024
_MAX_TIMEOUT_S = 3_600
_MAX_SHOWN = 64
_WAYS = ("function", "model", "deliberation")
_BESIDE: Mapping[str, tuple[str, ...]] = {
    "function": ("timeout_s",),
    "model": ("persona", "question", "options", "timeout_s"),
    "deliberation": ("timeout_s",),
}
_OF_DELIBERATION = ("agents", "roster", "question", "options")
_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_ROSTER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TOML_LINE = re.compile(r"\(at line (\d+), column \d+\)")
_FUNCTION_TIMEOUT_S = 30.0
_MODEL_TIMEOUT_S = 120.0

_Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RoleFunction:
    """A function of the operator's own, found and callable."""

    name: str
    function: Callable[[dict[str, Any]], object]
    timeout_s: float = _FUNCTION_TIMEOUT_S


def read_roles_file(path: Path) -> dict[Role, RoleFunction | Inquiry]:
    """What the TOML file at `path` gives each role; a role that it does not name keeps its built-in part alone.

    Functions are looked for where Python looks, then in the folder of the file, then in the working folder. Raises
    `ConfigurationError` naming file, line, problem and remedy.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        _refuse(path, None, f"it cannot be read ({error.strerror})", "Name a file that this user may read")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        _refuse(path, line, "it is not UTF-8", "Save it as UTF-8")
    if len(content) > _MAX_BYTES:
        _refuse(path, None, f"it has more than {_MAX_BYTES} bytes", "Name the file of roles")
    return _Reader(path, text).read()


class _Reader:
    """One reading of one file."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._text = text

    def read(self) -> dict[Role, RoleFunction | Inquiry]:
        try:
            document = tomllib.loads(self._text)
        except tomllib.TOMLDecodeError as error:
            found = _TOML_LINE.search(str(error))
            line = int(found.group(1)) if found else self._text.count("\n") + 1
            _refuse(self._path, line, "it is no TOML from there on", "See docs/pantheon.md")
        except (RecursionError, ValueError):
            _refuse(self._path, None, "it is no TOML that can be read", "See docs/pantheon.md")
        known = {role.value: role for role in Role}
        roles: dict[Role, RoleFunction | Inquiry] = {}
        for name, table in document.items():
            if name not in known:
                self._refuse((name,), f"there is no role {_shown(name)}", f"There is {', '.join(known)}")
            if not isinstance(table, dict):
                self._refuse((name,), f"{name} is no table", f"Write [{name}] above its settings")
            roles[known[name]] = self._role(known[name], (name,), table)
        return roles

    def _role(self, role: Role, at: _Path, table: Mapping[str, Any]) -> RoleFunction | Inquiry:
        ways = [name for name in table if name in _WAYS]
        if len(ways) != 1:
            problem = f"it has {' and '.join(ways)}" if ways else "it is given to nobody"
            self._refuse((*at, *ways[1:2]), problem, f"Give exactly one of {', '.join(_WAYS)}")
        way = ways[0]
        self._only(at, table, (way, *_BESIDE[way]))
        if way == "function":
            return self._function((*at, way), table[way], self._timeout(at, table, _FUNCTION_TIMEOUT_S))
        timeout_s = self._timeout(at, table, _MODEL_TIMEOUT_S)
        if way == "model":
            return Inquiry(
                model=self._text_at((*at, way), table[way], most=256),
                persona=self._optional(at, table, "persona", most=MAX_PERSONA_BYTES),
                question=self._optional(at, table, "question", most=MAX_QUESTION_BYTES),
                options=self._options(role, at, table),
                timeout_s=timeout_s,
            )
        inner, at = table[way], (*at, way)
        if not isinstance(inner, dict):
            self._refuse(at, "deliberation is no table", "Write it like { agents = 9 }")
        self._only(at, inner, _OF_DELIBERATION)
        roster = inner.get("roster", "archons")
        if not isinstance(roster, str) or not _ROSTER.fullmatch(roster):
            self._refuse((*at, "roster"), "roster names none", "Give the name of a roster, as archons")
        return Inquiry(
            agents=self._agents((*at, "agents"), inner.get("agents", MAX_CONCURRENT_AGENTS)),
            roster=roster,
            question=self._optional(at, inner, "question", most=MAX_QUESTION_BYTES),
            options=self._options(role, at, inner),
            timeout_s=timeout_s,
        )

    def _function(self, at: _Path, name: object, timeout_s: float) -> RoleFunction:
        if not isinstance(name, str) or not _FUNCTION.fullmatch(name):
            self._refuse(at, "function names none", 'Write it like "module:name"')
        module_name, _, place = name.partition(":")
        # Last, so that no file beside this one can stand in for a module of Python's or ours.
        for folder in (self._path.resolve().parent, Path.cwd()):
            if str(folder) not in sys.path:
                sys.path.append(str(folder))
        try:
            found: Any = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a module of somebody else's may raise anything
            self._refuse(at, f"{module_name!r} cannot be imported ({type(error).__name__}: {error})", "Mend the module")
        for part in place.split("."):
            if not hasattr(found, part):
                self._refuse(at, f"{module_name!r} has no {place!r}", "Name a function in it")
            found = getattr(found, part)
        if not callable(found):
            self._refuse(at, f"{name!r} cannot be called", "Name a function")
        return RoleFunction(name, found, timeout_s)

    def _options(self, role: Role, at: _Path, table: Mapping[str, Any]) -> tuple[str, ...]:
        if "options" not in table:
            return ()
        at, options = (*at, "options"), table["options"]
        if role is Role.VALIDATOR:
            self._refuse(at, "the validator is asked for a verdict", "Leave options out: it answers yes or no")
        if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
            self._refuse(at, "options is no list of texts", 'Write it like ["echo", "echo, sha256"]')
        answers = AnswerFormat(AnswerKind.CHOICE, tuple(options))
        if problems := answers.problems(""):
            self._refuse(at, f"options{problems[0].pointer[8:]} {problems[0].message}", "Give 2 to 50 that differ")
        return answers.options

    def _agents(self, at: _Path, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_CONCURRENT_AGENTS:
            self._refuse(at, f"agents is no whole number from 1 to {MAX_CONCURRENT_AGENTS}", "Say how many to ask")
        return value

    def _timeout(self, at: _Path, table: Mapping[str, Any], default: float) -> float:
        value = table.get("timeout_s", default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.001 <= value <= _MAX_TIMEOUT_S:
            problem = f"timeout_s is no number from 0.001 to {_MAX_TIMEOUT_S}"
            self._refuse((*at, "timeout_s"), problem, "Give seconds")
        return float(value)

    def _optional(self, at: _Path, table: Mapping[str, Any], name: str, *, most: int) -> str | None:
        return self._text_at((*at, name), table[name], most=most) if name in table else None

    def _text_at(self, at: _Path, value: object, *, most: int) -> str:
        problem = text_problem(value, max_bytes=most) if isinstance(value, str) else "is no text"
        if problem is not None:
            self._refuse(at, f"{at[-1]} {problem}", "Write a text in quotes")
        return str(value)

    def _only(self, at: _Path, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
        for name in table:
            if name not in known:
                where = f"[{'.'.join(at)}]"
                self._refuse((*at, name), f"{where} has no setting {_shown(name)}", f"There is {', '.join(known)}")

    def _refuse(self, at: _Path, problem: str, remedy: str) -> NoReturn:
        _refuse(self._path, line_of(self._text, at), problem, remedy)


def _refuse(path: Path, line: int | None, problem: str, remedy: str) -> NoReturn:
    place = f"{str(path)!r}" if line is None else f"{str(path)!r}, line {line}"
    raise ConfigurationError(variable=VARIABLE, problem=f"{place}: {problem}", remedy=remedy) from None


def _shown(name: str) -> str:
    return repr(name) if name.isprintable() and len(name) <= _MAX_SHOWN else "a name that cannot be shown"
