"""The view of the record: its checkpoint, its entries with their proofs, and what a browser needs to check all of it itself."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from api.conclave import Conclave
from api.dashboard.rendering import render
from api.rest.callers import Caller, Observer, OpenConclave
from api.rest.problems import RequestRefusedError
from application.pages.visible_text import visible_document
from application.ports.witness_log import LoggedEntry
from application.services.anchorage import AnchorState
from application.services.api_keys import Role
from domain.errors.deliberation import DeliberationNotFoundError, InvalidSpecificationError
from domain.errors.witness import LogUnverifiedError
from domain.witness.checkpoint import Checkpoint, SignedNote
from domain.witness.entry import time_text
from domain.witness.proof import inclusion_nodes

__all__ = ["add_record"]

_A_PAGE = 20
_INDEX = re.compile(r"[0-9]{1,19}", re.ASCII)
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ANCHORS: Mapping[str, str] = {"file": "a file", "webhook": "a webhook", "witness": "a witness that cosigns"}
_DAMAGED = (
    "The record does not verify, so no checkpoint is signed and nothing is added. An operator runs `conclave witness fsck`, "
    "which says where."
)


def add_record(app: FastAPI) -> None:
    """Put the view into `app`."""
    for path, answer in (("/record", record), ("/record/entries/{index}", entry)):
        app.add_api_route(path, answer, methods=["GET"], include_in_schema=False, response_model=None)


@dataclass(frozen=True, slots=True)
class _Signed:
    """A signed checkpoint and its parts."""

    note: str
    stated: Checkpoint
    signers: Sequence[str]

    @property
    def root(self) -> str:
        """The root hash in hexadecimal digits."""
        return self.stated.root_hash.hex()


@dataclass(frozen=True, slots=True)
class _Row:
    """An entry in a list."""

    index: int
    type: str
    at: str
    deliberation_id: str | None
    about: str
    leaf_hash: str


@dataclass(frozen=True, slots=True)
class _Step:
    """One hash of an inclusion path: on which side of the path it is, and which leaves [start, end) it covers."""

    side: str
    start: int
    end: int
    hash: str


async def record(request: Request, caller: Observer, conclave: OpenConclave) -> Response:
    """The checkpoint, the anchors, and a list of entries: the latest, or those of the deliberation that was looked for."""
    wanted = request.query_params.get("find", "").strip()
    if _INDEX.fullmatch(wanted):
        return RedirectResponse(f"/record/entries/{int(wanted)}", status_code=303)
    signed = await _signed(conclave)
    listed = await (_of_a_deliberation(request, conclave, wanted) if wanted else _latest(request, conclave, signed))
    return render(
        request,
        "record.html",
        title="Record",
        nav="record",
        signed=signed,
        damage=_DAMAGED if signed is None else "",
        vkey=str(conclave.witness.verifier_key),
        anchors=[_anchor(each, names=caller.role.covers(Role.ADMIN)) for each in conclave.witness.anchors],
        find=wanted,
        **listed,
    )


async def entry(request: Request, index: str, caller: Observer, conclave: OpenConclave) -> Response:
    """One entry, with the path from its leaf to the root of the present checkpoint. Raises `RequestRefusedError` (404)."""
    place = int(index) if _INDEX.fullmatch(index) else -1
    try:
        found = await conclave.witness.entry(place)
    except InvalidSpecificationError:
        raise RequestRefusedError(
            "not-found", f"The record has no entry {index[:40]!r}; /record lists those that there are."
        ) from None
    document = json.loads(found.entry)
    deliberation_id = document.get("deliberation_id")
    signed = await _signed(conclave)
    size = 0 if signed is None else signed.stated.tree_size
    return render(
        request,
        "record_entry.html",
        title=f"Entry {place}",
        nav="record",
        row=_row(found, document),
        text=found.entry.decode(),
        pretty=_pretty(document),
        length=len(found.entry),
        sees=await _sees(conclave, caller, deliberation_id),
        texts=list(_commitments(document)),
        signed=signed,
        path=None if place >= size else await _path(conclave, place, size),
        newest=max(size - 1, place),
    )


async def _signed(conclave: Conclave) -> _Signed | None:
    """The present checkpoint, None where the log does not stand up to what was signed of it."""
    try:
        note = await conclave.witness.checkpoint()
    except LogUnverifiedError:
        return None
    parsed = SignedNote.parse(note)
    signers = [f"{each.name}+{each.key_id.hex()}" for each in parsed.signatures]
    return _Signed(note, Checkpoint.parse(parsed.text), signers)


async def _latest(request: Request, conclave: Conclave, signed: _Signed | None) -> dict[str, Any]:
    size = conclave.witness.tree_size if signed is None else signed.stated.tree_size
    before = request.query_params.get("before", "")
    end = min(int(before), size) if _INDEX.fullmatch(before) else size
    start = max(0, end - _A_PAGE)
    try:
        entries = await conclave.witness.entries(start, end)
        problem = ""
    except LogUnverifiedError:
        entries, problem = [], "These entries are damaged; `conclave witness fsck` says where."
    return {
        "rows": [_row(each, json.loads(each.entry)) for each in reversed(entries)],
        "problem": problem,
        "newer": f"/record?before={min(end + _A_PAGE, size)}" if end < size else "",
        "older": f"/record?before={start}" if start else "",
    }


async def _of_a_deliberation(request: Request, conclave: Conclave, wanted: str) -> dict[str, Any]:
    problem, entries = "", list[LoggedEntry]()
    if _ID.fullmatch(wanted):
        try:
            entries = list(await conclave.witness.entries_of(wanted))
        except LogUnverifiedError:
            problem = "Entries of this deliberation are damaged; `conclave witness fsck` says where."
    after = request.query_params.get("after", "")
    start = int(after) if _INDEX.fullmatch(after) else 0
    if not problem and not entries:
        problem = "No entry belongs to that. Give the index of an entry, or the whole id of a deliberation."
    where = f"/record?find={quote(wanted)}"
    return {
        "rows": [_row(each, json.loads(each.entry)) for each in entries[start : start + _A_PAGE]],
        "problem": problem,
        "newer": f"{where}&after={max(0, start - _A_PAGE)}" if 0 < start < len(entries) + _A_PAGE else "",
        "older": f"{where}&after={start + _A_PAGE}" if start + _A_PAGE < len(entries) else "",
    }


async def _sees(conclave: Conclave, caller: Caller, deliberation_id: str | None) -> bool:
    """Whether the caller may look at the deliberation itself; its entries are everybody's."""
    if deliberation_id is None:
        return False
    try:
        await conclave.deliberations.get(deliberation_id, key_name=caller.sees)
    except DeliberationNotFoundError:
        return False
    return True


async def _path(conclave: Conclave, index: int, size: int) -> list[_Step]:
    proof = await conclave.witness.inclusion(index=index, tree_size=size)
    return [
        _Step("left" if start < index else "right", start, end, found.hex())
        for (start, end), found in zip(inclusion_nodes(index, size), proof.hashes, strict=True)
    ]


def _anchor(state: AnchorState, *, names: bool) -> dict[str, Any]:
    """What a page says of an anchor; where it is and what it said is for admins, because either may hold a path."""
    return {
        "kind": _ANCHORS.get(state.name.partition(":")[0], "an anchor"),
        "name": state.name if names else "",
        "tree_size": state.tree_size,
        "taken_at": None if state.taken_at is None else time_text(state.taken_at),
        "fails": state.problem is not None,
        "problem": (state.problem or "") if names else "",
    }


def _row(found: LoggedEntry, document: Mapping[str, Any]) -> _Row:
    return _Row(
        index=found.index,
        type=str(document["type"]),
        at=str(document["at"]),
        deliberation_id=document.get("deliberation_id"),
        about=_about(document),
        leaf_hash=found.leaf_hash.hex(),
    )


def _about(document: Mapping[str, Any]) -> str:
    """What an entry says, in a few words."""
    match document:
        case {"type": "deliberation.accepted", "members": members, "protocol": {"kind": protocol}}:
            return f"{len(members)} agents, {protocol}"
        case {"type": "round.started", "round": number, "agents": agents}:
            return f"round {number}, {len(agents)} agents"
        case {"type": "call.intended", "round": number, "agent_id": agent_id, "attempt": attempt}:
            return f"{agent_id or 'comparison of texts'}, round {number}, attempt {attempt}"
        case {"type": "agent.ended", "round": number, "agent_id": agent_id, "state": state}:
            return f"{agent_id}, round {number}: {str(state).replace('_', ' ')}"
        case {"type": "deliberation.ended", "status": status}:
            return str(status)
    return ""


def _pretty(document: Mapping[str, Any]) -> str:
    return visible_document(json.dumps(document, ensure_ascii=False, indent=2))


def _commitments(value: Any, field: str = "") -> list[tuple[str, str]]:
    """The texts that a document commits to: where in it, and the SHA-256."""
    if isinstance(value, Mapping):
        if value.keys() == {"sha256"} and isinstance(value["sha256"], str):
            return [(field, value["sha256"])]
        inner = [(f"{field}/{name}" if field else str(name), each) for name, each in value.items()]
    elif isinstance(value, list):
        inner = [(f"{field}/{place}", each) for place, each in enumerate(value)]
    else:
        return []
    return [found for name, each in inner for found in _commitments(each, name)]
