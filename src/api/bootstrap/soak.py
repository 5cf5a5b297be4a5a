"""A soak from the settings: its folders, its agents, and the files or the bus over which they are asked."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from api.bootstrap.buses import make_bus
from application.services.soak.run_soak import Continuation, RunSoak
from domain.errors.configuration import ConfigurationError
from domain.models.run import JsonValue
from domain.models.soak import SoakPlan, is_agent_id

if TYPE_CHECKING:
    from application.ports.message_bus import MessageBus
    from infrastructure.settings import Settings
    from infrastructure.soak.envelope import Envelope
    from infrastructure.soak.output_folder import OutputFolder

__all__ = ["SoakFolders", "SoakOptions", "become_soak_agent", "default_folders", "open_soak"]

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the folder within is made for its user alone
_COORDINATION = _SHARED_MEMORY / "agent-coordination"
_OWN_PREFIX = "conclave-soak-"
_RESULTS = Path("stability-results")
_KEY_FILE = "soak.key"
_MOST_KEY_BYTES = 1_024
_MOST_STATUS_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class SoakFolders:
    """Where the agents' files lie and where the results go; `coordination_is_own`: it is removed when the run is over."""

    coordination: Path
    output: Path
    coordination_is_own: bool = False


@dataclass(frozen=True, slots=True)
class SoakOptions:
    """How the run is written down and how its files are packed; `history_bytes` 0 keeps none."""

    resumes: bool = False
    debugs: bool = False
    compresses: bool = False
    encrypts: bool = False
    history_bytes: int = 64 * 2**20
    polls: bool = False


def default_folders(settings: Settings, *, coordination: Path | None, output: Path | None) -> SoakFolders:
    """The folders as given, or of the run that a server started, or `/dev/shm/agent-coordination` and `./stability-results`."""
    run_folder = settings.run_folder
    if coordination is None and run_folder is not None:
        place = _SHARED_MEMORY / f"{_OWN_PREFIX}{settings.run_id}"
        coordination = place if _SHARED_MEMORY.is_dir() else run_folder / "coordination"
        return SoakFolders(coordination, output or run_folder, coordination_is_own=True)
    default = _COORDINATION if _SHARED_MEMORY.is_dir() else _RESULTS / "coordination"
    return SoakFolders((coordination or default).absolute(), (output or run_folder or _RESULTS).absolute())


@asynccontextmanager
async def open_soak(
    settings: Settings, plan: SoakPlan, *, folders: SoakFolders, options: SoakOptions | None = None
) -> AsyncIterator[RunSoak]:
    """The use case, ready to be executed once; what it leaves beside its results is removed on the way out.

    Raises `ConfigurationError` and `DependencyUnavailableError` for what is found before the start.
    """
    from infrastructure.soak.coordination_folder import remove_abandoned
    from infrastructure.soak.output_folder import OutputFolder
    from infrastructure.soak.preflight import check_before_soak
    from infrastructure.soak.process_gauge import ProcGauge

    options = options or SoakOptions()
    record = OutputFolder(folders.output, debugs=options.debugs, history_bytes=options.history_bytes)
    plan, continuation = _continued(record) if options.resumes else (plan, Continuation())
    uses_folder = plan.transport in ("files", "file")
    doubts = check_before_soak(
        plan,
        coordination=folders.coordination if uses_folder else None,
        output=folders.output,
        history_bytes=options.history_bytes,
    )
    session = secrets.token_hex(4)
    async with AsyncExitStack() as stack:
        if folders.coordination_is_own:
            remove_abandoned(folders.coordination.parent.glob(f"{_OWN_PREFIX}*"))
            stack.callback(shutil.rmtree, folders.coordination, ignore_errors=True)
        parts = _parts(settings, plan, folders, options, session, stack)
        # Only now, when nothing is left that could be refused, what an earlier run wrote is removed.
        record.open(resumes=options.resumes)
        record.save_state({"plan": plan.document(), "sessions": [*continuation.sessions, session]})
        for doubt in doubts:
            record.say("WARN", doubt)
        yield RunSoak(plan, gauge=ProcGauge(), record=record, session=session, continuation=continuation, **parts)


def _continued(record: OutputFolder) -> tuple[SoakPlan, Continuation]:
    """What was interrupted, with its own plan. Raises `ConfigurationError` where there is nothing to go on from."""
    state = record.state()
    rows: list[Mapping[str, JsonValue]] = []
    for row in record.rows():
        # Whatever was appended by hand, the run goes on after the last cycle up to which all are there.
        if row.get("cycle") == len(rows) + 1:
            rows.append(row)
    sessions = state.get("sessions")
    found = state.get("plan")
    if not (isinstance(sessions, list) and sessions and isinstance(found, dict) and found):
        raise ConfigurationError(
            variable="--resume",
            problem="what was saved is no state of a soak",
            remedy="Start a new one, without --resume.",
        )
    return SoakPlan.from_document(found), Continuation(rows, [str(session) for session in sessions])


def _parts(
    settings: Settings,
    plan: SoakPlan,
    folders: SoakFolders,
    options: SoakOptions,
    session: str,
    stack: AsyncExitStack,
) -> dict[str, Any]:
    """Host and post by the transport."""
    from infrastructure.soak.forked_agents import ForkedAgents
    from infrastructure.soak.output_folder import ERRORS

    errors = folders.output / ERRORS
    if plan.transport == "files":
        from infrastructure.soak.coordination_folder import CoordinationFolder
        from infrastructure.soak.file_post import FilePost

        packing = _packing(folders.output, options)
        post = FilePost(
            CoordinationFolder(folders.coordination), session=session, envelope=_envelope(packing), polls=options.polls
        )
        configuration = {
            "transport": "files",
            "folder": str(folders.coordination),
            "messages": post.messages_path,
            "polls": post.polls,
            **packing,
        }
        return {"post": post, "host": ForkedAgents(configuration, light=not options.encrypts, errors=errors)}
    from infrastructure.soak.bus_post import BusPost

    if options.compresses or options.encrypts:
        raise ConfigurationError(
            variable="--compress and --encrypt",
            problem=f"they are for files, and the transport is {plan.transport!r}",
            remedy="Leave them out.",
        )
    name = f"soak-{session}"
    bus_folder = folders.coordination / f"bus-{session}"
    if plan.transport == "file":
        folders.coordination.mkdir(mode=0o700, parents=True, exist_ok=True)
        stack.callback(shutil.rmtree, bus_folder, ignore_errors=True)
    bus = make_bus(settings, plan.transport, name=name, folder=bus_folder)
    return {
        "post": BusPost(bus),
        "host": _bus_host(settings, plan, bus, name, bus_folder, errors),
        "bus_stats": bus.stats,
    }


def _bus_host(settings: Settings, plan: SoakPlan, bus: MessageBus, name: str, bus_folder: Path, errors: Path) -> Any:
    from infrastructure.soak.forked_agents import ForkedAgents
    from infrastructure.soak.task_agents import TaskAgents

    if plan.transport == "memory":
        return TaskAgents(bus)
    configuration = {
        "transport": plan.transport,
        "name": name,
        "bus_folder": str(bus_folder),
        "url": settings.redis_url,
    }
    return ForkedAgents(configuration, light=False, errors=errors)


def _packing(output: Path, options: SoakOptions) -> dict[str, Any]:
    """What the agents have to know to pack and unpack; the key never stands on a command line."""
    packing: dict[str, Any] = {"compress": options.compresses}
    if options.encrypts:
        packing["key"] = _key_in(output / _KEY_FILE).hex()
    return packing


def _envelope(packing: Mapping[str, Any]) -> Envelope | None:
    from infrastructure.soak.envelope import envelope_of

    return envelope_of(dict(packing))


def _key_in(path: Path) -> bytes:
    """The key in that file, which is made where there is none. Raises `ConfigurationError`."""
    from infrastructure.soak.sealing import KEY_BYTES

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            return _read_key(path)
        key = secrets.token_bytes(KEY_BYTES)
        with os.fdopen(file, "w") as opened:
            opened.write(key.hex() + "\n")
        return key
    except OSError as error:
        raise _bad_key(path, error.strerror or "cannot be read") from error


def _read_key(path: Path) -> bytes:
    from infrastructure.soak.sealing import KEY_BYTES

    try:
        with path.open("rb") as file:
            key = bytes.fromhex(file.read(_MOST_KEY_BYTES).decode("ascii").strip())
    except OSError as error:
        raise _bad_key(path, error.strerror or "cannot be read") from error
    except ValueError as error:
        raise _bad_key(path, "holds no hex digits") from error
    if len(key) != KEY_BYTES:
        raise _bad_key(path, f"holds {len(key)} bytes, not {KEY_BYTES}")
    return key


def _bad_key(path: Path, problem: str) -> ConfigurationError:
    return ConfigurationError(
        variable="the key file",
        problem=f"{str(path)!r} {problem}",
        remedy="Remove it, and the next run with --encrypt makes a new one.",
    )


def _want_free_name(folder: Path, agent: str) -> None:
    """Refuse the name of an agent that lives: both would answer each message."""
    from infrastructure.soak.process_gauge import is_alive

    try:
        with (folder / "status" / f"agent-{agent}-status.json").open("rb") as file:
            found = json.loads(file.read(_MOST_STATUS_BYTES))
        pid, ready = int(found["pid"]), found["status"] == "ready"
    except (OSError, ValueError, KeyError, TypeError):
        return
    if ready and pid > 0 and is_alive(pid):
        raise ConfigurationError(
            variable="--id", problem=f"{agent!r} is the living process {pid}", remedy="Take a name that nobody has."
        )


def become_soak_agent(
    agent: str, *, coordination: Path | None, compresses: bool = False, key_file: Path | None = None
) -> NoReturn:
    """Turn this process into one agent, as small as those of a run. Raises `ConfigurationError`."""
    from infrastructure.soak import alone

    if not is_agent_id(agent):
        raise ConfigurationError(
            variable="--id",
            problem=f"{agent!r} names no agent",
            remedy="Take up to 64 letters, digits, '.', '_' and '-'; the first is a letter or a digit.",
        )
    folder = (coordination or _COORDINATION).absolute()
    if folder.is_symlink():
        raise ConfigurationError(
            variable="--coord-dir", problem=f"{str(folder)!r} is a link", remedy="Give the folder itself."
        )
    _want_free_name(folder, agent)
    words = [str(folder), agent]
    words += ["--compress"] if compresses else []
    if key_file is not None:
        _read_key(key_file)
        words += ["--key-file", str(key_file.absolute())]
    light = ["-S"] if key_file is None else []
    os.execv(sys.executable, [sys.executable, "-I", *light, str(Path(alone.__file__).resolve()), *words])  # noqa: S606 - ourselves
