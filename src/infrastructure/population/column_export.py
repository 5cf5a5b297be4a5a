"""Writes the columns of a population to a file that is there as a whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import math
import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.errors.deliberation import FieldProblem
from domain.errors.population import InvalidPopulationError, PopulationFolderError
from infrastructure.population.kept_columns import KeptColumns, Named

__all__ = ["FORMATS", "check_format", "document_of", "write_columns"]

FORMATS = ("parquet", "arrow", "csv")

# What a spreadsheet takes for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def check_format(name: str) -> None:
    """Raise `InvalidPopulationError` where there is no such format, or what writes it is not installed."""
    if name not in FORMATS:
        raise InvalidPopulationError([FieldProblem("/format", f"must be one of {', '.join(FORMATS)}")])
    if name != "csv" and find_spec("pyarrow") is None:
        problem = f"'{name}' wants pyarrow, which is not installed here: install the extra `arrow`, or take csv"
        raise InvalidPopulationError([FieldProblem("/format", problem)])


def write_columns(kept: KeptColumns, path: Path, form: str) -> list[str]:
    """Put them into `path` in place of what is there; the names of the columns that were written.

    Raises `InvalidPopulationError` and `PopulationFolderError`.
    """
    check_format(form)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        written = _writer(form)(kept, beside)
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise PopulationFolderError(
            folder=str(path.parent),
            problem=f"takes no {path.name!r} ({error.strerror or error})",
            remedy="Make room there, or name another --out.",
        ) from error
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
    return written


def _writer(form: str) -> Callable[[KeptColumns, Path], list[str]]:
    if form == "csv":
        return _write_csv

    def write(kept: KeptColumns, path: Path) -> list[str]:
        from infrastructure.population.arrow_files import write_arrow, write_parquet

        (write_arrow if form == "arrow" else write_parquet)(kept, path)
        return list(kept.columns)

    return write


def _write_csv(kept: KeptColumns, path: Path) -> list[str]:
    """Comma-separated values (RFC 4180), one column for each number; columns of several numbers a row are left out."""
    names = [name for name, column in kept.columns.items() if isinstance(column, Named) or column.ndim == 1]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(names)
        for chunk in kept.chunks():
            writer.writerows(zip(*(_values(chunk[name]) for name in names), strict=True))
    return names


def _values(column: NDArray[Any] | Named) -> list[Any]:
    if isinstance(column, Named):
        words = [_harmless(word) for word in column.words]
        return [words[place] for place in column.places.tolist()]
    if column.dtype == np.bool_:
        return ["true" if value else "false" for value in column.tolist()]
    values: list[Any] = column.tolist()
    if column.dtype.kind == "f":
        return ["" if math.isnan(value) else value for value in values]
    return values


def _harmless(word: str) -> str:
    """A word that no spreadsheet computes."""
    return f"'{word}" if word.startswith(_FORMULA) else word


def document_of(kept: KeptColumns, path: Path, form: str, names: list[str]) -> Mapping[str, Any]:
    """What was exported, for whoever asked."""
    return {
        "simulated": True,
        "file": str(path),
        "format": form,
        "tick": kept.tick,
        "rows": kept.rows,
        "columns": names,
        "bytes": path.stat().st_size,
    }
