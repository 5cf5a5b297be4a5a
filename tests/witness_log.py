"""A witness log for tests with its checkpoints, bundles and exports; nothing of it comes from the code that writes or verifies logs."""

from __future__ import annotations

import copy
import json
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import rfc8785

from tests.witness_formats import Document, LogKey, leaf_of, path_of, tree_of
from tests.witness_story import Story


class Log:
    """Entries in order, of several deliberations and of the system."""

    def __init__(self, key: LogKey | None = None) -> None:
        self.key = key or LogKey()
        self.entries: list[bytes] = []
        self.stories: list[Story] = []
        self.places: dict[str, list[int]] = {}

    def tell(self, *stories: Story) -> Log:
        """Log these stories, taking an entry of each in turn."""
        self.stories += stories
        told = [(story.id, iter(story.entries())) for story in stories]
        while told:
            for each in list(told):
                entry = next(each[1], None)
                if entry is None:
                    told.remove(each)
                    continue
                self.places.setdefault(each[0], []).append(len(self.entries))
                self.entries.append(entry)
        return self

    def add_system(self, kind: str, **fields: Any) -> Log:
        """An entry that belongs to no deliberation."""
        at = "2026-11-21T13:00:00.000000Z"
        document = {"type": kind, "at": at, "key_name": None, "reason": {"sha256": "ab" * 32}, **fields}
        self.entries.append(rfc8785.dumps(document))
        return self

    def checkpoint(self, size: int | None = None, *, origin: str | None = None, key: LogKey | None = None) -> str:
        """The signed checkpoint of the first `size` entries."""
        size = len(self.entries) if size is None else size
        root = b64encode(self.root(size)).decode()
        return (key or self.key).sign(f"{origin or self.key.name}\n{size}\n{root}\n")

    def root(self, size: int | None = None) -> bytes:
        """The root of the first `size` entries."""
        return tree_of([leaf_of(entry) for entry in self.entries[:size]])

    def bundle(self, story_id: str, *, size: int | None = None) -> Document:
        """The bundle of one deliberation with all its disclosures, against the tree of `size` entries."""
        size = len(self.entries) if size is None else size
        leaves = [leaf_of(entry) for entry in self.entries[:size]]
        story = next(each for each in self.stories if each.id == story_id)
        return {
            "version": 1,
            "checkpoint": self.checkpoint(size),
            "public_key": self.key.vkey,
            "entries": [
                {
                    "index": index,
                    "entry": self.entries[index].decode(),
                    "inclusion_proof": [each.hex() for each in path_of(index, leaves)],
                }
                for index in self.places[story_id]
                if index < size
            ],
            "disclosures": copy.deepcopy(story.disclosures),
        }

    def export(self, *, size: int | None = None, disclosed: bool = True) -> list[Document]:
        """The lines of an export of the whole log as documents."""
        size = len(self.entries) if size is None else size
        header = {
            "version": 1,
            "kind": "log",
            "checkpoint": self.checkpoint(size),
            "public_key": self.key.vkey,
            "tree_size": size,
        }
        entries = [{"index": index, "entry": entry.decode()} for index, entry in enumerate(self.entries[:size])]
        texts = [{"disclosure": dict(each)} for story in self.stories for each in story.disclosures if disclosed]
        return [header, *entries, *texts]


def as_bytes(document: Document) -> bytes:
    """A bundle as a file."""
    return json.dumps(document, ensure_ascii=False, indent=1).encode()


def as_lines(documents: Sequence[Any]) -> list[bytes]:
    """An export as the lines of a file."""
    return [json.dumps(each, ensure_ascii=False).encode() + b"\n" for each in documents]
