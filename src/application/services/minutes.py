"""Writes the minutes of a deliberation: its procedure in Markdown, from its entries and their disclosures alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from domain.models.roll_call import AgentState, RollCall

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
        self._endings = [(index, entry) for index, entry in self._entries if entry["type"] == "agent.ended"]

    def lines(self) -> Iterator[str]:
        yield from self._question()
        yield from self._procedure()
        yield from self._roster()
        yield from self._rounds()
        yield from self._outcome()
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
            yield from ("", f"## Round {_inline(number)}", "")
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
                        self._given(each.get("answer"), index),
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
        yield from self._minority(outcome)
        if outcome.get("changed"):
            yield from ("", "### Changed their answer", "")
            yield from _table(
                ("Agent", "From", "To"),
                (
                    (_inline(each["agent_id"]), _inline(each["from"]), _inline(each["to"]))
                    for each in outcome["changed"]
                ),
            )

    def _decision(self, outcome: Entry) -> str:
        decision = outcome.get("decision")
        return "none" if decision is None else f"**{_inline(decision)}**"

    def _minority(self, outcome: Entry) -> Iterator[str]:
        positions = (outcome.get("dissent") or {}).get("positions") or []
        yield from ("", "### Minority positions", "")
        if not positions:
            yield "None."
            return
        reasons = {each["agent_id"]: self._text(each.get("reasoning"), index) for index, each in self._endings}
        for position in positions:
            yield f"- **{_inline(position['answer'])}**, held by {_inline(position['count'])}"
            for agent_id in position["agents"]:
                yield f"    - {_inline(agent_id)}: {reasons.get(agent_id, _NOTHING)}"

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

    def _given(self, answer: Any, index: int) -> str:
        """An answer as it reads: indexes into the options become their names."""
        if isinstance(answer, Mapping):
            return self._text(answer, index)
        if isinstance(answer, list):
            return ", ".join(self._option(each) for each in answer) or _NOTHING
        return self._option(answer) if self._answer.get("options") else _inline(answer)

    def _option(self, place: Any) -> str:
        options = self._answer.get("options") or []
        known = isinstance(place, int) and not isinstance(place, bool) and 0 <= place < len(options)
        return _inline(options[place] if known else place)

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
