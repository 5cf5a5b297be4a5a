"""What the agents of a population may ask for opinions, from the settings: models over the one desk, and rosters."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from api.bootstrap.desk import open_desk, providers_of
from api.bootstrap.voices import rosters_of

if TYPE_CHECKING:
    from domain.models.population import PopulationSpecification
    from infrastructure.orchestrators.provider_desk import ProviderDesk
    from infrastructure.population.thinking.minds import Minds
    from infrastructure.settings import Settings

__all__ = ["minds_of"]


def minds_of(settings: Settings, spec: PopulationSpecification) -> Minds | None:
    """How whatever thinks in that population is reached, None where nothing does; connects nowhere.

    Raises `ConfigurationError` where it asks models and no provider is set, so that nothing is begun then.
    """
    if spec.inference == "none" and not spec.thinkers:
        return None
    from infrastructure.population.thinking.minds import Minds

    slots = min(settings.llm_max_concurrency or settings.max_concurrent_agents, settings.max_concurrent_agents)
    if spec.asks_models:
        providers_of(settings, slots=slots)

    def desk(stack: AsyncExitStack) -> ProviderDesk:
        return open_desk(settings, slots, stack)

    return Minds(open_desk=desk, roster=rosters_of(settings).get)
