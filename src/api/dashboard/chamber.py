"""The chamber: the latest deliberation, or one by its id, with every seat; live until it ends, and to be read without scripts."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Annotated, Any

import jinja2
from fastapi import FastAPI, Query
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from api.conclave import Conclave
from api.dashboard.chamber_state import STATES, ChamberState
from api.dashboard.feed_stream import FeedStream
from api.dashboard.fitting import MOST_OF_A_PANEL, MOST_OF_A_VIEW, MOST_OF_BOTH, fitted
from api.dashboard.live_feed import LiveFeed, Viewer, find_latest
from api.dashboard.rendering import render, render_fragment
from api.documents import moment, output_document
from api.outcome_words import other_rules_agreeing
from api.report.hemicycle import seated
from api.report.marks import COLOURS, letter_of, outline
from api.report.reading import Position, Reading, items, number, part
from api.report.verdict import headline, standing
from api.rest.callers import Caller, Observer, OpenConclave, end_of_session
from api.rest.deliberations import find_deliberation
from api.rest.event_stream import StreamPlaces
from api.rest.problems import RequestRefusedError
from domain.models.deliberation import Deliberation

__all__ = ["LATEST", "add_chamber", "draw"]

LATEST = "latest"
"""What is followed instead of one id: whatever is the latest that the viewer sees."""

_SHAPE = 10.0
_MOST_OF_A_HEADING = 240
_SeatNumber = Annotated[int | None, Query(ge=1, le=100_000)]


def add_chamber(app: FastAPI) -> None:
    """Put the view into `app`."""
    app.state.live_feed = LiveFeed(
        app.state.conclave, draw=partial(draw, app.state.templates), banner=app.state.halt_banner
    )
    for path, answer in (
        ("/", room),
        ("/deliberations/{deliberation_id}", chamber),
        ("/deliberations/{deliberation_id}/seats/{seat}", seat_panel),
        ("/room/feed", feed),
    ):
        app.add_api_route(path, answer, methods=["GET"], include_in_schema=False, response_model=None)


async def room(request: Request, caller: Observer, conclave: OpenConclave, seat: _SeatNumber = None) -> Response:
    """The latest deliberation that the caller sees; the page goes on to the next one by itself."""
    latest = await find_latest(conclave, caller.sees)
    if latest is None:
        return render(request, "chamber.html", title="The room", nav="chamber", follow=LATEST, view="", panel=None)
    return await _page(request, caller, conclave, latest, follow=LATEST, seat=seat)


async def chamber(
    request: Request, deliberation_id: str, caller: Observer, conclave: OpenConclave, seat: _SeatNumber = None
) -> Response:
    """One deliberation, live or ended."""
    return await _page(request, caller, conclave, deliberation_id, follow=deliberation_id, seat=seat)


async def seat_panel(
    request: Request, deliberation_id: str, seat: int, caller: Observer, conclave: OpenConclave
) -> Response:
    """Everything about one seat, as a part of a page."""
    found = await find_deliberation(deliberation_id, caller, conclave)
    return render_fragment(request, "chamber_seat.html", fits=MOST_OF_A_PANEL, **await _seat(conclave, found, seat))


async def feed(request: Request, caller: Observer, conclave: OpenConclave, deliberation: str = LATEST) -> Response:
    """The live feed of one deliberation, or of whatever is the latest."""
    places: StreamPlaces = request.app.state.stream_places
    live: LiveFeed = request.app.state.live_feed
    if deliberation == LATEST:
        return FeedStream(live, places=places, sees=caller.sees, until=end_of_session(request))
    found = await find_deliberation(deliberation, caller, conclave)
    return FeedStream(live, places=places, deliberation_id=found.id, until=end_of_session(request))


async def _page(
    request: Request, caller: Caller, conclave: Conclave, deliberation_id: str, *, follow: str, seat: int | None
) -> Response:
    found = await find_deliberation(deliberation_id, caller, conclave)
    live: LiveFeed = request.app.state.live_feed
    with live.viewing(found.id, Viewer()) as broadcaster:
        await broadcaster.begun()
        view = Markup(broadcaster.html())  # noqa: S704 - made by a template that escapes
    panel = None
    if seat is not None:
        told = await _seat(conclave, found, seat)
        template = request.app.state.templates.get_template("chamber_seat.html")
        most = min(MOST_OF_A_PANEL, MOST_OF_BOTH - len(view.encode()))
        panel = Markup(fitted(lambda fit: template.render(told, fit=fit), most=most))  # noqa: S704 - as above
    title = "(erased)" if found.erased else found.specification.question.text[:80]
    return render(request, "chamber.html", title=title, nav="chamber", follow=follow, view=view, panel=panel)


async def _seat(conclave: Conclave, deliberation: Deliberation, seat: int) -> dict[str, Any]:
    agents = deliberation.specification.roster.agents
    if not 1 <= seat <= len(agents):
        raise RequestRefusedError("not-found", f"Deliberation {deliberation.id} has seats 1 to {len(agents)}.")
    agent = agents[seat - 1]
    outputs = [
        output_document(each)
        for each in await conclave.outputs.outputs(deliberation.id)
        if each.record.agent_id == agent.id
    ]
    return {
        "deliberation_id": deliberation.id,
        "number": seat,
        "agent": agent,
        "erased": deliberation.erased,
        "outputs": outputs[::-1],
        "tree_size": None if deliberation.witness is None else deliberation.witness.tree_size,
        "several": deliberation.specification.protocol.has_several_rounds,
    }


def draw(templates: jinja2.Environment, state: ChamberState) -> str:
    """The chamber as HTML, the same for everybody who sees that deliberation."""
    deliberation = state.deliberation
    hall = seated(max(1, len(state.shown.seats)))
    seats = [
        {"number": number, "mark": state.shown.seats[number], "x": f"{place.x:.1f}", "y": f"{place.y:.1f}"}
        for number, place in zip(state.order, hall.places, strict=False)
    ]
    limit = deliberation.specification.limits.deadline_s
    question = "(erased)" if deliberation.erased else deliberation.specification.question.text
    context = dict(
        state=state,
        shown=state.shown,
        deliberation=deliberation,
        specification=deliberation.specification,
        question=question,
        is_long=len(question) > _MOST_OF_A_HEADING or "\n" in question.strip(),
        hall=hall,
        scale=f"{hall.radius / _SHAPE:.3f}",
        seats=seats,
        shapes=[Markup(outline(place, 0, 0, _SHAPE)) for place in range(COLOURS)],  # noqa: S704 - numbers alone
        rows=[{"place": place, "letter": letter_of(place)} for place in range(len(state.positions.names))],
        states=STATES,
        started_at=moment(state.started_at),
        finished_at=moment(state.finished_at),
        deadline=None if state.started_at is None else moment(state.started_at + timedelta(seconds=limit)),
        took=None if state.started_at is None or state.finished_at is None else _seconds(state),
        **_ended(state),
    )
    template = templates.get_template("chamber_view.html")
    return fitted(lambda fit: template.render(context, fit=fit), most=MOST_OF_A_VIEW)


def _seconds(state: ChamberState) -> float:
    if state.started_at is None or state.finished_at is None:
        return 0.0
    return (state.finished_at - state.started_at).total_seconds()


def _ended(state: ChamberState) -> dict[str, Any]:
    """What is there to say once it ended, first of all how."""
    reading = state.reading
    if reading is None:
        return {"reading": None}
    outcome = reading.outcome
    robustness = part(outcome, "robustness")
    return {
        "reading": reading,
        # Both are HTML already, in which every text is escaped.
        "headline": Markup(headline(reading)),  # noqa: S704
        "standing": [Markup(line) for line in standing(reading) if not line.startswith("Simulated")],  # noqa: S704
        "decided": [_position(state, each) for each in reading.positions if each.is_decision],
        "against": [_position(state, each) for each in reading.positions if not each.is_decision],
        "percentage": number(part(outcome, "dissent").get("percentage")),
        "changed": items(outcome, "changed"),
        "place_of": partial(_place_of, state),
        "flips": robustness.get("votes_to_flip"),
        "agreeing": other_rules_agreeing(outcome),
        "effective": number(outcome.get("effective_votes")),
        "warnings": [each for each in reading.warnings if not each.startswith(("Degraded:", "Drop-out"))],
        "failures": items(reading.document, "failures"),
        "statement": part(reading.document, "statement"),
        "text": _text_of(reading),
        "unheld": reading.unheld_statements,
    }


def _text_of(reading: Reading) -> str | None:
    """Of texts the one that was decided for."""
    decision = reading.outcome.get("decision")
    return decision if reading.answer_kind == "text" and isinstance(decision, str) else None


def _position(state: ChamberState, position: Position) -> dict[str, Any]:
    name = position.name if state.reading is None else state.reading.name_of(position)
    # What was decided for stands beside the outcome already.
    statement = None if state.reading is None or position.is_decision else state.reading.statement_of(position)
    return {"title": name, "place": _place_of(state, position.name), "each": position, "statement": statement}


def _place_of(state: ChamberState, name: object) -> int | None:
    names = list(state.positions.names)
    return names.index(str(name)) if str(name) in names else None
