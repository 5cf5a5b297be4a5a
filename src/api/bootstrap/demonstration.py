"""The demonstration: a service of its own whose agents' replies are recorded, so that it needs no key, no model and no settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.bootstrap.opening import open_conclave
from api.bootstrap.process import Purpose, configure_logging

if TYPE_CHECKING:
    from api.conclave import Conclave

__all__ = ["demonstration_questions", "open_demonstration"]

_MODEL = "recorded-voices"
_BANNER = "Demonstration. The replies of two questions were written down beforehand; whatever else is asked, the agents abstain."


@asynccontextmanager
async def open_demonstration(folder: Path, *, seconds: float) -> AsyncIterator[Conclave]:
    """An open service that keeps everything in `folder` and heeds nothing of the environment; each agent takes up to `seconds`.

    Raises `ConfigurationError` where the folder cannot be used.
    """
    from api.rest.recorded_model import recorded_model_app
    from api.rest.server import HttpServer, listening
    from infrastructure.demonstration.voices import RecordedVoices
    from infrastructure.rosters.file_roster_source import FileRosterSource
    from infrastructure.settings import load_settings

    voices = RecordedVoices(await asyncio.to_thread(FileRosterSource(None).get, "archons"))
    app = recorded_model_app(voices.reply_to, model=_MODEL, seconds=seconds)
    async with listening(HttpServer(app, host="127.0.0.1", port=0, local_only=True, hang_up_s=1)) as address:
        told = {
            "CONCLAVE_DATA_DIR": str(folder),
            "CONCLAVE_LLM_BASE_URL": f"{address}/v1",
            "CONCLAVE_LLM_MODEL": _MODEL,
            "CONCLAVE_LOG_LEVEL": "error",
        }
        settings = load_settings(told, env_file=None)
        configure_logging(settings)
        async with open_conclave(settings, purpose=Purpose.SERVE) as conclave:
            yield replace(conclave, banner=_BANNER)


def demonstration_questions(*, seconds: float) -> Sequence[Mapping[str, Any]]:
    """What is asked, in the form of `POST /v1/deliberations`."""
    from infrastructure.demonstration.voices import questions

    return questions(seconds=seconds)
