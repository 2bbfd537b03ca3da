"""Sparse retrieval, term at a time over posting lists (Turtle & Flood, 1995), exact.

A posting list holds the documents of one segment of slots that have one token: the slots' places in the
segment, uint16, then their weights, float32, little-endian. Sums are taken in float64 in the order of the
tokens, as `scoring.sparse_scores` takes them, so that a search ranks by the very scores it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from m3retriever.kernels import native
from m3retriever.vectors import FloatArray, IntArray

SEGMENT = 32_768  # slots whose entries share a posting list: bounds what one added document rewrites
ENTRY_BYTES = 6


def split_posting(value: Any) -> tuple[IntArray, FloatArray]:
    """A posting list's places and weights, in place."""
    count = len(value) // ENTRY_BYTES
    return np.frombuffer(value, "<u2", count), np.frombuffer(value, "<f4", count, 2 * count)


def join_posting(value: Any, places: bytes, weights: bytes) -> bytes:
    """A posting list with further entries, given as they lie in it."""
    middle = len(value) // 3
    return b"".join((value[:middle], places, value[middle:], weights))


def best_postings(
    lists: Sequence[Any], segments: IntArray, weights: FloatArray, depth: int, *, slots: int, allowed: np.ndarray | None
) -> tuple[IntArray, FloatArray]:
    """Slots and their scores, float32: at least the `depth` highest above 0, and all that tie with the last of them.

    Parameters
    ----------
    lists, segments, weights
        Posting lists, the segment of each, (m,) ascending, and the weight of its token in the query, (m,).
    slots
        How many slots there are.
    allowed
        Which of them count, bool; None for all. Slots beyond its end do not count.
    """
    if native.LIBRARY is not None:
        found = native.LIBRARY.best_postings(
            lists, segments.astype(np.int64), weights.astype(np.float64), allowed, max(depth, 1), native.threads()
        )
        return np.frombuffer(found[0], np.uint32).astype(np.int64), np.frombuffer(found[1], np.float32)
    total = np.zeros(slots)
    for value, segment, weight in zip(lists, segments.tolist(), weights.tolist(), strict=True):
        places, values = split_posting(value)
        total[places.astype(np.int64) + segment * SEGMENT] += values.astype(np.float64) * weight
    scores = total.astype(np.float32)
    matching = np.flatnonzero(scores > 0)
    if allowed is not None:
        matching = matching[matching < len(allowed)]
        matching = matching[allowed[matching]]
    return matching, scores[matching]
