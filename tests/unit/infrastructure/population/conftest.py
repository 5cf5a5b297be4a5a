"""What the tests of populations share: one folder for compiled loops, so that they are compiled once a run."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where compiled loops are kept."""
    return tmp_path_factory.mktemp("compiled")
