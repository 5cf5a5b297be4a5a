"""How the opinions of a population lay over time, one sample a line, in a file that a kill may cut anywhere."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from application.ports.population_record import Sample

__all__ = ["line_of", "read_samples"]


def line_of(sample: Sample) -> bytes:
    """One line of the file."""
    return json.dumps(sample.document(), separators=(",", ":"), allow_nan=False).encode() + b"\n"


def read_samples(path: Path) -> list[Sample]:
    """The samples in order; lines that are none are left out, since nothing but a picture hangs on them. Raises `OSError`."""
    found: list[Sample] = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            sample = Sample.from_document(json.loads(line))
            if not found or sample.tick > found[-1].tick:
                found.append(sample)
    return found
