"""Where the words of every version of the prompts are kept; run as a module it writes those of a version that has none yet."""

from __future__ import annotations

import sys
from pathlib import Path

from infrastructure.orchestrators.prompt_version import prompt_version, specimens
from infrastructure.orchestrators.prompts import PROMPT_VERSION, Prompt

__all__ = ["VERSION_FILE", "folder_of", "page_of", "write_snapshots"]

_SNAPSHOTS = Path(__file__).parent / "unit" / "infrastructure" / "snapshots"
VERSION_FILE = "prompt_version"


def folder_of(version: str) -> Path:
    """Where the prompts of that version are."""
    return _SNAPSHOTS / f"prompts-{version}"


def page_of(prompt: Prompt) -> str:
    """Both messages as one text."""
    return f"=== system ===\n{prompt.system}\n=== user ===\n{prompt.user}\n"


def write_snapshots() -> Path:
    """Write those of the present version. Raises `FileExistsError` where there are some: what was recorded is not changed."""
    folder = folder_of(PROMPT_VERSION)
    folder.mkdir(parents=True)
    for name, prompt in specimens().items():
        (folder / f"{name}.txt").write_bytes(page_of(prompt).encode())
    (folder / VERSION_FILE).write_bytes(f"{prompt_version()}\n".encode())
    return folder


if __name__ == "__main__":
    sys.stdout.write(f"{write_snapshots()}\n")
