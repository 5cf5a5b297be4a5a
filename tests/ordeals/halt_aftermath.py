"""What must hold of a Conclave that was halted again and again."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from api.bootstrap import verification_tools
from application.services.verification import verify_bundle
from domain.witness.checkpoint import VerifierKey
from tests.conclave_fixture import Client
from tests.ordeals.house import House
from tests.ordeals.load import Drilled
from tests.ordeals.voices import VOICES, voice_in

__all__ = ["HaltAftermath", "answered_early"]

# What was answered this long before a halt has reached its log.
_RECORDED_S = 1.0


class HaltAftermath:
    """Reads what is left in a house once its drills are over."""

    def __init__(self, house: House, client: Client, *, key: str) -> None:
        self._house = house
        self._client = client
        self._key = key

    def verify_record(self, asked: Drilled, answered: set[str]) -> str:
        """The status that it ended with, once its record shows that it ended once and kept what these voices answered."""
        document = asked.document(self._client)
        assert document["status"] in {"completed", "halted"}, document
        answer = self._client.ask("GET", f"/v1/deliberations/{asked.id}/bundle")
        assert answer.status == 200, answer
        verify_bundle(answer.body, key=VerifierKey.parse(self._key), tools=verification_tools())
        entries = [json.loads(item["entry"]) for item in answer.document["entries"]]
        types = Counter(entry["type"] for entry in entries)
        assert types["deliberation.accepted"] == types["deliberation.ended"] == 1, types
        ends = {entry["agent_id"]: entry["state"] for entry in entries if entry["type"] == "agent.ended"}
        assert types["agent.ended"] == len(ends) == VOICES, types
        roll_call = dict(document["roll_call"])
        assert roll_call.pop("asked") == VOICES
        assert Counter(ends.values()) == +Counter(roll_call), document
        kept = {voice for voice, state in ends.items() if state == "answered"}
        assert answered <= kept, f"answers of {sorted(answered - kept)!r} were lost: {document!r}"
        if document["status"] == "halted":
            assert set(ends.values()) <= {"answered", "halted"}, document
            assert "halted" in ends.values() or not asked.is_held, document
        return str(document["status"])

    def halts_in_log(self) -> list[str]:
        """The halts and their ends that the log has, in its order."""
        exported = self._house.folder / "log.jsonl"
        assert self._house.run("witness", "export", str(exported))[0] == 0
        lines = [json.loads(line) for line in exported.read_text().splitlines()]
        found = [json.loads(line["entry"])["type"] for line in lines if "entry" in line]
        return [kind for kind in found if kind.startswith("halt.")]


def answered_early(
    journal: Sequence[Mapping[str, Any]], closed: Sequence[tuple[float, float]]
) -> Mapping[str, set[str]]:
    """By label, the voices whose answers had gone out whole while it was open, and so long before a halt that they had to be kept.

    `closed` is from when a channel was touched until all were clear again, by the far end's monotonic clock in seconds.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for entry in journal:
        voice = voice_in(entry)
        if entry["status"] != 200 or entry["client_disconnected"] or voice is None:
            continue
        at = entry["ended_monotonic"]
        if not any(begun - _RECORDED_S <= at <= cleared for begun, cleared in closed):
            found[voice[0]].add(voice[1])
    return found
