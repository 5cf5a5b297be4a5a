"""The ports to what agents think with: networks and models asked in batches, what turns notes into vectors, what finds notes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, TypeAlias

from domain.models.run import JsonValue

__all__ = [
    "FEATURES",
    "FULL_PULL",
    "MAX_BATCH",
    "NO_PULL",
    "Embedder",
    "FoundNote",
    "Inference",
    "InferenceCounts",
    "InferenceModel",
    "InferenceRequest",
    "NoteIndex",
    "Priority",
    "Table",
]

FEATURES = (
    "opinion",
    "heard",
    "difference",
    "change",
    "susceptibility",
    "bound",
    "activity",
    "type",
)
"""What is known of an agent, one signed byte each. Opinions lie from -32 (0) to 32 (1), differences of opinions from -64 to 64, what
is a share from 0 to 32; `type` is the number of its archetype, 127 at most."""

MAX_BATCH = 16_384
"""The most rows that a model is asked at a time."""

FULL_PULL = 4_096
NO_PULL = -32_768
"""A pull is a whole number from -FULL_PULL (all the way to 0) to FULL_PULL (all the way to 1); NO_PULL where none was answered."""

Table: TypeAlias = memoryview
"""Numbers in C order: features as signed bytes (`b`, rows x 8), pulls as 16-bit integers (`h`, rows), vectors as `f`, rows x dimensions."""


class Priority(IntEnum):
    """Whose rows go first. What is speculative is inferred only while nothing else waits, and is the first to be dropped."""

    URGENT = 0
    TICK = 1
    SPECULATIVE = 2


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """Agents of one tick, a row of features each."""

    features: Table
    tick: int
    priority: Priority = Priority.TICK


class InferenceModel(Protocol):
    """Gives each row of features its pull: the same for the same features within a tick, whatever else stands in the batch.

    Asked by one thread at a time.
    """

    @property
    def name(self) -> str:
        """Which engine answers, as reports name it."""
        ...

    def infer(self, features: Table, *, tick: int) -> Table:
        """The pulls of at most `MAX_BATCH` rows, no two of them alike; NO_PULL where the model gave none."""
        ...

    def document(self) -> dict[str, JsonValue]:
        """What it measured and did, for the report."""
        ...

    def close(self) -> None:
        """Let go of everything; may be called twice."""
        ...


@dataclass(frozen=True, slots=True)
class InferenceCounts:
    """Rows: asked for, found in the cache, there twice in a batch, given to the model; how many batches those were and how long they took.

    `prefetched` were inferred before anybody wanted them, and `foreseen` are those that were then wanted.
    """

    rows: int = 0
    cached: int = 0
    twice: int = 0
    inferred: int = 0
    batches: int = 0
    model_s: float = 0.0
    prefetched: int = 0
    foreseen: int = 0


class Inference(Protocol):
    """Takes rows from any thread and asks one model for what is not known yet: by priority, in batches, nothing twice at a time."""

    def submit(self, request: InferenceRequest) -> Future[Table]:
        """The pulls of these rows, in their order, once they are there; a future that is cancelled in time is not worked on.

        Raises `RuntimeError` once it is closed. The future raises what the model raised.
        """
        ...

    def counts(self) -> InferenceCounts:
        """What was done so far."""
        ...

    def close(self) -> None:
        """End; what waits is cancelled. May be called twice."""
        ...


class Embedder(Protocol):
    """Turns texts into vectors of length one, the same for the same text on every machine."""

    dimensions: int

    def embed(self, texts: Sequence[str]) -> Table:
        """A vector for each text."""
        ...


@dataclass(frozen=True, slots=True)
class FoundNote:
    """A note and how near it is: the cosine of the angle between its vector and the one that was looked for, -1 to 1."""

    number: int
    likeness: float


class NoteIndex(Protocol):
    """Finds the notes that are most like a vector. Of one thread."""

    @property
    def name(self) -> str:
        """How it searches, as reports name it."""
        ...

    def __len__(self) -> int:
        """How many notes there are."""
        ...

    def add(self, vectors: Table) -> int:
        """Take up notes by their vectors, numbered on from the last; the number of the first."""
        ...

    def nearest(self, vector: Table, count: int, *, among: Sequence[int] | None = None) -> Sequence[FoundNote]:
        """At most `count` notes, the most like first and of equals the earlier; only `among` these numbers where they are given."""
        ...
