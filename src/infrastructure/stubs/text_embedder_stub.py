"""An embedder of texts that needs nothing: by the words and parts of words that texts share, for tests and rehearsals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from application.ports.model_desk import Forecast
from application.ports.text_embedder import CallRecord
from infrastructure.population.inference.hashed_embedder import HashedEmbedder

__all__ = ["TextEmbedderStub"]


class TextEmbedderStub:
    """See `TextEmbedder`: the vectors by which populations find their notes. It knows no meaning, and asks nobody."""

    name = "hashed words"
    alike_from = 0.6

    def __init__(self) -> None:
        self._embedder = HashedEmbedder()

    async def embed(self, texts: Sequence[str], *, record: CallRecord | None = None) -> Sequence[Sequence[float]]:
        """A vector for each text."""
        del record
        return cast("list[list[float]]", self._embedder.embed(texts).tolist())

    def foresee(self, texts: Sequence[str]) -> Forecast | None:
        """Nobody is asked."""
        del texts
        return None
