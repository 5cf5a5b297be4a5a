"""Writes the minutes of a deliberation: its procedure in Markdown, from its entries and their disclosures alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from application.services.recorded_worth import recorded_worth
from domain.analysis.recounts import Winner
from domain.analysis.worth import Worth
from domain.models.roll_call import AgentState, RollCall
from domain.voting.synthesis import cluster_name, sentences_of

__all__ = ["Record", "write_minutes"]

Entry = Mapping[str, Any]

_NOTHING = "–"
_ERASED = "*erased*"
_WITHHELD = "*withheld*"
_LATER = {
    "recounted": "recounted",
    "resolved": "resolved",
    "erased": "texts erased",
}
# Controls and marks of direction could make a reader see another order or another line than stands there.
_UNSEEN = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_MARKUP = re.compile(r"[\\`*_\[\]|~#$!^]")
# A list item, the line under a heading, a rule, or the second line of a table.
_BLOCK_MARK = re.compile(r"[-+](?=\s|$)|[-=:](?=[-=:\s]*$)|[0-9]+(?=[.)](?:\s|$))")
_SCHEME = re.compile(r":(?=//)")
_WWW = re.compile(r"(?i)\bwww\.")
_MAIL = re.compile(r"(?<=\S)@(?=\S)")


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
        yield f"# Minutes of deliberation {_inline(deliberation_id)}"
        for warning in () if self._worth is None else self._worth.warnings:
            yield from ("", f"**{_inline(warning)}**")
        yield from ("", "## Question", "")
        yield from self._quoted(self._accepted.get("question"))
        if self._accepted.get("context") is not None:
            yield from ("", "Context:", "")
            yield from self._quoted(self._accepted["context"])
        yield from ("", f"Answers are of kind {_inline(self._answer.get('kind'))}{self._bounds()}.")
        if self._answer.get("options"):
            yield ""
            for option in self._answer["options"]:
                yield f"- {_inline(option)}"

    def _bounds(self) -> str:
        named = [f"{name} {_inline(self._answer[name])}" for name in ("min", "max", "unit") if name in self._answer]
        return f" ({', '.join(named)})" if named else ""

    def _procedure(self) -> Iterator[str]:
        accepted, rounds = self._accepted, self._of("round.started")
        orchestrator = _inline(accepted.get("orchestrator"))
        facts = [
            ("Accepted", _inline(accepted.get("at"))),
            ("Started", _inline(rounds[0].get("at")) if rounds else "not yet"),
            ("Ended", self._end()),
            ("Protocol", _settings(accepted.get("protocol"))),
            ("Rule", _settings(accepted.get("rule"))),
            ("Quorum", _settings(accepted.get("quorum"))),
            ("Limits", _settings(accepted.get("limits"))),
            ("Sampling", _settings(accepted.get("sampling"))),
            ("Seed", _inline(accepted.get("seed"))),
            ("Origin", _inline(accepted.get("origin"))),
            ("Asked for by", self._text(accepted.get("key_name"), 0)),
            ("Orchestrator", f"{orchestrator}, **simulated**" if accepted.get("simulated") else orchestrator),
            ("Calls intended", str(len(self._of("call.intended")))),
            ("Words of the prompts", ", ".join(self._prompt_versions()) or _NOTHING),
            *self._costs(),
        ]
        yield from ("", "## Procedure", "")
        yield from _table(("Matter", "As recorded"), facts)

    def _prompt_versions(self) -> Iterator[str]:
        named = (each.get("prompt_version") for each in self._of("call.intended"))
        for version in dict.fromkeys(version for version in named if version is not None):
            yield _inline(version)

    def _costs(self) -> Iterator[tuple[str, str]]:
        usage = self._ended.get("usage")
        if usage is None:
            yield "Usage", _NOTHING
            return
        yield "Usage", _settings({name: usage.get(name) for name in ("calls", "input_tokens", "output_tokens")})
        yield "Cost", f"{_dollars(usage.get('cost_usd', 0.0))} US dollars"
        tokens, dollars = usage.get("uncertain_tokens", 0), usage.get("uncertain_usd", 0.0)
        # Entries of an earlier version have nothing that is uncertain.
        yield (
            "Uncertain",
            f"at most {_inline(tokens)} tokens and {_dollars(dollars)} US dollars besides, of calls whose end nobody knows"
            if tokens or dollars
            else "nothing",
        )

    def _end(self) -> str:
        if not self._ended:
            return "not yet"
        cause = self._ended.get("cause")
        because = "" if cause is None else f" ({_inline(cause)})"
        return f"{_inline(self._ended.get('at'))} as **{_inline(self._ended.get('status'))}**{because}"

    def _roster(self) -> Iterator[str]:
        members = self._accepted.get("members") or []
        yield from ("", "## Roster", "", f"{_inline(self._accepted.get('roster'))}, {len(members)} agents.", "")
        yield from _table(
            ("Agent", "Model", "Persona"),
            ((_inline(each["agent_id"]), _inline(each["model"]), self._text(each["persona"], 0)) for each in members),
        )

    def _rounds(self) -> Iterator[str]:
        for started in self._of("round.started"):
            number = started["round"]
            endings = [(index, each) for index, each in self._endings if each["round"] == number]
            counts = RollCall.of(AgentState(each["state"]) for _, each in endings).as_counts()
            open_ = len(started["agents"]) - len(endings)
            form = started.get("answer") or self._answer
            purpose = "" if started.get("purpose") is None else f" ({_inline(started['purpose'])})"
            yield from ("", f"## Round {_inline(number)}{purpose}", "")
            yield f"Started {_inline(started.get('at'))}; {len(started['agents'])} agents were to be asked."
            yield ""
            yield "Roll call: " + ", ".join(f"{name} {count}" for name, count in counts.items()) + "."
            if open_:
                yield from ("", f"Of {open_} of them no end is recorded.")
            yield ""
            yield from _table(
                ("Agent", "State", "Answer", "Confidence", "Reasoning", "Model", "Entry"),
                (
                    (
                        _inline(each["agent_id"]),
                        _inline(each["state"]),
                        self._given(each.get("answer"), index, form),
                        _inline(each.get("confidence")),
                        self._text(each.get("reasoning"), index),
                        _inline(each.get("model")),
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
            yield f"There is no outcome: the deliberation is {_inline(self._ended.get('status'))}."
            return
        yield f"**{_inline(outcome['status'])}**, by {_inline(outcome['rule'])}. Decision: {self._decision(outcome)}."
        facts = [
            ("Margin", outcome.get("margin")),
            ("Spread", outcome.get("spread")),
            ("Dissent, % of those who answered", (outcome.get("dissent") or {}).get("percentage")),
            ("Effective votes", outcome.get("effective_votes")),
            ("Rules agreeing", ", ".join((outcome.get("robustness") or {}).get("rules_agreeing") or []) or None),
            ("Votes to flip", (outcome.get("robustness") or {}).get("votes_to_flip")),
        ]
        yield ""
        yield from _table(("Matter", "As recorded"), ((name, _inline(value)) for name, value in facts))
        if outcome.get("tally"):
            blind = outcome.get("blind_tally") or {}
            yield from ("", "### Tally", "")
            yield from _table(
                ("Answer", "Votes", "In the blind round"),
                ((_inline(name), _inline(count), _inline(blind.get(name))) for name, count in outcome["tally"].items()),
            )
        yield from self._claims(outcome)
        yield from self._minority(outcome)
        if outcome.get("changed"):
            yield from ("", "### Changed their answer", "")
            yield from _table(
                ("Agent", "From", "To"),
                (
                    (_inline(each["agent_id"]), self._changed(each["from"]), self._changed(each["to"]))
                    for each in outcome["changed"]
                ),
            )

    def _decision(self, outcome: Entry) -> str:
        decision = outcome.get("decision")
        return "none" if decision is None else f"**{_inline(decision)}**"

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
        yield f"Compared by {_inline(synthesis['method'])}. Each is a sentence of the agent named first; the others say it too."
        yield ""
        for place, cluster in enumerate(synthesis["clusters"]):
            agents = cluster["agents"]
            yield f"- **{_inline(cluster_name(place))}**: {', '.join(map(_inline, agents))}"
            for claim in synthesis["claims"]:
                if claim["cluster"] == place:
                    source = agents[claim["source"]]
                    others = [agents[each] for each in claim["agents"] if each != claim["source"]]
                    said = self._sentence(spoken.get(source), claim["sentence"])
                    yield f"    - {said} ({', '.join(map(_inline, [source, *others]))})"

    def _sentence(self, spoken: tuple[int, Entry] | None, number: int) -> str:
        """That sentence of the answer in an entry, or why it is not there."""
        if spoken is None:
            return _NOTHING
        index, ending = spoken
        text = self._texts.get(ending["answer"]["sha256"])
        if text is None:
            return self._absent(index)
        sentences = sentences_of(text)
        return _inline(sentences[number]) if number < len(sentences) else _NOTHING

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
            yield f"- **{_inline(position['answer'])}**, held by {_inline(position['count'])}"
            for agent_id in position["agents"]:
                yield f"    - {_inline(agent_id)}: {reasons.get(agent_id, _NOTHING)}"

    def _counted_rounds(self) -> set[int]:
        """The rounds whose ballots the outcome is made of: those in the form that was asked for, or of texts those that rank statements."""
        ranks = self._answer.get("kind") == "text" and self._accepted["protocol"]["kind"] == "common_ground"
        forms = {each["round"]: each.get("answer") or self._answer for each in self._of("round.started")}
        return {
            number for number, form in forms.items() if (form["kind"] == "ranking" if ranks else form == self._answer)
        }

    def _worth_of_it(self) -> Iterator[str]:
        """What the outcome rests on, derived from the entries alone; other deliberations are not in them."""
        if self._ended.get("outcome") is None:
            return
        worth = self._worth
        yield from ("", "## What the result is worth", "")
        if worth is None:
            yield "These entries are none that this version can count again."
            return
        yield from ("Derived from the ballots above, and recorded nowhere.", "")
        facts = [
            *((f"By {_inline(each.rule)}", _decided(each)) for each in worth.winners),
            *_without_one(worth),
            ("Entropy in bits, blind and final", _both(worth.blind.entropy_bits, worth.final.entropy_bits)),
            ("Polarisation, blind and final", _both(worth.blind.polarisation, worth.final.polarisation)),
        ]
        if worth.movement is not None:
            moved = worth.movement
            facts.append(("Changed their answer", f"{moved.changed} of {moved.changeable}"))
            facts.append((f"Of them to {_inline(moved.blind_leader)}, which led before", _share(moved.conformity)))
        if worth.within is not None:
            bounds = f"{worth.within.low:.1f} to {worth.within.high:.1f} of {worth.within.voters}"
            facts.append(("Effective votes", f"{bounds}: {_inline(worth.within.note)}"))
        facts += (("Same reason word for word", ", ".join(map(_inline, agents))) for agents in worth.same_words)
        yield from _table(("Matter", "As derived"), facts)

    def _fallbacks(self) -> Iterator[str]:
        yield from ("", "## Fallbacks", "")
        fell_back = [(index, each) for index, each in self._endings if each.get("fell_back")]
        if not fell_back:
            yield "None."
            return
        yield "These were asked at another model of their route than the first."
        yield ""
        yield from _table(
            ("Agent", "Round", "Asked", "Answered", "Entry"),
            (
                (
                    _inline(each["agent_id"]),
                    _inline(each["round"]),
                    _inline(each.get("model_asked")),
                    _inline(each.get("model")),
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
        yield from _table(
            ("Agent", "Round", "State", "Kind", "Message", "Attempts", "Entry"),
            (
                (
                    _inline(each["agent_id"]),
                    _inline(each["round"]),
                    _inline(each["state"]),
                    _inline((each.get("failure") or {}).get("kind")),
                    self._text((each.get("failure") or {}).get("message"), index),
                    _inline(each.get("attempt")),
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
                yield f"- {_inline(entry.get('at'))}: {_LATER[entry['type']]}, entry {index}, reason: {reason}"

    def _where(self) -> Iterator[str]:
        record = self._record
        facts = [
            ("Entries", ", ".join(_runs(record.indexes))),
            ("Tree size", str(record.tree_size)),
            ("Root hash", record.root_hash.hex()),
            ("Hash of the entries' leaves", _inline(self._ended.get("record_sha256"))),
            ("Key", _inline(record.public_key)),
        ]
        yield from ("", "## Record", "")
        yield from _table(("Matter", "Value"), facts)
        yield from ("", "Signed checkpoint:", "")
        yield from (f"    {line}" for line in record.checkpoint.splitlines())

    def _given(self, answer: Any, index: int, form: Entry) -> str:
        """An answer as it reads: indexes into the options of its round become their names."""
        if isinstance(answer, Mapping):
            return self._text(answer, index)
        if isinstance(answer, list):
            return ", ".join(_option(each, form) for each in answer) or _NOTHING
        return _option(answer, form) if form.get("options") else _inline(answer)

    def _changed(self, answer: Any) -> str:
        """From what or to what an agent changed; of lists the record does not say so."""
        return _option(answer, self._answer) if self._answer.get("options") else _inline(answer)

    def _text(self, commitment: Any, index: int) -> str:
        """The text behind a commitment on one line, or why it is not there."""
        if commitment is None:
            return _NOTHING
        text = self._texts.get(commitment["sha256"])
        return self._absent(index) if text is None else _inline(text)

    def _quoted(self, commitment: Any) -> Iterator[str]:
        if commitment is None:
            yield _NOTHING
            return
        text = self._texts.get(commitment["sha256"])
        if text is None:
            yield self._absent(0)
            return
        yield from (f"> {line}" for line in _block(text))

    def _absent(self, index: int) -> str:
        return _ERASED if index < self._erased_from else _WITHHELD


def _decided(winner: Winner) -> str:
    return _inline(winner.decision) if winner.decision is not None else _inline(winner.status.value.replace("_", " "))


def _without_one(worth: Worth) -> Iterator[tuple[str, str]]:
    for name, found in (
        ("agent", worth.pivotal_agents),
        ("model", worth.pivotal_models),
        ("persona group", worth.pivotal_personas),
    ):
        if found is None or not found.looked:
            continue
        if found.low is not None:
            yield f"Without one {name}", f"{_inline(found.low)} to {_inline(found.high)}"
        elif found.pivotal:
            yield f"Without one {name}", f"another result without any of {', '.join(map(_inline, found.pivotal))}"
        else:
            yield f"Without one {name}", "the same result, whichever it is"


def _both(blind: float | None, final: float | None) -> str:
    return _NOTHING if blind is None or final is None else f"{blind:.2f}, {final:.2f}"


def _share(share: float | None) -> str:
    return _NOTHING if share is None else f"{100 * share:.0f} %"


def _option(place: Any, form: Entry) -> str:
    options = form.get("options") or []
    known = isinstance(place, int) and not isinstance(place, bool) and 0 <= place < len(options)
    return _inline(options[place] if known else place)


def _inline(value: Any) -> str:
    """A value on one line, in which no character means anything to Markdown or HTML."""
    if value is None:
        return _NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = " ".join(_UNSEEN.sub("\N{REPLACEMENT CHARACTER}", str(value)).split())
    return _unmarked(_escaped(text)) or _NOTHING


def _block(text: str) -> Iterator[str]:
    """A text line by line; what would begin a block, such as a list or an underlined heading, is escaped."""
    lines = text.splitlines() or [""]
    for number, line in enumerate(lines):
        written = _UNSEEN.sub("\N{REPLACEMENT CHARACTER}", line)
        indented = len(written) - len(written.lstrip())
        rest = _unmarked(_escaped(written.strip()))
        # Two spaces at the end keep the line apart from the next.
        yield "&nbsp;" * indented + rest + ("  " if rest and number < len(lines) - 1 else "")


def _unmarked(line: str) -> str:
    """The line with an escape in what would begin a block there."""
    mark = _BLOCK_MARK.match(line)
    if mark is None:
        return line
    digits = mark.end() if mark.group().isdigit() else 0
    return f"{line[:digits]}\\{line[digits:]}"


def _escaped(text: str) -> str:
    escaped = "".join(_HTML.get(character, character) for character in text)
    escaped = _MARKUP.sub(lambda found: f"\\{found.group()}", escaped)
    # A bare address is a link in many renderers, and the word joiner keeps one of mail from being one.
    escaped = _SCHEME.sub(r"\\:", escaped)
    escaped = _WWW.sub(lambda found: f"{found.group()[:-1]}\\.", escaped)
    return _MAIL.sub("@&#8288;", escaped)


def _settings(document: Any) -> str:
    if not isinstance(document, Mapping):
        return _inline(document)
    named = [f"{_inline(name)} {_inline(value)}" for name, value in document.items() if value is not None]
    return ", ".join(named) or _NOTHING


def _dollars(amount: float) -> str:
    """US dollars in digits, to the picodollar, without the zeros at the end."""
    whole, _, rest = f"{amount:.12f}".partition(".")
    return f"{whole}.{rest.rstrip('0').ljust(2, '0')}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{' --- |' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


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
