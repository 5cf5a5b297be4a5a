"""The resources under `/v1/witness`: the log as anybody may read it, because it holds no text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query
from pydantic import BeforeValidator, Field
from starlette.responses import Response

from api.rest.callers import OpenConclave
from api.rest.json_response import JsonResponse
from api.rest.operation import describe
from api.rest.problems import RequestRefusedError
from domain.errors.deliberation import FieldProblem, InvalidSpecificationError
from domain.witness.tile import TILE_WIDTH, Tile

__all__ = ["add_witness"]

_MAX_INDEX = 2**63 - 1
_TEXT = "text/plain; charset=utf-8"
_BYTES = "application/octet-stream"
_FOR_EVER = "public, max-age=31536000, immutable"


def _decimal(value: Any) -> Any:
    """Keep from the conversion what it would take for a number though nobody writes one so: signs, blanks, underscores."""
    if isinstance(value, str) and not (value.isascii() and value.isdigit() and len(value) <= len(str(_MAX_INDEX))):
        raise ValueError("is not a decimal number of the log")
    return value


# The check comes before the framework's own conversion.
_Place = Annotated[int, Field(ge=0, le=_MAX_INDEX), BeforeValidator(_decimal)]
EntryIndex = Annotated[_Place, Path(description="The place of the entry, from 0.")]
LeafIndex = Annotated[_Place, Query(description="The place of the entry, from 0.")]
TreeSize = Annotated[_Place, Query(description="How many entries the tree has that the proof leads to.")]
FirstSize = Annotated[_Place, Query(description="How many entries the older tree has.")]
SecondSize = Annotated[_Place, Query(description="How many entries the newer tree has.")]
TilePath = Annotated[str, Path(description="`<L>/<N>[.p/<W>]`, or `entries/<N>[.p/<W>]` (C2SP tlog-tiles).")]


def add_witness(app: FastAPI) -> None:
    """Put the resources into `app`; they need no key."""
    path = "/v1/witness"
    app.add_api_route(
        f"{path}/checkpoint",
        checkpoint,
        methods=["GET"],
        **describe(
            "witness",
            "getCheckpoint",
            "The log's size and root, signed (C2SP tlog-checkpoint)",
            {200: ""},
            (503,),
            media_type="text/plain",
        ),
    )
    app.add_api_route(
        f"{path}/tile/{{path:path}}",
        tile,
        methods=["GET"],
        **describe(
            "witness",
            "getTile",
            "A tile of hashes, or a bundle of entries (C2SP tlog-tiles)",
            {200: ""},
            (404, 422, 503),
            media_type=_BYTES,
        ),
    )
    app.add_api_route(
        f"{path}/entries/{{index}}",
        entry,
        methods=["GET"],
        **describe("witness", "getEntry", "One entry and its leaf hash", {200: "LogEntry"}, (422, 503)),
    )
    app.add_api_route(
        f"{path}/proofs/inclusion",
        inclusion,
        methods=["GET"],
        **describe(
            "witness", "proveInclusion", "Prove that an entry is in a tree", {200: "InclusionProof"}, (422, 503)
        ),
    )
    app.add_api_route(
        f"{path}/proofs/consistency",
        consistency,
        methods=["GET"],
        **describe(
            "witness",
            "proveConsistency",
            "Prove that a tree only grew out of an older one",
            {200: "ConsistencyProof"},
            (422, 503),
        ),
    )


async def checkpoint(conclave: OpenConclave) -> Response:
    """The signed checkpoint of the log as it stands."""
    return Response(await conclave.witness.checkpoint(), headers={"Content-Type": _TEXT})


async def tile(path: TilePath, conclave: OpenConclave) -> Response:
    """Hashes joined (32 bytes each), or entries each after its length (2 bytes, big endian)."""
    try:
        wanted = Tile.parse(path)
    except ValueError:
        wrong = FieldProblem("/path/path", "is not the path of a tile: write it like 0/x001/234.p/5 or entries/000")
        raise RequestRefusedError.of("parameter", [wrong]) from None
    content = await conclave.witness.tile(wanted)
    if content is None:
        raise RequestRefusedError("not-found", "The log has no such tile yet; its checkpoint names its size.")
    # A partial tile is asked for while the log grows, and then no more: keeping it would only fill caches.
    headers = {"Content-Type": _BYTES, **({"Cache-Control": _FOR_EVER} if wanted.width == TILE_WIDTH else {})}
    return Response(content, headers=headers)


async def entry(index: EntryIndex, conclave: OpenConclave) -> Response:
    """One entry, as the canonical JSON that was hashed."""
    with _pointing_at("/path"):
        found = await conclave.witness.entry(index)
    return JsonResponse({"index": found.index, "leaf_hash": found.leaf_hash.hex(), "entry": found.entry.decode()})


async def inclusion(index: LeafIndex, tree_size: TreeSize, conclave: OpenConclave) -> Response:
    """The proof of RFC 9162, section 2.1.3, from the leaf to the root."""
    with _pointing_at("/query"):
        proof = await conclave.witness.inclusion(index=index, tree_size=tree_size)
    return JsonResponse(
        {
            "index": proof.index,
            "tree_size": proof.tree_size,
            "leaf_hash": proof.leaf_hash.hex(),
            "root_hash": proof.root_hash.hex(),
            "hashes": [found.hex() for found in proof.hashes],
        }
    )


async def consistency(first: FirstSize, second: SecondSize, conclave: OpenConclave) -> Response:
    """The proof of RFC 9162, section 2.1.4, between two sizes of the log."""
    with _pointing_at("/query"):
        proof = await conclave.witness.consistency(first=first, second=second)
    return JsonResponse(
        {
            "first": proof.first,
            "second": proof.second,
            "first_root": proof.first_root.hex(),
            "second_root": proof.second_root.hex(),
            "hashes": [found.hex() for found in proof.hashes],
        }
    )


@contextmanager
def _pointing_at(place: str) -> Iterator[None]:
    """Turn the use case's refusal of a number into one that says where in the request the number stood."""
    try:
        yield
    except InvalidSpecificationError as error:
        errors = [FieldProblem(f"{place}{found.pointer}", found.message) for found in error.problems]
        raise RequestRefusedError.of("parameter", errors) from error
