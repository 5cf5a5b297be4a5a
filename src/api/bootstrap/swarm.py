"""A swarm from the settings: its bus, its folder, its task, and the processes that it is spread over."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from api.bootstrap.buses import make_bus
from domain.errors.bus import BusUnavailableError, NameTakenError
from domain.errors.configuration import ConfigurationError
from domain.errors.dependency import DependencyUnavailableError
from domain.models.message import Payload
from domain.models.run import JsonValue, RunEnding
from domain.models.swarm import BATCH_SIZE, COIN_FLIP, QUESTION, SwarmPlan

if TYPE_CHECKING:
    from application.ports.message_bus import MessageBus
    from application.ports.run_observer import RunObserver
    from application.services.stop_signal import StopSignal
    from application.services.swarm.coordinator import Liveness
    from application.services.swarm.instance import Invitation
    from application.services.swarm.task import SwarmTask
    from infrastructure.settings import Settings

__all__ = ["Place", "join_swarm", "place_of", "run_swarm", "swarm_items"]

DEFAULT_OUT = "logs"

_QUICK_S = 30.0
_FUNCTION_S = 300.0
# A question ends by its own deadline; the swarm only waits for that.
_SLACK_S = 60.0
_LOOK_S = 0.1
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the folder within is made for its user alone


@dataclass(frozen=True, slots=True)
class Place:
    """Where the messages of one session live, as `--url` has it: redis://..., file:///FOLDER or shm://NAME."""

    transport: str
    session: str
    url: str | None = None
    folder: str | None = None
    name: str | None = None

    @property
    def shown(self) -> str:
        """What `conclave swarm join` is given; a password is not shown."""
        match self.transport:
            case "redis":
                parts = urlsplit(self.url or "")
                host = parts.netloc.rpartition("@")[2]
                return f"{parts.scheme}://{'***@' if '@' in parts.netloc else ''}{host}{parts.path}"
            case "file":
                return f"file://{self.folder}"
            case "shm":
                return f"shm://{self.bus_name}"
        return ""

    @property
    def bus_name(self) -> str:
        """The name of the bus."""
        return self.name or f"swarm-{self.session}"


def place_of(url: str, session: str) -> Place:
    """The place that an address names. Raises `ConfigurationError`."""
    scheme, separator, rest = url.partition("://")
    if separator and scheme in {"redis", "rediss", "unix"}:
        return Place("redis", session, url=url)
    if separator and scheme == "file" and rest.startswith("/"):
        return Place("file", session, folder=unquote(rest))
    if separator and scheme == "shm":
        return Place("shm", session, name=rest or None)
    raise ConfigurationError(
        variable="--url",
        problem="it is no address of a bus between processes",
        remedy="Give redis://HOST:PORT/0, file:///FOLDER or shm://NAME, as `conclave swarm run` says it.",
    )


def swarm_items(folder: Path) -> tuple[str, ...]:
    """The names of the files that agents are to work on. Raises `ConfigurationError`."""
    from infrastructure.swarm.item_folder import item_names

    return item_names(folder)


def open_bus(place: Place, settings: Settings | None, **limits: Any) -> MessageBus:
    """The bus of a session, not open yet. Without settings (in an instance) the place says all that is to know."""
    folder = None if place.folder is None else Path(place.folder)
    return make_bus(settings, place.transport, name=place.bus_name, folder=folder, url=place.url, **limits)  # type: ignore[arg-type]


async def run_swarm(
    settings: Settings,
    arguments: Mapping[str, JsonValue],
    observer: RunObserver,
    stop: StopSignal,
    *,
    session: str | None = None,
    out: Path | None = None,
    items: Path | None = None,
    announce: Callable[[Place], None] | None = None,
    bus_limits: Mapping[str, Any] | None = None,
    liveness: Liveness | None = None,
    wrap_task: Callable[[SwarmTask], SwarmTask] | None = None,
) -> RunEnding:
    """Run a swarm with these checked arguments. `announce` is told where others may join. The last three are for tests.

    Raises `ConfigurationError`, `DependencyUnavailableError` (the bus is away before an agent has its order), `OSError` (the disk)
    and what the service raises.
    """
    from application.services.swarm.swarm import Swarm
    from infrastructure.swarm.process_usage import cores, process_usage
    from infrastructure.swarm.session_folder import SessionFolder
    from infrastructure.swarm.shared_memory_claim import SharedMemoryClaim

    plan = _plan(arguments, session=session, items=items)
    store = SessionFolder(out or settings.run_folder or Path(DEFAULT_OUT), plan.session)
    place = _place(settings, plan)
    async with AsyncExitStack() as stack:
        task, extra, deadline_s = await _task(settings, plan, arguments, items, stack)
        timeout_s = arguments.get("timeout")
        plan = replace(plan, patience_s=timeout_s if isinstance(timeout_s, int | float) else deadline_s)
        instances = _instances(plan, place, items)
        if plan.transport in {"file", "shm"}:
            stack.enter_context(SharedMemoryClaim(_SHARED_MEMORY, plan.session).held())
        swarm = Swarm(
            plan,
            task if wrap_task is None else wrap_task(task),
            bus=open_bus(place, settings, **(bus_limits or {})),
            store=store,
            usage=process_usage,
            cores=cores(),
            instances=instances,
            liveness=liveness,
            extra=extra,
        )
        if announce is not None and plan.transport != "memory":
            announce(place)
        try:
            return await swarm.run(observer, stop)
        except NameTakenError as error:
            raise ConfigurationError(
                variable="--session",
                problem=f"a session {plan.session!r} runs on that bus",
                remedy="Give another one, or none.",
            ) from error
        except BusUnavailableError as error:
            raise DependencyUnavailableError(
                dependency=f"the {error.transport} bus", problem=error.problem, remedy=error.remedy
            ) from error


async def join_swarm(
    place: Place,
    stop: StopSignal,
    *,
    name: str | None = None,
    task: str | None = None,
    items: Path | None = None,
    patience_s: float = 10.0,
    bus_limits: Mapping[str, Any] | None = None,
) -> dict[str, Payload]:
    """Lend this process to a session until that ends. `task` is the one function that may be run here, beside the coin flip.

    Raises `ConfigurationError`, and `DependencyUnavailableError` where there is no such session or the bus is away.
    """
    from application.services.swarm.instance import SwarmInstance
    from infrastructure.swarm.process_usage import process_usage
    from infrastructure.swarm.shared_memory_claim import SharedMemoryClaim

    host = socket.gethostname()

    async def make_task(invitation: Invitation) -> SwarmTask:
        return _task_by_name(invitation, allowed=task, items=items)

    instance = SwarmInstance(
        name=name or f"tool-{host[:40]}-{os.getpid()}-{secrets.token_hex(3)}",
        session=place.session,
        bus=open_bus(place, None, **(bus_limits or {})),
        make_task=make_task,
        usage=process_usage,
        facts={"host": host, "pid": os.getpid()},
        patience_s=patience_s,
    )
    if place.folder is not None:
        await _await_folder(Path(place.folder), place.session, stop, patience_s=patience_s)
    try:
        with SharedMemoryClaim(_SHARED_MEMORY, place.session).shared():
            return await instance.run(stop)
    except BusUnavailableError as error:
        raise DependencyUnavailableError(
            dependency=f"the {error.transport} bus", problem=error.problem, remedy=error.remedy
        ) from error


async def _await_folder(folder: Path, session: str, stop: StopSignal, *, patience_s: float) -> None:
    """Return once there is a bus in the folder: whoever joins makes none. Raises `DependencyUnavailableError`."""
    until = time.monotonic() + patience_s
    while not await asyncio.to_thread((folder / "lock").is_file):
        if time.monotonic() >= until or stop.reason is not None:
            raise DependencyUnavailableError(
                dependency=f"the session {session!r}",
                problem=f"there is no bus in a folder {str(folder)!r}",
                remedy="Compare --url and --session with what `conclave swarm run` says at its start.",
            )
        await asyncio.sleep(_LOOK_S)


def _plan(arguments: Mapping[str, JsonValue], *, session: str | None, items: Path | None) -> SwarmPlan:
    agents, seed, instances = arguments["agents"], arguments.get("seed"), arguments["instances"]
    size = int(str(arguments.get("batches", f"1x{BATCH_SIZE}")).lower().partition("x")[2])
    return SwarmPlan(
        session=session or secrets.token_hex(6),
        task=str(arguments["task"]),
        agents=agents if isinstance(agents, int) else 1,
        batch_size=size,
        transport=str(arguments["transport"]),
        seed=seed if isinstance(seed, int) else secrets.randbits(53),
        instances=instances if isinstance(instances, int) else 1,
        items=None if items is None else swarm_items(items),
    )


def _place(settings: Settings, plan: SwarmPlan) -> Place:
    place = Place(plan.transport, plan.session)
    if plan.transport == "redis":
        return replace(place, url=settings.redis_url)
    if plan.transport == "file":
        return replace(place, folder=str(_SHARED_MEMORY / f"conclave-{place.bus_name}"))
    return place


def _instances(plan: SwarmPlan, place: Place, items: Path | None) -> Any:
    from application.services.swarm.swarm import NoInstances
    from infrastructure.swarm.instance_processes import InstanceProcesses

    if plan.instances == 1:
        return NoInstances()
    names = [f"tool-{number}" for number in range(2, plan.instances + 1)]
    facts = {
        "transport": place.transport,
        "session": place.session,
        "url": place.url,
        "folder": place.folder,
        "task": None if plan.task == COIN_FLIP else plan.task,
        "items": None if items is None else str(items.absolute()),
    }
    return InstanceProcesses("api.bootstrap.swarm_instance", names, facts)


async def _task(
    settings: Settings,
    plan: SwarmPlan,
    arguments: Mapping[str, JsonValue],
    items: Path | None,
    stack: AsyncExitStack,
) -> tuple[SwarmTask, Callable[[], Mapping[str, Payload]], float]:
    """The task, what it adds to the report, and how long an agent may take."""
    from application.services.swarm.task import CoinFlip
    from infrastructure.swarm.function_task import FunctionTask

    if plan.task == COIN_FLIP:
        return CoinFlip(plan), dict, _QUICK_S
    if plan.task != QUESTION:
        return FunctionTask(plan.task, folder=items), dict, _FUNCTION_S
    from api.bootstrap.opening import open_conclave
    from api.bootstrap.process import Purpose
    from api.requests import DeliberationRequest
    from application.services.swarm.question import QuestionTask

    body: dict[str, Any] = {"question": arguments["question"], "agents": {"count": plan.agents}}
    if arguments.get("seed") is not None:
        body["seed"] = arguments["seed"]
    conclave = await stack.enter_async_context(open_conclave(settings, purpose=Purpose.ASK))
    specification = DeliberationRequest.read(body, conclave.rosters).specification(conclave.rosters)
    conclave.require_models(specification, key_name=None)
    question = QuestionTask(conclave.deliberations, conclave.outputs, specification)
    told: dict[str, Payload] = {"orchestrator": conclave.orchestrator, "simulated": conclave.simulated}
    return question, lambda: {**question.facts(), **told}, specification.limits.deadline_s + _SLACK_S


def _task_by_name(invitation: Invitation, *, allowed: str | None, items: Path | None) -> SwarmTask:
    """What this process may do of that session. Nothing is imported because somebody on a bus says so."""
    from application.services.swarm.task import CoinFlip
    from infrastructure.swarm.function_task import FunctionTask

    if invitation.task == COIN_FLIP:
        return CoinFlip(SwarmPlan(invitation.session, COIN_FLIP, invitation.agents, BATCH_SIZE, "", invitation.seed))
    if invitation.task != allowed or invitation.task == QUESTION:
        remedy = (
            "It is asked by one process, which holds its limits of money."
            if invitation.task == QUESTION
            else f"If it may run here: conclave swarm join ... --task {invitation.task}"
        )
        raise ConfigurationError(
            variable="--task",
            problem=f"the session does {invitation.task!r}, which was not allowed here",
            remedy=remedy,
        )
    if invitation.has_items and items is None:
        raise ConfigurationError(
            variable="--items",
            problem="the session works on files",
            remedy="Name the folder where they are on this machine.",
        )
    return FunctionTask(invitation.task, folder=items if invitation.has_items else None)
