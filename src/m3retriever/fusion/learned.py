"""Fusions that were fitted on labels (`tuning/learning.py`): logistic regression and boosted trees, evaluated with NumPy.

What was fitted lies in the profile as plain numbers under names, so that it can be read, and loading it runs
nothing. Both give the probability that a candidate is relevant, from its own three scores, its three ranks and the
query's text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from m3retriever.errors import InvalidArgumentError
from m3retriever.fusion.means import raw, reciprocal_ranks
from m3retriever.queries import FEATURES, features
from m3retriever.types import MODES, FloatArray, IntArray, ModeScores, Weights

RANKS = tuple(f"{mode}_rank" for mode in MODES)
INPUTS = (*MODES, *RANKS, *FEATURES)
RANK_CONSTANT = 10  # of the ranks' reciprocals: a first place says 1, a tenth 0.55, a hundredth 0.1
MAX_TREES = 1_000  # what is fitted has 60; a profile with more is a mistake or an attack
MAX_DEPTH = 8
LARGEST = 1e9  # of a number, so that no sum can overflow; what is fitted stays below 100
SHOWN = 120  # characters of a value in an error
LOWEST, HIGHEST = -700.0, 36.0  # logits beyond which float64 would say 0 or 1


def logistic(
    scores: ModeScores,
    weights: Weights,  # learned, so that there is nothing left for these to say
    *,
    intercept: float,
    coefficients: Mapping[str, float],
    products: Mapping[str, Sequence[float]],
    script: str = "",
) -> FloatArray:
    """The probability of being relevant by logistic regression, (n,) float64 in (0, 1).

    Its logit is a weighted sum of the scores and ranks whose weights depend on the query. It depends on the other
    candidates by the ranks alone.

    Parameters
    ----------
    intercept, coefficients
        The logit at 0, and what each of INPUTS adds to it; 0 for those that are not named.
    products
        By name of a query feature, what it adds to the weight of each of the three scores.
    script
        The usual one, see `queries.kind_of`.

    Raises
    ------
    InvalidArgumentError
        For a name that is none of the inputs, or what are not finite numbers.
    """
    by_input = _named("coefficients", coefficients, INPUTS)
    by_feature = _named("products", products, FEATURES)
    single = np.array([_numbers(f"coefficients.{name}", by_input.get(name, 0.0), ()) for name in INPUTS])
    double = np.array([_numbers(f"products.{name}", by_feature.get(name, [0.0] * 3), (3,)) for name in FEATURES])
    given, asked = inputs(scores, script=script)
    own = single[: len(MODES) + len(RANKS)].copy()
    own[: len(MODES)] += asked @ double
    logits = np.full(len(scores), float(_numbers("intercept", intercept, ())) + asked @ single[len(own) :])
    for column, weight in zip(given.T, own, strict=True):  # column by column, so that each row is summed alike
        logits += column * weight
    return _probability(logits)


def boosted(
    scores: ModeScores,
    weights: Weights,  # learned, so that there is nothing left for these to say
    *,
    intercept: float,
    names: Sequence[Sequence[str]],
    thresholds: Sequence[Sequence[float]],
    values: Sequence[Sequence[float]],
    script: str = "",
) -> FloatArray:
    """The probability of being relevant by boosted decision trees (Friedman, 2001), (n,) float64 in (0, 1).

    Parameters
    ----------
    intercept
        The logit to which every tree adds one of its values.
    names, thresholds
        By tree, the 2^d - 1 questions of a full binary tree of depth d, level by level from the root: which of
        INPUTS is asked for, and the highest value that goes left. All trees have the same depth.
    values
        By tree, its 2^d leaves from left to right.
    script
        The usual one, see `queries.kind_of`.

    Raises
    ------
    InvalidArgumentError
        For trees that are none: more than MAX_TREES, deeper than MAX_DEPTH, unknown names, or no finite numbers.
    """
    questions, borders, leaves, base = _trees(intercept, names, thresholds, values)
    given, asked = inputs(scores, script=script)
    table = np.concatenate([given, np.broadcast_to(asked, (len(scores), len(asked)))], axis=1).astype(np.float32)
    trees, candidates = np.arange(len(leaves)), np.arange(len(scores))[:, None]
    places = np.zeros((len(scores), len(leaves)), np.int64)
    for _ in range(leaves.shape[1].bit_length() - 1):
        places = 2 * places + 1 + (table[candidates, questions[trees, places]] > borders[trees, places])
    logits = np.full(len(scores), base)
    for column in leaves[trees, places - questions.shape[1]].T:
        logits += column
    return _probability(logits)


def inputs(scores: ModeScores, *, script: str = "") -> tuple[FloatArray, FloatArray]:
    """What is known of n candidates, (n, 6) float64: scores and reciprocal ranks; and of their query: `features`."""
    ranks = (1 + RANK_CONSTANT) * reciprocal_ranks(scores, constant=RANK_CONSTANT)
    if not isinstance(script, str):
        raise InvalidArgumentError(f"script must be a name; got {script!r}")
    return np.concatenate([raw(scores), ranks], axis=1), features(scores.query, script=script)


def _trees(intercept: Any, names: Any, thresholds: Any, values: Any) -> tuple[IntArray, FloatArray, FloatArray, float]:
    """Checked: questions (t, 2^d - 1) as numbers of INPUTS, their thresholds, leaves (t, 2^d), intercept."""
    if not isinstance(names, list | tuple) or not 1 <= len(names) <= MAX_TREES:
        raise InvalidArgumentError(f"names must be a list of 1 to {MAX_TREES} trees; got {_shown(names)}")
    sizes = {len(one) if isinstance(one, list | tuple) else 0 for one in names}
    [size] = sizes if len(sizes) == 1 else {0}
    if size + 1 not in [2**depth for depth in range(1, MAX_DEPTH + 1)]:
        raise InvalidArgumentError(
            f"the trees must all ask 2^d - 1 questions, d from 1 to {MAX_DEPTH}; got {_shown(sorted(sizes))}"
        )
    numbers = {name: number for number, name in enumerate(INPUTS)}
    if unknown := {repr(name) for one in names for name in one if not isinstance(name, str) or name not in numbers}:
        raise InvalidArgumentError(f"a tree asks for {', '.join(INPUTS)}; got {', '.join(sorted(unknown))[:SHOWN]}")
    return (
        np.array([[numbers[name] for name in one] for one in names]),
        _numbers("thresholds", thresholds, (len(names), size)),
        _numbers("values", values, (len(names), size + 1)),
        float(_numbers("intercept", intercept, ())),
    )


def _named(name: str, given: Any, known: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(given, Mapping) or (unknown := set(given) - set(known)):
        got = sorted(map(str, unknown)) if isinstance(given, Mapping) else given
        raise InvalidArgumentError(f"{name} go with {', '.join(known)}; got {_shown(got)}")
    return given


def _numbers(name: str, given: Any, shape: tuple[int, ...]) -> FloatArray:
    """float64 numbers of a shape, none beyond LARGEST."""
    try:
        numbers: FloatArray = np.array(given, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidArgumentError(f"{name} must be numbers; got {_shown(given)}") from error
    if numbers.shape != shape or not (np.abs(numbers) <= LARGEST).all():
        raise InvalidArgumentError(f"{name} must be numbers of shape {shape} within ±{LARGEST:g}; got {_shown(given)}")
    return numbers


def _shown(given: Any) -> str:
    """Enough of a value to find it; profiles may be long."""
    text = repr(given)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _probability(logits: FloatArray) -> FloatArray:
    """1 / (1 + e^-logit), kept inside (0, 1)."""
    values: FloatArray = 1 / (1 + np.exp(-np.clip(logits, LOWEST, HIGHEST)))
    return values
