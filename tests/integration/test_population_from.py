"""A population that begins with a stored deliberation of 72: one agent is followed from its ballot to its rows and into the report."""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.bootstrap import load_settings
from api.bootstrap.opening import open_conclave
from api.bootstrap.process import Purpose
from domain.models.archetype import Archetype
from domain.models.population import PopulationSpecification
from tests.command_line import Command, commands
from tests.population.runs import run_in

AGENTS = 7_200
OPTIONS = ("trams", "buses", "a metro", "nothing <b>at all</b>")


@pytest.fixture
def conclave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs a command in this process: simulated agents, an empty data folder."""
    monkeypatch.setenv("CONCLAVE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("CONCLAVE_ORCHESTRATOR", "simulated")
    monkeypatch.chdir(tmp_path)
    with commands(capsys) as run:
        yield run


def _deliberated(conclave: Command) -> Any:
    chosen = [word for option in OPTIONS for word in ("--option", option)]
    ran = conclave("deliberate", "What shall we build?", *chosen, "--seed", "7", "--json")
    assert ran.code == 0, ran.stderr
    return ran.document


async def _ballots(deliberation_id: str) -> dict[str, Any]:
    async with open_conclave(load_settings(), purpose=Purpose.READ) as opened:
        outputs = await opened.outputs.outputs(deliberation_id)
    records = sorted((output.record for output in outputs), key=lambda record: record.round_number)
    found = {record.agent_id: record.ballot() for record in records}
    return {agent: ballot for agent, ballot in found.items() if ballot is not None and not ballot.abstains}


def test_one_agent_is_followed_from_its_ballot_to_its_rows_and_into_the_report(conclave: Command) -> None:
    deliberation = _deliberated(conclave)
    ballots = asyncio.run(_ballots(deliberation["id"]))
    assert len(ballots) > 60
    agent, ballot = next((agent, ballot) for agent, ballot in ballots.items() if ballot.answer == OPTIONS[3])

    ran = conclave(
        *("population", "run", "--agents", str(AGENTS), "--ticks", "8", "--kernel", "numpy", "--out", "town"),
        *("--from", deliberation["id"], "--json"),
    )
    assert ran.code == 0, ran.stderr
    report = ran.document

    # From the ballot to the archetype,
    kept = json.loads(Path("town/population.json").read_text())["specification"]
    names = [archetype["name"] for archetype in kept["archetypes"]]
    assert names == list(ballots)
    archetype = Archetype(**kept["archetypes"][names.index(agent)])
    assert (archetype.answer, archetype.opinion) == (ballot.answer, 1.0)
    assert archetype.confidence == (0.5 if ballot.confidence is None else ballot.confidence)
    assert archetype.reason == (ballot.reasoning or "")
    # to its rows,
    assert conclave("population", "export", "town", "--format", "csv", "--out", "rows.csv").code == 0
    with Path("rows.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["community"] == agent]
    numbers = [int(row["row"]) for row in rows]
    assert numbers == list(range(numbers[0], numbers[0] + len(rows)))
    assert abs(len(rows) - AGENTS / len(ballots)) <= 100
    assert {row["began_with"] for row in rows} == {OPTIONS[3]}
    assert all(abs(float(row["first_opinion"]) - 1.0) <= archetype.spread for row in rows)
    assert {float(row["susceptibility"]) for row in rows} == {min(1.0, 1.0 - archetype.confidence)}
    # and back, to the report,
    opinions = [float(row["opinion"]) for row in rows]
    (community,) = (one for one in report["opinions"]["final"]["communities"] if one["name"] == agent)
    assert (community["answer"], community["agents"]) == (OPTIONS[3], len(rows))
    assert community["mean"] == pytest.approx(sum(opinions) / len(opinions))
    (begun,) = (one for one in report["opinions"]["initial"]["communities"] if one["name"] == agent)
    assert begun["mean"] == pytest.approx(sum(float(row["first_opinion"]) for row in rows) / len(rows))
    # where it is part of the subgroup of its answer
    (group,) = (row for row in report["subgroups"] if row["answer"] == OPTIONS[3])
    assert group["archetypes"] == sum(ballot.answer == OPTIONS[3] for ballot in ballots.values())
    assert group["agents"] == sum(
        one["agents"] for one in report["opinions"]["final"]["communities"] if one["answer"] == OPTIONS[3]
    )
    # and to the page.
    page = Path("town/report.html").read_text()
    assert f"<td><bdi>{agent}</bdi></td>" in page
    assert f"{begun['mean']:.3f} &rarr; {community['mean']:.3f}" in page
    assert "nothing &lt;b&gt;at all&lt;/b&gt;" in page
    assert "<b>" not in page


def test_the_end_is_held_against_what_was_decided(conclave: Command) -> None:
    deliberation = _deliberated(conclave)
    ran = conclave(
        *("population", "run", "--agents", "3000", "--ticks", "5", "--kernel", "numpy"),
        *("--from", deliberation["id"]),
    )
    assert ran.code == 0, ran.stderr
    report = json.loads(Path("population/report.json").read_text())
    outcome = deliberation["outcome"]
    found = report["decision"]
    assert report["deliberation_id"] == deliberation["id"]
    assert found["answer"] == outcome["decision"]
    answered = sum(outcome["tally"].values())
    for row in report["subgroups"]:
        assert row["ballot_share"] == pytest.approx(outcome["tally"][row["answer"]] / answered)
    assert sum(row["final"]["share"] for row in report["subgroups"]) == pytest.approx(1.0)
    assert found["final_leader"] == max(report["subgroups"], key=lambda row: row["final"]["share"])["answer"]
    assert "Simulated communities by the answer that they began with" in ran.words
    assert f"The deliberation decided: {outcome['decision'] or 'no decision'}" in ran.words
    assert "Simulated: these agents are rows of numbers" in ran.words


async def test_a_certain_community_stays_where_it_began(tmp_path: Path) -> None:
    sure, unsure = Archetype("sure", "yes", 1.0, 1.0), Archetype("unsure", "no", 0.0, 0.5)
    spec = PopulationSpecification(agents=600, ticks=20, kernel="numpy", bound=1.0, archetypes=(sure, unsure))
    report: Any = dict((await run_in(tmp_path, spec)).result)
    yes, no = sorted(report["subgroups"], key=lambda row: row["answer"], reverse=True)
    assert (yes["moved"], yes["final"]["variance"]) == (0.0, 0.0)
    assert no["moved"] > 0.5
