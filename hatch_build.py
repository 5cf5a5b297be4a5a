"""Puts the bill of materials into the wheel, where `make package` has made one (PEP 770); a wheel built without it has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SBOM = "build/sbom/conclave.cdx.json"


class SbomHook(BuildHookInterface[Any]):
    """Adds `build/sbom/conclave.cdx.json` to the wheel's metadata."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before the wheel is built; an editable one is for this machine alone and needs no bill."""
        if version != "editable" and (Path(self.root) / SBOM).is_file():
            build_data["sbom_files"].append(SBOM)
