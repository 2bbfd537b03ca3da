"""PooledEncoder: fewer token vectors a document, by joining those that are alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from m3retriever.errors import InvalidArgumentError
from m3retriever.types import Encoder
from m3retriever.vectors import FloatArray, M3Vectors, offsets

RUN = 512  # tokens clustered together: the time and memory of clustering grow with their square


class PooledEncoder:
    """Another encoder whose documents keep one token vector in `factor`; queries, dense and sparse stay as they are.

    Disk and ColBERT time of a document shrink by the factor. What it costs, `encoders.fidelity.fidelity(encoder,
    PooledEncoder(encoder, 2), texts, queries)` says: scores shift, so thresholds belong to the factor, and the name tells
    it, so that vectors of different factors never mix. It has no `tokenize`, for a vector stands for no single token.

    Parameters
    ----------
    factor
        At least 2. On 150 docstrings with the mini model the ten best by ColBERT stayed to 97, 86 and 80 % with 2, 3 and 4.

    Source: Clavié, Chaffin & Adams, 2024, "Reducing the Footprint of Multi-Vector Retrieval with Minimal Performance
    Impact via Token Pooling": Ward's clustering, then the mean.
    """

    def __init__(self, encoder: Encoder, factor: int = 2) -> None:
        if not isinstance(factor, int) or factor < 2:
            raise InvalidArgumentError(f"factor must be an integer >= 2; got {factor!r}")
        self._encoder, self._factor = encoder, factor
        self.name, self.dim = f"{encoder.name}-pooled{factor}", encoder.dim
        self.precision: str | None = getattr(encoder, "precision", None)  # profiles are tied to it

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> M3Vectors:
        """The three views of n texts; ColBERT has at most ceil(tokens / factor) vectors for each RUN of tokens."""
        vectors = self._encoder.encode_documents(texts, progress=progress)
        rows = [pooled(vectors.colbert_row(row), self._factor) for row in range(len(vectors))]
        return M3Vectors(
            vectors.dense,
            vectors.sparse_ids,
            vectors.sparse_weights,
            vectors.sparse_offsets,
            np.concatenate([np.empty((0, self.dim), np.float32), *rows]),
            offsets([len(row) for row in rows]),
        )

    def encode_queries(self, texts: Sequence[str]) -> M3Vectors:
        """As the encoder's own."""
        return self._encoder.encode_queries(texts)


def pooled(tokens: FloatArray, factor: int) -> FloatArray:
    """Vectors of norm 1 for t token vectors (t, d): the means of Ward's clusters, in the order of their first tokens.

    Runs of RUN tokens are clustered by themselves, each to ceil(tokens / factor) vectors, or fewer where tokens are equal.
    `pooled([[1, 0], [0, 1], [1, 0]], 2)` is [[1, 0], [0, 1]].
    """
    runs = [_joined(tokens[start : start + RUN], factor) for start in range(0, len(tokens), RUN)]
    return np.concatenate([tokens[:0].astype(np.float32), *runs])


def _joined(tokens: FloatArray, factor: int) -> FloatArray:
    from scipy.cluster.hierarchy import fcluster, linkage

    count = -(-len(tokens) // factor)
    if count == len(tokens):
        return tokens
    clusters = fcluster(linkage(tokens, "ward"), count, "maxclust") if count > 1 else np.ones(len(tokens), int)
    _, first, member = np.unique(clusters, return_index=True, return_inverse=True)
    sums = np.zeros((len(first), tokens.shape[1]))
    np.add.at(sums, member, tokens.astype(np.float64))
    means = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    joined: FloatArray = means[np.argsort(first)].astype(np.float32)
    return joined
