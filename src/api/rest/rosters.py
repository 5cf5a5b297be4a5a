"""The resources `/v1/rosters` and `/v1/pool`: who can be asked, and how many are being asked now."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.responses import Response

from api.documents import roster_document
from api.rest.callers import Observer, OpenConclave
from api.rest.json_response import JsonResponse
from api.rest.operation import describe

__all__ = ["add_rosters"]


def add_rosters(app: FastAPI) -> None:
    """Put the resources into `app`."""
    app.add_api_route(
        "/v1/rosters",
        rosters,
        methods=["GET"],
        **describe("rosters", "listRosters", "List the rosters", {200: "RosterPage"}, (401, 403)),
    )
    app.add_api_route(
        "/v1/rosters/{name}",
        roster,
        methods=["GET"],
        **describe("rosters", "getRoster", "Read a roster with its agents", {200: "Roster"}, (401, 403, 404)),
    )
    app.add_api_route(
        "/v1/pool",
        pool,
        methods=["GET"],
        **describe("operations", "getPool", "How many agent slots are taken", {200: "Pool"}, (401, 403)),
    )


async def rosters(_caller: Observer, conclave: OpenConclave) -> Response:
    """Every roster by name, with what it is for and how many agents it has."""
    found = [conclave.rosters.get(name) for name in conclave.rosters.names()]
    items = [{"name": known.name, "description": known.description, "count": len(known.agents)} for known in found]
    return JsonResponse({"items": items, "next_cursor": None})


async def roster(name: str, _caller: Observer, conclave: OpenConclave) -> Response:
    """One roster with its agents."""
    return JsonResponse(roster_document(conclave.rosters.get(name)))


async def pool(_caller: Observer, conclave: OpenConclave) -> Response:
    """The pool as it is at this moment."""
    slots = conclave.pool
    return JsonResponse(
        {
            "capacity": slots.max_concurrent,
            "active": slots.active_count,
            "available": slots.available_count,
            "waiting": conclave.fan_out.waiting_count,
        }
    )
