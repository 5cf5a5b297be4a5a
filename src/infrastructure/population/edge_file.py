"""Reads who knows whom from a text file: two numbers a line, apart by blanks or a comma; what follows # is a comment."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domain.errors.population import EdgeFileError

__all__ = ["read_edges"]

# What numpy has room for, and no longer.
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")


def read_edges(path: Path, agents: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Both ends of every edge, by the numbers of agents from 0. Raises `EdgeFileError`."""
    try:
        with path.open(encoding="utf-8") as file:
            apart = "," if any("," in line for line in islice(_edges_in(file), 1)) else None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*input contained no data", category=UserWarning)
            found = np.loadtxt(path, dtype=np.int64, comments="#", delimiter=apart, ndmin=2, encoding="utf-8")
    except OSError as error:
        raise EdgeFileError(path=str(path), line=0, problem=f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise EdgeFileError(path=str(path), line=0, problem="is no list of edges, nor any text") from error
    except ValueError as error:
        raise EdgeFileError(
            path=str(path), line=_first_that_is_none(path, apart), problem="is no pair of numbers"
        ) from error
    if not found.size:
        raise EdgeFileError(path=str(path), line=0, problem="holds no edge")
    if found.shape[1] != 2:
        raise EdgeFileError(path=str(path), line=1, problem=f"has {found.shape[1]} numbers instead of two")
    unknown = (found < 0) | (found >= agents)
    if bool(unknown.any()):
        line, side = (int(place) for place in np.argwhere(unknown)[0])
        problem = f"names agent {int(found[line, side])}, and there are {agents} agents"
        raise EdgeFileError(path=str(path), line=line + 1, problem=problem)
    return found[:, 0].astype(np.uint32), found[:, 1].astype(np.uint32)


def _edges_in(lines: Iterable[str]) -> Iterator[str]:
    """What stands in those lines that are more than a comment."""
    return filter(None, (line.partition("#")[0].strip() for line in lines))


def _first_that_is_none(path: Path, apart: str | None) -> int:
    """The number of the first edge that is not two whole numbers, 0 where each by itself is."""
    with path.open(encoding="utf-8") as file:
        for number, edge in enumerate(_edges_in(file), 1):
            ends = edge.split(apart)
            if len(ends) != 2 or not all(_WHOLE.fullmatch(end.strip()) for end in ends):
                return number
    return 0
