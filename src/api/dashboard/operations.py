"""The view of operations: how the service stands, kept up to date, with the halt, and the way to the runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from api.conclave import Conclave
from api.dashboard.costs import cost_of_item, money, uncertain_of_item
from api.dashboard.fragments import answer_if_new, tag_of, text_of
from api.dashboard.operations_picture import Charges, Standing, Work, charges_of, standing_of, work_of
from api.dashboard.rendering import render
from api.dashboard.run_figures import said
from api.dashboard.run_views import add_run_views
from api.dashboard.shared_pictures import SharedPictures
from api.documents import moment
from api.rest.callers import Caller, Observer, OpenConclave
from application.services.api_keys import Role
from domain.errors.dependency import DependencyUnavailableError
from domain.models.halt import MAX_REASON_CHARACTERS

__all__ = ["add_operations"]

_FRESH_S = 1.0
# Sums over the whole ledger may take half a second.
_CHARGES_FRESH_S = 15.0
_HTML = "text/html; charset=utf-8"


@dataclass(frozen=True, slots=True)
class _Viewer:
    """Whose work a viewer sees, everybody's with None, and whether it may ask."""

    sees: str | None
    may_ask: bool


@dataclass(frozen=True, slots=True)
class _Shown:
    """What viewers of one kind see, as HTML in two parts, and its entity tag."""

    halt: str
    rest: str
    tag: str

    @property
    def whole(self) -> bytes:
        """All of it, as it is asked for again."""
        return f"{self.halt}{self.rest}".encode()


class _Pictures:
    """The pictures of operations, each made once for all who see the same."""

    def __init__(self, conclave: Conclave, write: Callable[[str, Mapping[str, object]], str]) -> None:
        self._conclave = conclave
        self._write = write
        self._standing: SharedPictures[None, Standing] = SharedPictures(self._look, fresh_s=_FRESH_S)
        self._charges: SharedPictures[str | None, Charges] = SharedPictures(self._charge, fresh_s=_CHARGES_FRESH_S)
        self.shown: SharedPictures[_Viewer, _Shown] = SharedPictures(self._show, fresh_s=_FRESH_S)

    async def _look(self, _all: None) -> Standing:
        return await standing_of(self._conclave)

    async def _charge(self, sees: str | None) -> Charges:
        return await charges_of(self._conclave, sees)

    async def _show(self, viewer: _Viewer) -> _Shown:
        sees = viewer.sees
        standing = await self._standing.get(None, at_once=True)
        work: Work | None = None
        problem = ""
        try:
            work = await work_of(self._conclave, sees)
        except DependencyUnavailableError as error:
            # Its other words may name hosts, which are for the operator alone.
            problem = f"{error.dependency} is away; nothing is lost."
        context = {
            "standing": standing,
            "work": work,
            "work_problem": problem,
            "charges": await self._charges.get(sees),
            "sees_all": sees is None,
            "others": 0 if sees is None else standing.running + standing.queued,
            "may_ask": viewer.may_ask,
            "said": said,
            "money": money,
            "cost_of": cost_of_item,
            "uncertain_of": uncertain_of_item,
            "moment": moment,
        }
        halt = self._write("operations_halt.html", context)
        rest = self._write("operations_rest.html", context)
        return _Shown(halt, rest, tag_of(f"{halt}{rest}".encode()))


def add_operations(app: FastAPI) -> None:
    """Put the view into `app`, with those of runs."""
    app.state.operations_pictures = _Pictures(app.state.conclave, partial(text_of, app))
    for path, answer in (("/operations", operations), ("/room/operations", live)):
        app.add_api_route(path, answer, methods=["GET"], include_in_schema=False, response_model=None)
    add_run_views(app)


async def operations(request: Request, caller: Observer, conclave: OpenConclave) -> Response:
    """The whole page, readable as it comes."""
    shown = await _pictures(request).shown.get(_viewer(caller))
    return render(
        request,
        "operations.html",
        title="Operations",
        nav="operations",
        live=shown,
        condition=conclave.halt.status().condition.name.lower(),
        max_reason=MAX_REASON_CHARACTERS,
    )


async def live(request: Request, caller: Observer) -> Response:
    """The part that changes, no older than a second."""
    shown = await _pictures(request).shown.get(_viewer(caller))
    return answer_if_new(request, shown.whole, media_type=_HTML, tag=shown.tag)


def _viewer(caller: Caller) -> _Viewer:
    return _Viewer(caller.sees, caller.role.covers(Role.OPERATOR))


def _pictures(request: Request) -> _Pictures:
    pictures: _Pictures = request.app.state.operations_pictures
    return pictures
