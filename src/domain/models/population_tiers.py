"""What may be asked of the tiers in which the states of agents lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.errors.deliberation import FieldProblem

if TYPE_CHECKING:
    from domain.models.population import PopulationSpecification

__all__ = ["tier_problems"]

_WARM = ("lz4", "redis")
_COLD = ("sqlite", "lmdb")


def tier_problems(given: PopulationSpecification) -> list[FieldProblem]:
    """What is wrong with these fields, by JSON pointer."""
    tiers: object = given.tiers
    if not isinstance(tiers, bool):
        return [FieldProblem("/tiers", "must be true or false")]
    found = [
        FieldProblem(f"/{name}", f"must be one of {', '.join(names)}")
        for name, value, names in (("warm", given.warm, _WARM), ("cold", given.cold, _COLD))
        if value not in names
    ]
    shares: tuple[tuple[str, object], ...] = (("hot_percent", given.hot_percent), ("warm_percent", given.warm_percent))
    found += [
        FieldProblem(f"/{name}", "must be a whole number from 1 to 98")
        for name, share in shares
        if isinstance(share, bool) or not isinstance(share, int) or not 1 <= share <= 98
    ]
    if not found and given.hot_percent + given.warm_percent > 99:
        found.append(FieldProblem("/warm_percent", "and /hot_percent leave nothing for the cold tier"))
    if tiers and ":" in str(given.behaviour):
        found.append(FieldProblem("/tiers", "cannot be had with a behaviour of your own, which keeps its bytes itself"))
    return found
