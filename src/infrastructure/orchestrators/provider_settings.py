"""Whom models are asked of, as it was set: providers, routes, prices, limits and budgets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from domain.models.money import KeyBudget, Price

__all__ = ["DEFAULT_ROUTE", "ModelLimits", "ProviderSettings", "ProvidersFile"]

DEFAULT_ROUTE = "default"


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """One provider: where it is, what it can do, and how much of it may be used.

    Without `models` every name is asked for, else only those. The limits are for all its models and all deliberations together;
    `share` is the part of them that this process may use where others use the same key. A provider without `json_schema`, `seed`
    or `temperature` is asked without it; `limit_name` is what it calls the bound of an answer. Times are seconds.
    """

    name: str
    base_url: str
    api_key_env: str | None = None
    key: str | None = field(default=None, repr=False)
    models: tuple[str, ...] = ()
    max_concurrency: int = 72
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_bytes_in_memory: int | None = None
    share: float = 1.0
    json_schema: bool = True
    seed: bool = True
    temperature: bool = True
    limit_name: str = "max_tokens"
    stream: bool = False
    first_byte_timeout_s: float = 30.0
    idle_timeout_s: float = 30.0
    max_reply_bytes: int = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """What one model takes besides, within the limits of its provider."""

    max_concurrency: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class ProvidersFile:
    """What the file says, checked. Models are named `provider/model`; a model's name may hold slashes, a provider's none.

    `default_model` is the model or route for members that name none. `budgets` are by the name of an API key, `*` for all others.
    """

    path: Path
    providers: Mapping[str, ProviderSettings]
    default_model: str = ""
    routes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    prices: Mapping[str, Price] = field(default_factory=dict)
    limits: Mapping[str, ModelLimits] = field(default_factory=dict)
    budgets: Mapping[str, KeyBudget] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        """The secrets, which no log may show."""
        return tuple(provider.key for provider in self.providers.values() if provider.key is not None)

    @property
    def only_model(self) -> str | None:
        """The one model that there is, None where there are several or where a provider takes any name."""
        named = [f"{provider.name}/{model}" for provider in self.providers.values() for model in provider.models]
        takes_any = any(not provider.models for provider in self.providers.values())
        return named[0] if len(named) == 1 and not takes_any else None

    def problem_of(self, model: str) -> str | None:
        """What keeps `provider/model` from being asked, None where nothing does. Does not repeat the name."""
        provider, slash, name = model.partition("/")
        known = self.providers.get(provider)
        if not slash or not name:
            return "is not of the form provider/model"
        if known is None:
            return f"names no provider of this server; there is {', '.join(self.providers)}"
        if known.models and name not in known.models:
            return f"names no model of {provider}; there is {', '.join(known.models)}"
        return None
