"""Makes a population of what the options of the command line say, and says what is wrong with one by the option that sets it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from domain.errors.population import InvalidPopulationError
    from domain.models.population import PopulationSpecification

__all__ = ["address_of", "bad_parameter", "kind_of", "shard_count", "specification"]

# Fields that are named otherwise than their options.
_OPTIONS = {
    "tick_interval_s": "tick-interval",
    "snapshot_ticks": "snapshot-every",
    "ask_deadline_s": "ask-deadline",
    "fold_ticks": "fold-every",
    "external_deadline_s": "external-deadline",
    "commands": "command",
    "deliberation": "from",
    "archetypes": "from",
}
_FIELD = re.compile(r"(?<!\S)/[a-z_]+(?![\w/.])")


def kind_of(bus: str | None) -> str:
    """The transport that is meant, not where it lies: addresses may hold passwords, and are written nowhere.

    Raises `typer.BadParameter` for the one that reaches no other process.
    """
    if bus == "memory":
        raise typer.BadParameter("--bus memory reaches no other process: take shm, file or redis")
    return "redis" if address_of(bus) else bus or "shm"


def address_of(bus: str | None) -> str | None:
    """Where the bus lies, where that is what was given."""
    return bus if bus is not None and "://" in bus else None


def shard_count(shards: int | None) -> int:
    """How many shards are asked for; 0, which is nothing to ask for, stands for one a core. Raises `typer.BadParameter`."""
    if shards is None:
        return 0
    from domain.models.population import MAX_SHARDS

    if not 1 <= shards <= MAX_SHARDS:
        raise typer.BadParameter(f"--shards must be a whole number from 1 to {MAX_SHARDS}")
    return shards


def specification(**given: Any) -> PopulationSpecification:
    """The population of these fields. Raises `typer.BadParameter`, which names each bad one by its option."""
    from domain.errors.population import InvalidPopulationError
    from domain.models.population import PopulationSpecification

    try:
        return PopulationSpecification(**given)
    except InvalidPopulationError as error:
        raise bad_parameter(error) from error


def bad_parameter(error: InvalidPopulationError) -> typer.BadParameter:
    """What is wrong, each field by the option that sets it."""
    return typer.BadParameter(
        "; ".join(
            f"{_option_of(problem.pointer)} {_FIELD.sub(lambda found: _option_of(found[0]), problem.message)}".strip()
            for problem in error.problems
        )
    )


def _option_of(pointer: str) -> str:
    name = pointer[1:].partition("/")[0]
    return "--" + _OPTIONS.get(name, name).replace("_", "-") if name else ""
