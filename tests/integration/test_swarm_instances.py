"""A swarm spread over processes: it counts everyone whoever they live with, takes in who comes later, and misses whoever is killed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from api.bootstrap.swarm import Place, join_swarm
from application.services.stop_signal import StopSignal
from application.services.swarm.coordinator import Liveness
from application.services.swarm.faults import FaultyTask
from application.services.swarm.swarm import ProcessUsage
from domain.errors.dependency import DependencyUnavailableError
from domain.models.deliberation import DeliberationStatus
from domain.models.run import JsonValue
from domain.models.swarm import Coin
from tests.servers.redis import RedisServer
from tests.swarm.runs import Notes, left_by, swarm

PATIENCE_S = 60.0
BETWEEN_PROCESSES = ("redis", "file", "shm")

# The first other process that begins is killed by SIGKILL, with all its agents in the middle of what they do.
VICTIM = """
import asyncio, os, signal
from pathlib import Path

FOLDER = Path({folder!r})

async def work(number):
    if os.getpid() != {roles}:
        try:
            (FOLDER / "victim").touch(exist_ok=False)
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    return number
"""
# Agents of the process of the roles wait until somebody elsewhere has acted.
WAITING = """
import asyncio, os

gate = asyncio.Event()

async def work(number):
    if os.getpid() == {roles}:
        await gate.wait()
    return os.getpid()
"""
# Whoever is not the process of the roles dies while it acts.
DYING = """
import asyncio, os, signal

gate = asyncio.Event()

async def work(number):
    if os.getpid() != {roles}:
        os.kill(os.getpid(), signal.SIGKILL)
    await gate.wait()
    return number
"""


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """An empty Redis that does not sync every write: durability is not what is looked at here."""
    if not redis_server.running:
        redis_server.start()
    redis_server.flush()
    redis_server.command("CONFIG", "SET", "appendfsync", "no")
    return redis_server.url()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder whose modules this process and the others find."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def written(folder: Path, text: str) -> str:
    name = "swarm_work_" + folder.name.replace("-", "_")
    (folder / f"{name}.py").write_text(text.format(folder=str(folder), roles=os.getpid()))
    return name


class Narrow(FaultyTask):
    """Few agents act at once, so that there is work left for whoever comes later."""

    slots = 4


@pytest.mark.parametrize("transport", BETWEEN_PROCESSES)
async def test_agents_spread_over_processes_flip_as_in_one(transport: str, folder: Path, redis_url: str) -> None:
    ending = await swarm(folder, transport=transport, instances=3, seed=7, redis_url=redis_url)
    left = left_by(ending)
    assert (left.metrics["received"], left.metrics["instances"], left.metrics["duplicates"]) == (128, 3, 0)
    assert [flip["result"] for flip in left.vault["flips"]] == [Coin(7, number).flip() for number in range(1, 129)]
    assert {trace.get("tool") for trace in left.traces if trace["type"] == "coin_result"} == {
        "tool",
        "tool-2",
        "tool-3",
    }
    assert left.metrics["gone"] == []
    for facts in left.metrics["joined"].values():
        assert not _lives(facts["pid"])


@pytest.mark.parametrize("transport", BETWEEN_PROCESSES)
async def test_a_killed_process_is_named_and_its_agents_are_asked_elsewhere(
    transport: str, folder: Path, redis_url: str
) -> None:
    name = written(folder, VICTIM)
    ending = await swarm(folder, transport=transport, instances=4, agents=40, task=f"{name}:work", redis_url=redis_url)
    assert ending.status is DeliberationStatus.COMPLETED
    assert (ending.result["received"], ending.result["lost"]) == (40, 0)
    gone: Any = ending.result["gone"]
    assert len(gone) == 1
    failures: Any = ending.result["failures"]
    # A tenth of all, or nearly: those that the process had when it died.
    assert 4 <= len(failures) <= 12
    assert {(each["kind"], each["counted"]) for each in failures} == {("gone", True)}
    assert all(f"{gone[0]} is gone" in each["message"] and "SIGKILL" in each["message"] for each in failures)
    assert ending.result["retried_batches"] == len({each["batch"] for each in failures})
    left = left_by(ending)
    assert sorted(each["result"] for each in left.vault["results"]) == list(range(1, 41))


async def _joining(place: Place, task: str) -> asyncio.subprocess.Process:
    """`conclave swarm join` in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import sys; from api.cli.main import execute; sys.exit(execute(sys.argv[1:]))",
        *("swarm", "join", "--url", place.url or place.shown, "--session", place.session, "--task", task, "--json"),
        stdout=asyncio.subprocess.PIPE,
        env=environment,
    )


@pytest.mark.parametrize("transport", BETWEEN_PROCESSES)
async def test_who_joins_in_the_middle_gets_work(transport: str, folder: Path, redis_url: str) -> None:
    name = written(folder, WAITING)
    joined: list[asyncio.Task[asyncio.subprocess.Process]] = []
    places: list[Place] = []

    def meddle(type: str, data: Mapping[str, JsonValue]) -> None:  # noqa: A002
        if type == "swarm.progress" and data["in_flight"] and not joined:
            joined.append(asyncio.create_task(_joining(places[0], f"{name}:work")))
        if type == "swarm.progress" and data["received"]:
            sys.modules[name].gate.set()

    async with asyncio.timeout(PATIENCE_S):
        ending = await swarm(
            folder,
            transport=transport,
            agents=32,
            task=f"{name}:work",
            redis_url=redis_url,
            observer=Notes(meddle),
            announce=places.append,
            wrap_task=Narrow,
        )
        process = await joined[0]
        out, _ = await process.communicate()
    found = json.loads(out)
    results = [each["result"] for each in left_by(ending).vault["results"]]
    assert ending.result["received"] == 32
    assert set(results) == {os.getpid(), process.pid}
    assert (found["ended_by"], found["performed"]) == ("session_ended", results.count(process.pid))
    assert process.returncode == 0


async def test_the_death_of_one_that_joined_is_seen_by_its_silence(folder: Path, redis_url: str) -> None:
    name = written(folder, DYING)
    joined: list[asyncio.Task[asyncio.subprocess.Process]] = []
    places: list[Place] = []

    def meddle(type: str, data: Mapping[str, JsonValue]) -> None:  # noqa: A002
        if type == "swarm.progress" and data["in_flight"] and not joined:
            joined.append(asyncio.create_task(_joining(places[0], f"{name}:work")))
        if type == "swarm.instance_gone":
            sys.modules[name].gate.set()

    async with asyncio.timeout(PATIENCE_S):
        ending = await swarm(
            folder,
            transport="redis",
            agents=16,
            task=f"{name}:work",
            redis_url=redis_url,
            observer=Notes(meddle),
            announce=places.append,
            liveness=Liveness(beat_s=0.1, dead_after_s=1.0),
            wrap_task=Narrow,
        )
        process = await joined[0]
        await process.communicate()
    assert process.returncode == -9
    failures: Any = ending.result["failures"]
    assert (ending.result["received"], len(failures)) == (16, 12)
    assert {each["kind"] for each in failures} == {"gone"}
    assert all("silent for 1 s" in each["message"] for each in failures)


async def test_whoever_looks_for_a_session_that_is_not_there_is_told(redis_url: str) -> None:
    with pytest.raises(DependencyUnavailableError, match="session 'nowhere'"):
        await join_swarm(Place("redis", "nowhere", url=redis_url), StopSignal(), patience_s=0.1)


async def test_an_instance_ends_when_its_coordinator_does(folder: Path, redis_url: str) -> None:
    """The process of the roles is killed: what it started ends at once, and who joined it notices."""
    script = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from application.services.swarm.coordinator import Liveness\n"
        "from application.services.swarm.faults import FaultyTask\n"
        "from tests.swarm.runs import Notes, swarm\n"
        "def note(type, data):\n"
        "    if type == 'swarm.instance_ready':\n"
        "        print(data['text'], flush=True)\n"
        "asyncio.run(swarm(Path(sys.argv[1]), transport='redis', redis_url=sys.argv[2], instances=2, session='orphan',\n"
        "    observer=Notes(note), liveness=Liveness(beat_s=0.05), wrap_task=lambda task: FaultyTask(task, silent={1, 2})))\n"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(root), str(root / "src")))}
    async with asyncio.timeout(PATIENCE_S):
        roles = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, str(folder), redis_url, stdout=asyncio.subprocess.PIPE, env=environment
        )
        assert roles.stdout is not None
        started = (await roles.stdout.readline()).decode()
        assert started.startswith("tool-2 is ready (pid ")
        pid = int(started.split("(pid ")[1].split()[0])
        descriptor = os.pidfd_open(pid)
        gone = asyncio.Event()
        asyncio.get_running_loop().add_reader(descriptor, gone.set)
        joiner = asyncio.create_task(join_swarm(Place("redis", "orphan", url=redis_url), StopSignal()))
        assert b"is ready (pid " in await roles.stdout.readline()
        roles.kill()
        await roles.communicate()
        await gone.wait()
        found = await joiner
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
    assert found["ended_by"] == "coordinator_gone"


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_usage_is_what_the_kernel_says() -> None:
    from infrastructure.swarm.process_usage import cores, process_usage

    before = process_usage()
    assert sum(range(200_000)) > 0
    after = process_usage()
    assert isinstance(after, ProcessUsage)
    assert after.cpu_s > before.cpu_s
    assert after.peak_rss_bytes >= before.peak_rss_bytes > 1_000_000
    assert cores() >= 1
