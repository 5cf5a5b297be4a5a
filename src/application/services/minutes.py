"""Writes the minutes of a deliberation: its procedure in Markdown, from its entries and their disclosures alone.

It is one file, because the minutes are one page, chapter after chapter, and every chapter tells of the same entries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from application.pages.markdown import NOTHING, block, inline, table
from application.services.recorded_worth import recorded_worth
from application.services.worth_chapter import worth_chapter
from domain.models.roll_call import AgentState, RollCall
from domain.voting.synthesis import cluster_name, sentences_of

__all__ = ["Record", "write_minutes"]

Entry = Mapping[str, Any]

_ERASED = "*erased*"
_WITHHELD = "*withheld*"
_LATER = {
    "recounted": "recounted",
    "resolved": "resolved",
    "erased": "texts erased",
}


@dataclass(frozen=True, slots=True)
class Record:
    """Where the entries stand: their indexes, the tree they were proven to be in (root of 32 bytes), and its signed note."""

    indexes: Sequence[int]
    tree_size: int
    root_hash: bytes
    checkpoint: str
    public_key: str


def write_minutes(entries: Sequence[Entry], texts: Mapping[str, str], record: Record) -> str:
    """The minutes, in Markdown with tables. `texts` are the disclosed ones by their commitment (hex).

    No text can stand for anything but itself: each is escaped, and one that is not there is called withheld or erased.
    """
    return "\n".join(_Minutes(entries, texts, record).lines()) + "\n"


class _Minutes:
    def __init__(self, entries: Sequence[Entry], texts: Mapping[str, str], record: Record) -> None:
        self._entries = list(zip(record.indexes, entries, strict=True))
        self._texts = texts
        self._record = record
        self._accepted = self._only("deliberation.accepted")
        self._ended = self._only("deliberation.ended")
        self._answer = self._accepted.get("answer") or {}
        self._erased_from = max((index for index, entry in self._entries if entry["type"] == "erased"), default=-1)
        self._worth = recorded_worth(entries, texts)
        self._endings = [(index, entry) for index, entry in self._entries if entry["type"] == "agent.ended"]

    def lines(self) -> Iterator[str]:
        yield from self._question()
        yield from self._procedure()
        yield from self._roster()
        yield from self._rounds()
        yield from self._outcome()
        yield from self._worth_of_it()
        yield from self._fallbacks()
        yield from self._failures()
        yield from self._afterwards()
        yield from self._where()

    def _only(self, kind: str) -> Entry:
        return next((entry for _, entry in self._entries if entry["type"] == kind), {})

    def _of(self, kind: str) -> list[Entry]:
        return [entry for _, entry in self._entries if entry["type"] == kind]

    def _question(self) -> Iterator[str]:
        deliberation_id = self._entries[0][1].get("deliberation_id") if self._entries else None
        yield f"# Minutes of deliberation {inline(deliberation_id)}"
        for warning in () if self._worth is None else self._worth.warnings:
            yield from ("", f"**{inline(warning)}**")
        yield from ("", "## Question", "")
        yield from self._quoted(self._accepted.get("question"))
        if self._accepted.get("context") is not None:
            yield from ("", "Context:", "")
            yield from self._quoted(self._accepted["context"])
        yield from ("", f"Answers are of kind {inline(self._answer.get('kind'))}{self._bounds()}.")
        if self._answer.get("options"):
            yield ""
            for option in self._answer["options"]:
                yield f"- {inline(option)}"

    def _bounds(self) -> str:
        named = [f"{name} {inline(self._answer[name])}" for name in ("min", "max", "unit") if name in self._answer]
        return f" ({', '.join(named)})" if named else ""

    def _procedure(self) -> Iterator[str]:
        accepted, rounds = self._accepted, self._of("round.started")
        orchestrator = inline(accepted.get("orchestrator"))
        facts = [
            ("Accepted", inline(accepted.get("at"))),
            ("Started", inline(rounds[0].get("at")) if rounds else "not yet"),
            ("Ended", self._end()),
            ("Protocol", _settings(accepted.get("protocol"))),
            ("Rule", _settings(accepted.get("rule"))),
            ("Quorum", _settings(accepted.get("quorum"))),
            ("Limits", _settings(accepted.get("limits"))),
            ("Sampling", _settings(accepted.get("sampling"))),
            ("Seed", inline(accepted.get("seed"))),
            ("Origin", inline(accepted.get("origin"))),
            ("Asked for by", self._text(accepted.get("key_name"), 0)),
            ("Orchestrator", f"{orchestrator}, **simulated**" if accepted.get("simulated") else orchestrator),
            ("Calls intended", str(len(self._of("call.intended")))),
            ("Words of the prompts", ", ".join(self._prompt_versions()) or NOTHING),
            *self._costs(),
        ]
        yield from ("", "## Procedure", "")
        yield from table(("Matter", "As recorded"), facts)

    def _prompt_versions(self) -> Iterator[str]:
        named = (each.get("prompt_version") for each in self._of("call.intended"))
        for version in dict.fromkeys(version for version in named if version is not None):
            yield inline(version)

    def _costs(self) -> Iterator[tuple[str, str]]:
        usage = self._ended.get("usage")
        if usage is None:
            yield "Usage", NOTHING
            return
        yield "Usage", _settings({name: usage.get(name) for name in ("calls", "input_tokens", "output_tokens")})
        yield "Cost", f"{_dollars(usage.get('cost_usd', 0.0))} US dollars"
        tokens, dollars = usage.get("uncertain_tokens", 0), usage.get("uncertain_usd", 0.0)
        # Entries of an earlier version have nothing that is uncertain.
        yield (
            "Uncertain",
            f"at most {inline(tokens)} tokens and {_dollars(dollars)} US dollars besides, of calls whose end nobody knows"
            if tokens or dollars
            else "nothing",
        )

    def _end(self) -> str:
        if not self._ended:
            return "not yet"
        cause = self._ended.get("cause")
        because = "" if cause is None else f" ({inline(cause)})"
        return f"{inline(self._ended.get('at'))} as **{inline(self._ended.get('status'))}**{because}"

    def _roster(self) -> Iterator[str]:
        members = self._accepted.get("members") or []
        yield from ("", "## Roster", "", f"{inline(self._accepted.get('roster'))}, {len(members)} agents.", "")
        yield from table(
            ("Agent", "Model", "Persona"),
            ((inline(each["agent_id"]), inline(each["model"]), self._text(each["persona"], 0)) for each in members),
        )

    def _rounds(self) -> Iterator[str]:
        for started in self._of("round.started"):
            number = started["round"]
            endings = [(index, each) for index, each in self._endings if each["round"] == number]
            counts = RollCall.of(AgentState(each["state"]) for _, each in endings).as_counts()
            open_ = len(started["agents"]) - len(endings)
            form = started.get("answer") or self._answer
            purpose = "" if started.get("purpose") is None else f" ({inline(started['purpose'])})"
            yield from ("", f"## Round {inline(number)}{purpose}", "")
            yield f"Started {inline(started.get('at'))}; {len(started['agents'])} agents were to be asked."
            yield ""
            yield "Roll call: " + ", ".join(f"{name} {count}" for name, count in counts.items()) + "."
            if open_:
                yield from ("", f"Of {open_} of them no end is recorded.")
            yield ""
            yield from table(
                ("Agent", "State", "Answer", "Confidence", "Reasoning", "Model", "Entry"),
                (
                    (
                        inline(each["agent_id"]),
                        inline(each["state"]),
                        self._given(each.get("answer"), index, form),
                        inline(each.get("confidence")),
                        self._text(each.get("reasoning"), index),
                        inline(each.get("model")),
                        str(index),
                    )
                    for index, each in endings
                ),
            )

    def _outcome(self) -> Iterator[str]:
        yield from ("", "## Outcome", "")
        if not self._ended:
            yield "The deliberation has not ended."
            return
        yield "Roll call: " + _settings(self._ended.get("roll_call")) + "."
        outcome = self._ended.get("outcome")
        yield ""
        if outcome is None:
            yield f"There is no outcome: the deliberation is {inline(self._ended.get('status'))}."
            return
        yield f"**{inline(outcome['status'])}**, by {inline(outcome['rule'])}. Decision: {self._decision(outcome)}."
        facts = [
            ("Margin", outcome.get("margin")),
            ("Spread", outcome.get("spread")),
            ("Dissent, % of those who answered", (outcome.get("dissent") or {}).get("percentage")),
            ("Effective votes", outcome.get("effective_votes")),
            ("Rules agreeing", ", ".join((outcome.get("robustness") or {}).get("rules_agreeing") or []) or None),
            ("Votes to flip", (outcome.get("robustness") or {}).get("votes_to_flip")),
        ]
        yield ""
        yield from table(("Matter", "As recorded"), ((name, inline(value)) for name, value in facts))
        if outcome.get("tally"):
            blind = outcome.get("blind_tally") or {}
            yield from ("", "### Tally", "")
            yield from table(
                ("Answer", "Votes", "In the blind round"),
                ((inline(name), inline(count), inline(blind.get(name))) for name, count in outcome["tally"].items()),
            )
        yield from self._claims(outcome)
        yield from self._minority(outcome)
        if outcome.get("changed"):
            yield from ("", "### Changed their answer", "")
            yield from table(
                ("Agent", "From", "To"),
                (
                    (inline(each["agent_id"]), self._changed(each["from"]), self._changed(each["to"]))
                    for each in outcome["changed"]
                ),
            )

    def _decision(self, outcome: Entry) -> str:
        decision = outcome.get("decision")
        return "none" if decision is None else f"**{inline(decision)}**"

    def _claims(self, outcome: Entry) -> Iterator[str]:
        """What texts came to: each claim in the words of one agent, with everybody whom it rests on."""
        synthesis = outcome.get("synthesis")
        if synthesis is None:
            return
        # Where an agent's texts stand; of several the last, which is the one that counted.
        spoken = {
            each["agent_id"]: (index, each) for index, each in self._endings if isinstance(each["answer"], Mapping)
        }
        yield from ("", "### Claims", "")
        yield f"Compared by {inline(synthesis['method'])}. Each is a sentence of the agent named first; the others say it too."
        yield ""
        for place, cluster in enumerate(synthesis["clusters"]):
            agents = cluster["agents"]
            yield f"- **{inline(cluster_name(place))}**: {', '.join(map(inline, agents))}"
            for claim in synthesis["claims"]:
                if claim["cluster"] == place:
                    source = agents[claim["source"]]
                    others = [agents[each] for each in claim["agents"] if each != claim["source"]]
                    said = self._sentence(spoken.get(source), claim["sentence"])
                    yield f"    - {said} ({', '.join(map(inline, [source, *others]))})"

    def _sentence(self, spoken: tuple[int, Entry] | None, number: int) -> str:
        """That sentence of the answer in an entry, or why it is not there."""
        if spoken is None:
            return NOTHING
        index, ending = spoken
        text = self._texts.get(ending["answer"]["sha256"])
        if text is None:
            return self._absent(index)
        sentences = sentences_of(text)
        return inline(sentences[number]) if number < len(sentences) else NOTHING

    def _minority(self, outcome: Entry) -> Iterator[str]:
        positions = (outcome.get("dissent") or {}).get("positions") or []
        yield from ("", "### Minority positions", "")
        if not positions:
            yield "None."
            return
        counted = self._counted_rounds()
        reasons = {
            each["agent_id"]: self._text(each.get("reasoning"), index)
            for index, each in self._endings
            if each["round"] in counted and AgentState(each["state"]).took_part
        }
        for position in positions:
            yield f"- **{inline(position['answer'])}**, held by {inline(position['count'])}"
            for agent_id in position["agents"]:
                yield f"    - {inline(agent_id)}: {reasons.get(agent_id, NOTHING)}"

    def _counted_rounds(self) -> set[int]:
        """The rounds whose ballots the outcome is made of: those in the form that was asked for, or of texts those that rank statements."""
        ranks = self._answer.get("kind") == "text" and self._accepted["protocol"]["kind"] == "common_ground"
        forms = {each["round"]: each.get("answer") or self._answer for each in self._of("round.started")}
        return {
            number for number, form in forms.items() if (form["kind"] == "ranking" if ranks else form == self._answer)
        }

    def _worth_of_it(self) -> Iterator[str]:
        if self._ended.get("outcome") is None:
            return
        yield from ("", "## What the result is worth", "")
        if self._worth is None:
            yield "These entries are none that this version can count again."
        else:
            yield from worth_chapter(self._worth)

    def _fallbacks(self) -> Iterator[str]:
        yield from ("", "## Fallbacks", "")
        fell_back = [(index, each) for index, each in self._endings if each.get("fell_back")]
        if not fell_back:
            yield "None."
            return
        yield "These were asked at another model of their route than the first."
        yield ""
        yield from table(
            ("Agent", "Round", "Asked", "Answered", "Entry"),
            (
                (
                    inline(each["agent_id"]),
                    inline(each["round"]),
                    inline(each.get("model_asked")),
                    inline(each.get("model")),
                    str(index),
                )
                for index, each in fell_back
            ),
        )

    def _failures(self) -> Iterator[str]:
        failed = [(index, each) for index, each in self._endings if not AgentState(each["state"]).took_part]
        yield from ("", "## Failures", "")
        if not failed:
            yield "None."
            return
        yield from table(
            ("Agent", "Round", "State", "Kind", "Message", "Attempts", "Entry"),
            (
                (
                    inline(each["agent_id"]),
                    inline(each["round"]),
                    inline(each["state"]),
                    inline((each.get("failure") or {}).get("kind")),
                    self._text((each.get("failure") or {}).get("message"), index),
                    inline(each.get("attempt")),
                    str(index),
                )
                for index, each in failed
            ),
        )

    def _afterwards(self) -> Iterator[str]:
        later = [(index, entry) for index, entry in self._entries if entry["type"] in _LATER]
        if later:
            yield from ("", "## Afterwards", "")
            for index, entry in later:
                reason = self._text(entry.get("reason"), index)
                yield f"- {inline(entry.get('at'))}: {_LATER[entry['type']]}, entry {index}, reason: {reason}"

    def _where(self) -> Iterator[str]:
        record = self._record
        facts = [
            ("Entries", ", ".join(_runs(record.indexes))),
            ("Tree size", str(record.tree_size)),
            ("Root hash", record.root_hash.hex()),
            ("Hash of the entries' leaves", inline(self._ended.get("record_sha256"))),
            ("Key", inline(record.public_key)),
        ]
        yield from ("", "## Record", "")
        yield from table(("Matter", "Value"), facts)
        yield from ("", "Signed checkpoint:", "")
        yield from (f"    {line}" for line in record.checkpoint.splitlines())

    def _given(self, answer: Any, index: int, form: Entry) -> str:
        """An answer as it reads: indexes into the options of its round become their names."""
        if isinstance(answer, Mapping):
            return self._text(answer, index)
        if isinstance(answer, list):
            return ", ".join(_option(each, form) for each in answer) or NOTHING
        return _option(answer, form) if form.get("options") else inline(answer)

    def _changed(self, answer: Any) -> str:
        """From what or to what an agent changed; of lists the record does not say so."""
        return _option(answer, self._answer) if self._answer.get("options") else inline(answer)

    def _text(self, commitment: Any, index: int) -> str:
        """The text behind a commitment on one line, or why it is not there."""
        if commitment is None:
            return NOTHING
        text = self._texts.get(commitment["sha256"])
        return self._absent(index) if text is None else inline(text)

    def _quoted(self, commitment: Any) -> Iterator[str]:
        if commitment is None:
            yield NOTHING
            return
        text = self._texts.get(commitment["sha256"])
        if text is None:
            yield self._absent(0)
            return
        yield from (f"> {line}" for line in block(text))

    def _absent(self, index: int) -> str:
        return _ERASED if index < self._erased_from else _WITHHELD


def _option(place: Any, form: Entry) -> str:
    options = form.get("options") or []
    known = isinstance(place, int) and not isinstance(place, bool) and 0 <= place < len(options)
    return inline(options[place] if known else place)


def _settings(document: Any) -> str:
    if not isinstance(document, Mapping):
        return inline(document)
    named = [f"{inline(name)} {inline(value)}" for name, value in document.items() if value is not None]
    return ", ".join(named) or NOTHING


def _dollars(amount: float) -> str:
    """US dollars in digits, to the picodollar, without the zeros at the end."""
    whole, _, rest = f"{amount:.12f}".partition(".")
    return f"{whole}.{rest.rstrip('0').ljust(2, '0')}"


def _runs(indexes: Sequence[int]) -> Iterator[str]:
    """Ascending indexes as `3-17`, `21`."""
    first = last = None
    for index in indexes:
        if last is not None and index == last + 1:
            last = index
            continue
        if first is not None:
            yield str(first) if first == last else f"{first}-{last}"
        first = last = index
    if first is not None:
        yield str(first) if first == last else f"{first}-{last}"
