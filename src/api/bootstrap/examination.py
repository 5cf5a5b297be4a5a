"""What the doctor looks at: every setting and every dependency, and what to do about what is not well."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from api.bootstrap.halting import halt_channels
from api.bootstrap.opening import open_conclave
from api.bootstrap.process import Purpose
from api.bootstrap.providers import examine_providers
from api.bootstrap.storage import make_data_folder, prepare_database
from api.bootstrap.texts import examine_texts
from api.bootstrap.voices import open_voices, rosters_of
from api.bootstrap.webhooks import examine_webhooks
from api.conclave import Check, ProviderCheck
from domain.errors.conclave_error import ConclaveError
from domain.errors.configuration import ConfigurationError
from domain.errors.dependency import DependencyUnavailableError

if TYPE_CHECKING:
    from infrastructure.settings import Settings

__all__ = ["examine"]


async def examine(settings: Settings) -> list[Check]:
    """Look at every setting and dependency, and say what to do about what is not well."""
    return [
        Check("data folder", works=True, detail=str(settings.data_dir)),
        await _examine_database(settings),
        await asyncio.to_thread(_examine_role, settings),
        await _examine_record(settings),
        *await asyncio.to_thread(_examine_halt, settings),
        *await _examine_orchestrator(settings),
        await examine_texts(settings),
        _examine_rosters(settings),
        await _examine_topics(settings),
        await examine_webhooks(settings),
        _examine_doors(settings),
    ]


async def _examine_database(settings: Settings) -> Check:
    from infrastructure.persistence.database import open_database
    from infrastructure.persistence.sql_deliberation_repository import SqlDeliberationRepository

    try:
        # Nothing else of the service, whose other parts have checks of their own.
        make_data_folder(settings)
        await prepare_database(settings)
        async with AsyncExitStack() as stack:
            database = await open_database(settings.database_url)
            stack.push_async_callback(database.close)
            repository = SqlDeliberationRepository(database)
            stack.push_async_callback(repository.close)
            await repository.check()
    except ConfigurationError as error:
        return Check("database", works=False, detail=error.problem, remedy=f"{error.variable}: {error.remedy}")
    except DependencyUnavailableError as error:
        return Check("database", works=False, detail=error.problem, remedy=error.remedy)
    kind = "SQLite" if settings.database_url.startswith("sqlite") else "Postgres"
    return Check("database", works=True, detail=f"{kind}, durable, present schema")


def _examine_role(settings: Settings) -> Check:
    from infrastructure.persistence.privileges import rights_beyond_appending

    name = "database role"
    if settings.database_url.startswith("sqlite"):
        return Check(
            name,
            works=True,
            detail="SQLite has none: triggers refuse changes of the record, but whoever may write the file can drop them",
            remedy="Use Postgres and a role that does not own the tables where that is not enough.",
        )
    try:
        excess = rights_beyond_appending(settings.database_url)
    except DependencyUnavailableError as error:
        return Check(name, works=False, detail=error.problem, remedy=error.remedy)
    if not excess:
        return Check(name, works=True, detail="adds to the record and cannot change it")
    return Check(
        name,
        works=False,
        detail=f"the application can do more to the record than add to it: {', '.join(excess)}",
        remedy="CONCLAVE_DATABASE_URL: name a role that owns nothing, and the owner in CONCLAVE_OWNER_DATABASE_URL only; "
        "then run: conclave db upgrade",
    )


async def _examine_record(settings: Settings) -> Check:
    name = "record"
    try:
        async with open_conclave(settings, purpose=Purpose.READ) as conclave:
            witness = conclave.witness
            await witness.check_at_start()
    except ConfigurationError as error:
        return Check(name, works=False, detail=error.problem, remedy=f"{error.variable}: {error.remedy}")
    except DependencyUnavailableError as error:
        return Check(name, works=False, detail=error.problem, remedy=error.remedy)
    if witness.problem is not None:
        return Check(name, works=False, detail=witness.problem.problem, remedy=witness.problem.remedy)
    if witness.anchor_problems:
        away = "; ".join(f"{anchor}: {problem}" for anchor, problem in witness.anchor_problems.items())
        return Check(name, works=False, detail=f"anchors: {away}", remedy="CONCLAVE_WITNESS_ANCHORS: mend these.")
    anchors = "" if settings.witness_anchors else "; no anchors, so a rollback of all of it would not be seen"
    return Check(name, works=True, detail=f"continues its last checkpoint, key {witness.verifier_key.name}{anchors}")


def _examine_halt(settings: Settings) -> list[Check]:
    from domain.errors.halt import HaltChannelUnreachableError

    remedies = {
        "database": "See what is said of the database.",
        "file": "CONCLAVE_HALT_FILE: name a file in a folder that is there; nothing else may be in its place.",
        "redis": "Check that it runs, and what CONCLAVE_HALT_REDIS_URL says.",
    }
    checks = []
    for channel in halt_channels(settings):
        name = f"halt, channel {channel.name}"
        try:
            found = channel.read()
        except HaltChannelUnreachableError as error:
            checks.append(Check(name, works=False, detail=error.problem, remedy=remedies[channel.name]))
        else:
            detail = f"set: {found.reason or 'without a reason'}" if found.halted else "clear"
            checks.append(Check(name, works=True, detail=detail))
        finally:
            channel.close()
    return checks


async def _examine_orchestrator(settings: Settings) -> list[Check]:
    name = "orchestrator"
    async with AsyncExitStack() as stack:
        try:
            voices = await open_voices(settings, Purpose.ASK, stack)
        except ConfigurationError as error:
            return [Check(name, works=False, detail=error.problem, remedy=f"{error.variable}: {error.remedy}")]
        except ConclaveError as error:
            return [Check(name, works=False, detail=str(error), remedy="Check that the model runs.")]
        found = [Check(name, works=True, detail=voices.identity.name, remedy=" ".join(voices.notices))]
        if voices.desk is not None:
            found += [_check_of(provider) for provider in await examine_providers(settings)]
        return found


def _check_of(provider: ProviderCheck) -> Check:
    name = f"provider {provider.name}" if provider.name else "provider"
    if not provider.works:
        detail = provider.problem or "it does not know " + ", ".join(
            model.name for model in provider.models if model.known is False
        )
        return Check(name, works=False, detail=f"{provider.address}: {detail}", remedy=provider.remedy)
    schema = "" if provider.json_schema else ", asked without a schema of the reply"
    offered = f", offers {', '.join(provider.offered[:5])}" if provider.offered else ""
    unpriced = [model.name for model in provider.models if model.price is None]
    remedy = f"No price is known of {', '.join(unpriced)}: where money is limited it is refused." if unpriced else ""
    return Check(name, works=True, detail=f"{provider.address}{schema}{offered}", remedy=remedy)


def _examine_rosters(settings: Settings) -> Check:
    source = rosters_of(settings)
    found = ", ".join(f"{name} ({len(source.get(name).agents)})" for name in source.names())
    problems = source.problems()
    if problems:
        unusable = "; ".join(str(problem) for problem in problems)
        return Check(
            "rosters", works=False, detail=f"{found}; {unusable}", remedy="CONCLAVE_ROSTERS_DIR: mend these files."
        )
    return Check("rosters", works=True, detail=found)


async def _examine_topics(settings: Settings) -> Check:
    name = "topics"
    if not settings.watch_topics:
        return Check(name, works=True, detail="not watched: CONCLAVE_WATCH_TOPICS is off")
    try:
        async with open_conclave(settings, purpose=Purpose.READ) as conclave:
            shares = await conclave.topics.look()
    except ConfigurationError as error:
        return Check(name, works=False, detail=error.problem, remedy=f"{error.variable}: {error.remedy}")
    except DependencyUnavailableError as error:
        return Check(name, works=False, detail=error.problem, remedy=error.remedy)
    if shares is None or shares.warning is None:
        return Check(name, works=True, detail="no source gives more of them than it should")
    # Nothing is broken: it is for people to judge.
    return Check(name, works=True, detail=shares.warning, remedy="See what it asks: conclave list --origin NAME")


def _examine_doors(settings: Settings) -> Check:
    keys = settings.keyring()
    who = "API keys configured" if keys else "no API keys: the server answers on loopback only"
    return Check("doors", works=True, detail=who)
