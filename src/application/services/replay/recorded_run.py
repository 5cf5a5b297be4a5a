"""Reads from a bundle what a run was asked, what it was told by its agents, and what it recorded of that."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from application.services.verification.tally import read_synthesis
from application.services.verification.terms import read_rule
from domain.errors.conclave_error import ConclaveError
from domain.errors.witness import VerificationRefusedError
from domain.models.agent import Agent, Persona, Roster
from domain.models.budget import Limits, Quorum, Sampling, Usage
from domain.models.control import Control
from domain.models.deliberation import Deliberation, Specification
from domain.models.outcome import Synthesis
from domain.models.protocol import Protocol, ProtocolKind
from domain.models.question import AnswerFormat, AnswerKind, Question
from domain.protocols.round_format import counted_answers
from domain.witness.entry import SALT_BYTES

__all__ = ["Key", "NotReplayableError", "RecordedRun", "Turn", "key_of", "usage_of"]

Turn = tuple[int, str]
"""Round and agent."""

Key = tuple[Any, ...]
"""What an entry is about: its type, and where it has them round, agent and attempt."""

_SOFTWARE = (KeyError, TypeError, ValueError, AttributeError, IndexError)
_UNSALTED = bytes(SALT_BYTES)


class NotReplayableError(ConclaveError):
    """A record lacks what a run needs: a text that is erased or withheld, or something that this version does not know."""

    slug: ClassVar[str] = "not-replayable"

    def __init__(self, *, problem: str, index: int | None = None) -> None:
        where = "" if index is None else f"entry {index}: "
        super().__init__(f"the run cannot be replayed: {where}{problem}.")
        self.problem = problem
        self.index = index


def key_of(document: Mapping[str, Any]) -> Key:
    """What an entry of a run is about; no two of one run are about the same."""
    kind = document["type"]
    if kind == "round.started":
        return kind, document["round"]
    if kind == "call.intended":
        return kind, document["round"], document["agent_id"], document["attempt"]
    if kind in {"agent.ended", "texts.compared"}:
        return kind, document["round"], document["agent_id"]
    return (kind,)


@dataclass(slots=True)
class RecordedRun:
    """The entries of one run from its acceptance to its end, in order, and the texts that they commit to.

    `raw` are their bytes and `indexes` where they stand in the log, both in the order of `documents`. `texts` gives for a commitment
    (hex) the salt (16 bytes) and the text.
    """

    deliberation: Deliberation
    accepted_salts: bytes
    documents: list[dict[str, Any]]
    raw: list[bytes]
    indexes: list[int]
    texts: Mapping[str, tuple[bytes, str]]
    places: Mapping[Key, int] = field(default_factory=dict)

    @classmethod
    def read(cls, bundle: Mapping[str, Any]) -> RecordedRun:
        """The run in that bundle (contract, section 3).

        Raises `NotReplayableError`, and `VerificationRefusedError` for what is no bundle of a deliberation that has ended.
        """
        try:
            entries = [(int(each["index"]), str(each["entry"]).encode()) for each in bundle["entries"]]
            documents = [json.loads(raw) for _, raw in entries]
            texts = {
                str(each["sha256"]): (bytes.fromhex(each["salt"]), str(each["text"])) for each in bundle["disclosures"]
            }
            kinds = [document["type"] for document in documents]
        except _SOFTWARE as error:
            raise VerificationRefusedError("this is no bundle of a deliberation") from error
        if not kinds or kinds[0] != "deliberation.accepted" or kinds.count("deliberation.ended") != 1:
            raise VerificationRefusedError("the bundle does not go from an acceptance to an end")
        # What follows the end is nothing that the run did.
        last = kinds.index("deliberation.ended") + 1
        documents, entries = documents[:last], entries[:last]
        if "erased" in kinds:
            raise NotReplayableError(problem="its texts are erased", index=None)
        try:
            deliberation, salts = _accepted(documents[0], texts, entries[0][0])
            places = {key_of(document): place for place, document in enumerate(documents)}
        except _SOFTWARE as error:
            raise NotReplayableError(
                problem="it was accepted in a form that this version does not know", index=entries[0][0]
            ) from error
        if len(places) < len(documents):
            raise VerificationRefusedError("two entries of the run are about the same")
        return cls(
            deliberation,
            salts,
            documents,
            [raw for _, raw in entries],
            [index for index, _ in entries],
            texts,
            places,
        )

    @property
    def end(self) -> Mapping[str, Any]:
        """The entry of its end."""
        return self.documents[-1]

    def find(self, key: Key) -> Mapping[str, Any] | None:
        """The entry about that."""
        place = self.places.get(key)
        return None if place is None else self.documents[place]

    def intents(self, turn: Turn) -> list[Mapping[str, Any]]:
        """The calls of that agent in that round, in their order."""
        found = [
            document
            for document in self.documents
            if document["type"] == "call.intended" and (document["round"], document["agent_id"]) == turn
        ]
        return sorted(found, key=lambda document: int(document["attempt"]))

    def text(self, committed: Mapping[str, str] | None, what: str) -> str | None:
        """The committed text, None for none. Raises `NotReplayableError` where it is not disclosed."""
        return None if committed is None else self.salted(committed, what)[1]

    def salted(self, committed: Mapping[str, str], what: str) -> tuple[bytes, str]:
        """The committed text after its salt. Raises `NotReplayableError` where it is not disclosed."""
        return _salted(self.texts, committed, what)

    def synthesis(self) -> Synthesis | None:
        """The clusters and claims that were recorded, the claims without their texts."""
        outcome = self.end["outcome"]
        return None if outcome is None else read_synthesis(outcome, self.indexes[-1])


def usage_of(document: Mapping[str, Any]) -> Usage:
    """What an entry says that calls took."""
    return Usage(
        int(document["calls"]),
        int(document["input_tokens"]),
        int(document["output_tokens"]),
        float(document["cost_usd"]),
        int(document.get("uncertain_tokens", 0)),
        float(document.get("uncertain_usd", 0.0)),
    )


def _accepted(
    document: Mapping[str, Any], texts: Mapping[str, tuple[bytes, str]], index: int
) -> tuple[Deliberation, bytes]:
    salts = b""

    def told(committed: Mapping[str, str] | None, what: str) -> str | None:
        nonlocal salts
        salt, text = (_UNSALTED, None) if committed is None else _salted(texts, committed, what)
        salts += salt
        return text

    question, context = told(document["question"], "the question"), told(document["context"], "the context")
    key_name = told(document["key_name"], "the name of the key")
    members = [
        Agent(each["agent_id"], Persona(told(each["persona"], "a persona") or ""), each["model"])
        for each in document["members"]
    ]
    form = document["answer"]
    answer = AnswerFormat(
        AnswerKind(form["kind"]), tuple(form.get("options") or ()), form.get("min"), form.get("max"), form.get("unit")
    )
    settings = {name: value for name, value in document["protocol"].items() if name != "kind"}
    protocol = Protocol(ProtocolKind(document["protocol"]["kind"]), **settings)
    form = counted_answers(protocol, answer, len(members))
    rule, why_not = read_rule(document["rule"], form, [agent.id for agent in members], index)
    if rule is None:
        raise NotReplayableError(problem=str(why_not), index=index)
    origin, seed = document["origin"], document["seed"]
    control = document.get("control")
    specification = Specification(
        Question(question or "", context, answer),
        Roster(document.get("roster", ""), tuple(members)),
        rule,
        protocol=protocol,
        quorum=Quorum(**document["quorum"]),
        limits=Limits(**document["limits"]),
        sampling=Sampling(**document["sampling"]),
        origin=origin,
        seed=int(seed) if isinstance(seed, str) else seed,
        control=None if control is None else Control(control["model"]),
    )
    deliberation = Deliberation(
        document["deliberation_id"],
        specification,
        datetime.fromisoformat(document["at"]),
        orchestrator=document["orchestrator"],
        simulated=document["simulated"],
        key_name=key_name,
        question_salt=salts[:SALT_BYTES],
    )
    return deliberation, salts


def _salted(texts: Mapping[str, tuple[bytes, str]], committed: Mapping[str, str], what: str) -> tuple[bytes, str]:
    found = texts.get(committed["sha256"])
    if found is None:
        raise NotReplayableError(problem=f"the text of {what} is not in the bundle")
    return found
