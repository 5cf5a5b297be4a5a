"""Tasks other than coins: functions of the operator's own, one file an agent, and a question to the members of a deliberation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from api.bootstrap import Purpose, open_conclave
from api.bootstrap.swarm import Place, join_swarm, place_of, swarm_items
from application.services.stop_signal import StopReason, StopSignal
from application.services.swarm.faults import FaultyTask
from domain.errors.configuration import ConfigurationError
from domain.models.deliberation import DeliberationStatus
from infrastructure.settings import load_settings
from tests.swarm.runs import Notes, left_by, swarm

Module = Callable[[str], str]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Module:
    """Writes a module that Python finds in the working folder; its name."""
    folder = tmp_path / "code"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    numbers = count()

    def write(text: str) -> str:
        name = f"swarm_work_{tmp_path.name.replace('-', '_')}_{next(numbers)}"
        (folder / f"{name}.py").write_text(text)
        return name

    return write


async def test_without_items_a_function_gets_the_agents_number(module: Module, tmp_path: Path) -> None:
    name = module("def square(number):\n    return {'square': number * number}\n")
    ending = await swarm(tmp_path, task=f"{name}:square", agents=10)
    left = left_by(ending)
    assert left.vault["results"] == [{"agent_id": f"agent-{n}", "result": {"square": n * n}} for n in range(1, 11)]
    assert (left.metrics["heads"], left.metrics["split_p_value"], left.metrics["received"]) == (None, None, 10)


async def test_with_items_each_agent_gets_one_file(module: Module, tmp_path: Path) -> None:
    items = tmp_path / "items"
    items.mkdir()
    for number in (1, 2, 10):
        (items / f"{number}.txt").write_text("word " * number)
    (items / ".hidden").write_text("not an item")
    (items / "folder").mkdir()
    (items / "link").symlink_to(items / "1.txt")
    assert swarm_items(items) == ("1.txt", "2.txt", "10.txt")
    name = module("def words(path):\n    return [path.name, len(path.read_text().split())]\n")
    left = left_by(await swarm(tmp_path, task=f"{name}:words", agents=3, items=items))
    assert [each["result"] for each in left.vault["results"]] == [["1.txt", 1], ["2.txt", 2], ["10.txt", 10]]


async def test_an_async_function_runs_in_the_loop(module: Module, tmp_path: Path) -> None:
    name = module("import asyncio\nasync def work(number):\n    await asyncio.sleep(0)\n    return number\n")
    ending = await swarm(tmp_path, task=f"{name}:work", agents=300)
    assert ending.result["received"] == 300


async def test_no_more_agents_act_at_once_than_there_are_slots(module: Module, tmp_path: Path) -> None:
    name = module(
        "import asyncio\nnow = most = 0\nasync def work(number):\n    global now, most\n    now += 1\n"
        "    most = max(most, now)\n    await asyncio.sleep(0)\n    now -= 1\n    return most\n"
    )

    class Narrow(FaultyTask):
        slots = 8

    ending = await swarm(tmp_path, task=f"{name}:work", agents=50, wrap_task=Narrow)
    assert ending.result["received"] == 50
    assert max(each["result"] for each in left_by(ending).vault["results"]) == 8
    assert ending.result["parallelism"] == 8


async def test_a_function_that_raises_fails_its_agent_by_name_after_a_retry(module: Module, tmp_path: Path) -> None:
    name = module(
        "calls = []\ndef work(number):\n    calls.append(number)\n    if number == 3:\n        raise ValueError('three')\n"
        "    if number == 4:\n        raise SystemExit(1)\n    return calls.count(number)\n"
    )
    ending = await swarm(tmp_path, task=f"{name}:work", agents=8)
    failures: Any = ending.result["failures"]
    assert [(each["agent_id"], each["message"], each["attempts"]) for each in failures] == [
        ("agent-3", "ValueError: three", 2),
        ("agent-4", "RuntimeError: SystemExit: 1", 2),
    ]
    assert ending.result["received"] == 6
    assert {each["result"] for each in left_by(ending).vault["results"]} == {1}


@pytest.mark.parametrize(
    ("text", "function", "problem"),
    [
        (None, "work", "cannot be imported"),
        ("raise RuntimeError('at import')\n", "work", "RuntimeError: at import"),
        ("def broken(:\n", "work", "SyntaxError"),
        ("work = 7\n", "work", "has no function 'work'"),
        ("import os\n", "nothing", "has no function 'nothing'"),
    ],
)
async def test_a_task_that_cannot_be_run_is_said_before_anything_begins(
    text: str | None, function: str, problem: str, module: Module, tmp_path: Path
) -> None:
    name = "swarm_work_that_is_not_there" if text is None else module(text)
    with pytest.raises(ConfigurationError, match=problem):
        await swarm(tmp_path, task=f"{name}:{function}", agents=4)
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("kind", ["missing", "empty", "file"])
def test_a_folder_without_items_is_said(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "items"
    if kind == "empty":
        folder.mkdir()
    elif kind == "file":
        folder.write_text("x")
    with pytest.raises(ConfigurationError, match="--items"):
        swarm_items(folder)


async def test_a_question_is_one_deliberation_with_one_call_for_each_member(tmp_path: Path) -> None:
    ending = await swarm(tmp_path, task="question", question="Should the city centre be closed?", agents=12, seed=5)
    assert ending.status is DeliberationStatus.COMPLETED
    left = left_by(ending)
    assert (left.metrics["received"], left.metrics["simulated"]) == (12, True)
    assert all(each["result"]["state"] in {"answered", "abstained"} for each in left.vault["results"])
    settings = load_settings({"CONCLAVE_DATA_DIR": str(tmp_path / "data")}, env_file=None)
    async with open_conclave(settings, purpose=Purpose.READ) as conclave:
        found = await conclave.deliberations.get(left.metrics["deliberation_id"])
        assert found.status is DeliberationStatus.COMPLETED
        assert found.usage.calls == 12
        # What the swarm has is what was committed.
        outputs = {each.record.agent_id: each.record.answer for each in await conclave.outputs.outputs(found.id)}
    assert {each["result"]["member"]: each["result"]["answer"] for each in left.vault["results"]} == outputs


async def test_a_question_that_is_cancelled_cancels_its_deliberation(tmp_path: Path) -> None:
    stop = StopSignal()

    def end(type: str, data: Any) -> None:  # noqa: A002
        if type == "swarm.started":
            stop.set(StopReason.CANCELLED)

    ending = await swarm(tmp_path, task="question", question="Shall we?", agents=4, stop=stop, observer=Notes(end))
    assert ending.status is DeliberationStatus.CANCELLED
    settings = load_settings({"CONCLAVE_DATA_DIR": str(tmp_path / "data")}, env_file=None)
    async with open_conclave(settings, purpose=Purpose.READ) as conclave:
        page = await conclave.deliberations.page(status=None, key_name=None, limit=10, cursor=None)
    assert len(page.items) <= 1
    assert all(item.status.is_terminal for item in page.items)


async def test_an_instance_runs_no_function_that_its_own_command_did_not_name(module: Module, tmp_path: Path) -> None:
    name = module("import asyncio\nasync def work(number):\n    await asyncio.Event().wait()\n")
    refused: list[str] = []
    stop = StopSignal()
    places: list[Place] = []

    async def join_without_leave() -> None:
        for task in (None, "os:getcwd"):
            try:
                await join_swarm(places[0], StopSignal(), task=task)
            except ConfigurationError as error:
                refused.append(str(error))
        stop.set(StopReason.CANCELLED)

    tasks: list[asyncio.Task[None]] = []

    def meddle(type: str, data: Any) -> None:  # noqa: A002
        if type == "swarm.started":
            tasks.append(asyncio.create_task(join_without_leave()))

    await swarm(
        tmp_path,
        task=f"{name}:work",
        agents=4,
        transport="file",
        stop=stop,
        observer=Notes(meddle),
        announce=places.append,
    )
    assert len(refused) == 2
    assert all(f"--task {name}:work" in text for text in refused)


@pytest.mark.parametrize("url", ["", "http://host", "memory://", "file://relative/path", "redis:host"])
def test_an_address_that_is_no_bus_is_said(url: str) -> None:
    with pytest.raises(ConfigurationError, match="--url"):
        place_of(url, "s")


def test_a_place_is_shown_without_its_password_and_found_again() -> None:
    place = place_of("redis://user:secret@host:6379/2", "s")
    assert place.shown == "redis://***@host:6379/2"
    assert place_of(Place("file", "s", folder="/dev/shm/x").shown, "s") == Place("file", "s", folder="/dev/shm/x")  # noqa: S108
    assert place_of(Place("shm", "s").shown, "s").bus_name == Place("shm", "s").bus_name


def test_metrics_of_a_swarm_are_json_without_surprises(tmp_path: Path) -> None:
    # NaN and infinity are no JSON; a store that lets them through would be found out by every other reader.
    from infrastructure.swarm.session_folder import SessionFolder

    store = SessionFolder(tmp_path, "s")
    store.open()
    with pytest.raises(ValueError, match="JSON"):
        store.replace("metrics.json", {"a": float("nan")})
    assert not (store.place / "metrics.json").exists()
    assert store.replace("metrics.json", {"a": 1}) == (store.place / "metrics.json").stat().st_size
    assert json.loads((store.place / "metrics.json").read_text()) == {"a": 1}
