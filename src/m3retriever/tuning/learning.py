"""Fusions fitted on judged questions with scikit-learn; what comes out are the parameters of `fusion.learned`
and `fusion.routed`: plain numbers that a profile keeps.

Learned from the candidates of judged questions: those that are not judged relevant count as irrelevant. Only what
a search knows goes in: scores, ranks, and the question's text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from m3retriever.errors import InvalidArgumentError
from m3retriever.evaluation import Qrels, answerable
from m3retriever.fusion.learned import INPUTS, RANK_CONSTANT, RANKS, inputs
from m3retriever.queries import FEATURES, KINDS, kind_of, usual_script
from m3retriever.tuning.settings import STEP, Chosen, Grid, Setting, SettingsTable, simplex
from m3retriever.types import MODES, FloatArray, IntArray, ModeScores

NEAR = 10  # irrelevant candidates up to this rank in a mode are all learned from: they are hard to tell apart
FAR = 20  # of the others, a sample of a question's, each standing for as many as there are
SEED = 0  # of that sample
TREES, DEPTH, RATE, LEAF = 60, 3, 0.1, 20  # boosting; fewest candidates in a leaf: small, so that it evaluates fast
ITERATIONS = 2_000  # of logistic regression, at most
MIN_OF_KIND = 10  # questions: with fewer a kind gets the weights that are best for all


class Examples(NamedTuple):
    """Candidates to learn from: inputs (m, i) in the order of INPUTS, whether relevant (m,), what each stands for
    (m,), and the number of its question (m,)."""

    given: FloatArray
    relevant: Chosen
    counts: FloatArray
    question: IntArray


def fit_logistic(scores: Mapping[str, ModeScores], qrels: Qrels) -> dict[str, Any]:
    """The parameters of `fusion.learned.logistic`: of scores, ranks, query features, and scores times features.

    Each candidate counts as often as it occurs, so the probability is that of candidates like these;
    InvalidArgumentError where no candidate is relevant, or all are.
    """
    script = usual_script(held.query for held in scores.values())
    scaler, model = logistic_model(examples_of(scores, qrels, script=script))
    found = model.coef_[0] / scaler.scale_
    by_feature = found[len(INPUTS) :].reshape(len(FEATURES), len(MODES))
    return {
        "intercept": float(model.intercept_[0] - (found * scaler.mean_).sum()),
        "coefficients": dict(zip(INPUTS, found[: len(INPUTS)].tolist(), strict=True)),
        "products": dict(zip(FEATURES, by_feature.tolist(), strict=True)),
        "script": script,
    }


def logistic_model(examples: Examples) -> Any:
    """scikit-learn's scaler and L2-regularised regression, fitted on `with_products` of the inputs.

    An input that is always the same tells nothing, and its coefficient is 0.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=ITERATIONS))
    return model.fit(with_products(examples.given), examples.relevant, logisticregression__sample_weight=examples.counts)


def fit_boosted(scores: Mapping[str, ModeScores], qrels: Qrels) -> dict[str, Any]:
    """The parameters of `fusion.learned.boosted`: few small trees, in which a better score or rank never counts against.

    Every question's relevant and irrelevant candidates weigh the same, so the probability is that of a candidate
    drawn from as many of both; InvalidArgumentError where no candidate is relevant, or all are.
    """
    script = usual_script(held.query for held in scores.values())
    model = boosted_model(examples_of(scores, qrels, script=script))
    trees = [_full(tree.nodes, DEPTH) for [tree] in model._predictors]  # not public; the tests compare predictions
    names, thresholds, values = (list(column) for column in zip(*trees, strict=True))
    baseline = float(model._baseline_prediction.item())
    return {"intercept": baseline, "names": names, "thresholds": thresholds, "values": values, "script": script}


def boosted_model(examples: Examples) -> Any:
    """scikit-learn's gradient boosting on histograms, fitted on the inputs, rising with scores and ranks."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        max_iter=TREES,
        max_depth=DEPTH,
        learning_rate=RATE,
        min_samples_leaf=LEAF,
        monotonic_cst=[int(name in (*MODES, *RANKS)) for name in INPUTS],
        early_stopping=False,
        random_state=SEED,
    )
    return model.fit(examples.given, examples.relevant, sample_weight=balanced(examples))


def fit_router(
    scores: Mapping[str, ModeScores], qrels: Qrels, measure: str = "nDCG@10", *, step: float = STEP
) -> dict[str, Any]:
    """The parameters of `fusion.routed`: by kind of question the weights of a grid that are best for that kind.

    A kind of which there are fewer than MIN_OF_KIND questions gets the weights that are best for all.
    """
    table = SettingsTable(scores, qrels, measure)
    if not table.queries:
        raise InvalidArgumentError("a router needs questions with a relevant document; got none")
    return route(Grid(table, [Setting(weights) for weights in simplex(step)]), table.everything)


def route(sums: Grid, on: Chosen) -> dict[str, Any]:
    """`fit_router` on the chosen questions, from a grid of weighted sums whose values are known."""
    texts = {query: held.query for query, held in sums.table.part(on)[0].items()}
    script = usual_script(texts.values())
    kinds = np.array([kind_of(texts[query], script=script) if query in texts else "" for query in sums.table.queries])
    overall, own = sums.best(on), {}
    for kind in KINDS:
        chosen = kinds == kind
        own[kind] = list((sums.best(chosen) if chosen.sum() >= MIN_OF_KIND else overall).weights)
    return {"kinds": own, "script": script}


LEARNERS: dict[str, Callable[[Mapping[str, ModeScores], Qrels], dict[str, Any]]] = {
    "routed": fit_router,
    "logistic": fit_logistic,
    "boosted": fit_boosted,
}


def examples_of(scores: Mapping[str, ModeScores], qrels: Qrels, *, script: str) -> Examples:
    """The candidates of judged questions: all relevant ones, all near misses, and a sample of the rest.

    Every passage of a relevant document counts as relevant.
    """
    random, parts = np.random.default_rng(SEED), []
    for number, (query, judged) in enumerate(answerable(qrels).items()):
        held = scores.get(query)
        if held is None or not len(held):
            continue
        own, asked = inputs(held, script=script)
        relevant = np.array([judged.get(id, 0) > 0 for id in held.owners])
        rows, counts = _sample(own, relevant, random)
        given = np.concatenate([own[rows], np.broadcast_to(asked, (len(rows), len(asked)))], axis=1)
        parts.append((given, relevant[rows], counts, np.full(len(rows), number)))
    joined = Examples(*(np.concatenate(column) for column in zip(*parts, strict=True))) if parts else None
    if joined is None or joined.relevant.all() or not joined.relevant.any():
        raise InvalidArgumentError("learning needs judged questions with candidates that are relevant, and some that are not")
    return joined


def with_products(given: FloatArray) -> FloatArray:
    """The inputs (m, i) and, behind them, by feature the three scores times it: (m, i + 3 f)."""
    products = given[:, len(MODES) + len(RANKS) :, None] * given[:, None, : len(MODES)]
    return np.concatenate([given, products.reshape(len(given), -1)], axis=1)


def balanced(examples: Examples) -> FloatArray:
    """Weights (m,) of mean 1 under which every question counts alike, and its relevant as much as its other candidates."""
    group = 2 * examples.question + examples.relevant
    weights = examples.counts / np.bincount(group, examples.counts)[group]
    scaled: FloatArray = weights / weights.mean()
    return scaled


def _sample(own: FloatArray, relevant: Chosen, random: np.random.Generator) -> tuple[IntArray, FloatArray]:
    """Numbers of candidates to learn from, and how many each stands for."""
    near_enough = (1 + RANK_CONSTANT) / (NEAR + RANK_CONSTANT)
    near = relevant | (own[:, len(MODES) :].max(axis=1) >= near_enough)
    far = np.flatnonzero(~near)
    drawn = np.sort(random.permutation(far)[:FAR])
    each = len(far) / len(drawn) if len(drawn) else 1.0
    rows = np.concatenate([np.flatnonzero(near), drawn])
    return rows, np.concatenate([np.ones(int(near.sum())), np.full(len(drawn), each)])


def _full(nodes: Any, depth: int) -> tuple[list[str], list[float], list[float]]:
    """A tree of scikit-learn's as a full one: names and thresholds level by level, then its leaves.

    Where a branch ends early, a question whose both answers lead to the same value stands in.
    """
    level, names, thresholds = [0], [], []
    for _ in range(depth):
        below = []
        for number in level:
            node = nodes[number]
            leaf = bool(node["is_leaf"])
            names.append(INPUTS[0] if leaf else INPUTS[int(node["feature_idx"])])
            thresholds.append(0.0 if leaf else float(node["num_threshold"]))
            below += [number, number] if leaf else [int(node["left"]), int(node["right"])]
        level = below
    return names, thresholds, [float(nodes[number]["value"]) for number in level]
