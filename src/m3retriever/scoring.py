"""BGE-M3's three similarities (Chen et al., 2024, section 3), as plain functions of vectors.

A score depends on its query and its document alone, to the last bit: never on the other candidates,
on padding, or on the order in which they come. Dense and sparse sums are therefore taken in float64,
row by row, and rounded once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from m3retriever.vectors import FloatArray, IntArray, M3Vectors

BLOCK_VALUES = 1 << 22  # similarities of tokens held at a time, 16 MB: two texts of 8,192 tokens have 64 million


def dense_score(query: FloatArray, documents: FloatArray) -> FloatArray:
    """Inner products of one query (d,) with n documents (n, d): (n,) float32.

    The cosine, in [-1, 1], where the vectors have norm 1, as BGE-M3's do.
    """
    products: FloatArray = np.atleast_2d(documents) * query.astype(np.float64)
    scores: FloatArray = products.sum(axis=1).astype(np.float32)
    return scores


def sparse_score(query: Mapping[int, float], document: Mapping[int, float]) -> float:
    """Sum over the shared tokens of the product of their weights; 0 when none is shared.

    As FlagEmbedding's `compute_lexical_matching_score`. The scale is the model's own: a short text
    with itself scores about 0.2 to 0.4. `sparse_score({7: 0.5, 8: 1.0}, {7: 0.2})` is 0.1.
    """
    return float(sum(weight * document[token] for token, weight in query.items() if token in document))


def colbert_score(query: FloatArray, document: FloatArray) -> float:
    """Mean over the query's tokens of the best match among the document's tokens, in [-1, 1].

    Late interaction (Khattab & Zaharia, 2020) divided by the query's length, as in FlagEmbedding's
    `M3Embedder.colbert_score`. query is (q, d), document (t, d), without padding. 0 where either has
    no tokens.
    """
    if not len(query) or not len(document):
        return 0.0
    peaks = [block.max(axis=1) for block in token_similarities(query, document)]
    return float(np.concatenate(peaks).mean(dtype=np.float64))


def token_similarities(query: FloatArray, document: FloatArray) -> Iterator[FloatArray]:
    """Inner products of a query's token vectors (q, d) with a document's (t, d): runs of rows of the (q, t), in order."""
    if np.may_share_memory(query, document):  # x @ x.T takes another BLAS routine, whose last bits differ
        document = document.copy()
    rows = max(1, BLOCK_VALUES // max(1, len(document)))
    for start in range(0, len(query), rows):
        yield query[start : start + rows] @ document.T


def sparse_scores(query: M3Vectors, ids: IntArray, weights: FloatArray, offsets: IntArray) -> FloatArray:
    """`sparse_score` of one query with n documents in CSR arrays (ids ascending in a row): (n,) float32."""
    n = len(offsets) - 1
    if not len(query.sparse_ids) or not len(ids):
        return np.zeros(n, np.float32)
    places = np.searchsorted(query.sparse_ids, ids)
    places[places == len(query.sparse_ids)] = 0
    shared = query.sparse_ids[places] == ids
    rows = np.repeat(np.arange(n), np.diff(offsets))[shared]
    products = weights[shared].astype(np.float64) * query.sparse_weights[places[shared]]
    return np.bincount(rows, weights=products, minlength=n).astype(np.float32)


def score(query: M3Vectors, documents: M3Vectors) -> FloatArray:
    """Every document's score in every mode, exactly: (n, 3) float32 in the order of MODES.

    The yardstick that every store is compared with.
    """
    values = np.empty((len(documents), 3), np.float32)
    values[:, 0] = dense_score(query.dense[0], documents.dense)
    values[:, 1] = sparse_scores(query, documents.sparse_ids, documents.sparse_weights, documents.sparse_offsets)
    values[:, 2] = [colbert_score(query.colbert, documents.colbert_row(row)) for row in range(len(documents))]
    return values
