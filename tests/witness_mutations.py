"""Random changes of what a JSON document says: values edited, deleted, duplicated and swapped anywhere in its tree."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

import rfc8785

_Place = tuple[Any, Any]


def mutations(originals: Sequence[Any], count: int, *, seed: int) -> Iterator[tuple[Any, Any]]:
    """So many pairs of an original and a mutation that says something else. White space is never what differs."""
    draw = random.Random(seed)
    made = 0
    while made < count:
        original = draw.choice(originals)
        mutated = copy.deepcopy(original)
        if draw.random() < 0.3:
            _mutate_within_an_entry(mutated, draw)
        else:
            _mutate(mutated, draw)
        if json.dumps(mutated) != json.dumps(original):
            made += 1
            yield original, mutated


def _mutate_within_an_entry(document: Any, draw: random.Random) -> None:
    """Change an entry, written canonically again."""
    lines = document if isinstance(document, list) else document["entries"]
    chosen = draw.choice([each for each in lines if "entry" in each])
    entry = json.loads(chosen["entry"])
    _mutate(entry, draw)
    chosen["entry"] = rfc8785.dumps(entry).decode()


def _mutate(document: Any, draw: random.Random) -> None:
    places = list(_places(document))
    parent, step = draw.choice(places)
    siblings = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
    kind = draw.choice(("edit", "edit", "delete", "duplicate", "swap"))
    if kind == "edit":
        parent[step] = _edited(parent[step], draw)
    elif kind == "delete":
        del parent[step]
    elif kind == "swap":
        other = draw.choice(siblings)
        parent[step], parent[other] = parent[other], parent[step]
    elif isinstance(parent, dict):
        parent[f"{step}{draw.choice('_2 ')}"] = parent[step]
    else:
        parent.insert(draw.choice(siblings), copy.deepcopy(parent[step]))


def _places(document: Any) -> Iterator[_Place]:
    steps = document.items() if isinstance(document, dict) else enumerate(document)
    for step, value in list(steps):
        yield document, step
        if isinstance(value, dict | list):
            yield from _places(value)


def _edited(value: Any, draw: random.Random) -> Any:
    if isinstance(value, bool) or value is None:
        return draw.choice((not value, 0, "", []))
    if isinstance(value, int):
        return draw.choice((value + 1, value - 1, -value, float(value), str(value), bool(value), None, 2**50))
    if isinstance(value, float):
        return draw.choice((value + 1, -value, str(value), None))
    if isinstance(value, str):
        return _edited_text(value, draw)
    return draw.choice((None, type(value)(), 0, str(value)))


def _edited_text(text: str, draw: random.Random) -> Any:
    place = draw.randrange(len(text)) if text else 0
    other = draw.choice('0fzA/+=\n \u00e9\U0001f697\x00\u2014{"')
    return draw.choice(
        (
            text[:place] + other + text[place + 1 :],
            text[:place] + other + text[place:],
            text[:place] + text[place + 1 :],
            text[:place],
            text + other,
            text + text[-20:],
            text.upper(),
            text.swapcase(),
            text[::-1],
            "",
            None,
            0,
            [text],
        )
    )
