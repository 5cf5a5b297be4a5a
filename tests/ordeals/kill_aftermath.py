"""What must hold of a Conclave that was killed again and again."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from api.bootstrap import verification_tools
from application.services.verification import verify_bundle
from domain.witness.checkpoint import VerifierKey
from tests.conclave_fixture import Client
from tests.ordeals.voices import VOICES, Asked, voice_in

__all__ = ["ATTEMPTS", "Endured", "KillAftermath"]

# Whoever is interrupted once more than there are attempts is given up, so that nothing is killed too often at its work.
ATTEMPTS = 10
_UNDISTURBED_S = 60.0
_ON_ITS_WAY_S = 0.25


@dataclass
class Endured(Asked):
    """One deliberation of an ordeal, with what it takes to judge its end: how much was killed before, and what may cut it short."""

    kills_before: int = 0
    may_end_early: bool = False
    has_ended: bool = False


class KillAftermath:
    """Holds the deliberations of an ordeal against its kills, in seconds since 1970, and against the far end's journal."""

    def __init__(
        self,
        client: Client,
        asked: Sequence[Endured],
        kills: Sequence[float],
        *,
        key: str,
        journal: Sequence[Mapping[str, Any]],
    ) -> None:
        self._client = client
        self._asked = asked
        self._kills = kills
        self._key = key
        self._arrivals = _arrivals(journal)

    def verify(self) -> Counter[str]:
        """Fail at the first broken promise; else the statuses that the deliberations ended with."""
        self._verify_list()
        with ThreadPoolExecutor(10) as hands:
            documents = list(hands.map(lambda asked: asked.document(self._client), self._asked))
            list(hands.map(self._verify_record, self._asked))
            list(hands.map(self._verify_result, self._asked, documents))
        return Counter(document["status"] for document in documents)

    def _verify_list(self) -> None:
        """As many deliberations as keys, however often each was posted."""
        stored: list[str] = []
        cursor = ""
        while True:
            page = self._client.ask("GET", f"/v1/deliberations?limit=200{cursor}").document
            stored += [item["id"] for item in page["items"]]
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
        assert Counter(stored) == Counter(asked.id for asked in self._asked)

    def _verify_record(self, asked: Endured) -> None:
        """By the log: it ends once, and nobody is called again after the end of the call was recorded."""
        answer = self._client.ask("GET", f"/v1/deliberations/{asked.id}/bundle")
        assert answer.status == 200, answer
        verify_bundle(answer.body, key=VerifierKey.parse(self._key), tools=verification_tools())
        entries = [json.loads(item["entry"]) for item in answer.document["entries"]]
        types = Counter(entry["type"] for entry in entries)
        assert types["deliberation.accepted"] == types["deliberation.ended"] == 1, types
        assert types["round.started"] <= 1, types
        intents: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for entry in entries:
            if entry["type"] == "call.intended":
                intents[entry["agent_id"]].append(entry)
        ends = Counter(entry["agent_id"] for entry in entries if entry["type"] == "agent.ended")
        assert set(ends.values()) <= {1}, ends
        assert types["round.started"] * VOICES == ends.total(), ends
        for entry in entries:
            if entry["type"] == "agent.ended":
                self._verify_voice(asked, entry, intents[entry["agent_id"]])

    def _verify_voice(self, asked: Endured, end: Mapping[str, Any], intents: Sequence[Mapping[str, Any]]) -> None:
        voice = end["agent_id"]
        called = self._arrivals.get((asked.label, voice), [])
        told = f"{voice!r} of {asked.label!r}: called at {called!r}, intended {intents!r}, ended {end!r}"
        assert [intent["attempt"] for intent in intents] == list(range(1, len(intents) + 1)), told
        assert len(called) <= len(intents), f"called more often than intended: {told}"
        if end["state"] == "answered":
            assert called, f"an answer without a call: {told}"
        ended_at = _seconds(end["at"])
        # A call that was on its way when its agent was stopped may reach the far end a little later than that was written down.
        on_its_way = _ON_ITS_WAY_S if end["state"] in {"cancelled", "halted"} else 0.0
        assert all(moment <= ended_at + on_its_way for moment in called), f"called again after its end: {told}"
        if intents:
            began = _seconds(intents[0]["at"])
            # The process may have died a moment before that was seen here.
            cut = sum(began <= moment and moment - 1.0 <= ended_at for moment in self._kills)
            assert len(intents) <= 1 + cut, f"called again although nothing was killed: {told}, kills {self._kills!r}"

    def _verify_result(self, asked: Endured, document: Any) -> None:
        """What came out is what comes out of the same deliberation when nobody disturbs it."""
        roll_call = dict(document["roll_call"])
        voices = roll_call.pop("asked")
        assert sum(roll_call.values()) == voices, document
        if document["status"] != "completed":
            assert asked.may_end_early, document
            assert document["status"] in {"cancelled", "halted"}, document
            return
        assert voices == VOICES, document
        given_up = [failure for failure in document["failures"] if failure["kind"] == "interrupted"]
        if given_up:
            assert {failure["attempts"] for failure in given_up} == {ATTEMPTS + 1}, document
            return
        twin = self._client.post(asked.body, query=f"?wait={_UNDISTURBED_S:g}").document
        for part in ("outcome", "roll_call"):
            assert _of_its_own(document[part]) == _of_its_own(twin[part]), (
                f"{document!r} is not what it would be undisturbed: {twin!r}"
            )


def _arrivals(journal: Sequence[Mapping[str, Any]]) -> Mapping[tuple[str, str], Sequence[float]]:
    """When each voice was called, by the clock of the far end."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for entry in journal:
        if entry["counted"] and (voice := voice_in(entry)) is not None:
            found[voice].append(entry["arrived_wall"])
    return found


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _of_its_own(part: dict[str, Any]) -> dict[str, Any]:
    """Without what is measured on earlier deliberations too, of which the later one has more."""
    return {name: value for name, value in part.items() if name != "effective_votes"}
