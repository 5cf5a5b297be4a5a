"""Does a whole page as a reader would, from its first block to its last."""

from __future__ import annotations

from pathlib import Path

from tests.documentation.blocks import Page
from tests.documentation.terminal import Terminal
from tests.integration.test_rest_tls import write_certificate
from tests.llm_server.handle import LlmServer

__all__ = ["follow", "is_done"]


def is_done(page: Page) -> bool:
    """Whether anything of the page is run."""
    return any((block.is_shell or block.language == "python") and "not run" not in block.notes for block in page.blocks)


def follow(page: Page, folder: Path, *, postgres: str | None = None, redis: str | None = None) -> None:
    """Do it. Raises `UntrueError` at the first block that does something else than the page says."""
    if "models" in page.needs:
        with LlmServer(models=["qwen3-8b", "gpt-5.4-mini", "test-model"]) as models:
            _follow(page, folder, models=models.base_url, postgres=postgres, redis=redis)
    else:
        _follow(page, folder, postgres=postgres, redis=redis)


def _follow(
    page: Page, folder: Path, *, models: str | None = None, postgres: str | None = None, redis: str | None = None
) -> None:
    with Terminal(folder, models=models, postgres=postgres, redis=redis) as terminal:
        if "certificate" in page.needs:
            write_certificate(terminal.folder)
        for block in page.blocks:
            if "not run" not in block.notes:
                terminal.perform(block)
