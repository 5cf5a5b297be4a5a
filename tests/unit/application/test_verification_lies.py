"""A log that its key has signed is refused all the same where its entries do not agree with each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests import witness_specimens as specimens
from tests.unit.application.pinned_verifier import check_bundle, check_export, refusal_of, refusal_of_export
from tests.witness_formats import Document
from tests.witness_log import Log
from tests.witness_story import Story, decided


def _ending(story: Story) -> Document:
    return story.find("deliberation.ended")


def _drop(kind: str, **fields: Any) -> Callable[[Story], None]:
    return lambda story: story.documents.remove(story.find(kind, **fields))


def _change(kind: str, where: Document, **to: Any) -> Callable[[Story], None]:
    return lambda story: story.find(kind, **where).update(to)


def _change_outcome(name: str, value: Any) -> Callable[[Story], None]:
    return lambda story: _ending(story)["outcome"].update({name: value})


def _repeat(kind: str, **fields: Any) -> Callable[[Story], None]:
    def repeat(story: Story) -> None:
        found = story.find(kind, **fields)
        story.documents.insert(story.documents.index(found) + 1, dict(found))

    return repeat


def _move(kind: str, to: int) -> Callable[[Story], None]:
    def move(story: Story) -> None:
        found = story.find(kind)
        story.documents.remove(found)
        story.documents.insert(to, found)

    return move


def _without(kind: str, name: str) -> Callable[[Story], None]:
    def cut(story: Story) -> None:
        del story.find(kind)[name]

    return cut


def _move_behind(kind: str, behind: str, **fields: Any) -> Callable[[Story], None]:
    def move(story: Story) -> None:
        found = story.find(kind, **fields)
        story.documents.remove(found)
        story.documents.insert(story.documents.index(story.find(behind, **fields)) + 1, {**found, "attempt": 2})
        story.documents.insert(2, found)

    return move


def _with_a_second_round(story: Story) -> None:
    again = [story.find(kind, **fields) for kind, fields in _ONE_TURN]
    place = story.documents.index(_ending(story))
    story.documents[place:place] = [{**each, "round": 1} for each in again]
    story.documents[place]["agents"] = ["a-1"]
    usage = _ending(story)["usage"]
    for name, taken in again[-1]["usage"].items():
        usage[name] += taken
    del _ending(story)["rounds"]


_ONE_TURN: tuple[tuple[str, Document], ...] = (
    ("round.started", {}),
    ("call.intended", {"agent_id": "a-1"}),
    ("agent.ended", {"agent_id": "a-1"}),
)

LIES: dict[str, Callable[[Story], None]] = {
    "nobody accepted it": _drop("deliberation.accepted"),
    "it was accepted twice": _repeat("deliberation.accepted"),
    "it was accepted later": _move("deliberation.accepted", 1),
    "a round follows its end": _move("round.started", 99),
    "it ended twice": _repeat("deliberation.ended"),
    "an intent was left out": _drop("call.intended", agent_id="a-1"),
    "an ending was left out": _drop("agent.ended", agent_id="a-1"),
    "an agent ended twice": _repeat("agent.ended", agent_id="a-1"),
    "an ending is of another attempt": _change("agent.ended", {"agent_id": "a-1"}, attempt=2),
    "a stranger was called": _change("call.intended", {"agent_id": "a-1"}, agent_id="a-99"),
    "a stranger was listed": _change("round.started", {}, agents=["a-99"]),
    "the record is of other entries": _change("deliberation.ended", {}, record_sha256="00" * 32),
    "an agent ended otherwise": _change("agent.ended", {"agent_id": "a-4"}, state="invalid"),
    "an abstention has an answer": _change("agent.ended", {"agent_id": "a-4"}, answer=1),
    "an answer is beyond the options": _change("agent.ended", {"agent_id": "a-1"}, answer=3),
    "an answer is a truth value": _change("agent.ended", {"agent_id": "a-1"}, answer=True),
    "an answer is of another kind": _change("agent.ended", {"agent_id": "a-1"}, answer="yes"),
    "an answer is missing": _change("agent.ended", {"agent_id": "a-1"}, answer=None),
    "an answer has a failure": _change(
        "agent.ended", {"agent_id": "a-1"}, failure={"kind": "agent_failed", "message": None}
    ),
    "a failure has no cause": _change("agent.ended", {"agent_id": "a-5"}, failure=None),
    "another answer was counted": _change("agent.ended", {"agent_id": "a-1"}, answer=0),
    "another usage was summed": lambda story: _ending(story)["usage"].update(calls=9),
    "another cost was summed": lambda story: _ending(story)["usage"].update(cost_usd=0.1),
    "more uncertain tokens were summed": lambda story: _ending(story)["usage"].update(uncertain_tokens=1),
    "another uncertain cost was summed": lambda story: _ending(story)["usage"].update(uncertain_usd=0.1),
    "uncertain tokens were forgotten": lambda story: story.find("agent.ended")["usage"].update(uncertain_tokens=1),
    "an uncertain cost was forgotten": lambda story: story.find("agent.ended")["usage"].update(uncertain_usd=0.1),
    "an uncertain cost below nothing": lambda story: story.find("agent.ended")["usage"].update(uncertain_usd=-0.1),
    "a part of an uncertain token": lambda story: story.find("agent.ended")["usage"].update(uncertain_tokens=0.5),
    "a hold below nothing": _change("call.intended", {}, held={"tokens": -1, "cost_usd": 0.1}),
    "a hold without its tokens": _change("call.intended", {}, held={"cost_usd": 0.1}),
    "a hold that is none": _change("call.intended", {}, held=None),
    "an end before without its kind": _change("call.intended", {}, previous={"state": "failed"}),
    "an end before in no state": _change("call.intended", {}, previous={"state": "lost", "kind": "status_500"}),
    "an end before of another usage": _change(
        "call.intended", {}, previous={"state": "failed", "kind": "status_500", "usage": {"calls": -1}}
    ),
    "an attempt took more than all did": _change(
        "call.intended",
        {},
        previous={
            "state": "failed",
            "kind": "status_500",
            "usage": {"calls": 1, "input_tokens": 10**6, "output_tokens": 0, "cost_usd": 0.0},
        },
    ),
    "an attempt may have cost more than all may": _change(
        "call.intended",
        {},
        previous={
            "state": "failed",
            "kind": "connection_lost",
            "usage": {"calls": 1, "input_tokens": 0, "output_tokens": 0, "cost_usd": 0.0, "uncertain_usd": 0.1},
        },
    ),
    "a version of prompts that is no text": _change("call.intended", {}, prompt_version=1),
    "a fallback that is no truth value": _change("agent.ended", {}, fell_back="no"),
    "another roll call was held": lambda story: _ending(story)["roll_call"].update(failed=1),
    "another round was held": lambda story: _ending(story)["rounds"][0]["tally"].update(yes=2),
    "another quorum would be met": _change("deliberation.accepted", {}, quorum={"min_answered_fraction": 0.9}),
    "another rule was applied": _change("deliberation.accepted", {}, rule={"kind": "threshold", "fraction": 0.9}),
    "it was inquorate": _change("deliberation.ended", {}, status="inquorate", outcome=None),
    "it failed with an outcome": _change("deliberation.ended", {}, status="failed"),
    "it has no outcome": _change("deliberation.ended", {}, outcome=None),
    "an outcome of another status": _change_outcome("status", "tied"),
    "an outcome of another decision": _change_outcome("decision", "yes"),
    "an outcome of another rule": _change_outcome("rule", "threshold"),
    "an outcome of another tally": _change_outcome("tally", {"yes": 3, "no": 1, "weekends only": 1}),
    "an outcome of another margin": _change_outcome("margin", 3),
    "an outcome with a spread": _change_outcome("spread", 0.0),
    "an outcome of less dissent": _change_outcome("dissent", {"percentage": 40.0, "positions": []}),
    "an outcome of another blind tally": _change_outcome("blind_tally", {}),
    "an outcome with a change": _change_outcome("changed", [{"agent_id": "a-1", "from": "yes", "to": "no"}]),
    "an outcome of more votes": _change_outcome("effective_votes", 72.0),
    "an outcome more robust": _change_outcome(
        "robustness", {"rules_agreeing": ["plurality", "threshold"], "votes_to_flip": 2}
    ),
    "an outcome with more": _change_outcome("more", 1),
    "an outcome with less": lambda story: _ending(story)["outcome"].pop("margin"),
    "a member is one twice": lambda story: story.documents[0]["members"].append(story.documents[0]["members"][0]),
    "options that read the same": _change(
        "deliberation.accepted", {}, answer={"kind": "choice", "options": ["yes", "YES", "no"]}
    ),
    "an unknown type": _change("round.started", {}, type="round.skipped"),
    "a field is missing": _without("agent.ended", "confidence"),
    "a field is of another type": _change("call.intended", {}, attempt="1"),
    "a confidence beyond one": _change("agent.ended", {"agent_id": "a-1"}, confidence=1.5),
    "a time that is none": _change("round.started", {}, at="2026-13-21T12:00:00Z"),
    "a time without a zone": _change("round.started", {}, at="2026-11-21T12:00:00"),
    "a commitment with its text": _change(
        "agent.ended", {"agent_id": "a-1"}, content={"sha256": "00" * 32, "text": "open"}
    ),
    "a call was intended twice": _repeat("call.intended", agent_id="a-1"),
    "a call was intended after its end": _move_behind("call.intended", "agent.ended", agent_id="a-0"),
    "no round was started": _drop("round.started"),
    "a round asked one of all": _change("round.started", {}, agents=["a-1"]),
    "a round asked nobody": _change("round.started", {}, agents=[]),
    "a round asked one twice": _change("round.started", {}, agents=[*(f"a-{n}" for n in range(8)), "a-0"]),
    "the first round was the second": _change("round.started", {}, round=1),
    "the first round was the sixth": _change("round.started", {}, round=5),
    "a poll had a second round": _with_a_second_round,
    "the end names no round": lambda story: _ending(story)["rounds"].clear(),
    "the end names a round twice": lambda story: _ending(story)["rounds"].append(_ending(story)["rounds"][0]),
    "a rule of other answers": _change("deliberation.accepted", {}, rule={"kind": "median"}),
    "a fraction of a rule that has none": _change(
        "deliberation.accepted", {}, rule={"kind": "plurality", "fraction": 0.5}
    ),
    "a protocol with a setting that is no number": _change(
        "deliberation.accepted", {}, protocol={"kind": "delphi", "max_rounds": "three"}
    ),
    "a wave whose size is no number": _change("deliberation.accepted", {}, protocol={"kind": "poll", "wave_size": "x"}),
    "an outcome without a decision": lambda story: _ending(story)["outcome"].pop("decision"),
    "an outcome without dissent": lambda story: _ending(story)["outcome"].pop("dissent"),
    "an outcome of no dissent": _change_outcome("dissent", None),
    "a dissent that is a number": _change_outcome("dissent", 5),
    "a dissent that is empty": _change_outcome("dissent", {}),
    "a dissent that is a list": _change_outcome("dissent", []),
    "a position that is no object": _change_outcome("dissent", {"percentage": 40.0, "positions": [None]}),
    "an open text in a field of its own": _change("agent.ended", {}, more="This is what it said."),
    "an open text beside the usage": lambda story: story.find("agent.ended")["usage"].update(more="what it said"),
    "an open text beside a failure": lambda story: story.find("agent.ended", agent_id="a-5")["failure"].update(
        more="what it said"
    ),
    "an open text deep in such a field": _change("call.intended", {}, more={"told": ["what it was asked"]}),
    "an entry too long": _change("round.started", {}, more="x" * 60_000),
    "no deliberation is named": _change("round.started", {}, deliberation_id=None),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_signed_log_whose_entries_do_not_agree_is_refused(lie: str) -> None:
    story = specimens.choice().retold(LIES[lie])
    log = Log().add_system("key.added")
    log.tell(story)
    bundle = log.bundle("choice")
    bundle["disclosures"] = []
    assert "belongs to no entry" not in str(refusal_of(bundle))
    refused = refusal_of_export(log.export(disclosed=False))
    assert refused.index is not None


def _with_a_certificate(story: Story) -> None:
    """One that a reader of the outcome has to look into before anything else."""
    _ending(story)["certificate"] = {
        "decision": "weekends only",
        "dissent": None,
        "participation": {"asked": 8, "took_part": 6},
        "record": {"entries": 18, "root_hash": "00" * 32},
    }


@pytest.mark.parametrize("dissent", [None, 5, {}, [], {"percentage": 40.0, "positions": [None]}])
def test_an_outcome_without_the_shape_of_one_is_refused_before_its_certificate_is_read(dissent: Any) -> None:
    def tell(story: Story) -> None:
        _with_a_certificate(story)
        _ending(story)["outcome"]["dissent"] = dissent

    assert "'outcome'" in str(refusal_of(Log().tell(specimens.choice().retold(tell)).bundle("choice")))


@pytest.mark.parametrize("field", ["decision", "dissent"])
def test_an_outcome_that_lacks_a_part_is_refused_before_its_certificate_is_read(field: str) -> None:
    def tell(story: Story) -> None:
        _with_a_certificate(story)
        del _ending(story)["outcome"][field]

    assert "'outcome'" in str(refusal_of(Log().tell(specimens.choice().retold(tell)).bundle("choice")))


def _waves(*, asked: int, noes: int, size: int = 3) -> Log:
    """Eight members in waves, of whom the first ones were asked: some said no, the others yes."""
    story = Story("waves")
    members = [f"w-{n}" for n in range(8)]
    story.accept(members, answer={"kind": "choice", "options": ["yes", "no"]}, rule={"kind": "plurality"})
    story.documents[0]["protocol"] = {"kind": "poll", "wave_size": size}
    story.start(members)
    for place, agent in enumerate(members[:asked]):
        story.call(agent)
        story.end_agent(agent, "answered", int(place < noes))
    yeses = asked - noes
    story.end(
        "completed",
        decided(
            "yes",
            {"yes": yeses, "no": noes},
            rule="plurality",
            margin=yeses - noes,
            percentage=round(100 * noes / asked, 1),
            positions=[("no", members[:noes])] if noes else [],
            agreeing=["plurality", "threshold"] if 2 * yeses >= asked else ["plurality"],
            flip=(yeses - noes) // 2 + 1,
        ),
        cause="the others could not have changed the decision",
    )
    return Log().tell(story)


def test_a_poll_that_stopped_when_its_lead_was_safe_verifies() -> None:
    assert check_bundle(_waves(asked=6, noes=0).bundle("waves")).deliberations[0].not_recomputed is None


def test_a_poll_that_left_out_agents_who_could_have_changed_its_decision_is_refused() -> None:
    assert "could have changed" in str(refusal_of(_waves(asked=6, noes=2).bundle("waves")))


def test_a_poll_that_stopped_within_a_wave_is_refused() -> None:
    refused = refusal_of(_waves(asked=6, noes=0, size=4).bundle("waves"))
    assert "agent 'w-6' was to be asked" in str(refused)


def test_a_text_outcome_without_its_clusters_is_refused() -> None:
    story = specimens.free_text().retold(lambda each: _ending(each)["outcome"].pop("synthesis"))
    assert "clusters" in str(refusal_of(Log().tell(story).bundle("text")))


_FREE: Document = {"calls": 1, "input_tokens": 0, "output_tokens": 0, "cost_usd": 0.0}


def _with_money(story: Story) -> None:
    """Tell it with everything that says what calls hold, took and may have taken."""
    for each in story.documents:
        if each["type"] == "call.intended":
            each.update(prompt_version="1:" + "00" * 32, held={"tokens": 1_500, "cost_usd": 0.07}, previous=None)
        if each["type"] == "agent.ended":
            each.update(fell_back=each["agent_id"] == "a-1")
            each["usage"].update(uncertain_tokens=1_500, uncertain_usd=0.07)
    first = story.find("call.intended")
    first["held"]["cost_usd"] = None
    first["previous"] = {
        "state": "failed",
        "kind": "connection_lost",
        "usage": {**_FREE, "uncertain_tokens": 1_500, "uncertain_usd": 0.07},
    }
    agents = sum(each["type"] == "agent.ended" for each in story.documents)
    _ending(story)["usage"].update(uncertain_tokens=1_500 * agents, uncertain_usd=0.07 * agents)


def test_a_log_that_tells_what_calls_hold_and_may_have_taken_verifies() -> None:
    log = Log().add_system("key.added")
    log.tell(specimens.choice().retold(_with_money))
    assert check_bundle(log.bundle("choice")).deliberations[0].status == "completed"
    assert check_export(log.export()).entries_checked == len(log.entries)


def test_one_that_began_under_an_earlier_version_verifies_too() -> None:
    def tell(story: Story) -> None:
        _with_money(story)
        for name in ("held", "previous", "prompt_version"):
            del story.find("call.intended")[name]
        usage = story.find("agent.ended")["usage"]
        of_the_end = _ending(story)["usage"]
        of_the_end["uncertain_tokens"] -= usage.pop("uncertain_tokens")
        of_the_end["uncertain_usd"] -= usage.pop("uncertain_usd")
        story.find("call.intended")["previous"] = {"state": "failed", "kind": "interrupted"}
        del story.find("agent.ended")["fell_back"]

    log = Log().add_system("key.added")
    log.tell(specimens.choice().retold(tell))
    assert check_bundle(log.bundle("choice")).deliberations[0].status == "completed"


def test_keys_that_the_log_names_are_read() -> None:
    log = Log()
    log.add_system("key.added", vkey=log.key.vkey).add_system("key.retired", vkey=log.key.vkey)
    assert check_export(log.export()).entries_checked == 2


@pytest.mark.parametrize("kind", ["key.added", "key.retired"])
@pytest.mark.parametrize("vkey", [None, 7, "", "example.com/log+00000000+AAAA"])
def test_what_is_no_key_is_refused_as_the_log_s(kind: str, vkey: object) -> None:
    refused = refusal_of_export(Log().add_system("halt.set").add_system(kind, vkey=vkey).export())
    assert refused.index == 1
    assert "'vkey'" in refused.what


def test_a_deliberation_that_did_not_meet_its_quorum_may_not_be_completed() -> None:
    story = specimens.inquorate().retold(
        lambda each: _ending(each).update(
            status="completed",
            outcome=decided("no", {"yes": 0, "no": 1}, rule="threshold", margin=1, percentage=0.0),
        )
    )
    assert "quorum" in str(refusal_of(Log().tell(story).bundle("inquorate")))


def test_an_entry_of_the_system_belongs_to_no_deliberation() -> None:
    log = Log().add_system("halt.set", deliberation_id="x")
    assert refusal_of_export(log.export()).index == 0
