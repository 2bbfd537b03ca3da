"""Which candidates a search brings in: the best of each leg, with ties decided by id."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from m3retriever.types import Mode
from m3retriever.vectors import FloatArray, IntArray


def best(values: FloatArray, rows: IntArray, depth: int, ids: Callable[[IntArray], Sequence[str]]) -> IntArray:
    """The `depth` rows of highest value, best first, ties by id.

    `values` (m,) belong to `rows` (m,); `ids` gives the ids of rows and is asked only for those that
    can be among the best.
    """
    if len(rows) > depth:
        border = np.partition(values, len(values) - depth)[len(values) - depth]
        values, rows = values[values >= border], rows[values >= border]
    names = ids(rows)
    chosen = sorted(range(len(rows)), key=lambda place: (-values[place], names[place]))[:depth]
    return rows[np.array(chosen, np.int64)]


def union(dense: IntArray, sparse: IntArray) -> tuple[IntArray, tuple[frozenset[Mode], ...]]:
    """Both legs' rows without repetition, ascending, and for each the modes that found it."""
    rows = np.union1d(dense, sparse).astype(np.int64)
    by_dense, by_sparse = np.isin(rows, dense), np.isin(rows, sparse)
    found = tuple(_FOUND_BY[bool(d), bool(s)] for d, s in zip(by_dense, by_sparse, strict=True))
    return rows, found


_FOUND_BY: dict[tuple[bool, bool], frozenset[Mode]] = {
    (True, True): frozenset({"dense", "sparse"}),
    (True, False): frozenset({"dense"}),
    (False, True): frozenset({"sparse"}),
    (False, False): frozenset(),
}
