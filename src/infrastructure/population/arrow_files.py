"""Columns of a population as files of Apache Arrow and Parquet. The only importer of pyarrow, which the extra `arrow` brings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
from numpy.typing import NDArray

from infrastructure.population.kept_columns import KeptColumns, Named

__all__ = ["write_arrow", "write_parquet"]


def write_parquet(kept: KeptColumns, path: Path) -> None:
    """A Parquet file compressed with zstd. Raises `OSError`."""
    schema = _schema(kept)
    with pa.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for chunk in kept.chunks():
            writer.write_batch(_batch(chunk, schema))


def write_arrow(kept: KeptColumns, path: Path) -> None:
    """An Arrow IPC file (Feather 2), which readers map into memory. Raises `OSError`."""
    schema = _schema(kept)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for chunk in kept.chunks():
            writer.write_batch(_batch(chunk, schema))


def _schema(kept: KeptColumns) -> Any:
    spec = kept.specification
    about = {
        "simulated": "true",
        "tick": str(kept.tick),
        "seed": str(spec.seed),
        "behaviour": spec.behaviour,
        "deliberation_id": spec.deliberation or "",
    }
    first = next(kept.chunks())
    return pa.schema([pa.field(name, _array(column).type) for name, column in first.items()], metadata=about)


def _batch(chunk: dict[str, NDArray[Any] | Named], schema: Any) -> Any:
    return pa.RecordBatch.from_arrays([_array(column) for column in chunk.values()], schema=schema)


def _array(column: NDArray[Any] | Named) -> Any:
    if isinstance(column, Named):
        # The first word stands for none.
        places = pa.array(column.places.astype(np.int32), mask=column.places == 0)
        return pa.DictionaryArray.from_arrays(places, pa.array(column.words, pa.string()))
    if column.ndim == 1:
        return pa.array(column)
    flat = np.ascontiguousarray(column).reshape(column.shape[0], -1)
    if flat.dtype == np.uint8:
        return pa.FixedSizeBinaryArray.from_buffers(pa.binary(flat.shape[1]), flat.shape[0], [None, pa.py_buffer(flat)])
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])
