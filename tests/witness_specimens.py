"""A witness log for tests, built from scratch: nothing of it comes from the code that writes or verifies logs."""

from __future__ import annotations

import copy
import hashlib
import json
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

Document = dict[str, Any]

ORIGIN = "conclave.example/log"
STATES = ("answered", "abstained", "invalid", "timed_out", "throttled", "failed", "over_budget", "cancelled", "halted")
OPTIONS = ["yes", "no", "weekends only"]


class LogKey:
    """A signing key as C2SP signed-note has them, the same in every run."""

    def __init__(self, name: str = ORIGIN, seed: bytes = b"\x07" * 32) -> None:
        self.name = name
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self._material = b"\x01" + self._private.public_key().public_bytes_raw()
        self._id = hashlib.sha256(name.encode() + b"\n" + self._material).digest()[:4]

    @property
    def vkey(self) -> str:
        """The public key as it is pinned."""
        return f"{self.name}+{self._id.hex()}+{b64encode(self._material).decode()}"

    def sign(self, body: str) -> str:
        """The note with this text and one signature."""
        signature = b64encode(self._id + self._private.sign(body.encode())).decode()
        return f"{body}\n\u2014 {self.name} {signature}\n"


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


class Log:
    """Entries in order, of several deliberations and of the system."""

    def __init__(self, key: LogKey | None = None) -> None:
        self.key = key or LogKey()
        self.entries: list[bytes] = []
        self.stories: list[Story] = []
        self.places: dict[str, list[int]] = {}

    def tell(self, *stories: Story) -> Log:
        """Log these stories, taking an entry of each in turn."""
        self.stories += stories
        told = [(story.id, iter(story.entries())) for story in stories]
        while told:
            for each in list(told):
                entry = next(each[1], None)
                if entry is None:
                    told.remove(each)
                    continue
                self.places.setdefault(each[0], []).append(len(self.entries))
                self.entries.append(entry)
        return self

    def add_system(self, kind: str, **fields: Any) -> Log:
        """An entry that belongs to no deliberation."""
        at = "2026-11-21T13:00:00.000000Z"
        document = {"type": kind, "at": at, "key_name": None, "reason": {"sha256": "ab" * 32}, **fields}
        self.entries.append(rfc8785.dumps(document))
        return self

    def checkpoint(self, size: int | None = None, *, origin: str | None = None, key: LogKey | None = None) -> str:
        """The signed checkpoint of the first `size` entries."""
        size = len(self.entries) if size is None else size
        root = b64encode(self.root(size)).decode()
        return (key or self.key).sign(f"{origin or self.key.name}\n{size}\n{root}\n")

    def root(self, size: int | None = None) -> bytes:
        """The root of the first `size` entries."""
        return tree_of([leaf_of(entry) for entry in self.entries[:size]])

    def bundle(self, story_id: str, *, size: int | None = None) -> Document:
        """The bundle of one deliberation with all its disclosures, against the tree of `size` entries."""
        size = len(self.entries) if size is None else size
        leaves = [leaf_of(entry) for entry in self.entries[:size]]
        story = next(each for each in self.stories if each.id == story_id)
        return {
            "version": 1,
            "checkpoint": self.checkpoint(size),
            "public_key": self.key.vkey,
            "entries": [
                {
                    "index": index,
                    "entry": self.entries[index].decode(),
                    "inclusion_proof": [each.hex() for each in path_of(index, leaves)],
                }
                for index in self.places[story_id]
                if index < size
            ],
            "disclosures": copy.deepcopy(story.disclosures),
        }

    def export(self, *, size: int | None = None, disclosed: bool = True) -> list[Document]:
        """The lines of an export of the whole log as documents."""
        size = len(self.entries) if size is None else size
        header = {
            "version": 1,
            "kind": "log",
            "checkpoint": self.checkpoint(size),
            "public_key": self.key.vkey,
            "tree_size": size,
        }
        entries = [{"index": index, "entry": entry.decode()} for index, entry in enumerate(self.entries[:size])]
        texts = [{"disclosure": dict(each)} for story in self.stories for each in story.disclosures if disclosed]
        return [header, *entries, *texts]


def leaf_of(entry: bytes) -> bytes:
    """RFC 6962 section 2.1."""
    return hashlib.sha256(b"\x00" + entry).digest()


def tree_of(leaves: Sequence[bytes]) -> bytes:
    """The Merkle tree hash of RFC 6962 section 2.1, as it stands there."""
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256(b"").digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + tree_of(leaves[:split]) + tree_of(leaves[split:])).digest()


def path_of(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """The audit path of RFC 6962 section 2.1.1, as it stands there."""
    if len(leaves) < 2:
        return []
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if index < split:
        return [*path_of(index, leaves[:split]), tree_of(leaves[split:])]
    return [*path_of(index - split, leaves[split:]), tree_of(leaves[:split])]


def as_bytes(document: Document) -> bytes:
    """A bundle as a file."""
    return json.dumps(document, ensure_ascii=False, indent=1).encode()


def as_lines(documents: Sequence[Any]) -> list[bytes]:
    """An export as the lines of a file."""
    return [json.dumps(each, ensure_ascii=False).encode() + b"\n" for each in documents]


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


def asked(story: Story, endings: Sequence[tuple[str, str, Any]], *, text: bool = False) -> None:
    """Call these agents, all at once, and let them end so, the last one first."""
    story.start([agent for agent, _, _ in endings])
    for agent, _, _ in endings:
        story.call(agent)
    for agent, state, answer in reversed(endings):
        story.end_agent(agent, state, answer, text=text and state == "answered")


def choice(story_id: str = "choice", *, rule: Document | None = None) -> Story:
    """Seven agents and three options, with failures, a retry and one that never got called; decided."""
    story = Story(story_id)
    story.accept(
        [f"a-{n}" for n in range(8)],
        answer={"kind": "choice", "options": OPTIONS},
        rule=rule or {"kind": "plurality", "fraction": None},
    )
    story.start([f"a-{n}" for n in range(8)])
    for n in range(7):
        story.call(f"a-{n}")
    story.end_agent("a-4", "abstained")
    story.end_agent("a-3", "answered", 0)
    story.call("a-6", attempt=2)
    story.end_agent("a-0", "answered", 2)
    story.end_agent("a-1", "answered", 2)
    story.end_agent("a-2", "answered", 1)
    story.end_agent("a-5", "invalid")
    story.end_agent("a-6", "answered", 2, attempt=2)
    story.end_agent("a-7", "timed_out", attempt=0)
    story.end(
        "completed",
        decided(
            "weekends only",
            {"yes": 1, "no": 1, "weekends only": 3},
            rule="plurality",
            margin=2,
            percentage=40.0,
            positions=[("no", ["a-2"]), ("yes", ["a-3"])],
            agreeing=["plurality"],
            flip=2,
        ),
    )
    return story


def verdict(story_id: str = "verdict") -> Story:
    """Four agents, of whom two say yes: enough for a threshold of a half."""
    story = Story(story_id)
    story.accept(
        ["v-0", "v-1", "v-2", "v-3"],
        answer={"kind": "verdict"},
        rule={"kind": "threshold", "fraction": 0.5},
        context=None,
    )
    asked(
        story,
        [
            ("v-0", "answered", "yes"),
            ("v-1", "answered", "yes"),
            ("v-2", "answered", "no"),
            ("v-3", "throttled", None),
        ],
    )
    story.end(
        "completed",
        decided(
            "yes",
            {"yes": 2, "no": 1},
            rule="threshold",
            margin=1,
            percentage=33.3,
            positions=[("no", ["v-2"])],
            agreeing=["threshold", "plurality"],
            flip=1,
        ),
    )
    story.follow_up("recounted", rule={"kind": "plurality"})
    story.follow_up("resolved", answer="yes")
    return story


def tie(story_id: str = "tie") -> Story:
    """Two against two."""
    story = Story(story_id)
    story.accept(
        ["t-0", "t-1", "t-2", "t-3"],
        answer={"kind": "choice", "options": OPTIONS},
        rule={"kind": "plurality"},
        quorum=1.0,
    )
    asked(story, [(f"t-{n}", "answered", n % 2) for n in range(4)])
    story.end(
        "completed",
        undecided(
            "tied",
            {"yes": 2, "no": 2, "weekends only": 0},
            rule="plurality",
            margin=0,
            positions=[("yes", ["t-0", "t-2"]), ("no", ["t-1", "t-3"])],
            flip=1,
        ),
    )
    return story


def inquorate(story_id: str = "inquorate") -> Story:
    """One of three took part."""
    story = Story(story_id)
    story.accept(["i-0", "i-1", "i-2"], answer={"kind": "verdict"}, rule={"kind": "threshold"}, quorum=0.5)
    asked(story, [("i-0", "answered", "no"), ("i-1", "failed", None), ("i-2", "over_budget", None)])
    story.end("inquorate", None, cause="fewer agents took part than the quorum asks for")
    return story


def cancelled(story_id: str = "cancelled") -> Story:
    """Stopped while one had answered and one was still waiting."""
    story = Story(story_id)
    story.accept(["c-0", "c-1"], answer={"kind": "verdict"}, rule={"kind": "threshold"})
    story.start(["c-0", "c-1"])
    story.call("c-0")
    story.end_agent("c-0", "answered", "yes")
    story.end_agent("c-1", "cancelled", attempt=0)
    story.end("cancelled", None, cause="cancelled on request")
    return story


def erased(story_id: str = "erased") -> Story:
    """A median whose texts were erased afterwards."""
    story = Story(story_id)
    story.accept(
        ["e-0", "e-1", "e-2", "e-3"], answer={"kind": "score", "min": 0.0, "max": 10.0}, rule={"kind": "median"}
    )
    asked(story, [("e-0", "answered", 1.5), ("e-1", "answered", 7.0), ("e-2", "answered", 8), ("e-3", "halted", None)])
    story.end(
        "completed",
        decided(
            7.0,
            {"1.5": 1, "7": 1, "8": 1},
            rule="median",
            margin=None,
            percentage=66.7,
            positions=[("below 4.25", ["e-0"]), ("above 7.5", ["e-2"])],
            agreeing=["median"],
            spread=3.25,
        ),
    )
    story.disclosures.clear()
    story.follow_up("erased")
    return story


def free_text(story_id: str = "text") -> Story:
    """Answers in free text, which nobody can count."""
    story = Story(story_id)
    story.accept(["x-0", "x-1"], answer={"kind": "text"}, rule={"kind": "synthesis"})
    asked(story, [("x-0", "answered", "Plant trees."), ("x-1", "abstained", None)], text=True)
    outcome = decided("Plant trees.", {}, rule="synthesis", margin=None, percentage=0.0)
    story.end("completed", outcome)
    return story


def seventy_two(story_id: str = "large") -> Story:
    """Seventy-two agents, of whom seventy answer alike."""
    story = Story(story_id)
    agents = [f"archon-{n}" for n in range(72)]
    story.accept(agents, answer={"kind": "choice", "options": OPTIONS}, rule={"kind": "plurality"})
    asked(story, [(agent, "answered", int(place > 69)) for place, agent in enumerate(agents)])
    story.end(
        "completed",
        decided(
            "yes",
            {"yes": 70, "no": 2, "weekends only": 0},
            rule="plurality",
            margin=68,
            percentage=2.8,
            positions=[("no", ["archon-70", "archon-71"])],
            agreeing=["plurality", "threshold"],
            flip=35,
        ),
    )
    return story


def whole_log(key: LogKey | None = None) -> Log:
    """Every kind of deliberation, interleaved, with entries of the system between them."""
    return (
        Log(key)
        .add_system("key.added", key="a")
        .tell(choice(), verdict(), tie())
        .add_system("halt.set")
        .add_system("halt.cleared")
        .tell(inquorate(), cancelled())
        .tell(erased(), free_text())
        .add_system("restore.accepted")
    )


def check_signature(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Ed25519 (RFC 8032), straight from the library."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def parse_canonical(data: bytes) -> Document:
    """An object in canonical JSON, by the reference encoder."""
    document = json.loads(data)
    if type(document) is not dict or rfc8785.dumps(document) != data:
        raise ValueError("not canonical")
    return document
