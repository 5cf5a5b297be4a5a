"""The deliberations of an ordeal: five voices each, every one of which the far end knows by its persona."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.conclave_fixture import Client

__all__ = ["VOICES", "Asked", "deliberation_of", "voice_in"]

VOICES = 5
_VOICE = re.compile(r"voice (\d+) of ([a-z]+-\d+)")


@dataclass
class Asked:
    """One deliberation as its caller knows it; `id` is None until it was acknowledged."""

    label: str
    body: Mapping[str, Any]
    id: str | None = None

    def document(self, client: Client) -> Any:
        """As it stands now. Fails where it was acknowledged and is lost."""
        answer = client.ask("GET", f"/v1/deliberations/{self.id}")
        assert answer.status == 200, f"{self.label!r} was acknowledged and is lost: {answer}"
        return answer.document


def deliberation_of(label: str, *, slow: bool) -> dict[str, Any]:
    """The body that asks for a deliberation of that label; where it is slow, its last voice answers slowly."""
    adverbs = ["briefly"] * (VOICES - 1) + ["slowly" if slow else "briefly"]
    members = [
        {"id": f"voice-{number}", "persona": f"You are voice {number} of {label}, and you answer {adverb}."}
        for number, adverb in enumerate(adverbs)
    ]
    return {
        "question": f"Should {label} open its doors?",
        "answer": {"kind": "choice", "options": ["yes", "no", "later"]},
        "agents": {"members": members},
    }


def voice_in(entry: Mapping[str, Any]) -> tuple[str, str] | None:
    """Label and agent that an entry of the far end's journal is a call of; None where it is of none."""
    found = _VOICE.search(json.dumps(entry["body"]))
    return None if found is None else (found[2], f"voice-{found[1]}")
