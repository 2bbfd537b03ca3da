"""Which candidates a search brings in: the best of each leg, with ties decided by id."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from m3retriever.types import Mode
from m3retriever.vectors import FloatArray, IntArray


def best(values: FloatArray, rows: IntArray, depth: int, ids: Callable[[IntArray], Sequence[str]]) -> IntArray:
    """The `depth` rows of highest value, best first, ties by id.

    `values` (m,) belong to `rows` (m,); `ids` gives the ids of rows and is asked only for those that tie.
    """
    if len(rows) > depth:
        border = np.partition(values, len(values) - depth)[len(values) - depth]
        values, rows = values[values >= border], rows[values >= border]
    order = np.argsort(-values, kind="stable")
    values, rows = values[order], rows[order]
    same = values[1:] == values[:-1]
    tied = np.flatnonzero(np.r_[False, same] | np.r_[same, False])
    if len(tied):
        names = dict(zip(tied.tolist(), ids(rows[tied]), strict=True))
        rows = rows[sorted(range(len(rows)), key=lambda place: (-values[place], names.get(place, "")))]
    return rows[:depth]


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
