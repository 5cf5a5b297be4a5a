"""A folder of runs, and the registry that keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest

from infrastructure.runs.file_run_registry import FileRunRegistry
from tests.integration.file_runs.kept_runs import AT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where it will be; nobody has made it yet."""
    return tmp_path / "runs"


@pytest.fixture
def registry(folder: Path) -> FileRunRegistry:
    """One whose clock stands still."""
    return FileRunRegistry(folder, now=lambda: AT)
