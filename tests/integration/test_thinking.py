"""Agents that think: each asked once a turn, each with one outcome, and nobody's failure holding up the others."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domain.errors.population import DamagedRecordError, InvalidPopulationError
from domain.models.population import PopulationSpecification
from infrastructure.population.columns import on_grid
from infrastructure.population.local_engine import LocalEngine
from infrastructure.population.population_folder import PopulationFolder
from infrastructure.population.snapshots import Snapshots
from infrastructure.population.thinking.answer_record import AnswerRecord
from infrastructure.population.thinking.minds import Minds
from infrastructure.population.thinking.situation import Situation
from tests.llm_server.handle import LlmServer
from tests.population import thinkers
from tests.population.asking import minds_over
from tests.population.towns import opinions_of, specification, ticked

THINKERS = "tests.population.thinkers"
# Nothing in these tests is waited for that long unless something is wrong.
LONG_S = 60.0


def thinking(**given: Any) -> PopulationSpecification:
    return specification(
        **{"thinkers": 6, "think_every": 2, "ask_deadline_s": LONG_S, "susceptibility": 0.0, "shards": 1, **given}
    )


class Town:
    """An engine in a folder, and what is recorded there."""

    def __init__(self, folder: Path, spec: PopulationSpecification, minds: Minds | None = None, tick: int = 0) -> None:
        folder.mkdir(exist_ok=True)
        self.engine = LocalEngine(
            spec, snapshots=Snapshots(folder / "snapshots"), tick=tick, folder=folder, minds=minds
        )

    def __enter__(self) -> LocalEngine:
        return self.engine

    def __exit__(self, *_: object) -> None:
        self.engine.close()

    @property
    def report(self) -> dict[str, Any]:
        return dict(self.engine.measures().attached["thinking"])  # type: ignore[arg-type]


def recorded(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "thoughts.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if "outcome" in line]


def test_what_a_function_answers_stands_in_the_row_of_its_agent(tmp_path: Path) -> None:
    with Town(tmp_path, thinking(thinker=f"{THINKERS}:halved")) as engine:
        before = opinions_of(engine)
        ticked(engine, 1)
        assert (opinions_of(engine) == before).all()
        (outcome,) = ticked(engine, 1)
        after = opinions_of(engine)
        assert outcome.opinion_sum == int(on_grid(after).sum())
    rows = np.arange(0, 300, 50)
    assert after[rows] == pytest.approx(before[rows] / 2)
    others = np.setdiff1d(np.arange(300), rows)
    assert (after[others] == before[others]).all()


def test_an_object_of_its_own_thinks_for_each_agent(tmp_path: Path) -> None:
    with Town(tmp_path, thinking(thinker=f"{THINKERS}:Counting", think_every=1)) as engine:
        ticked(engine, 3)
        assert opinions_of(engine)[::50] == pytest.approx(0.03)


def test_a_callable_of_python_and_a_coroutine_think_as_well(tmp_path: Path) -> None:
    spec = thinking(thinker="callable", think_every=1)
    with Town(tmp_path / "a", spec, Minds(think=lambda situation: 0.125)) as engine:
        ticked(engine, 1)
        assert opinions_of(engine)[::50].tolist() == [0.125] * 6
    hashes = set()
    for shards in (1, 2, 7):
        given = thinking(thinker=f"{THINKERS}:chance", think_every=1, shards=shards, susceptibility=0.5)
        with Town(tmp_path / f"in-{shards}", given) as engine:
            ticked(engine, 5)
            hashes.add(engine.state_hash())
    assert len(hashes) == 1


def test_each_has_exactly_one_outcome_and_what_failed_is_named(tmp_path: Path) -> None:
    town = Town(tmp_path, thinking(agents=12, degree=2, thinkers=12, thinker=f"{THINKERS}:mixed_bag", think_every=1))
    with town as engine:
        before = opinions_of(engine)
        ticked(engine, 2)
        after, report = opinions_of(engine), town.report
    assert after[::6].tolist() == [0.25, 0.25]
    others = np.arange(12)[np.arange(12) % 6 != 0]
    assert (after[others] == before[others]).all()
    assert (
        report["roll_call"] | {"asked": 24, "answered": 4, "failed": 4, "invalid": 12, "abstained": 4}
        == report["roll_call"]
    )
    said = {(one["agent"], one["tick"]): one["problem"] for one in report["failures"]}
    assert said[1, 1] == f"{THINKERS}:mixed_bag raised ZeroDivisionError: of the test"
    assert said[2, 2] == f"{THINKERS}:mixed_bag answered nan, which is no opinion from 0 to 1"
    assert "answered 0.5" in said[3, 1]
    assert "answered 1.5" in said[5, 1]
    counts = Counter((line["tick"], line["who"]) for line in recorded(tmp_path))
    assert set(counts.values()) == {1}
    assert len(counts) == 24


@pytest.mark.parametrize("function", ["never", "never_async"])
def test_a_tick_waits_for_nobody_beyond_the_deadline(tmp_path: Path, function: str) -> None:
    town = Town(tmp_path, thinking(thinker=f"{THINKERS}:{function}", think_every=1, ask_deadline_s=0.5))
    with town as engine:
        before = opinions_of(engine)
        ticked(engine, 2)
        after, report = opinions_of(engine), town.report
    assert after[50::50].tolist() == [0.75] * 5
    assert after[0] == before[0]
    assert (report["roll_call"]["timed_out"], report["roll_call"]["answered"]) == (2, 10)
    assert ["in time" in one["problem"] for one in report["failures"]] == [True, False]
    assert "has not come back" in report["failures"][1]["problem"]
    # The second turn does not wait for whoever still has not come back from the first.
    assert report["held_ms"]["total"] < 2 * 500 + 400


def test_notes_are_kept_searched_and_there_again_after_a_resume(tmp_path: Path) -> None:
    spec = thinking(thinker=f"{THINKERS}:Reminded", think_every=1, thinkers=2)
    with Town(tmp_path, spec) as engine:
        ticked(engine, 3)
        engine.save(3)
        engine.settle()
        # One note of its own that it is given, and as many that it finds.
        assert opinions_of(engine)[::150] == pytest.approx(0.4)
    town = Town(tmp_path, spec, tick=3)
    with town as engine:
        ticked(engine, 1)
        assert opinions_of(engine)[::150] == pytest.approx(0.6)
        assert town.report["notes"] == {"kept": 8, "search": "exact"}


@pytest.mark.parametrize(
    ("thinker", "said"),
    [
        (f"{THINKERS}:nobody", "cannot be found"),
        ("tests.population.nowhere:X", "cannot be found"),
        (f"{THINKERS}:Thoughtless", "no method think"),
        (f"{THINKERS}:NOT_CALLABLE", "neither a class nor a function"),
        ("callable", "from Python"),
        ("roster/archons", "no"),
    ],
)
def test_a_thinker_that_is_none_is_refused_before_the_first_tick(tmp_path: Path, thinker: str, said: str) -> None:
    with pytest.raises(InvalidPopulationError, match=said), Town(tmp_path, thinking(thinker=thinker)):
        pass


def test_an_object_that_cannot_be_made_is_its_agents_failure(tmp_path: Path) -> None:
    town = Town(tmp_path, thinking(thinker=f"{THINKERS}:Broken"))
    with town as engine:
        ticked(engine, 2)
        assert town.report["roll_call"]["failed"] == 6
        assert "OSError: of the test" in town.report["failures"][0]["problem"]


def test_who_has_left_is_asked_no_more(tmp_path: Path) -> None:
    town = Town(tmp_path, thinking(thinker=f"{THINKERS}:halved", think_every=1))
    with town as engine:
        ticked(engine, 1)
        engine.slab.retire(np.array([100], np.uint32))
        engine.slab.spawn(1, tick=1)
        engine.refresh()
        ticked(engine, 1)
        assert town.report["roll_call"]["asked"] == 11


def test_a_model_answers_for_agents_and_its_reason_is_their_note(tmp_path: Path, llm_server: LlmServer) -> None:
    llm_server.configure(record_bodies=True)
    town = Town(tmp_path, thinking(thinker="model", topic="Shall the bridge be built?"), minds_over(llm_server))
    with town as engine:
        ticked(engine, 4)
        after, report = opinions_of(engine), town.report
    lines = [line for line in recorded(tmp_path) if line["tick"] == 4]
    assert {line["who"]: line["opinion"] for line in lines} == {
        row: pytest.approx(after[row]) for row in range(0, 300, 50)
    }
    assert report["roll_call"]["answered"] == report["calls"] == 12
    assert report["output_tokens"] > 0
    bodies = [entry["body"] for entry in llm_server.journal() if entry["counted"]]
    assert len(bodies) == 12
    assert all("Shall the bridge be built?" in json.dumps(body) for body in bodies)
    assert {body["max_tokens"] for body in bodies} == {256}
    assert sum("You noted before" in json.dumps(body) for body in bodies) == 6


def test_members_of_a_roster_take_turns(tmp_path: Path, llm_server: LlmServer) -> None:
    llm_server.configure(record_bodies=True)
    minds = minds_over(llm_server)
    assert minds.roster is not None
    members = minds.roster("archons").agents
    with Town(tmp_path, thinking(thinker="roster", thinkers=74), minds) as engine:
        ticked(engine, 2)
    told = [json.dumps(entry["body"], ensure_ascii=False) for entry in llm_server.journal() if entry["counted"]]
    for member, times in ((members[0], 2), (members[1], 2), (members[2], 1), (members[71], 1)):
        text = json.dumps(member.persona.text, ensure_ascii=False)[1:-1]
        assert sum(text in one for one in told) == times


def test_a_model_that_fails_is_named_and_the_others_are_heard(tmp_path: Path, llm_server: LlmServer) -> None:
    llm_server.configure(faults=[{"fault": "500", "nth": [2, 3]}])
    town = Town(tmp_path, thinking(thinker="model"), minds_over(llm_server))
    with town as engine:
        ticked(engine, 2)
        call = town.report["roll_call"]
    assert (call["asked"], call["answered"], call["failed"]) == (6, 4, 2)
    assert llm_server.stats()["requests"] == 6


def test_calls_go_over_the_limiter_and_who_gets_no_leave_in_time_is_throttled(
    tmp_path: Path, llm_server: LlmServer
) -> None:
    minds = minds_over(llm_server, requests_per_minute=4)
    town = Town(tmp_path, thinking(thinker="model", ask_deadline_s=20.0), minds)
    with town as engine:
        ticked(engine, 2)
        call = town.report["roll_call"]
    assert (call["answered"], call["throttled"]) == (4, 2)
    assert llm_server.stats()["requests"] == 4


def test_a_call_under_way_when_the_process_ended_is_not_made_again(tmp_path: Path, llm_server: LlmServer) -> None:
    record = AnswerRecord(tmp_path / "thoughts.jsonl")
    record.asking("thinking", 2, 50)
    record.close()
    town = Town(tmp_path, thinking(thinker="model"), minds_over(llm_server))
    with town as engine:
        before = opinions_of(engine)
        ticked(engine, 2)
        after, report = opinions_of(engine), town.report
    assert llm_server.stats()["requests"] == 5
    assert after[50] == before[50]
    assert (report["roll_call"]["cancelled"], report["calls_of_unknown_cost"]) == (1, 1)


def test_a_record_that_was_changed_is_refused(tmp_path: Path) -> None:
    spec = thinking(thinker=f"{THINKERS}:halved", think_every=1)
    with Town(tmp_path, spec) as engine:
        ticked(engine, 2)
    path = tmp_path / "thoughts.jsonl"
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"opinion": 0.', b'"opinion": 0.1', 1))
    with pytest.raises(DamagedRecordError, match=r"thoughts\.jsonl"), Town(tmp_path, spec):
        pass
    path.write_bytes(content[:-20])
    with Town(tmp_path, spec) as engine:
        ticked(engine, 2)
    assert path.read_bytes() == content


def test_a_new_population_in_the_same_folder_begins_without_the_answers_of_the_last(tmp_path: Path) -> None:
    record = AnswerRecord(tmp_path / "thoughts.jsonl")
    record.asking("thinking", 2, 50)
    record.close()
    folder = PopulationFolder(tmp_path)
    try:
        folder.start(thinking())
    finally:
        folder.close()
    assert not (tmp_path / "thoughts.jsonl").exists()


def test_a_situation_tells_a_model_what_it_tells_a_function() -> None:
    situation = Situation(
        tick=3,
        agent=7,
        opinion=0.5,
        neighbours=(0.25, 0.75),
        susceptibility=0.5,
        bound=0.2,
        activity=1.0,
        topic="",
        notes=("it rains",),
        chance=0.1,
        recall=lambda _: (),
    )
    words = situation.in_words()
    assert all(word in words for word in ("0.50", "0.25, 0.75", "0.20", "it rains"))
    assert thinkers.halved(situation) == 0.25
