"""The archive: every deliberation that there was, searched and filtered, with what it leaves behind to take away."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import FastAPI, Query
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from api.dashboard.comparison import compare
from api.dashboard.rendering import render, render_fragment
from api.documents import deliberation_document
from api.report.pieces import amount
from api.report.reading import TOOK_PART, Reading, number, part
from api.report.verdict import headline
from api.rest.callers import Observer, OpenConclave
from api.rest.deliberations import Cursor, Origin, Status, find_deliberation
from api.rest.problems import RequestRefusedError
from api.rest.searching import Wanted
from api.shown import shown_report
from domain.errors.deliberation import FieldProblem
from domain.models.deliberation import Deliberation, DeliberationStatus
from domain.models.outcome import OutcomeStatus
from domain.models.protocol import ProtocolKind
from domain.models.question import AnswerKind
from domain.models.search import MAX_SEARCH_CHARACTERS, folded
from domain.models.topic import TopicOrigin
from domain.voting.rule import RuleKind

__all__ = ["Hit", "add_archive", "download_name"]

_A_PAGE = 20
_FILTERS = ("search", "status", "outcome", "answer", "protocol", "rule", "origin", "simulated", "from", "to")
_NAME_CHARACTERS = 40
_NOT_IN_A_NAME = re.compile(r"[^a-z0-9]+")

_Picked = Annotated[list[str] | None, Query()]


@dataclass(frozen=True, slots=True)
class Hit:
    """One deliberation in the list; `verdict` is HTML already, escaped; `roll_call` is words of our own, and so is `figures`
    but for a unit."""

    id: str
    question: str | None
    status: str
    verdict: str
    is_decided: bool
    figures: str
    roll_call: str
    created_at: str
    key_name: str | None
    simulated: bool
    erased: bool
    has_ended: bool

    @classmethod
    def of(cls, deliberation: Deliberation) -> Hit:
        """What the list shows of it."""
        document = deliberation_document(_without_positions(deliberation))
        reading = Reading(document, ())
        return cls(
            id=deliberation.id,
            question=document["question"],
            status=document["status"],
            verdict=headline(reading),
            is_decided=reading.is_decided,
            figures=_figures(reading),
            roll_call=_roll_call(reading),
            created_at=document["created_at"],
            key_name=deliberation.key_name,
            simulated=deliberation.simulated,
            erased=deliberation.erased,
            has_ended=deliberation.status.is_terminal,
        )


def add_archive(app: FastAPI) -> None:
    """Put the view into `app`."""
    for path, answer in (
        ("/archive", archive),
        ("/archive/compare", compare),
        ("/archive/pick", pick),
        ("/archive/{deliberation_id}/bundle", bundle),
        ("/archive/{deliberation_id}/minutes", minutes),
        ("/archive/{deliberation_id}/report", report),
    ):
        app.add_api_route(path, answer, methods=["GET"], include_in_schema=False, response_model=None)


async def archive(
    request: Request,
    caller: Observer,
    conclave: OpenConclave,
    wanted: Wanted,
    status: Status = None,
    origin: Origin = None,
    cursor: Cursor = None,
) -> Response:
    """The list, or for a page that asks for a part of itself the hits alone."""
    own: dict[str, Any] = {"status": status, "key_name": caller.sees, "origin": origin, "search": wanted}
    found = await conclave.deliberations.page(limit=_A_PAGE, cursor=cursor, **own)
    # One page that is all there is needs no second look.
    is_whole = cursor is None and found.next_cursor is None
    total = len(found.items) if is_whole else await conclave.deliberations.count(**own)
    given = {name: value for name in _FILTERS if (value := request.query_params.get(name, ""))}
    context: dict[str, Any] = {
        "hits": [Hit.of(each) for each in found.items],
        "total": total,
        "given": given,
        "narrowed": bool(given),
        "shows_names": caller.sees is None and bool(conclave.keys),
        "older": None if found.next_cursor is None else _address(given, cursor=found.next_cursor),
        "newest": None if cursor is None else _address(given),
    }
    if "hx-request" in request.headers:
        response = render_fragment(request, "archive_hits.html", **context)
        response.headers["HX-Replace-Url"] = _address(given)
    else:
        response = render(
            request,
            "archive.html",
            title="Archive",
            nav="archive",
            choices=_choices(),
            most=MAX_SEARCH_CHARACTERS,
            **context,
        )
    # A part and the whole have one address: neither may be taken for the other out of a cache.
    response.headers["Vary"] = "HX-Request"
    response.headers["Cache-Control"] = "no-store"
    return response


async def pick(_caller: Observer, pick: _Picked = None) -> Response:
    """From the ticks of the list to the comparison, also where no script runs."""
    picked = list(dict.fromkeys(pick or ()))
    if not 1 <= len(picked) <= 2:
        wrong = FieldProblem("/query/pick", "tick one deliberation, or two to compare them")
        raise RequestRefusedError("invalid-request", f"{len(picked)} are ticked.", errors=[wrong])
    return RedirectResponse(
        "/archive/compare?" + urlencode(dict(zip(("a", "b"), picked, strict=False))), status_code=303
    )


async def bundle(deliberation_id: str, caller: Observer, conclave: OpenConclave) -> Response:
    """The verification bundle as a file."""
    found = await find_deliberation(deliberation_id, caller, conclave)
    text = json.dumps(await conclave.witness.bundle(found.id), ensure_ascii=False, indent=1)
    return _file(text, "application/json", download_name(found, "bundle.json"))


async def minutes(deliberation_id: str, caller: Observer, conclave: OpenConclave) -> Response:
    """The minutes as a file."""
    found = await find_deliberation(deliberation_id, caller, conclave)
    text = await conclave.witness.minutes(found.id)
    return _file(text, "text/markdown; charset=utf-8", download_name(found, "minutes.md"))


async def report(deliberation_id: str, caller: Observer, conclave: OpenConclave) -> Response:
    """The report as a file."""
    found = await find_deliberation(deliberation_id, caller, conclave)
    made = await shown_report(conclave, found)
    response = _file(made.html, "text/html; charset=utf-8", download_name(found, "report.html"))
    response.headers["Content-Security-Policy"] = made.policy
    return response


def download_name(deliberation: Deliberation, kind: str) -> str:
    """How a file about it is called: ASCII letters, figures, hyphens and points, whatever its question holds."""
    question = "" if deliberation.erased else deliberation.specification.question.text[:200]
    words = _NOT_IN_A_NAME.sub("-", folded(question)).strip("-")[:_NAME_CHARACTERS].strip("-")
    return "-".join(each for each in ("conclave", words, deliberation.id[:8], kind) if each)


def _file(text: str, kind: str, name: str) -> Response:
    headers = {
        "Content-Type": kind,
        "Content-Disposition": f'attachment; filename="{name}"',
        "Cache-Control": "no-store",
    }
    return Response(text, headers=headers)


def _without_positions(deliberation: Deliberation) -> Deliberation:
    """Without what a list does not tell of the outcome, which is most of it: who wanted something else, and why."""
    outcome = deliberation.outcome
    if outcome is None:
        return deliberation
    return replace(deliberation, outcome=replace(outcome, dissent=replace(outcome.dissent, positions=())))


def _figures(reading: Reading) -> str:
    """Margin and dissent, as far as there are any."""
    outcome = reading.outcome
    said = []
    if number(outcome.get("margin")) is not None:
        said.append(f"margin {amount(outcome['margin'])}")
    if number(outcome.get("spread")) is not None:
        said.append(f"spread {reading.with_unit(amount(outcome['spread'], 6))}")
    percentage = number(part(outcome, "dissent").get("percentage"))
    if percentage is not None:
        said.append(f"dissent {percentage:g} %")
    return ", ".join(said)


def _roll_call(reading: Reading) -> str:
    counts = reading.roll_call
    if not reading.asked:
        return "nobody asked yet"
    said = [f"{counts.get('answered', 0)} of {reading.asked} answered"]
    if counts.get("abstained"):
        said.append(f"{counts['abstained']} abstained")
    if reading.missing:
        lost = [
            f"{count} {name.replace('_', ' ')}"
            for name, count in counts.items()
            if count and name not in {"asked", *TOOK_PART}
        ]
        said.append(", ".join(lost) if lost else f"{reading.missing} not ended")
    return ", ".join(said)


def _address(given: Mapping[str, str], *, cursor: str | None = None) -> str:
    query = urlencode({**given, **({} if cursor is None else {"cursor": cursor})})
    return f"/archive?{query}" if query else "/archive"


def _choices() -> Sequence[tuple[str, str, Sequence[str]]]:
    """The filters that are chosen from lists: name, label and values."""
    return (
        ("outcome", "Outcome", [each.value for each in OutcomeStatus]),
        ("status", "State", [each.value for each in DeliberationStatus]),
        ("answer", "Kind of answer", [each.value for each in AnswerKind]),
        ("protocol", "Protocol", [each.value for each in ProtocolKind]),
        ("rule", "Rule", [each.value for each in RuleKind]),
        ("origin", "Origin", [each.value for each in TopicOrigin]),
    )
