"""What the folder of a population says that it is, for whoever opens it and for whoever only looks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from domain.errors.conclave_error import ConclaveError
from domain.errors.population import PopulationFolderError
from domain.models.population import PopulationSpecification

__all__ = ["ABOUT", "about_in", "specification_in"]

ABOUT = "population.json"


def specification_in(folder: Path) -> PopulationSpecification:
    """That of the population which lies there, also while another process has it. Raises `PopulationFolderError`."""
    about = about_in(folder)
    try:
        return PopulationSpecification.from_document(about["specification"])
    except (KeyError, TypeError, ConclaveError) as error:
        raise _unreadable(folder) from error


def about_in(folder: Path) -> dict[str, Any]:
    """The whole document. Raises `PopulationFolderError` where there is none, or none that can be read."""
    try:
        found = json.loads((folder / ABOUT).read_bytes())
    except (OSError, ValueError) as error:
        raise _unreadable(folder) from error
    return found if isinstance(found, dict) else {}


def _unreadable(folder: Path) -> PopulationFolderError:
    return PopulationFolderError(
        folder=str(folder), problem=f"holds no readable {ABOUT}", remedy="Run the population again."
    )
