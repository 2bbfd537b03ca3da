"""The searches that bring in candidates, and the scores that every candidate gets, over one snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from m3retriever.observing.spans import span
from m3retriever.scoring import dense_score, sparse_scores
from m3retriever.stores.candidates import best
from m3retriever.stores.snapshot import sparse_columns
from m3retriever.vectors import FloatArray, IntArray, M3Vectors

if TYPE_CHECKING:
    from m3retriever.stores.allowed import Allowed
    from m3retriever.stores.snapshot import Snapshot

FEW = 4  # times the depth
SCAN_ERROR = 1e-5  # bound on float32's rounding in a dense scan, relative to the query's length and the largest score


def sparse_leg(snapshot: Snapshot, query: M3Vectors, allowed: Allowed, depth: int) -> IntArray:
    """The best of the allowed slots by sparse score, of those that share a token with the query."""
    with span("sparse", depth=depth, allowed=len(allowed)) as leg:
        slots, scores = snapshot.best_sparse(query, depth, None if allowed.everything else allowed.mask)
        slots = best(scores, slots, depth, snapshot.ids)
        leg.set(candidates=len(slots))
    return slots


def exact_dense_leg(snapshot: Snapshot, vector: FloatArray, allowed: Allowed, depth: int) -> IntArray:
    """The best of the allowed slots by dense score; every vector's codes are read."""
    near = _nearest(snapshot, vector, allowed.slots(), depth)
    return best(dense_score(vector, snapshot.dense(near)), near, depth, snapshot.ids)


def hnsw_dense_leg(snapshot: Snapshot, vector: FloatArray, allowed: Allowed, depth: int, found: Sequence[str]) -> IntArray:
    """The best of the ids that HNSW found, which are nearly the best of all; from a scan where it found too few, or where
    what it left out may score as the last of them does: among equals the id decides, not what else is in the index."""
    slots = snapshot.slots(found)
    near = np.unique(slots[slots >= 0])
    scores, passing = dense_score(vector, snapshot.dense(near)), allowed.mask[near]
    enough = min(depth, len(allowed))
    if passing.sum() < enough:
        return exact_dense_leg(snapshot, vector, allowed, depth)
    last = np.sort(scores[passing])[-enough]
    if len(near) < len(snapshot) and scores.min() + SCAN_ERROR * float(np.linalg.norm(vector)) >= last:
        return exact_dense_leg(snapshot, vector, allowed, depth)
    return best(scores[passing], near[passing], depth, snapshot.ids)


def _nearest(snapshot: Snapshot, vector: FloatArray, slots: IntArray, depth: int) -> IntArray:
    """What could be among the best: first by int8 codes and their bounds, then to float32's rounding."""
    if len(slots) <= depth:
        return slots
    rough, error = snapshot.rough_dense_products(vector, slots)
    slots = slots[rough + error >= _border(rough - error, depth)]
    if len(slots) <= FEW * depth:
        return slots  # their exact scores cost no more than a further look
    near = snapshot.dense_products(vector, slots)
    rounding = SCAN_ERROR * np.linalg.norm(vector) * max(1.0, np.abs(near).max())
    kept: IntArray = slots[near >= _border(near, depth) - rounding]
    return kept


def _border(values: FloatArray, depth: int) -> np.float32:
    border: np.float32 = np.partition(values, len(values) - depth)[len(values) - depth]
    return border


def scores_in_every_mode(snapshot: Snapshot, query: M3Vectors, slots: IntArray) -> FloatArray:
    """(n, 3) float32, in the order of MODES."""
    values = np.zeros((len(slots), 3), np.float32)
    with span("score", candidates=len(slots)):
        if len(slots):
            values[:, 0] = dense_score(query.dense[0], snapshot.dense(slots))
            blobs = snapshot.blobs(slots)
            values[:, 1] = sparse_scores(query, *sparse_columns(blobs))
            values[:, 2] = snapshot.maxsim(query, blobs)
    return values
