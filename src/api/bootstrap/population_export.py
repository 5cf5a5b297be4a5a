"""The columns of a population from its folder to a file of somebody's choice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["export_population"]


def export_population(
    folder: Path, *, form: str, out: Path | None, tick: int | None, with_bytes: bool
) -> Mapping[str, Any]:
    """What was written, and where: to `out`, else beside what is exported.

    Raises `InvalidPopulationError` for a format that is none or not installed, `PopulationFolderError` and `DamagedRecordError`.
    """
    from infrastructure.population.column_export import check_format, document_of, write_columns
    from infrastructure.population.kept_columns import columns_in

    check_format(form)
    kept = columns_in(folder, tick=tick, with_bytes=with_bytes)
    path = out if out is not None else folder / f"agents-simulated-{kept.tick}.{form}"
    return document_of(kept, path, form, write_columns(kept, path, form))
