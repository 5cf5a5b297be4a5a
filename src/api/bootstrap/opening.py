"""The open service, and the halt alone: every part made from the settings, joined, and closed in the reverse order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from api.bootstrap.beside import running_beside
from api.bootstrap.halting import looks_at_channels, open_halting, settled_halts
from api.bootstrap.process import Purpose, crash_plan, open_registry
from api.bootstrap.record import RECORD_HALTS, kept_record, open_witness, publish_last
from api.bootstrap.runs import make_runs
from api.bootstrap.storage import make_data_folder, prepare_database
from api.bootstrap.texts import PACKAGED, open_text_synthesis
from api.bootstrap.voices import observed, open_tracer, open_voices, rosters_of, standings
from api.bootstrap.webhooks import kept_telling, open_webhooks, public_webhook_keys
from api.bootstrap.work_queue import open_queue
from api.conclave import Conclave, Health
from application.services.acceptance import Acceptance
from application.services.archive_comparison import ArchiveComparison
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from application.services.deliberation_output_service import DeliberationOutputService
from application.services.deliberation_service import DeliberationService
from application.services.quote_service import QuoteService
from application.services.recount_service import RecountService
from application.services.resolution_service import ResolutionService
from application.services.topic_balance import TopicBalance
from application.services.track_record_service import TrackRecordService
from application.services.worth_service import WorthService
from domain.errors.dependency import DependencyUnavailableError
from domain.models.agent_pool import AgentPool

if TYPE_CHECKING:
    from application.ports.bus_traffic import BusTraffic
    from application.services.halt_service import HaltService
    from domain.errors.witness import LogUnverifiedError
    from domain.models.deliberation import Deliberation
    from infrastructure.settings import Settings

__all__ = ["open_conclave", "open_halt"]

# What is in a queue of its own process costs nothing to look for; in a shared one each look asks the database.
_OWN_SWEEP_S = 1.0
_SHARED_SWEEP_S = 5.0


@asynccontextmanager
async def open_conclave(settings: Settings, *, purpose: Purpose) -> AsyncIterator[Conclave]:
    """The open service, closed in the reverse order on the way out.

    `SERVE` takes over what other processes left, or passes everything on where the queue is shared; `WORK` works on what is in that
    queue; `ASK` runs what it is given; `READ` opens nothing but the database. Raises `ConfigurationError` and
    `DependencyUnavailableError`.
    """
    from infrastructure.persistence.database import open_database
    from infrastructure.persistence.sql_ballot_history import SqlBallotHistory
    from infrastructure.persistence.sql_deliberation_repository import SqlDeliberationRepository
    from infrastructure.persistence.sql_resolution_history import SqlResolutionHistory
    from infrastructure.persistence.sql_usage_reader import SqlUsageReader
    from infrastructure.settings import choose_orchestrator
    from infrastructure.telemetry.bus_metrics import BusCounts
    from infrastructure.telemetry.population_metrics import PopulationSums
    from infrastructure.telemetry.prometheus_metrics import PrometheusMetrics

    make_data_folder(settings)
    async with AsyncExitStack() as stack:
        await prepare_database(settings)
        database = await open_database(settings.database_url)
        stack.push_async_callback(database.close)
        metrics = PrometheusMetrics()
        budgets = {} if settings.providers is None else settings.providers.budgets
        repository = SqlDeliberationRepository(database, metrics=metrics, budgets=budgets)
        stack.push_async_callback(repository.close)
        signs = purpose is not Purpose.WORK
        crash = crash_plan(settings)
        store = repository if crash is None else crash.store(repository)
        witness = open_witness(settings, database, signs=signs, crash=crash)
        halting = await stack.enter_async_context(open_halting(settings, lambda: witness.problem, crash=crash))
        halt = halting.checker
        metrics.watch_log(lambda: max(repository.tree_size, witness.tree_size), lambda: witness.problem is None)
        metrics.watch_anchors(lambda: len(witness.anchor_problems))
        if purpose is not Purpose.READ:
            await witness.check_at_start()
            if signs:
                await witness.note_key()
            if witness.problem is not None:
                halt.hold(RECORD_HALTS)
            await halt.first_look()
            # Now rather than while the first halt waits for it.
            await halting.log.open()
        tracer = None if purpose is Purpose.READ else open_tracer(settings, stack)
        voices = await open_voices(settings, purpose, stack, tracer, metrics)
        identity = voices.identity
        pool = AgentPool(voices.at_a_time)
        fan_out = ConcurrentDeliberationService(
            orchestrator=observed(voices.orchestrator, tracer, crash),
            halt_checker=halt,
            pool=pool,
            metrics=metrics,
            desk=voices.desk,
        )
        runs = make_runs(settings, halt)
        queue = open_queue(settings, purpose, stack)
        queue = queue if crash is None else crash.queue(queue)
        registry = open_registry(settings, stack)
        resolved = SqlResolutionHistory(database)
        worth = WorthService(SqlBallotHistory(database), metrics=metrics, resolved=resolved)
        # Where it is only read, nobody answers, and the record is that of whoever would.
        answers = identity.name if purpose is not Purpose.READ else choose_orchestrator(settings).value
        record = TrackRecordService(resolved, orchestrator=answers)
        topics = TopicBalance(repository, is_on=settings.watch_topics, metrics=metrics)
        texts = None
        # Reading needs no model. Where others do the work only what a provider would take is of interest, for quotes.
        if purpose is not Purpose.READ and (voices.works or settings.embedding_model != PACKAGED):
            texts = open_text_synthesis(settings, stack, voices.provider_desk)
        if voices.works:
            deliberations = DeliberationService.with_worker(
                fan_out=fan_out,
                store=store,
                queue=queue,
                halt_checker=halt,
                orchestrator=identity,
                metrics=metrics,
                registry=registry,
                tracer=tracer,
                max_running=settings.max_running_deliberations,
                takes_over=purpose in {Purpose.SERVE, Purpose.WORK},
                queued_sweep_s=_SHARED_SWEEP_S if purpose is Purpose.WORK else _OWN_SWEEP_S,
                worth=worth,
                texts=texts,
                record=record,
                topics=topics,
            )
        else:
            deliberations = DeliberationService(
                repository=store,
                reader=store,
                leases=store,
                queue=queue,
                halt_checker=halt,
                orchestrator=identity,
                metrics=metrics,
                process=registry.own,
                record=record,
                topics=topics,
            )
        metrics.watch_pool(pool, lambda: fan_out.waiting_count)
        metrics.watch_halt(
            lambda: halt.state.halted,
            lambda: {name: channel.reachable for name, channel in halt.state.channels.items()},
        )
        traffic: Callable[[], Sequence[BusTraffic]] = tuple
        if purpose is Purpose.SERVE:
            buses = BusCounts(settings.data_dir / "runs")
            # What lies there already may take a while to read, and later scrapes read only what is new.
            await asyncio.to_thread(buses.samples)
            metrics.watch_buses(buses.samples)
            traffic = buses.traffic
            populations = PopulationSums(settings.data_dir / "runs")
            await asyncio.to_thread(populations.sample)
            metrics.watch_populations(populations.sample)
        metrics.watch_deliberations(lambda: deliberations.running_count, lambda: deliberations.queued_count)

        async def look_at_database() -> Health:
            try:
                await repository.check()
            except DependencyUnavailableError as error:
                return Health(works=False, detail=error.problem)
            return Health(works=True)

        async def look_at_record() -> Health:
            problem = witness.problem
            return Health(works=problem is None, detail="" if problem is None else problem.problem)

        async def shown(deliberation_id: str) -> tuple[Deliberation, Mapping[str, Any]]:
            from api.shown import shown_deliberation

            found = await deliberations.get(deliberation_id)
            return found, await shown_deliberation(conclave, found)

        webhooks = None
        if purpose is Purpose.SERVE:
            webhooks = open_webhooks(settings, database, registry=registry, shown=shown, metrics=metrics)
        if purpose is not Purpose.READ:
            if signs:
                stack.push_async_callback(publish_last, witness)
            await deliberations.start()
            stack.push_async_callback(deliberations.stop, drain_s=0.0)
            stack.push_async_callback(runs.stop)
            await stack.enter_async_context(kept_record(witness, halt, signs=signs))
            await stack.enter_async_context(settled_halts(halting.service))
        conclave = Conclave(
            deliberations=deliberations,
            acceptance=Acceptance(deliberations=deliberations, reader=repository),
            outputs=DeliberationOutputService(repository, metrics=metrics),
            worth=worth,
            recounts=RecountService(witness=witness, record=record, metrics=metrics),
            resolutions=ResolutionService(witness=witness, record=record, metrics=metrics),
            record=record,
            topics=topics,
            quotes=QuoteService(desk=fan_out.desk, budgets=budgets, texts=texts),
            usage=SqlUsageReader(database),
            witness=witness,
            halt=halting.service,
            rosters=rosters_of(settings),
            fan_out=fan_out,
            runs=runs,
            budgets=budgets,
            providers=lambda: standings(voices, pool),
            buses=traffic,
            keys=settings.keyring(),
            health={"database": look_at_database, "record": look_at_record, **looks_at_channels(halt)},
            render_metrics=metrics.render,
            data_dir=settings.data_dir,
            orchestrator=identity.name,
            simulated=identity.simulated,
            notices=[*settings.notices, *voices.notices],
            http_telemetry={} if tracer is None else tracer.http_telemetry(),
            webhook_keys=public_webhook_keys(settings),
        )
        if purpose is Purpose.SERVE:
            ahead = ArchiveComparison(repository, is_busy=lambda: pool.active_count > 0).run()
            without = "nothing is compared with its record before it is asked for"
            await stack.enter_async_context(running_beside(ahead, name="archive-comparison", without=without))
        async with kept_telling(webhooks):
            yield conclave


@asynccontextmanager
async def open_halt(settings: Settings, *, checks_log: bool = False) -> AsyncIterator[HaltService]:
    """Sets, clears and shows the halt, with every channel read once, whether or not there is a database; watches nothing.

    With `checks_log` nothing is added to a log that does not verify: whoever halts does not wait for that. Raises
    `ConfigurationError`.
    """
    found: list[LogUnverifiedError] = []
    make_data_folder(settings)
    # Nothing is read again by itself here, so that nothing can be too old.
    async with open_halting(settings, lambda: found[0] if found else None, stale_s=float("inf")) as halting:
        state = await halting.service.look()
        if checks_log and state.channels["database"].reachable:
            async with open_conclave(settings, purpose=Purpose.READ) as conclave:
                await conclave.witness.check_at_start()
                found += [] if conclave.witness.problem is None else [conclave.witness.problem]
        yield halting.service
