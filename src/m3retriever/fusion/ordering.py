"""Places in a ranking: best first, ties by id, so that a ranking repeats exactly."""

from __future__ import annotations

import numpy as np

from m3retriever.types import MODES, FloatArray, Mode, ModeScores


def order(ids: tuple[str, ...], values: FloatArray) -> list[int]:
    """Row numbers, best value first; ties go to the smaller id, so that a ranking repeats exactly."""
    return sorted(range(len(ids)), key=lambda row: (-values[row], ids[row]))


def top_k(scores: ModeScores, fused: FloatArray, k: int) -> list[int]:
    """Row numbers of the k best, best first, ties by id."""
    if k < len(fused):  # sort only what can be among the k best, ties at the border included
        border = np.partition(fused, len(fused) - k)[len(fused) - k]
        rows = np.flatnonzero(fused >= border).tolist()
    else:
        rows = list(range(len(fused)))
    return sorted(rows, key=lambda row: (-fused[row], scores.ids[row]))[:k]


def mode_ranks(scores: ModeScores) -> dict[Mode, list[int]]:
    """Each candidate's place (from 1) when ranked by one mode alone, ties by id."""
    ranks: dict[Mode, list[int]] = {}
    for mode in MODES:
        places = [0] * len(scores)
        for place, row in enumerate(order(scores.ids, scores.column(mode)), start=1):
            places[row] = place
        ranks[mode] = places
    return ranks
