"""The searches that bring in candidates, and the scores that every candidate gets, over one snapshot."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from m3retriever.kernels import maxsim_int8
from m3retriever.scoring import dense_score, sparse_scores
from m3retriever.stores.candidates import best
from m3retriever.stores.snapshot import sparse_columns, token_blocks, token_columns
from m3retriever.vectors import FloatArray, IntArray, M3Vectors

if TYPE_CHECKING:
    from m3retriever.stores.snapshot import Snapshot

SCAN_ERROR = 1e-5  # bound on float32's rounding in a dense scan, relative to the query's length and the largest score


def sparse_leg(snapshot: Snapshot, query: M3Vectors, allowed: IntArray, depth: int) -> IntArray:
    """The best of the allowed slots by sparse score, of those that share a token with the query."""
    scores = snapshot.sparse_scan(query)
    matching = allowed[scores[allowed] > 0]
    return best(scores[matching], matching, depth, snapshot.ids)


def exact_dense_leg(snapshot: Snapshot, vector: FloatArray, allowed: IntArray, depth: int) -> IntArray:
    """The best of the allowed slots by dense score; every vector is read."""
    near = _scanned(snapshot, vector, allowed, depth)
    return best(dense_score(vector, snapshot.dense(near)), near, depth, snapshot.ids)


def hnsw_dense_leg(
    snapshot: Snapshot, vector: FloatArray, allowed: IntArray, depth: int, nearest: Callable[[FloatArray, int], list[str]]
) -> IntArray:
    """Nearly the best by dense score, from Chroma's HNSW; from a scan where HNSW brings in too few."""
    found = nearest(vector, depth + depth // 2)  # some more, so that ties are decided by id
    near = np.intersect1d(snapshot.slots(found), allowed)
    if len(near) < min(depth, len(allowed)):
        return exact_dense_leg(snapshot, vector, allowed, depth)
    return best(dense_score(vector, snapshot.dense(near)), near, depth, snapshot.ids)


def _scanned(snapshot: Snapshot, vector: FloatArray, allowed: IntArray, depth: int) -> IntArray:
    """What could be among the best: the scan rounds in float32, the scores that decide do not."""
    if len(allowed) <= depth:
        return allowed
    rough = snapshot.dense_scan(vector, allowed)
    border = np.partition(rough, len(rough) - depth)[len(rough) - depth]
    kept: IntArray = allowed[rough >= border - SCAN_ERROR * np.linalg.norm(vector) * max(1.0, np.abs(rough).max())]
    return kept


def scores_in_every_mode(snapshot: Snapshot, query: M3Vectors, slots: IntArray) -> FloatArray:
    """(n, 3) float32, in the order of MODES."""
    values = np.zeros((len(slots), 3), np.float32)
    if len(slots):
        values[:, 0] = dense_score(query.dense[0], snapshot.dense(slots))
        blobs = snapshot.blobs(slots)
        values[:, 1] = sparse_scores(query, *sparse_columns(blobs))
        for block in token_blocks(blobs):
            values[block, 2] = maxsim_int8(query.colbert, *token_columns(blobs[block], query.dim))
    return values
