"""The views of runs: the list with the way to start one, and each run as it goes along, with its figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from api.conclave import Conclave
from api.dashboard.fragments import answer_if_new, tag_of, text_of
from api.dashboard.rendering import render
from api.dashboard.run_facts import facts_of
from api.dashboard.run_figures import figure_document, figures_of, said
from api.dashboard.run_forms import RUN_FORMS
from api.dashboard.shared_pictures import SharedPictures
from api.documents import moment
from api.rest.callers import Caller, Observer, OpenConclave
from api.rest.deliberations import Status
from api.rest.json_response import encode
from api.rest.runs import RunCursor
from domain.errors.run import RunNotFoundError
from domain.models.deliberation import DeliberationStatus
from domain.models.run import Run
from domain.models.run_event import is_run_id

__all__ = ["add_run_views"]

_FRESH_S = 1.0
_PAGE = 30
_HTML, _JSON = "text/html; charset=utf-8", "application/json"


@dataclass(frozen=True, slots=True)
class _RunPicture:
    """A run at one moment: the part of its page that changes, and what is drawn, each with its entity tag."""

    run: Run
    html: str
    tag: str
    series: bytes
    series_tag: str


class _Pictures:
    """The pictures of runs, each made once for all its viewers."""

    def __init__(self, conclave: Conclave, write: Callable[[str, Mapping[str, object]], str]) -> None:
        self._conclave = conclave
        self._write = write
        self._made: SharedPictures[str, _RunPicture] = SharedPictures(self._show, fresh_s=_FRESH_S)

    async def get(self, run_id: str, caller: Caller) -> _RunPicture:
        """That of a run which the caller may see. Raises `RunNotFoundError`."""
        if not is_run_id(run_id):
            raise RunNotFoundError(run_id=run_id)
        found = await self._made.get(run_id)
        if caller.sees is not None and found.run.key_name != caller.sees:
            raise RunNotFoundError(run_id=run_id)
        return found

    async def _show(self, run_id: str) -> _RunPicture:
        run = await self._conclave.runs.get(run_id, key_name=None)
        series = await self._conclave.runs.series(run)
        figures = figures_of(run, series)
        document = {
            "status": run.status.value,
            "has_ended": run.status.is_terminal,
            "is_whole": series.is_whole,
            "figures": [figure_document(figure) for figure in figures],
        }
        html = self._write(
            "operations_run_live.html",
            {
                "run": run,
                "series": series,
                "figures": figures,
                "facts": facts_of(run, series),
                "said": said,
                "moment": moment,
            },
        )
        encoded = encode(document)
        return _RunPicture(run, html, tag_of(html.encode()), encoded, tag_of(encoded))


def add_run_views(app: FastAPI) -> None:
    """Put the views into `app`."""
    app.state.run_pictures = _Pictures(app.state.conclave, partial(text_of, app))
    for path, answer in (
        ("/operations/runs", runs),
        ("/operations/runs/{run_id}", show),
        ("/room/runs/{run_id}", live),
        ("/room/runs/{run_id}/series", series),
    ):
        app.add_api_route(path, answer, methods=["GET"], include_in_schema=False, response_model=None)


async def runs(
    request: Request, caller: Observer, conclave: OpenConclave, status: Status = None, cursor: RunCursor = None
) -> Response:
    """The runs that the caller sees, newest first, and the forms that start one."""
    found = await conclave.runs.page(status=status, key_name=caller.sees, limit=_PAGE, cursor=cursor)
    return render(
        request,
        "operations_runs.html",
        title="Runs",
        nav="operations",
        runs=found.items,
        next_cursor=found.next_cursor,
        status=status,
        statuses=[each for each in DeliberationStatus if each.value != "inquorate"],
        forms=RUN_FORMS,
        sees_all=caller.sees is None,
        is_first=cursor is None,
        moment=moment,
    )


async def show(request: Request, run_id: str, caller: Observer) -> Response:
    """One run, readable as it comes, and followed while it goes on."""
    found = await _pictures(request).get(run_id, caller)
    return render(
        request,
        "operations_run.html",
        title=f"{found.run.kind.value.capitalize()} run",
        nav="operations",
        run=found.run,
        live=found,
        sees_all=caller.sees is None,
    )


async def live(request: Request, run_id: str, caller: Observer) -> Response:
    """The part of its page that changes, no older than a second."""
    found = await _pictures(request).get(run_id, caller)
    return answer_if_new(request, found.html.encode(), media_type=_HTML, tag=found.tag)


async def series(request: Request, run_id: str, caller: Observer) -> Response:
    """What is drawn of it, no older than a second."""
    found = await _pictures(request).get(run_id, caller)
    return answer_if_new(request, found.series, media_type=_JSON, tag=found.series_tag)


def _pictures(request: Request) -> _Pictures:
    pictures: _Pictures = request.app.state.run_pictures
    return pictures
