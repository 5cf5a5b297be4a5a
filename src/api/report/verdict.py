"""What was decided, and beside it with the same weight what speaks against it: the minority report."""

from __future__ import annotations

from collections.abc import Sequence

from api.outcome_words import without_outcome
from api.report.marks import mark
from api.report.pieces import amount, listed
from api.report.reading import Document, Position, Reading, items, number, part
from application.pages.html_text import paragraphs, plain, shown
from domain.counted import counted

__all__ = ["headline", "standing", "verdict_of"]

_MOST_POSITIONS = 12
_MOST_REASONS = 5
# With this many positions fewer reasons of each, and as many of the decision as of the others.
_MANY_POSITIONS, _FEWER_REASONS = 4, 3
_MOST_OF_A_REASON = 600
_MOST_OF_A_STATEMENT = 4_000


def standing(reading: Reading) -> Sequence[str]:
    """What a reader has to know before anything else: that a result is degraded, then that it is simulated. HTML."""
    found = []
    document = reading.document
    if reading.missing:
        found.append(f"Degraded: {reading.missing} of {reading.asked} did not take part.")
        found += [plain(each, limit=500) for each in reading.warnings if each.startswith("Drop-out")]
    if document.get("simulated"):
        found.append("Simulated: no model was asked, so the answers mean nothing.")
    elif document.get("orchestrator") == "local":
        found.append("Answered by a small model on the server's own machine: it shows the machinery, not wisdom.")
    return found


def headline(reading: Reading) -> str:
    """The result in one line of HTML."""
    rule = _words(reading.outcome.get("rule"))
    if not reading.has_outcome:
        said, reason = without_outcome(reading.document)
        said = plain(said, limit=80)
        return said if reason is None else f"{said} ({shown(reason, limit=300)})"
    if reading.is_decided:
        return f"Decision: {_decision(reading)}"
    if reading.outcome.get("status") == "tied":
        return f"Tie: {_tied(reading)}, so there is no decision"
    if not any(reading.tally.values()):
        return f"No majority: nobody gave an answer (by {rule})"
    return f"No majority: no answer has the support that the rule {rule} asks for"


def _decision(reading: Reading) -> str:
    decision = reading.outcome.get("decision")
    value = number(decision)
    if value is None:
        return shown(decision, limit=300)
    unit = part(reading.document, "answer").get("unit")
    return amount(value) + (f" {shown(unit, limit=40)}" if unit else "")


def _tied(reading: Reading) -> str:
    places = part(reading.outcome, "places")
    if places:
        first = [name for name, place in places.items() if place == 1]
        return f"{listed(first, most=6)} share the first place"
    most = max(reading.tally.values(), default=0)
    return f"{listed([name for name, votes in reading.tally.items() if votes == most], most=6)} have {most:g} each"


def verdict_of(reading: Reading, *, badge: str = "", seats: str = "") -> str:
    """Two panels of one size: the decision with its reasons, and the minority report with its own; or all positions of a tie.

    `badge` goes with each heading, `seats` are a section that stands below the decision where there is room.
    """
    decided = [each for each in reading.positions if each.is_decision]
    against = [each for each in reading.positions if not each.is_decision]
    first = _panel(
        "decision",
        headline(reading) + badge,
        _terms(reading) + _statement(reading) + "".join(_position(reading, each) for each in decided),
    )
    if not against and not decided:
        return f'<div class="verdict">{first}{seats}</div>'
    if decided:
        percentage = number(part(reading.outcome, "dissent").get("percentage"))
        share = "" if percentage is None else f" {percentage:g} % of those who answered did not want this."
        said = (
            f"<p>{share.strip() or 'Against it:'}</p>"
            if against
            else "<p>Nobody who answered wanted anything else.</p>"
        )
        title = "Minority report"
    elif reading.has_outcome:
        said, title = "<p>What those who answered wanted, the largest first.</p>", "The positions"
    else:
        said, title = "<p>This was counted until then, and decides nothing.</p>", "The positions so far"
    listed_ = "".join(_position(reading, each) for each in against[:_MOST_POSITIONS])
    rest = against[_MOST_POSITIONS:]
    more = (
        f'<p class="soft">and {counted(len(rest), "more position")}, held by {sum(each.count for each in rest):g}</p>'
        if rest
        else ""
    )
    return f'<div class="verdict">{first}{_panel("minority", title + badge, said + listed_ + more + _unheld(reading))}{seats}</div>'


def _panel(name: str, title: str, content: str) -> str:
    return f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{title}</h2>{content}</section>'


def _terms(reading: Reading) -> str:
    if not reading.has_outcome:
        quorum = number(part(reading.document, "quorum").get("min_answered_fraction"))
        if quorum is None or reading.document.get("status") != "inquorate":
            return ""
        return f"<p>The quorum was {100 * quorum:g} % of {reading.asked} asked, and {reading.asked - reading.missing} took part.</p>"
    rule = part(reading.document, "rule")
    said = [f"By {_words(reading.outcome.get('rule') or rule.get('kind'))}"]
    fraction = number(rule.get("fraction"))
    if fraction is not None and rule.get("kind") == "threshold":
        said.append(f"at least {fraction:g} of {reading.asked} asked")
    if reading.outcome.get("tie_break"):
        said.append(f"a tie was broken by {_words(reading.outcome['tie_break'])}")
    if number(reading.outcome.get("margin")) is not None:
        said.append(f"margin {amount(reading.outcome['margin'])}")
    if number(reading.outcome.get("spread")) is not None:
        spread = reading.with_unit(amount(reading.outcome["spread"], 6))
        said.append(f"spread {shown(spread, limit=60)} (interquartile range)")
    return f"<p>{', '.join(said)}.</p>"


def _words(name: object) -> str:
    """A name of the contract as words, HTML."""
    return shown(str(name or "").replace("_", " "), limit=40)


def _statement(reading: Reading) -> str:
    statement = part(reading.document, "statement")
    return _drafted(statement) if statement else ""


def _drafted(statement: Document) -> str:
    text = statement.get("text")
    words = "<p>(erased)</p>" if text is None else paragraphs(text, limit=_MOST_OF_A_STATEMENT)
    by = shown(statement.get("agent_id"), limit=128)
    return f"<p>{shown(statement.get('label'), limit=80)}, drafted by {by}:</p><blockquote>{words}</blockquote>"


def _unheld(reading: Reading) -> str:
    """The statements that were ranked, and that nobody put first."""
    return "".join(
        f"<h3>{shown(each.get('label'), limit=80)}: first for nobody</h3>{_drafted(each)}"
        for each in reading.unheld_statements
    )


def _position(reading: Reading, each: Position) -> str:
    place = reading.place_of(each.name)
    marked = "" if place is None else f"{mark(place)} "
    title = f"<h3>{marked}{shown(reading.name_of(each), limit=300)}: {counted(each.count, 'agent')}</h3>"
    most = _FEWER_REASONS if len(reading.positions) >= _MANY_POSITIONS else _MOST_REASONS
    names = f'<p class="soft">{listed(each.agents)}</p>' if each.agents else ""
    # What was decided for stands above already.
    statement = None if each.is_decision else reading.statement_of(each)
    text = "" if statement is None else _drafted(statement)
    return title + names + text + _claims(reading, each) + _reasons(each, most)


def _claims(reading: Reading, each: Position) -> str:
    """Of texts what the cluster claims, each claim with who says so."""
    claims = [
        claim for claim in items(part(reading.outcome, "synthesis"), "claims") if claim.get("cluster") == each.name
    ]
    if not claims:
        return ""
    told = "".join(
        f"<li>{'(erased)' if claim.get('text') is None else shown(claim['text'], limit=_MOST_OF_A_REASON)} "
        f'<span class="soft">({listed(list(claim.get("agents") or ()), most=6)})</span></li>'
        for claim in claims
    )
    return f"<p>What they claim, and who says so:</p><ul>{told}</ul>"


def _reasons(each: Position, most: int) -> str:
    told = "".join(
        f"<li>{f'<b>{shown(who, limit=128)}</b>: ' if who else ''}{shown(words, limit=_MOST_OF_A_REASON)}{_cut(words)}</li>"
        for who, words in each.voices[:most]
    )
    left = len(each.voices) - most
    more = f"<li>and {counted(left, 'more reason')} in other words</li>" if left > 0 else ""
    return f'<ul class="reasons">{told}{more}</ul>' if told else ""


def _cut(words: str) -> str:
    left = len(words) - _MOST_OF_A_REASON
    return f' <span class="soft">({left:,} more characters)</span>' if left > 0 else ""
