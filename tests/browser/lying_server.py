"""A server of the log that may lie: it answers for `/v1/witness` in place of the real one, as a test tells it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Page, Route

from domain.witness.proof import consistency_proof
from tests.witness_formats import leaf_of, path_of, tree_of
from tests.witness_log import Log

__all__ = ["LyingServer"]

Document = dict[str, Any]


class LyingServer:
    """Answers honestly over `log`, but for what is set: a note, sizes one after the other, or changes of the documents that it gives.

    `status` and `body` replace an answer of the given kind (`checkpoint`, `entries`, `inclusion`, `consistency`) as a whole.
    """

    def __init__(self, page: Page, log: Log) -> None:
        self.log = log
        self.note: str | None = None
        self._change: dict[str, Callable[[Document], Document]] = {}
        self.body: dict[str, bytes] = {}
        self.status: dict[str, int] = {}
        self.sizes: Iterator[int] | None = None
        self.is_away = False
        self.asked: list[str] = []
        page.route("**/v1/witness/**", self._answer)

    def say(self, kind: str, **fields: Any) -> None:
        """Answer of that kind with these fields in place of the true ones."""
        self._change[kind] = lambda honest: {**honest, **fields}

    def rewrite(self, kind: str, field: str, change: Callable[[Any], Any]) -> None:
        """Answer of that kind with one field changed."""
        self._change[kind] = lambda honest: {**honest, field: change(honest[field])}

    def be_honest(self) -> None:
        """From now on."""
        self.note, self.is_away = None, False
        self._change.clear()
        self.body.clear()
        self.status.clear()

    def _answer(self, route: Route) -> None:
        parts = urlsplit(route.request.url)
        asked = {name: int(values[0]) for name, values in parse_qs(parts.query).items()}
        path = parts.path.removeprefix("/v1/witness/")
        kind = path.split("/")[1] if path.startswith("proofs/") else path.split("/")[0]
        self.asked.append(kind)
        if self.is_away:
            route.abort()
        elif kind in self.body or kind in self.status:
            route.fulfill(status=self.status.get(kind, 200), body=self.body.get(kind, b"{}"))
        elif kind == "checkpoint":
            size = None if self.sizes is None else next(self.sizes)
            note = self.log.checkpoint(size) if self.note is None else self.note
            route.fulfill(body=note.encode(), content_type="text/plain; charset=utf-8")
        else:
            document = self._document(kind, path, asked)
            if kind in self._change:
                document = self._change[kind](document)
            route.fulfill(body=json.dumps(document).encode(), content_type="application/json")

    def _document(self, kind: str, path: str, asked: dict[str, int]) -> Document:
        leaves = [leaf_of(each) for each in self.log.entries]
        if kind == "entries":
            index = int(path.split("/")[1])
            return {"index": index, "leaf_hash": leaves[index].hex(), "entry": self.log.entries[index].decode()}
        if kind == "inclusion":
            index, size = asked["index"], asked["tree_size"]
            return {
                "index": index,
                "tree_size": size,
                "leaf_hash": leaves[index].hex(),
                "root_hash": tree_of(leaves[:size]).hex(),
                "hashes": [each.hex() for each in path_of(index, leaves[:size])],
            }
        first, second = asked["first"], asked["second"]

        def node(height: int, place: int) -> bytes:
            return tree_of(leaves[place << height : (place + 1) << height])

        hashes = consistency_proof(first, second, node)
        return {
            "first": first,
            "second": second,
            "first_root": tree_of(leaves[:first]).hex(),
            "second_root": tree_of(leaves[:second]).hex(),
            "hashes": [each.hex() for each in hashes],
        }
