"""Populations whose agents act by inference: the same however they are carried, and resumed without a call made twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domain.errors.population import InvalidPopulationError
from infrastructure.population.columns import on_grid
from infrastructure.population.local_engine import LocalEngine
from infrastructure.population.memory_plan import plan_memory
from infrastructure.population.snapshots import Snapshots
from tests.llm_server.handle import LlmServer
from tests.patience import eventually
from tests.population.asking import minds_over
from tests.population.runs import resumed, run_in
from tests.population.towns import opinions_of, specification, ticked, town

ENGINES = ["policy", *(["torch"] if find_spec("torch") else [])]
BEHAVIOURS = ("bounded_confidence", "degroot", "voter", "threshold")


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
@pytest.mark.parametrize("graph", ["random", "scale_free", "mixed"])
def test_who_infers_does_not_see_how_it_is_carried(tmp_path: Path, behaviour: str, graph: str) -> None:
    hashes = set()
    for shards, kernel, workers, engine in (
        (1, "numpy", "threads", "policy"),
        (7, "auto", "threads", ENGINES[-1]),
        (24, "numpy", "processes", "policy"),
    ):
        spec = specification(
            agents=950,
            shards=shards,
            kernel=kernel,
            workers=workers,
            behaviour=behaviour,
            graph=graph,
            inference=engine,
        )
        with town(tmp_path, spec) as opened:
            for outcome in ticked(opened, 4):
                assert outcome.sent == outcome.delivered
            assert outcome.opinion_sum == int(on_grid(opinions_of(opened)).sum())
            hashes.add(opened.state_hash())
    assert len(hashes) == 1


def test_what_is_inferred_moves_opinions_within_the_bound(tmp_path: Path) -> None:
    weights = tmp_path / "always.npz"
    np.savez(weights, w1=np.zeros((8, 1)), b1=np.array([0.5]))
    spec = specification(
        inference="policy", inference_weights=str(weights), susceptibility=0.5, bound=0.0, activity=0.0
    )
    with town(tmp_path, spec) as engine:
        before = opinions_of(engine)
        engine.columns.bound[:150] = 0.2
        engine.refresh()
        ticked(engine, 1)
        after = opinions_of(engine)
    assert after[:150] == pytest.approx(np.minimum(1.0, before[:150] + 0.5 * 0.5 * 0.2))
    assert (after[150:] == before[150:]).all()


def test_so_many_as_are_asked_for_ask_in_a_tick_and_others_do_in_the_next(tmp_path: Path) -> None:
    weights = tmp_path / "always.npz"
    np.savez(weights, w1=np.zeros((8, 1)), b1=np.array([1.0]))
    spec = specification(
        inference="policy", inference_weights=str(weights), inference_agents=20, activity=0.0, bound=0.5
    )
    with town(tmp_path, spec) as engine:
        moved = []
        for _ in range(2):
            before = opinions_of(engine)
            ticked(engine, 1)
            moved.append(set(np.flatnonzero(opinions_of(engine) != before).tolist()))
    assert [len(rows) for rows in moved] == [20, 20]
    assert moved[0] != moved[1]


def test_between_paced_ticks_it_infers_what_will_be_asked(tmp_path: Path) -> None:
    spec = specification(agents=2_000, inference="policy", tick_interval_s=1.0, behaviour="voter", susceptibility=0.1)
    with town(tmp_path, spec) as engine:
        for number in range(1, 4):
            engine.tick(number)
            (acting,) = (one for one in engine._attached if one.name == "inference")
            for guess in _guesses_of(acting):
                guess.result()
        report: Any = engine.measures().attached["inference"]
        paced = engine.state_hash()
    assert report["prefetched"] > 0
    assert report["foreseen"] > report["prefetched"] // 10
    with town(
        tmp_path, specification(agents=2_000, inference="policy", behaviour="voter", susceptibility=0.1)
    ) as engine:
        ticked(engine, 3)
        assert engine.state_hash() == paced
        at_once: Any = engine.measures().attached["inference"]
    assert at_once["prefetched"] == 0
    assert report["inferred"] - report["prefetched"] < at_once["inferred"]


def _guesses_of(acting: Any) -> list[Any]:
    acting._foreseeing.result()
    return list(acting._guesses)


async def test_a_resumed_population_that_infers_comes_to_the_same_end(tmp_path: Path) -> None:
    spec = specification(inference="policy", ticks=20, snapshot_ticks=6)
    whole = await run_in(tmp_path / "whole", spec)
    with pytest.raises(ZeroDivisionError):
        await run_in(tmp_path / "cut", spec, wrap=lambda engine: _Ending(engine, at=15))
    again = await resumed(tmp_path / "cut")
    assert again.result["state_hash"] == whole.result["state_hash"]
    other = await run_in(tmp_path / "other", specification(ticks=20, snapshot_ticks=6))
    assert other.result["state_hash"] != whole.result["state_hash"]


class _Ending:
    def __init__(self, engine: Any, *, at: int) -> None:
        self._engine, self._at = engine, at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def tick(self, number: int) -> Any:
        outcome = self._engine.tick(number)
        return outcome if number != self._at else 1 // 0


def test_a_model_of_text_is_asked_for_a_few_agents_and_never_twice_for_the_same(
    tmp_path: Path, llm_server: LlmServer
) -> None:
    llm_server.configure(record_bodies=True)
    # All hold one of two opinions, so that there is little to ask.
    spec = specification(inference="openai", ask_deadline_s=60.0, activity=0.0, bound=0.0)
    engine = LocalEngine(spec, snapshots=Snapshots(tmp_path), folder=tmp_path, minds=minds_over(llm_server))
    try:
        engine.columns.opinion[0] = np.where(np.arange(300) % 2, 0.25, 0.75)
        engine.refresh()
        ticked(engine, 3)
        report: Any = engine.measures().attached["inference"]
    finally:
        engine.close()
    calls = [entry for entry in llm_server.journal() if entry["counted"]]
    assert report["rows"] == 24
    assert len(calls) == report["calls"] == report["inferred"] <= 4
    assert {entry["body"]["max_tokens"] for entry in calls} == {256}
    assert len({entry["prompt_sha256"] for entry in calls}) == len(calls)
    assert report["outcomes"] == {"answered": len(calls)}
    assert report["engine"] == "openai"


def test_a_model_of_text_moves_its_agents_towards_what_it_answers(tmp_path: Path, llm_server: LlmServer) -> None:
    llm_server.configure(answer_weights={"1.0": 1})
    spec = specification(
        inference="openai", inference_agents=5, ask_deadline_s=60.0, activity=0.0, bound=0.5, susceptibility=0.5
    )
    engine = LocalEngine(spec, snapshots=Snapshots(tmp_path), folder=tmp_path, minds=minds_over(llm_server))
    try:
        before = opinions_of(engine)
        ticked(engine, 1)
        after = opinions_of(engine)
    finally:
        engine.close()
    moved = np.flatnonzero(after != before)
    assert moved.size == 5
    assert after[moved] == pytest.approx(before[moved] + (1.0 - before[moved]) * 0.25, abs=0.25 / 64)


def _command(*words: str, folder: Path, server: LlmServer, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "api.cli.main", "population", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "CONCLAVE_DATA_DIR": str(folder / "data"),
            "CONCLAVE_LLM_BASE_URL": server.base_url,
            "CONCLAVE_LLM_MODEL": "test-model",
            **environment,
        },
        cwd=folder,
    )


def _ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    found: dict[str, Any] = json.loads(out)
    return found


def _prompts(server: LlmServer) -> Counter[str]:
    return Counter(entry["prompt_sha256"] for entry in server.journal() if entry["counted"])


RUN = ("run", "--agents=300", "--ticks=12", "--kernel=numpy", "--snapshot-every=4", "--ask-deadline=60", "--json")


def test_a_population_killed_between_calls_is_resumed_to_the_same_end_without_a_call_made_twice(
    tmp_path: Path, llm_server: LlmServer
) -> None:
    words = (
        *RUN,
        "--behaviour=tests.population.minds:Deadly",
        "--inference=openai",
        "--inference-agents=3",
        "--thinkers=4",
        "--think-every=2",
    )
    spec = specification(
        ticks=12,
        shards=0,
        behaviour="tests.population.minds:Deadly",
        inference="openai",
        inference_agents=3,
        thinkers=4,
        think_every=2,
        ask_deadline_s=60.0,
    )
    engine = LocalEngine(spec, snapshots=Snapshots(tmp_path), minds=minds_over(llm_server))
    ticked(engine, 12)
    whole = engine.state_hash()
    engine.close()
    prompts = _prompts(llm_server)
    llm_server.reset()

    killed = _command(*words, "--out=cut", folder=tmp_path, server=llm_server, DEADLY="7")
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    until_then = _prompts(llm_server)
    again = _ended(_command("resume", "cut", "--json", folder=tmp_path, server=llm_server))

    assert again["state_hash"] == whole
    assert 0 < until_then.total() < prompts.total()
    assert _prompts(llm_server) == prompts


def test_a_call_that_was_under_way_at_the_kill_is_not_paid_for_again(tmp_path: Path, llm_server: LlmServer) -> None:
    llm_server.configure(faults=[{"fault": "hold", "nth": 10}])
    killed = _command(*RUN, "--thinkers=4", "--think-every=2", "--out=cut", folder=tmp_path, server=llm_server)
    llm_server.wait_until(held_at_least=1, timeout_seconds=60)
    record, snapshots = tmp_path / "cut" / "thoughts.jsonl", Snapshots(tmp_path / "cut" / "snapshots")
    eventually(lambda: record.read_text().count('"outcome"') == 11 and snapshots.ticks() == [4])
    killed.kill()
    killed.communicate(timeout=60)

    again = _ended(_command("resume", "cut", "--json", folder=tmp_path, server=llm_server))

    # Six turns of four agents, each asked once.
    assert llm_server.stats()["requests"] == 24
    call = again["thinking"]["roll_call"]
    assert (call["answered"], call["cancelled"]) == (15, 1)
    assert again["thinking"]["calls_of_unknown_cost"] == 1


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"inference": "mine"}, "/inference"),
        ({"inference": "openai", "inference_agents": 1_001}, "/inference_agents"),
        ({"inference_weights": "x.npz"}, "/inference_weights"),
        ({"thinkers": 1_001, "agents": 5_000}, "/thinkers"),
        ({"thinkers": 301}, "/thinkers"),
        ({"thinker": "nobody"}, "/thinker"),
        ({"thinker": "roster/../x"}, "/thinker"),
        ({"think_every": 0}, "/think_every"),
        ({"ask_deadline_s": 0}, "/ask_deadline_s"),
        ({"ask_deadline_s": float("nan")}, "/ask_deadline_s"),
        ({"topic": " "}, "/topic"),
        ({"notes": "both"}, "/notes"),
    ],
)
def test_what_cannot_think_is_refused_with_its_field(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidPopulationError) as caught:
        specification(**given)
    assert field in [problem.pointer for problem in caught.value.problems]


def test_room_for_inference_is_planned() -> None:
    plain, policy, torch = (
        plan_memory(specification(agents=1_000_000, inference=kind), shards=2, workers=2, batch=10_000).needed_bytes
        for kind in ("none", "policy", "torch")
    )
    assert policy - plain > 20_000_000
    assert torch - policy > 500_000_000
