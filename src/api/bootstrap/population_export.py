"""The columns of a population from its folder to a file of somebody's choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["prepare_export"]


def prepare_export(
    folder: Path, *, form: str, tick: int | None, with_bytes: bool
) -> Callable[[Path | None], Mapping[str, Any]]:
    """What writes them to a file, else beside what is exported, and says what was written; it raises `PopulationFolderError` too.

    Raises `InvalidPopulationError` for a format that is none or not installed, `PopulationFolderError` and `DamagedRecordError`.
    """
    from infrastructure.population.column_export import check_format, document_of, write_columns
    from infrastructure.population.kept_columns import columns_in

    check_format(form)
    kept = columns_in(folder, tick=tick, with_bytes=with_bytes)

    def write(out: Path | None) -> Mapping[str, Any]:
        path = out if out is not None else folder / f"agents-simulated-{kept.tick}.{form}"
        return document_of(kept, path, form, write_columns(kept, path, form))

    return write
