"""`conclave providers`: looks at each provider, and says what to do about whatever keeps it from being asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from api.cli.exit_codes import ExitCode
from api.cli.options import JsonOption

if TYPE_CHECKING:
    from api.conclave import ModelCheck, ProviderCheck

__all__ = ["add_to"]

_TOKENS_PRICED = 10**6
_MAX_SHOWN = 20


def add_to(app: typer.Typer) -> None:
    """Make the command known."""
    app.command("providers")(providers)


def providers(as_json: JsonOption = False) -> None:
    """Check the providers of models.

    Whether each can be reached, takes its key, knows the models and answers by a schema; spends one tiny call at most on each.
    """
    from api.bootstrap import configure_logging, examine_providers, has_providers, load_settings, run
    from api.cli.quiet_log import keep_log_quiet
    from api.cli.terminal import print_document

    settings = load_settings()
    configure_logging(settings)
    keep_log_quiet(settings)
    found = run(examine_providers(settings)) if has_providers(settings) else []
    file = settings.providers
    routes = {} if file is None else {name: list(models) for name, models in file.routes.items()}
    default = settings.llm_model if file is None else file.default_model
    if as_json:
        print_document(
            {
                "works": all(provider.works for provider in found),
                "providers": [_document(provider) for provider in found],
                "routes": routes,
                "default_model": default,
            }
        )
    else:
        _print(found, routes, default, notices=settings.notices)
    raise typer.Exit(_code_of(found))


def _code_of(found: Sequence[ProviderCheck]) -> ExitCode:
    if any(not provider.reachable for provider in found):
        return ExitCode.DEPENDENCY_AWAY
    return ExitCode.DONE if all(provider.works for provider in found) else ExitCode.ENDED_BADLY


def _document(provider: ProviderCheck) -> dict[str, Any]:
    return {
        "name": provider.name or None,
        "address": provider.address,
        "works": provider.works,
        "key": "set" if provider.has_key else "none",
        "reachable": provider.reachable,
        "accepted": provider.accepted,
        "models": [
            {"name": model.name, "known": model.known, "price": _price_document(model)} for model in provider.models
        ],
        "offered": len(provider.offered),
        "json_schema": provider.json_schema,
        "limits": dict(provider.limits),
        "calls": provider.calls,
        "problem": provider.problem or None,
        "remedy": provider.remedy or None,
    }


def _price_document(model: ModelCheck) -> dict[str, float] | None:
    if model.price is None:
        return None
    read, written = _usd_per_million(model)
    return {"input_usd_per_million": read, "output_usd_per_million": written}


def _usd_per_million(model: ModelCheck) -> tuple[float, float]:
    from domain.models.money import usd

    if model.price is None:
        return 0.0, 0.0
    return usd(model.price.input_token * _TOKENS_PRICED), usd(model.price.output_token * _TOKENS_PRICED)


def _print(
    found: Sequence[ProviderCheck], routes: dict[str, list[str]], default: str | None, *, notices: Sequence[str]
) -> None:
    from api.cli.page import Page
    from api.cli.plain_text import visible
    from api.cli.terminal import result_console

    page = Page(result_console())
    for notice in notices:
        page.paragraph(visible(notice))
    if not found:
        page.paragraph(
            "No provider is configured. Set CONCLAVE_LLM_BASE_URL for one, CONCLAVE_PROVIDERS_FILE for several."
        )
    for provider in found:
        mark, style = ("works", "") if provider.works else ("FAILS", "bold red")
        who = f"{provider.name} at {provider.address}" if provider.name else provider.address
        page.paragraph(f"{mark}  {visible(who)}: {visible(_standing(provider))}", hang=7, style=style)
        for model in provider.models[:_MAX_SHOWN]:
            known = _known(model, is_listing=bool(provider.offered))
            page.paragraph(visible(f"{model.name}: {known}, {_price(model)}"), indent=7, hang=2)
        if len(provider.models) > _MAX_SHOWN:
            page.paragraph(f"and {len(provider.models) - _MAX_SHOWN} more models", indent=7)
        if provider.limits:
            limits = ", ".join(f"{name} {limit:,}" for name, limit in provider.limits.items())
            page.paragraph(f"limits: {limits}", indent=7, hang=2)
        for line in (provider.problem, provider.remedy):
            if line:
                page.paragraph(visible(line), indent=7)
    for name, models in routes.items():
        page.paragraph(visible(f"route {name}: {', then '.join(models)}"), hang=2)
    if found and default is not None and default not in routes:
        page.paragraph(visible(f"where a member names no model: {default}"))


def _standing(provider: ProviderCheck) -> str:
    if not provider.reachable:
        return "cannot be reached"
    key = "key set" if provider.has_key else "no key"
    said = {True: ", accepted", False: ", refused", None: ", not judged"}[provider.accepted]
    schema = {True: "answers by a schema", False: "asked without a schema", None: "not known whether it takes a schema"}
    listed = f", offers {len(provider.offered)}" if provider.offered else ""
    return f"{key}{said}; {schema[provider.json_schema]}{listed}"


def _known(model: ModelCheck, *, is_listing: bool) -> str:
    return {True: "known", False: "not known there", None: "not in its list" if is_listing else "not asked"}[
        model.known
    ]


def _price(model: ModelCheck) -> str:
    if model.price is None:
        return "price not known"
    read, written = _usd_per_million(model)
    return f"{read:g} and {written:g} US dollars for a million tokens in and out"
