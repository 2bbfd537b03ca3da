"""How near one encoder's vectors are to another's of the same checkpoint, such as int8's to fp32's."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from m3retriever.errors import InvalidArgumentError, TruncationWarning, UnknownTextWarning
from m3retriever.types import Encoder
from m3retriever.vectors import FloatArray, M3Vectors

TOP = 10
TIE = 5  # decimals: two runs in float32 differ below, and texts that score the same are in no order
LEAST_COSINE, LEAST_TAU = 0.999, 0.98  # below, thresholds and rankings of fp32 are no longer those of the other precision


class Sample(NamedTuple):
    """Texts and queries to compare encoders on."""

    texts: Sequence[str]
    queries: Sequence[str]


@dataclass(frozen=True)
class Fidelity:
    """What a comparison gave; 1 is "the same" in every field but the counts.

    Attributes
    ----------
    dense_mean, dense_min
        Cosine of a text's two dense vectors, in [-1, 1].
    sparse
        Cosine of a text's two sparse views, mean over texts, in [0, 1]; two empty views agree.
    colbert_tau
        Kendall's tau-b (1945) of the orders in which MaxSim puts the texts, mean over queries, in [-1, 1].
    top10
        Share of the ten best texts by MaxSim that both have, mean over queries, in [0, 1].
    texts, queries
        How many were compared.
    """

    dense_mean: float
    dense_min: float
    sparse: float
    colbert_tau: float
    top10: float
    texts: int
    queries: int

    @property
    def good(self) -> bool:
        """Whether mean cosine and tau are at least .999 and .98."""
        return self.dense_mean >= LEAST_COSINE and self.colbert_tau >= LEAST_TAU

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        verdict = "" if self.good else f"; below cosine {LEAST_COSINE} or tau {LEAST_TAU}: fit thresholds for this precision"
        return (
            f"cosine {self.dense_mean:.5f} (lowest {self.dense_min:.5f}), sparse {self.sparse:.5f}, MaxSim tau "
            f"{self.colbert_tau:.4f}, top {TOP} {self.top10:.3f}; {self.texts} texts, {self.queries} queries{verdict}"
        )


def fidelity(reference: Encoder, encoder: Encoder, texts: Sequence[str], queries: Sequence[str]) -> Fidelity:
    """Compare the vectors of two encoders of one checkpoint.

    Texts that are cut or unknown are compared as far as they are read, without a warning. A mode that neither
    encoder computes agrees. Tested against scipy and cosines by hand.

    Raises
    ------
    InvalidArgumentError
        Fewer than two texts, or no query.
    """
    if len(texts) < 2 or not queries:
        raise InvalidArgumentError(f"want at least 2 texts and 1 query; got {len(texts)} and {len(queries)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)
        warnings.simplefilter("ignore", UnknownTextWarning)
        ours, theirs = ((one.encode_documents(texts), one.encode_queries(queries)) for one in (encoder, reference))
    return compare(theirs, ours)


def compare(reference: tuple[M3Vectors, M3Vectors], given: tuple[M3Vectors, M3Vectors]) -> Fidelity:
    """As `fidelity`, of vectors: (texts, queries) of either encoder."""
    dense = cosines(reference[0].dense, given[0].dense)
    wanted, found = (_max_sim(queries, texts) for texts, queries in (reference, given))
    return Fidelity(
        dense_mean=float(dense.mean()),
        dense_min=float(dense.min()),
        sparse=float(np.mean([_sparse_cosine(reference[0], given[0], row) for row in range(len(given[0]))])),
        colbert_tau=float(np.mean([kendall_tau(*pair) for pair in zip(wanted, found, strict=True)])),
        top10=float(np.mean([top_agreement(*pair) for pair in zip(wanted, found, strict=True)])),
        texts=len(given[0]),
        queries=len(given[1]),
    )


def cosines(a: FloatArray, b: FloatArray) -> FloatArray:
    """Cosines of the rows of two (n, d), (n,) float64; 0 where one of them is zero."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    found: FloatArray = (a * b).sum(axis=1) / np.maximum(norms, np.finfo(np.float64).tiny)
    return found


def kendall_tau(a: FloatArray, b: FloatArray) -> float:
    """Kendall's tau-b of two lists of scores (n,), in [-1, 1]; scores that differ by rounding only are equal.

    Where all scores of either are equal, 1 if those of both are, else 0.
    """
    from scipy.stats import kendalltau

    a, b = np.round(a, TIE), np.round(b, TIE)
    flat = [bool((scores == scores[0]).all()) for scores in (a, b)]
    return float(all(flat)) if any(flat) else float(kendalltau(a, b).statistic)


def top_agreement(a: FloatArray, b: FloatArray, k: int = TOP) -> float:
    """Share of the k best by `a` that are among the k best by `b`, in [0, 1]; ties go to the first, k is at most n."""
    k = min(k, len(a))
    best = [set(np.argsort(-scores, kind="stable")[:k].tolist()) for scores in (a, b)]
    return len(best[0] & best[1]) / k


def _max_sim(queries: M3Vectors, texts: M3Vectors) -> FloatArray:
    """ColBERT scores of every query with every text, (queries, texts); 0 where there are no tokens."""
    scores = np.zeros((len(queries), len(texts)))
    starts, held = texts.colbert_offsets[:-1], np.diff(texts.colbert_offsets) > 0
    if not held.any():
        return scores
    for row in range(len(queries)):
        tokens = queries.colbert_row(row)
        if len(tokens):
            best = np.maximum.reduceat(tokens @ texts.colbert.T, starts[held], axis=1)
            scores[row, held] = best.mean(axis=0, dtype=np.float64)
    return scores


def _sparse_cosine(reference: M3Vectors, given: M3Vectors, row: int) -> float:
    a, b = reference.sparse_row(row), given.sparse_row(row)
    if not a or not b:
        return float(not a and not b)
    shared = sum(weight * b.get(token, 0.0) for token, weight in a.items())
    return float(shared / np.sqrt(sum(weight**2 for weight in a.values()) * sum(weight**2 for weight in b.values())))
