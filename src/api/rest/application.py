"""Puts the REST application together: the door, the resources, the pages, and one form for every refusal."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI

from api.conclave import Conclave
from api.dashboard.application import add_dashboard
from api.rest.deliberations import add_deliberations
from api.rest.door import Door
from api.rest.event_stream import MAX_STREAMS, StreamPlaces
from api.rest.halt import add_halt
from api.rest.health import add_health
from api.rest.hindsight import add_hindsight
from api.rest.money import add_money
from api.rest.openapi import add_openapi
from api.rest.problems import answer_problems
from api.rest.query import StrictRoute
from api.rest.records import add_records
from api.rest.rosters import add_rosters
from api.rest.runs import add_runs
from api.rest.sessions import Sessions
from api.rest.webhooks import add_webhooks
from api.rest.witness import add_witness

__all__ = ["create_app"]


def create_app(conclave: Conclave, *, max_streams: int = MAX_STREAMS) -> FastAPI:
    """The REST application of contract section 1 over an open Conclave.

    Without keys it answers local callers alone, and every one of them has every role. It neither opens nor closes `conclave`.
    """
    # Nothing but traces is ever turned on, and those are the adapter's to describe.
    telemetry: Any = {
        "auto_configure": False,
        "tracing": False,
        "metrics": False,
        "logs": False,
        "operation_spans": False,
        **conclave.http_telemetry,
    }
    app = FastAPI(
        title="Conclave",
        version=version("archon-conclave"),
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=telemetry,
    )
    app.router.route_class = StrictRoute
    app.state.conclave = conclave
    app.state.stream_places = StreamPlaces(max_streams)
    app.state.sessions = Sessions(conclave.data_dir, conclave.keys)
    app.add_middleware(Door, local_only=not conclave.keys)
    answer_problems(app)
    add_deliberations(app)
    add_records(app)
    add_hindsight(app)
    add_runs(app)
    add_witness(app)
    add_webhooks(app)
    add_rosters(app)
    add_money(app)
    add_halt(app)
    add_health(app)
    add_openapi(app)
    add_dashboard(app)
    return app
