"""What may be asked of a population beside ticks: commands, agents that come and go, columns beside opinions, rows of others."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from domain.errors.deliberation import FieldProblem
from domain.models.population_tree import Command, TreeShape

if TYPE_CHECKING:
    from domain.models.population import PopulationSpecification

__all__ = ["BUSES", "MAX_EXTERNAL", "MOST_BYTES", "problems_with"]

BUSES = ("memory", "redis", "file", "shm")

MOST_BYTES = 84 * 1_024
"""An agent's state, working memory, metrics and peers have at most so many bytes together."""

MAX_EXTERNAL = 100_000
"""Rows that other processes speak for are at most so many."""

_MAX_COMMANDS = 1_000
_MAX_DEADLINE_S = 60.0
_PARTNERS = re.compile(r"[A-Za-z0-9][\w.-]{0,63}(,[A-Za-z0-9][\w.-]{0,63}){0,31}")
_BUS_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}")


def problems_with(given: PopulationSpecification) -> list[FieldProblem]:
    """What is wrong with these fields, by JSON pointer; `agents`, `ticks` and `state_bytes` are right already."""
    found = [
        _whole("fold_ticks", given.fold_ticks, given.ticks or 1),
        _whole("begin_with", given.begin_with, given.agents),
        _share("arrivals", given.arrivals),
        _share("departures", given.departures),
        _whole("memory_bytes", given.memory_bytes, MOST_BYTES),
        _whole("metrics", given.metrics, MOST_BYTES // 8),
        _whole("peers", given.peers, MOST_BYTES // 4),
        _whole("external", given.external, min(given.agents, MAX_EXTERNAL)),
        _matching("external_to", given.external_to, _PARTNERS, "must be up to 32 names, apart by commas"),
        _matching("bus_name", given.bus_name, _BUS_NAME, "must be up to 100 letters, digits, '.', '_' or '-'"),
        _deadline(given.external_deadline_s),
    ]
    dormancy: object = given.dormancy
    if not isinstance(dormancy, bool):
        found.append(FieldProblem("/dormancy", "must be true or false"))
    if given.bus not in BUSES:
        found.append(FieldProblem("/bus", f"must be one of {', '.join(BUSES)}"))
    problems = [problem for problem in found if problem is not None]
    problems += _commands(given)
    if problems:
        return problems
    if given.memory_bytes % 8:
        problems.append(FieldProblem("/memory_bytes", "must be a multiple of 8"))
    asked = given.state_bytes + given.memory_bytes + 8 * given.metrics + 4 * given.peers
    if asked > MOST_BYTES:
        problems.append(
            FieldProblem(
                "/memory_bytes", f"with state, metrics and peers is {asked} bytes an agent, above {MOST_BYTES}"
            )
        )
    names = given.external_to.split(",")
    if "population" in names or len(set(names)) < len(names):
        problems.append(FieldProblem("/external_to", "must name each once, and none of them 'population'"))
    if given.external and given.seeds > 1:
        problems.append(FieldProblem("/external", "cannot be repeated with other seeds"))
    if given.external > (given.begin_with or given.agents):
        problems.append(FieldProblem("/external", "must be no more than there are agents in the beginning"))
    if given.engine != "local":
        problems += [
            FieldProblem(f"/{name}", f"is what the engine local alone does, not {given.engine}")
            for name in _LOCAL_ALONE
            if getattr(given, name)
        ]
    return problems


_LOCAL_ALONE = (
    *("dormancy", "commands", "fold_ticks", "begin_with", "arrivals", "departures", "memory_bytes", "metrics", "peers"),
    "external",
)


def _commands(given: PopulationSpecification) -> list[FieldProblem]:
    commands: object = given.commands
    if not isinstance(commands, tuple) or len(commands) > _MAX_COMMANDS:
        return [FieldProblem("/commands", f"must be at most {_MAX_COMMANDS} texts")]
    regions = TreeShape.of(given.agents).regions
    problems = []
    for number, text in enumerate(commands):
        try:
            late = Command.parsed(text, regions=regions).tick > given.ticks
        except ValueError as error:
            problems.append(FieldProblem(f"/commands/{number}", str(error)))
        else:
            if late:
                problems.append(FieldProblem(f"/commands/{number}", "must name a tick that is taken"))
    return problems


def _whole(name: str, value: object, most: int) -> FieldProblem | None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        return FieldProblem(f"/{name}", f"must be a whole number from 0 to {most}")
    return None


def _share(name: str, value: object) -> FieldProblem | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        return FieldProblem(f"/{name}", "must be a number from 0 to 1")
    return None


def _matching(name: str, value: object, form: re.Pattern[str], problem: str) -> FieldProblem | None:
    return None if isinstance(value, str) and form.fullmatch(value) else FieldProblem(f"/{name}", problem)


def _deadline(value: object) -> FieldProblem | None:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or not 0.0 <= float(value) <= _MAX_DEADLINE_S:  # type: ignore[arg-type]
        return FieldProblem("/external_deadline_s", f"must be a number of seconds from 0 to {_MAX_DEADLINE_S:g}")
    return None
