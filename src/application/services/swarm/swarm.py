"""The use case: one swarm, from its folder to its figures."""

from __future__ import annotations

import asyncio
import time
from asyncio import Task
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from application.ports.clock import Clock, SystemClock
from application.ports.message_bus import MessageBus
from application.ports.run_observer import RunObserver
from application.services.stop_signal import StopSignal
from application.services.swarm.backup import METRICS, vault_document, vault_name
from application.services.swarm.cast import Cast
from application.services.swarm.coordinator import Liveness
from application.services.swarm.report import Findings, report, status_of, whole
from application.services.swarm.session_store import SessionStore
from application.services.swarm.task import SwarmTask
from application.services.swarm.words import COORDINATOR, Say
from domain.errors.bus import BusError
from domain.models.deliberation import DeliberationStatus
from domain.models.message import Message, Payload, Priority
from domain.models.run import JsonValue, RunEnding
from domain.models.swarm import COIN_FLIP, SwarmPlan

__all__ = ["Instances", "NoInstances", "ProcessUsage", "Swarm"]

_COUNT_EVERY_S = 1.0
_GATHER_S = 20.0


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """What this process has used so far: processor seconds, and the most memory that it held, in bytes."""

    cpu_s: float
    peak_rss_bytes: int


class Instances(Protocol):
    """The other processes of a swarm on this machine."""

    async def start(self, ended: Callable[[str, str], None]) -> set[str]:
        """Begin to start them; their names on the bus. `ended` is told the name of each that ended by itself, and how."""
        ...

    def release(self) -> None:
        """From now on they may end."""
        ...

    async def close(self) -> None:
        """Return once none of them runs any more."""
        ...


class NoInstances:
    """All agents are in the process of the roles."""

    async def start(self, ended: Callable[[str, str], None]) -> set[str]:  # noqa: ARG002 - as the port has it
        """None."""
        return set()

    def release(self) -> None:
        """Nothing runs."""

    async def close(self) -> None:
        """Nothing runs."""


class Swarm:
    """Every agent is asked, and counted once or named as missing; what was counted is on the disk when `run` returns.

    The eight roles run in this process, and say all that they have to say to one another over the bus.
    """

    def __init__(
        self,
        plan: SwarmPlan,
        task: SwarmTask,
        *,
        bus: MessageBus,
        store: SessionStore,
        usage: Callable[[], ProcessUsage],
        cores: int = 1,
        instances: Instances | None = None,
        liveness: Liveness | None = None,
        clock: Clock | None = None,
        timer: Callable[[], float] = time.perf_counter,
        extra: Callable[[], Mapping[str, Payload]] = dict,
    ) -> None:
        """The bus and the store are not open yet; `run` opens and closes them. `extra` is what the task adds to the report."""
        self._plan = plan
        self._task = task
        self._bus = bus
        self._store = store
        self._usage = usage
        self._cores = cores
        self._instances = NoInstances() if instances is None else instances
        self._liveness = liveness
        self._clock = SystemClock() if clock is None else clock
        self._timer = timer
        self._extra = extra

    async def run(self, observer: RunObserver, stop: StopSignal) -> RunEnding:
        """Do the task. Raises `ConfigurationError` for the folder, `OSError` for the disk and `BusError` for the bus.

        Where the bus breaks once agents have their orders, the swarm has failed, and what was counted until then is on the disk and
        in its document all the same; `failure` in it says why: `{"kind", "message"}`, `bus-unavailable` where the bus is away.
        """
        began = self._timer()
        # In a thread, as all that may wait for the disk; it also has the pool of threads ready.
        await asyncio.to_thread(self._store.open)
        cast = Cast(
            self._plan,
            self._task,
            bus=self._bus,
            store=self._store,
            run=observer,
            clock=self._clock,
            timer=self._timer,
            liveness=self._liveness,
        )
        findings = Findings(cores=self._cores)
        try:
            async with self._bus:
                async with cast.at_work() as group, self._spread() as names:
                    beside = [
                        group.create_task(self._pass_on(stop), name="pass on the wish to end"),
                        group.create_task(self._tell_counts(observer), name="tell counts"),
                    ]
                    document = await self._work(cast, findings, names, began)
                    for one in beside:
                        one.cancel()
                observer.count(await self._bus.stats())
        except BaseExceptionGroup as errors:
            document = await self._end_badly(_first(errors), cast, findings)
        except BusError as error:
            document = await self._end_badly(error, cast, findings)
        finally:
            await cast.close()
            await self._task.close()
            self._store.close()
        return RunEnding(DeliberationStatus(str(document["status"])), document)

    async def _work(self, cast: Cast, findings: Findings, names: set[str], began: float) -> dict[str, JsonValue]:
        """From the agents' readiness to the report."""
        coordinator, plan, timer = cast.coordinator, self._plan, self._timer
        findings.late = sorted(await coordinator.gather(names, patience_s=_GATHER_S) if names else ())
        for name in findings.late:
            coordinator.say("instance_late", f"{name} was not ready in time", warning=True, instance=name)
        coordinator.say(
            "started",
            f"session {plan.session}: {plan.agents} agents in {len(plan.batches)} batches do {plan.task} over {plan.transport}",
            session=plan.session,
        )
        sent_before, loaded, used = (await self._bus.stats()).sent, timer(), self._usage()
        await coordinator.run()
        flipped = timer()
        findings.memory, findings.safety, findings.observer = await coordinator.take_stock()
        aggregated = timer()
        sums = findings.memory.get("sums")
        findings.backup_bytes = await coordinator.back_up({"sums": sums if isinstance(sums, dict) else {}})
        backed_up, used_then = timer(), self._usage()
        findings.phases_ms = {
            "load": (loaded - began) * 1e3,
            "flips": (flipped - loaded) * 1e3,
            "aggregate": (aggregated - flipped) * 1e3,
            "backup": (backed_up - aggregated) * 1e3,
        }
        findings.messages = (await self._bus.stats()).sent - sent_before
        self._instances.release()
        used_elsewhere = await coordinator.stop_instances()
        findings.cpu_s = (
            used_then.cpu_s - used.cpu_s + sum(_number(each.get("cpu_s")) for each in used_elsewhere.values())
        )
        findings.peak_rss_bytes = self._usage().peak_rss_bytes + sum(
            whole(each.get("peak_rss_bytes")) for each in used_elsewhere.values()
        )
        findings.transport_bytes = cast.voice.count_bytes() + sum(
            whole(each.get("transport_bytes")) for each in used_elsewhere.values()
        )
        self._complete(cast, findings)
        document = report(plan, self._task.terms, findings, place=str(self._store.place))
        received = whole(findings.memory.get("received"))
        ending = f"{received} of {plan.agents} counted, {status_of(plan, findings).value}"
        coordinator.say("ended", f"session {plan.session}: {ending}", received=received)
        await coordinator.close_log()
        await coordinator.back_up({"metrics": document})
        return _without_bytes(document)

    def _complete(self, cast: Cast, findings: Findings) -> None:
        """What the roles know of themselves."""
        coordinator = cast.coordinator
        agent_id = self._task.terms.agent_id
        counted = {name for name, _ in cast.memory.ledger.results()}
        findings.missing = [
            name for number in range(1, self._plan.agents + 1) if (name := agent_id(number)) not in counted
        ]
        listed = findings.safety.get("vetoes")
        vetoes = [veto for veto in listed if isinstance(veto, dict)] if isinstance(listed, list) else []
        findings.vetoes = vetoes or coordinator.vetoes
        cleared, received = whole(findings.safety.get("cleared")), whole(findings.memory.get("received"))
        if cleared < received and findings.safety:
            detail = f"Memory counted {received} results, Safety has seen {cleared}"
            findings.vetoes.append({"rule": "unchecked", "sender": "safety", "agent_id": "", "detail": detail})
        findings.handed_over = len(cast.actor.handed_over)
        findings.troubles = coordinator.troubles
        findings.retried = len(coordinator.retried)
        findings.instances = coordinator.instances
        known = {*coordinator.gone, *coordinator.instances}
        findings.gone = [*coordinator.gone, *(name for name in findings.late if name not in known)]
        findings.ended_by = coordinator.ended_by
        findings.queue_max = cast.voice.most_waiting
        findings.extra = self._extra()

    async def _end_badly(self, error: BaseException, cast: Cast, findings: Findings) -> dict[str, JsonValue]:
        """Put on the disk what was counted, without the bus; its document. Raises the error where nothing was begun."""
        if not (isinstance(error, BusError) and cast.actor.handed_over):
            raise error
        ledger, terms = cast.memory.ledger, self._task.terms
        is_coin = terms.name == COIN_FLIP
        results = ledger.results()
        sums: dict[str, Payload] = {
            name: sum(result == name for _, result in results) for name in sorted(terms.allowed or ())
        }
        listed: list[Payload] = [{"agent_id": name, "result": result} for name, result in results]
        findings.memory = {"received": ledger.received, "duplicates": ledger.duplicates, "sums": sums}
        self._complete(cast, findings)
        findings.ended_by = "bus_away"
        findings.failure = {"kind": error.slug, "message": str(error)}
        name, content = vault_name(is_coin=is_coin), vault_document(listed, sums, is_coin=is_coin)
        findings.backup_bytes = await asyncio.to_thread(self._store.replace, name, content)
        document = report(self._plan, terms, findings, place=str(self._store.place))
        await asyncio.to_thread(self._store.replace, METRICS, document)
        self._store.append("session.log", [f"[{self._clock.now().isoformat()}] [ERROR] {error}"])
        return _without_bytes(document)

    @asynccontextmanager
    async def _spread(self) -> AsyncIterator[set[str]]:
        """The other instances on this machine, while they are needed; the Coordinator is told when one has ended by itself."""
        telling: set[Task[None]] = set()

        def ended(name: str, why: str) -> None:
            task = asyncio.get_running_loop().create_task(self._tell_gone(name, why))
            telling.add(task)
            task.add_done_callback(telling.discard)

        names = await self._instances.start(ended)
        try:
            yield names
        finally:
            await self._instances.close()
            await asyncio.gather(*telling, return_exceptions=True)

    async def _tell_gone(self, name: str, why: str) -> None:
        await self._bus.send(Message(name, COORDINATOR, Say.GONE, {"why": why}))

    async def _pass_on(self, stop: StopSignal) -> None:
        reason = await stop.wait()
        await self._bus.send(Message("run", COORDINATOR, Say.END, {"reason": reason.value}, Priority.HIGH))

    async def _tell_counts(self, observer: RunObserver) -> None:
        while True:
            await asyncio.sleep(_COUNT_EVERY_S)
            observer.count(await self._bus.stats())


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error that is no group."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _number(value: Payload) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _without_bytes(document: Mapping[str, Payload]) -> dict[str, JsonValue]:
    """The same document: nothing of a report is bytes."""
    return dict(document)  # type: ignore[arg-type]
