"""M3Vectors as JSON, the same bits on both sides: what the service sends and `RemoteEncoder` reads.

"columns" holds each array as base64 of its little-endian bytes, compact and quick. "rows" holds lists of
numbers, one item a text, for people and for other languages; a float32 written as a JSON number and read back
as float32 is the same number.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from m3retriever.errors import InvalidVectorsError, shown
from m3retriever.types import MODES, Mode
from m3retriever.vectors import M3Vectors

COLUMNS = {
    "dense": "<f4",
    "sparse_ids": "<i4",
    "sparse_weights": "<f4",
    "sparse_offsets": "<i8",
    "colbert": "<f4",
    "colbert_offsets": "<i8",
}
"""The arrays of M3Vectors and how their numbers are written."""


def to_columns(vectors: M3Vectors) -> dict[str, dict[str, Any]]:
    """{array's name: {"dtype", "shape", "data"}}, the data in base64."""
    return {name: _column(getattr(vectors, name), dtype) for name, dtype in COLUMNS.items()}


def from_columns(columns: Any) -> M3Vectors:
    """What `to_columns` gave, to the last bit; InvalidVectorsError for anything else."""
    if not isinstance(columns, Mapping) or set(columns) != set(COLUMNS):
        raise InvalidVectorsError(f"vectors have the columns {', '.join(COLUMNS)}; got {shown(columns)}")
    return M3Vectors(*(_array(name, columns[name], dtype) for name, dtype in COLUMNS.items()))


def to_rows(vectors: M3Vectors, modes: Sequence[Mode] = MODES) -> list[dict[str, Any]]:
    """One item a text: "dense" a list, "sparse" {token id: weight}, "colbert" a list of lists; of the modes asked for."""
    return [
        {
            mode: (
                row.dense[0].tolist()
                if mode == "dense"
                else {str(token): weight for token, weight in row.sparse_row(0).items()}
                if mode == "sparse"
                else row.colbert.tolist()
            )
            for mode in modes
        }
        for row in vectors
    ]


def _column(array: np.ndarray, dtype: str) -> dict[str, Any]:
    raw = np.ascontiguousarray(array, dtype=dtype).tobytes()
    return {"dtype": dtype, "shape": list(array.shape), "data": base64.b64encode(raw).decode("ascii")}


def _array(name: str, column: Any, dtype: str) -> np.ndarray:
    try:
        shape, data = column["shape"], column["data"]
        if column["dtype"] != dtype or not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError(f"got dtype {shown(column['dtype'])} and shape {shown(shape)}")
        raw = base64.b64decode(data, validate=True)
        if len(raw) != math.prod(shape) * np.dtype(dtype).itemsize:
            raise ValueError(f"got {len(raw)} bytes for shape {shown(shape)}")
        array: np.ndarray = np.frombuffer(raw, dtype).reshape(shape)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise InvalidVectorsError(f"the column {name} takes dtype {dtype}, a shape and base64 data; {error}") from error
    return array
