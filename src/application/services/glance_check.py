"""Compares what lists show of a deliberation that ended with the entries that witness it.

Lists show nothing that an agent said but the reasons and claims in the outcome. So they look at no record of an agent, but at what the
entry says of its end, and at those words that are shown; and not at calls, which nobody is shown. All else is compared as
`record_check` compares it. What differs in the rest is refused where it is shown: by a look at the deliberation itself.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from operator import itemgetter
from typing import Any, NamedTuple, Protocol

from application.ports.witness_log import LoggedEntry
from application.services.entry_comparison import Document, EntryComparison, drawn_from, text_of_time
from domain.errors.deliberation import RecordMismatchError
from domain.models.deliberation import Deliberation
from domain.models.roll_call import RollCall
from domain.models.round import AgentRecord, Round
from domain.protocols.round_format import answers_question
from domain.witness.entry import (
    RECORD_TEXTS,
    agent_ended,
    commitment,
    deliberation_ended,
    salt_at,
)
from domain.witness.merkle import LEAF_PREFIX
from domain.witness.result_documents import round_document

__all__ = ["END_OF_A_CALL_ENTRY", "GlanceComparison", "Place", "Spoken", "StoredGlance", "TallyOfRound"]

END_OF_A_CALL_ENTRY = b'"type":"call.intended"}'
"""What the canonical JSON of an entry ends with that says of a call that it is about to be made, and of no other."""

Place = tuple[int, str]
"""The number of a round, and the id of an agent."""

_TOOK_PART = frozenset({"answered", "abstained"})
_REASONING, _ANSWER = RECORD_TEXTS.index("reasoning"), RECORD_TEXTS.index("answer")
_SAID = frozenset({"content", "reasoning", "answer"})


class TallyOfRound(Protocol):
    """What is kept of a round that is over: who ended in it, and what was counted."""

    @property
    def number(self) -> int:
        """From 0, the blind one."""
        ...

    @property
    def agents(self) -> tuple[str, ...]:
        """Who ended in it, by id."""
        ...

    @property
    def tally(self) -> Mapping[str, float]:
        """What was counted."""
        ...

    @property
    def purpose(self) -> str:
        """What it was for."""
        ...

    @property
    def kept(self) -> Mapping[str, int]:
        """From which round ballots were kept, by agent."""
        ...


@dataclass(frozen=True, slots=True)
class StoredGlance:
    """What lists show of a deliberation that ended, as of one moment and compared with nothing yet.

    `shown` is without rounds, and its failures without texts. `salts` are those of the texts it was accepted with, None once
    they are erased. `root_hash` is the root (hex) of the first `shown.witness.tree_size` leaves of the log, None where the log
    has none of that size.
    """

    shown: Deliberation
    rounds: Sequence[TallyOfRound]
    first_index: int | None
    salts: bytes | None
    root_hash: str | None


class Spoken(NamedTuple):
    """What an agent said in a round, as it is stored; `salts` are those of all its texts, None once they are erased.

    The `answer` is None where it is in no words.
    """

    reasoning: str | None
    salts: bytes | None
    answer: str | None = None


_NOTHING = Spoken(None, None)


class _Ending(NamedTuple):
    """What the entry says of how an agent ended; the whole document only of those who neither answered nor abstained."""

    leaf_index: int
    state: str
    model: str | None
    reasoning: str | None
    answer: Any
    document: Document | None


class GlanceComparison(EntryComparison):
    """Refuses what a list would show of one deliberation that is not what its entries make it.

    Each step raises `RecordMismatchError` naming the first part that differs: `read` its entries, `compare` them, and `compare_words`
    of those places that `compare` gave.
    """

    def __init__(self, stored: StoredGlance, read_json: Callable[[bytes], Any]) -> None:
        """`read_json` raises `ValueError` for what is no JSON."""
        super().__init__(stored.shown)
        self._stored = stored
        self._read_json = read_json
        self._leaves: dict[int, bytes] = {}
        self._endings: dict[Place, _Ending] = {}
        self._counted: dict[str, Place] = {}

    def read(self, entries: Iterable[tuple[int, bytes, int | None, bytes | None]]) -> None:
        """Take index, leaf hash, sequence and entry of each of its entries, in the order of their sequences and then of their indexes.

        Instead of an entry with `END_OF_A_CALL_ENTRY` there is None: of these only the leaf counts.
        """
        last, own, digest, read_json = -1, self._shown.id, hashlib.sha256, self._read_json
        for index, leaf, sequence, data in entries:
            if sequence is None or index <= last or (last < 0 and sequence != 1):
                self._refuse("sequence", LoggedEntry(index, leaf, b""), "", sequence)
            last = index
            self._leaves[index] = leaf
            if data is None:
                continue
            # Written out rather than by `leaf_hash` and `document_of`: a page has thousands of these.
            if digest(LEAF_PREFIX + data).digest() != leaf:
                self._refuse("entry", LoggedEntry(index, leaf, data), leaf.hex(), "")
            try:
                document = read_json(data)
                is_own = document["deliberation_id"] == own
                kind = document["type"]
            except (ValueError, LookupError, TypeError):
                is_own = False
            if not is_own:
                self._refuse("entry", LoggedEntry(index, leaf, data), own, "another")
            if kind == "agent.ended":
                self._take(index, document)
            else:
                self._told.append((LoggedEntry(index, leaf, data, own, sequence), document))

    def compare(self) -> Collection[Place]:
        """All but the words of agents; the places whose words are shown, or committed to in what is shown."""
        shown, stored = self._shown, self._stored
        self._compare_accepted(stored.salts, stored.first_index)
        starts = self._compare_start()
        ended, recorded = self._only("deliberation.ended") or self._refuse("status", None, "unfinished", shown.status)
        endings = [self._endings_of(kept) for kept in stored.rounds]
        self._compare_ended(ended, recorded, starts, endings)
        self._compare_span(ended, stored.first_index, stored.root_hash)
        return self._compare_derived(endings)

    def compare_words(self, spoken: Mapping[Place, Spoken]) -> None:
        """What agents said, at those places that `compare` gave: the reasons of the outcome, its claims, and why agents failed."""
        for lost in self._shown.failures:
            self._compare_failure(lost, spoken)
        outcome, counted = self._shown.outcome, self._counted
        if outcome is not None:
            self._compare_quotes(
                outcome,
                lambda own: self._reasoning(counted[own], spoken) if own in counted else None,
                lambda own: self._answer(counted[own], spoken) if own in counted else None,
            )

    def _take(self, index: int, document: Document) -> None:
        try:
            reasoning, state = document["reasoning"], document["state"]
            committed = None if reasoning is None else reasoning["sha256"]
            place = (document["round"], document["agent_id"])
            unheard = None if state in _TOOK_PART else document
            ending = _Ending(index, state, document["model"], committed, document["answer"], unheard)
            known = self._endings.setdefault(place, ending)
        except (LookupError, TypeError):
            self._refuse("entry", LoggedEntry(index, b"", b""), "", "unreadable")
        if known is not ending:
            self._refuse("records", LoggedEntry(index, b"", b""), "one", "two")

    def _compare_ended(
        self,
        entry: LoggedEntry,
        recorded: Document,
        starts: Sequence[tuple[LoggedEntry, Document]],
        endings: Sequence[Mapping[str, _Ending]],
    ) -> None:
        shown = self._shown
        # First, because without it the rest of an unfinished one could not even be made.
        self._equal("status", shown.status.value, recorded.get("status"), entry)
        self._equal("finished_at", text_of_time(shown.finished_at), recorded.get("at"), entry)
        before = b"".join(self._leaves[index] for index in takewhile(entry.index.__gt__, self._leaves))
        self._equal("record_sha256", recorded.get("record_sha256"), hashlib.sha256(before).hexdigest(), entry)
        rounds = [_document_of_round(kept, ended) for kept, ended in zip(self._stored.rounds, endings, strict=True)]
        for start, told in starts:
            previous = told.get("previous")
            if previous is not None:
                ended = [each for each in rounds if each["round"] + 1 == told.get("round")]
                self._equal("rounds", ended, [previous], start)
        made = dict(self._made(lambda: deliberation_ended(shown, cause=shown.reason).document))
        # Those before the last have their tallies in the entries of the rounds after them.
        made["rounds"] = [each if each is rounds[-1] else _untallied(each) for each in rounds]
        # No list shows the certificate; what it certifies is compared as it stands in the outcome.
        self._compare(entry, recorded, made, frozenset({"record_sha256", "certificate"}))

    def _endings_of(self, kept: TallyOfRound) -> dict[str, _Ending]:
        number, endings = kept.number, self._endings
        return {agent_id: ending for agent_id in kept.agents if (ending := endings.get((number, agent_id))) is not None}

    def _compare_derived(self, endings: Sequence[Mapping[str, _Ending]]) -> Collection[Place]:
        """What follows from how the agents ended: roll call, failures, models and, of each, which ballot counted."""
        shown, asked = self._shown, self._shown.specification
        last = {agent_id: ending.state for ended in endings for agent_id, ending in ended.items()}
        self._equal("roll_call", shown.roll_call, RollCall.from_counts(Counter(last.values())))
        models = {ending.model for ended in endings for ending in ended.values()}
        self._equal("models", list(shown.models), sorted(model for model in models if model))
        numbered = [(kept.number, ended) for kept, ended in zip(self._stored.rounds, endings, strict=True)]
        failed = [(number, own) for number, ended in numbered for own, each in ended.items() if each.document]
        if [(lost.round_number, lost.agent_id) for lost in shown.failures] != failed:
            self._refuse("failures", None, "", "")
        # Of each the ballot that counted, which may be of an earlier round.
        for number, ended in sorted(numbered, key=itemgetter(0)):
            if answers_question(asked.protocol, asked.question.answer, number):
                self._counted |= {own: (number, own) for own, each in ended.items() if not each.document}
        return {*failed, *self._quoted()}

    def _quoted(self) -> Iterator[Place]:
        outcome, counted = self._shown.outcome, self._counted
        if outcome is None:
            return
        for position in outcome.dissent.positions:
            yield from (counted[agent_id] for agent_id in position.agents if agent_id in counted)
        for claim in () if outcome.synthesis is None else outcome.synthesis.claims:
            if claim.source in counted:
                yield counted[claim.source]

    def _reasoning(self, place: Place, spoken: Mapping[Place, Spoken]) -> str | None:
        said, committed = spoken.get(place, _NOTHING), self._endings[place].reasoning
        text, salts = said.reasoning, said.salts
        if text is None:
            made = committed if self._shown.erased else None
        else:
            made = hashlib.sha256(salt_at(salts or b"", _REASONING) + text.encode()).hexdigest()
        if made != committed:
            raise self._unwitnessed(place)
        return text

    def _answer(self, place: Place, spoken: Mapping[Place, Spoken]) -> str | None:
        said = spoken.get(place, _NOTHING)
        if self._shown.erased and said.answer is None:
            return None
        if commitment(salt_at(said.salts or b"", _ANSWER), said.answer) != self._endings[place].answer:
            raise self._unwitnessed(place)
        return said.answer

    def _compare_failure(self, lost: AgentRecord, spoken: Mapping[Place, Spoken]) -> None:
        place = (lost.round_number, lost.agent_id)
        recorded, salts = self._endings[place].document or {}, spoken.get(place, _NOTHING).salts
        answers = self._shown.specification.answers_in(lost.round_number)
        made = self._made(lambda: agent_ended(self._shown.id, lost, answers, salts=drawn_from(salts)).document)
        said, shown = _outwardly(recorded), _outwardly(made)
        if self._shown.erased:
            said, shown = _messageless(said), _messageless(shown)
            if lost.failure is not None and lost.failure.message:
                raise self._unwitnessed(place)
        if said != shown:
            self._refuse("failures", None, "", "")

    def _unwitnessed(self, place: Place) -> RecordMismatchError:
        number, agent_id = place
        return RecordMismatchError(
            deliberation_id=self._shown.id,
            agent_id=agent_id,
            round_number=number,
            recorded="",
            found="another text",
            index=self._endings[place].leaf_index,
        )


def _document_of_round(kept: TallyOfRound, endings: Mapping[str, _Ending]) -> dict[str, Any]:
    document = round_document(Round(kept.number, (), kept.tally, kept.purpose, kept.kept))
    states = Counter([ending.state for ending in endings.values()])
    return document | {"roll_call": RollCall.from_counts(states).as_counts()}


def _untallied(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: {} if name == "tally" else value for name, value in document.items() if name != "kept"}


def _outwardly(document: Document) -> Document:
    """How an agent ended, without what it said."""
    return {name: value for name, value in document.items() if name not in _SAID}


def _messageless(document: Document) -> Document:
    failure = document.get("failure")
    return {**document, "failure": failure.get("kind") if isinstance(failure, dict) else failure}
