"""From three scores per candidate to one. A fusion is a function and a line in `FUSIONS`, or in `FITTED` where it
means nothing without parameters that were fitted.

It takes scores, weights and, by keyword, parameters of its own, which a profile keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from m3retriever.errors import InvalidArgumentError
from m3retriever.fusion.learned import boosted, logistic
from m3retriever.fusion.means import (
    min_max,
    null_cdf,
    rarities,
    raw,
    reciprocal_ranks,
    rrf,
    standardized,
    stretched,
    weighted_sum,
    z_score,
)
from m3retriever.fusion.ordering import mode_ranks, order, top_k
from m3retriever.fusion.routed import routed, routed_parts
from m3retriever.types import FloatArray, ModeScores, Weights

__all__ = [
    "FITTED",
    "FUSIONS",
    "POINTWISE",
    "SUMMANDS",
    "Fusion",
    "Summands",
    "boosted",
    "contributions",
    "fuse",
    "fusion_named",
    "logistic",
    "min_max",
    "mode_ranks",
    "null_cdf",
    "order",
    "routed",
    "rrf",
    "top_k",
    "weighted_sum",
    "z_score",
]  # fmt: skip

Fusion: TypeAlias = Callable[..., FloatArray]
"""(ModeScores of n candidates, Weights, **parameters) -> (n,) float64, higher is better."""
Summands: TypeAlias = Callable[..., FloatArray]
"""(ModeScores of n candidates, **parameters) -> (n, 3): what a weighted mean is the mean of."""

FUSIONS: dict[str, Fusion] = {
    "weighted_sum": weighted_sum,
    "rrf": rrf,
    "min_max": min_max,
    "z_score": z_score,
    "null_cdf": null_cdf,
}
FITTED: dict[str, Fusion] = {  # on judged questions, by `tuning.learning`
    "routed": routed,
    "logistic": logistic,
    "boosted": boosted,
}
POINTWISE = {"weighted_sum", "null_cdf", "routed"}  # score a candidate without looking at the others: may be thresholded
SUMMANDS: dict[str, Summands] = {
    "weighted_sum": raw,
    "rrf": reciprocal_ranks,
    "min_max": stretched,
    "z_score": standardized,
    "null_cdf": rarities,
}


def fuse(
    scores: ModeScores, weights: Weights, fusion: str = "weighted_sum", parameters: Mapping[str, Any] | None = None
) -> FloatArray:
    """One score per candidate, (n,) float64; InvalidArgumentError for parameters that the fusion does not take."""
    function = fusion_named(fusion)
    try:
        return function(scores, weights, **(parameters or {}))
    except InvalidArgumentError:
        raise
    except (TypeError, KeyError, AttributeError, OverflowError, ValueError) as error:
        raise InvalidArgumentError(f"parameters that do not fit the fusion {fusion!r}: {error}") from error


def contributions(
    scores: ModeScores, weights: Weights, fusion: str = "weighted_sum", parameters: Mapping[str, Any] | None = None
) -> FloatArray:
    """The three parts of which a fusion's score is the sum: (n, 3) float64; for SUMMANDS and "routed"."""
    if fusion == "routed":
        return routed_parts(scores, weights, **(parameters or {}))
    parts: FloatArray = SUMMANDS[fusion](scores, **(parameters or {})) * np.array(tuple(weights.normalized()))
    return parts


def fusion_named(name: str) -> Fusion:
    """The fusion of that name; InvalidArgumentError lists the names there are."""
    known = FUSIONS | FITTED
    if not isinstance(name, str) or name not in known:
        raise InvalidArgumentError(f"fusion must be one of {', '.join(known)}; got {name!r}")
    return known[name]
