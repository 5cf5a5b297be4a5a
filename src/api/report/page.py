"""The report of one deliberation as a page that is whole in itself, made from its documents alone, for a desk, a phone and a printer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from api.report.account import Receipt, asked_of, cost_of, receipt_of, roll_call_of
from api.report.hemicycle import hemicycle
from api.report.movement import changes_of, rounds_of
from api.report.pieces import BADGE, section
from api.report.reading import Document, Reading
from api.report.style import STYLE
from api.report.tallies import tally_of
from api.report.verdict import standing, verdict_of
from api.report.worth import worth_of
from application.pages.frame import content_policy, whole_page
from application.pages.html_text import paragraphs, plain, shown

__all__ = ["Receipt", "Report", "report_of"]

_MOST_OF_A_TITLE = 240
_MOST_OF_A_QUESTION = 20_000
_NO_RECEIPT = Receipt()
# Only a header can say it; in the page itself a browser complains of it.
_NOT_IN_A_FRAME = "; frame-ancestors 'none'"


@dataclass(frozen=True, slots=True)
class Report:
    """A page, and the Content-Security-Policy that it is to be sent with where it is sent at all."""

    html: str
    policy: str


def report_of(document: Document, outputs: Sequence[Document] = (), *, receipt: Receipt = _NO_RECEIPT) -> Report:
    """The page of a deliberation as it stands, from the documents of `GET /v1/deliberations/{id}` and its outputs.

    All text stands in it escaped; whatever is missing in the documents is missing in the page. Pure: the same documents give the
    same bytes.
    """
    reading = Reading(document, outputs)
    question = "(erased)" if document.get("erased") else str(document.get("question") or "")
    badge = BADGE if document.get("simulated") else ""
    seats = section("seats", f"Seats{badge}", hemicycle(reading))
    parts = [
        ("result", "", verdict_of(reading, badge=badge, seats=seats)),
        ("tally", "Tally", tally_of(reading)),
        ("rounds", "Rounds", rounds_of(reading)),
        ("changes", "From blind to final", changes_of(reading)),
        ("worth", "What the result is worth", worth_of(reading)),
        ("roll-call", "Roll call", roll_call_of(reading)),
        ("cost", "Cost and usage", cost_of(reading)),
        ("terms", "What was agreed on", asked_of(reading)),
        ("receipt", "Verification receipt", receipt_of(reading, receipt)),
    ]
    kind = ' class="simulated"' if badge else ""
    named = [(name, title) for name, title, content in parts if title and content]
    if seats:
        named.insert(0, ("seats", "Seats"))
    links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title in [("decision", "Result"), *named])
    body = (
        f"<body{kind}>{_first(reading)}"
        f"<main><header>{_question(question)}{_context(document)}</header>"
        f'<nav aria-label="Parts of this report"><ul>{links}</ul></nav>\n'
        + "\n".join(
            section(name, title + badge, content) if title else content for name, title, content in parts if content
        )
        + f"\n</main><footer>Deliberation {shown(document.get('id') or '', limit=64)}, as it stood when this page was made.</footer></body>"
    )
    title = ("Simulated: " if badge else "") + plain(question.strip() or "Deliberation", limit=80)
    icon = '<link rel="icon" href="data:,">'
    html = whole_page(title=f"Conclave: {title}", style=STYLE, body=body, pictures=True, head=icon)
    return Report(html, content_policy(STYLE, pictures=True) + _NOT_IN_A_FRAME)


def _first(reading: Reading) -> str:
    """The first lines of the page, where there is anything that has to come first."""
    lines = "".join(f"<p>{line}</p>" for line in standing(reading))
    return f'<div class="first" role="note">{lines}</div>' if lines else ""


def _question(question: str) -> str:
    """The whole question; one too long for a heading stands below it."""
    found = f"<h1>{shown(question, limit=_MOST_OF_A_TITLE)}</h1>"
    if len(question) > _MOST_OF_A_TITLE or "\n" in question.strip():
        found += paragraphs(question, limit=_MOST_OF_A_QUESTION)
    return found


def _context(document: Document) -> str:
    context = document.get("context")
    if not context:
        return ""
    told = paragraphs(context, limit=_MOST_OF_A_QUESTION)
    return f"<details open><summary>Context</summary>{told}</details>"
