"""Reads who knows whom from a text file: two numbers a line, apart by blanks or a comma; what follows # is a comment."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domain.errors.population import EdgeFileError

__all__ = ["read_edges"]


def read_edges(path: Path, agents: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Both ends of every edge, by the numbers of agents from 0. Raises `EdgeFileError`."""
    try:
        with path.open(encoding="utf-8") as file:
            commas = "," in file.readline()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*input contained no data", category=UserWarning)
            found = np.loadtxt(
                path, dtype=np.int64, comments="#", delimiter="," if commas else None, ndmin=2, encoding="utf-8"
            )
    except OSError as error:
        raise EdgeFileError(path=str(path), line=0, problem=f"cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise EdgeFileError(path=str(path), line=0, problem=f"is no list of edges ({error})") from error
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
