"""The entries of one deliberation for tests, told in order, and the outcome that they end with."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import rfc8785

from tests.witness_formats import Document, leaf_of

STATES = ("answered", "abstained", "invalid", "timed_out", "throttled", "failed", "over_budget", "cancelled", "halted")


@dataclass
class Story:
    """One deliberation: its entries as documents in order, and every text that they commit to."""

    id: str
    documents: list[Document] = field(default_factory=list)
    disclosures: list[Document] = field(default_factory=list)
    _texts: int = 0

    def commit(self, text: str | None, *, salt: bytes | None = None, keep: bool = True) -> Document | None:
        """The commitment to a text; the text is kept to be disclosed."""
        if text is None:
            return None
        if salt is None:
            self._texts += 1
            salt = hashlib.sha256(f"{self.id} {self._texts}".encode()).digest()[:16]
        digest = hashlib.sha256(salt + text.encode()).hexdigest()
        if keep:
            self.disclosures.append({"sha256": digest, "salt": salt.hex(), "text": text})
        return {"sha256": digest}

    def add(self, kind: str, **fields: Any) -> None:
        """The next entry."""
        at = f"2026-11-21T12:00:00.{len(self.documents):06}Z"
        self.documents.append({"type": kind, "at": at, "deliberation_id": self.id, **fields})

    def accept(
        self,
        members: Sequence[str],
        *,
        answer: Document,
        rule: Document,
        quorum: float = 0.5,
        context: str | None = "Zeile eins\nZeile zwei \U0001f697",
    ) -> None:
        """The acceptance."""
        self.add(
            "deliberation.accepted",
            question=self.commit("Should the centre be closed to cars? \u65e5\u672c"),
            context=self.commit(context),
            answer=answer,
            protocol={"kind": "poll", "wave_size": None},
            rule=rule,
            quorum={"min_answered_fraction": quorum},
            limits={
                "agent_timeout_s": 120.0,
                "deadline_s": 1800.0,
                "max_attempts": 2,
                "max_total_tokens": 400_000,
                "max_cost_usd": 5.0,
            },
            sampling={"temperature": 0.7, "max_output_tokens": 1024},
            roster="archons",
            members=[
                {"agent_id": each, "model": "small", "persona": self.commit(f"You are {each}.")} for each in members
            ],
            seed=7,
            origin="scheduled",
            key_name=self.commit("operator"),
            orchestrator="openai",
            simulated=False,
        )

    def start(self, agents: Sequence[str]) -> None:
        """Round 0 begins."""
        self.add("round.started", round=0, agents=list(agents))

    def call(self, agent: str, *, attempt: int = 1) -> None:
        """An intent to call. Its prompt is salted like the question, and not kept."""
        salt = bytes.fromhex(self.disclosures[0]["salt"])
        prompt = self.commit(f"You are {agent}. Answer!", salt=salt, keep=False)
        self.add(
            "call.intended", round=0, agent_id=agent, attempt=attempt, purpose="answer", model="small", prompt=prompt
        )

    def end_agent(self, agent: str, state: str, answer: Any = None, *, attempt: int = 1, text: bool = False) -> None:
        """How an agent ended."""
        took_part = state in STATES[:2]
        self.add(
            "agent.ended",
            round=0,
            agent_id=agent,
            attempt=attempt,
            state=state,
            answer=self.commit(answer) if text else answer,
            confidence=0.75 if took_part else None,
            content=self.commit(f'{{"answer": "{agent}"}}') if took_part or state == "invalid" else None,
            reasoning=self.commit(f"Because of {agent} \u2602") if took_part else None,
            model="small-2026" if took_part else None,
            usage={"calls": attempt, "input_tokens": 200 * attempt, "output_tokens": 50, "cost_usd": 0.1 * attempt},
            failure=None if took_part else {"kind": f"agent_{state}", "message": self.commit(f"{agent} {state}")},
            started_at="2026-11-21T12:00:00.000000Z" if attempt else None,
            duration_s=0.25,
            truncated=False,
            model_asked="small",
        )

    def end(self, status: str, outcome: Document | None, *, cause: str | None = None) -> None:
        """The end, with roll call and usage counted here and the record to be filled in by `entries`."""
        endings = [each for each in self.documents if each["type"] == "agent.ended"]
        roll_call = {state: sum(each["state"] == state for each in endings) for state in STATES}
        usage: Document = {
            name: sum(each["usage"][name] for each in endings) for name in ("calls", "input_tokens", "output_tokens")
        }
        usage["cost_usd"] = sum(each["usage"]["cost_usd"] for each in reversed(endings))
        counts = {"asked": len(endings), **roll_call}
        rounds = [{"round": 0, "roll_call": counts, "tally": outcome["tally"]}] if outcome else []
        self.add(
            "deliberation.ended",
            status=status,
            cause=cause,
            outcome=outcome,
            roll_call=counts,
            rounds=rounds,
            usage=usage,
            record_sha256=None,
        )

    def follow_up(self, kind: str, **asked: Any) -> None:
        """A recount, a resolution or an erasure."""
        self.add(kind, key_name=self.commit("operator", keep=False), reason=self.commit("it was asked for"), **asked)

    def entries(self) -> list[bytes]:
        """The entries as they are logged; an end without a record gets the right one."""
        entries: list[bytes] = []
        for document in self.documents:
            if document["type"] == "deliberation.ended" and document["record_sha256"] is None:
                leaves = b"".join(leaf_of(entry) for entry in entries)
                filled = {**document, "record_sha256": hashlib.sha256(leaves).hexdigest()}
                entries.append(rfc8785.dumps(filled))
            else:
                entries.append(rfc8785.dumps(document))
        return entries

    def retold(self, edit: Callable[[Story], None]) -> Story:
        """The same story, told by a writer who lies: edited before it is logged and signed."""
        other = copy.deepcopy(self)
        edit(other)
        return other

    def find(self, kind: str, **fields: Any) -> Document:
        """The first document of that type with these fields."""
        return next(
            each
            for each in self.documents
            if each["type"] == kind and all(each[name] == value for name, value in fields.items())
        )


def decided(
    decision: str | float,
    tally: dict[str, int],
    *,
    rule: str,
    margin: int | None,
    percentage: float,
    positions: Sequence[tuple[str, Sequence[str]]] = (),
    agreeing: Sequence[str] = (),
    flip: int | None = None,
    spread: float | None = None,
) -> Document:
    """An outcome with a decision, as `deliberation.ended` has it."""
    return _outcome("decided", decision, tally, rule, margin, percentage, positions, agreeing, flip, spread)


def undecided(
    status: str,
    tally: dict[str, int],
    *,
    rule: str,
    margin: int,
    positions: Sequence[tuple[str, Sequence[str]]],
    flip: int | None,
) -> Document:
    """A tie, or no majority."""
    return _outcome(status, None, tally, rule, margin, None, positions, (), flip, None)


def _outcome(
    status: str,
    decision: str | float | None,
    tally: dict[str, int],
    rule: str,
    margin: int | None,
    percentage: float | None,
    positions: Sequence[tuple[str, Sequence[str]]],
    agreeing: Sequence[str],
    flip: int | None,
    spread: float | None,
) -> Document:
    return {
        "status": status,
        "decision": decision,
        "rule": rule,
        "tally": tally,
        "margin": margin,
        "spread": spread,
        "dissent": {
            "percentage": percentage,
            "positions": [{"answer": answer, "count": len(held), "agents": list(held)} for answer, held in positions],
        },
        "blind_tally": dict(tally),
        "changed": [],
        "effective_votes": None,
        "robustness": {"rules_agreeing": list(agreeing), "votes_to_flip": flip},
    }
