"""A weighted sum whose weights go with the kind of the query: the baseline for learned fusions that one can read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from m3retriever.errors import InvalidArgumentError
from m3retriever.fusion.means import raw, weighted_sum
from m3retriever.queries import KINDS, Kind, kind_of
from m3retriever.types import FloatArray, ModeScores, Weights


def routed(scores: ModeScores, weights: Weights, *, kinds: Mapping[Kind, Sequence[float]], script: str = "") -> FloatArray:
    """The weighted mean of the raw scores under the weights of the query's kind; (n,) float64.

    As `weighted_sum`, on its scale: each value depends on its own row and the query's text.

    Parameters
    ----------
    weights
        Of the kinds that are not in the table.
    kinds
        By name of `queries.KINDS`, three weights.
    script
        The usual one; what is written in another is "foreign". By default nothing is.

    Raises
    ------
    InvalidArgumentError
        For an unknown kind, or weights that are none.
    """
    return weighted_sum(scores, weights_for(scores.query, weights, kinds=kinds, script=script))


def routed_parts(
    scores: ModeScores, weights: Weights, *, kinds: Mapping[Kind, Sequence[float]], script: str = ""
) -> FloatArray:
    """The three parts whose sum is `routed`: (n, 3) float64."""
    chosen = weights_for(scores.query, weights, kinds=kinds, script=script)
    parts: FloatArray = raw(scores) * np.array(tuple(chosen.normalized()))
    return parts


def weights_for(query: str, weights: Weights, *, kinds: Mapping[Kind, Sequence[float]], script: str = "") -> Weights:
    """The weights of a query's kind, `weights` where the table has none for it."""
    if not isinstance(kinds, Mapping) or not isinstance(script, str):
        raise InvalidArgumentError(f"kinds must be weights by kind and script a name; got {kinds!r} and {script!r}")
    if unknown := set(kinds) - set(KINDS):
        raise InvalidArgumentError(f"kinds of queries are {', '.join(KINDS)}; got {sorted(unknown)}")
    table = {kind: Weights.of(held) for kind, held in kinds.items()}
    return table.get(kind_of(query, script=script), weights)
