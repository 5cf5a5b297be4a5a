"""An offline reader follows every round: who was asked, for what and in what order, which ballots were kept, and what came of it."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from application.services.verification.deliberations import Deliberations
from application.services.verification.report import VerifiedDeliberation
from domain.errors.witness import VerificationRefusedError
from domain.models.protocol import Protocol, ProtocolKind
from domain.witness.merkle import leaf_hash
from infrastructure.witness.canonical_json import canonical_json
from tests.protocol_fixture import KINDS, SEVERAL, Troubled, asked_for
from tests.service_fixture import build, finished, opened

Entries = list[dict[str, Any]]
FAILING = {(1, "archon-0"), (2, "archon-1"), (3, "archon-2")}


async def _entries(protocol: Protocol | ProtocolKind, *, answer: str = "choice") -> Entries:
    async with opened(build(Troubled(failing=FAILING))) as house:
        ended = await finished(house, asked_for(protocol, answer=KINDS[answer], seed=0))
        return [json.loads(each.entry) for each in house.repository.log.of(ended.id)]


def _follow(entries: Entries) -> VerifiedDeliberation:
    """What the verifier makes of entries that hash as they should, whatever they say."""
    deliberations = Deliberations()
    record = hashlib.sha256()
    for index, entry in enumerate(entries):
        if entry["type"] == "deliberation.ended":
            entry["record_sha256"] = record.hexdigest()
        leaf = leaf_hash(canonical_json(entry))
        record.update(leaf)
        deliberations.follow(entry["deliberation_id"], entry, index=index, leaf=leaf)
    return deliberations.close(all_ended=True)[0]


def _starts(entries: Entries, number: int) -> dict[str, Any]:
    return next(each for each in entries if each["type"] == "round.started" and each["round"] == number)


def _end_in(entries: Entries, number: int) -> dict[str, Any]:
    return next(
        each
        for each in entries
        if each["type"] == "agent.ended" and each["round"] == number and each["state"] == "answered"
    )


@pytest.mark.parametrize("kind", SEVERAL)
@pytest.mark.parametrize("answer", KINDS)
async def test_roll_call_rounds_and_outcome_are_computed_again(kind: ProtocolKind, answer: str) -> None:
    verified = _follow(await _entries(kind, answer=answer))
    assert (verified.status, verified.not_recomputed) == ("completed", None)


def _asks_another(entries: Entries) -> None:
    _starts(entries, 2)["agents"].reverse()


def _leaves_one_out(entries: Entries) -> None:
    _starts(entries, 2)["agents"].pop()


def _has_another_purpose(entries: Entries) -> None:
    _starts(entries, 2)["purpose"] = "vote"


def _tells_another_tally(entries: Entries) -> None:
    tally = _starts(entries, 1)["previous"]["tally"]
    tally[next(iter(tally))] += 1


def _tells_another_roll_call(entries: Entries) -> None:
    counts = _starts(entries, 2)["previous"]["roll_call"]
    counts["answered"], counts["abstained"] = counts["abstained"], counts["answered"]


def _keeps_a_ballot_of_another_round(entries: Entries) -> None:
    entries[-1]["rounds"][-1].setdefault("kept", []).append({"agent_id": "archon-5", "from_round": 0})


def _keeps_no_ballot(entries: Entries) -> None:
    del _starts(entries, 2)["previous"]["kept"]


def _skips_a_round(entries: Entries) -> None:
    for each in entries:
        if each.get("round") == 3:
            each["round"] = 4


def _ends_too_early(entries: Entries) -> None:
    last = next(place for place, each in enumerate(entries) if each.get("round") == 3)
    del entries[last:-1]


def _forgets_an_end(entries: Entries) -> None:
    ended = _end_in(entries, 2)
    entries.remove(ended)
    for each in list(entries):
        if each["type"] == "call.intended" and (each["round"], each["agent_id"]) == (2, ended["agent_id"]):
            entries.remove(each)


def _changes_an_answer(entries: Entries) -> None:
    ended = _end_in(entries, 3)
    ended["answer"] = (ended["answer"] + 1) % 3


def _says_that_nobody_changed(entries: Entries) -> None:
    entries[-1]["outcome"]["changed"] = []


def _tells_another_blind_tally(entries: Entries) -> None:
    tally = entries[-1]["outcome"]["blind_tally"]
    tally["yes"], tally["no"] = tally["no"] + 1, tally["yes"]


DEBATE_LIES = [
    _asks_another,
    _leaves_one_out,
    _has_another_purpose,
    _tells_another_tally,
    _tells_another_roll_call,
    _keeps_a_ballot_of_another_round,
    _keeps_no_ballot,
    _skips_a_round,
    _ends_too_early,
    _forgets_an_end,
    _changes_an_answer,
    _says_that_nobody_changed,
    _tells_another_blind_tally,
]


@pytest.mark.parametrize("lie", DEBATE_LIES)
async def test_a_lie_about_any_round_is_refused(lie: Callable[[Entries], None]) -> None:
    entries = await _entries(ProtocolKind.DEBATE)
    changed = copy.deepcopy(entries)
    lie(changed)
    assert changed != entries
    with pytest.raises(VerificationRefusedError):
        _follow(changed)
    _follow(entries)


async def test_who_approves_of_an_answer_that_it_was_not_shown_is_refused() -> None:
    entries = await _entries(Protocol(ProtocolKind.PEER_REVIEW, reviewers_per_answer=1))
    ended = _end_in(entries, 1)
    ended["answer"] = list(range(6))
    with pytest.raises(VerificationRefusedError, match="not put to it"):
        _follow(entries)


async def test_an_end_before_the_last_round_needs_a_reason() -> None:
    entries = await _entries(ProtocolKind.DEBATE)
    _ends_too_early(entries)
    entries[-1]["cause"] = "the deadline came before round 3"
    with pytest.raises(VerificationRefusedError) as refused:
        _follow(entries)
    assert "before its protocol" not in str(refused.value)
