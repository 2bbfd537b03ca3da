"""Late interaction over the int8 codes of token vectors, in place where the loops are compiled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from m3retriever.kernels import native
from m3retriever.kernels.codes import Int8Array, QueryCodes, exact_in_float32
from m3retriever.vectors import FloatArray, IntArray, offsets

TokenCodes: TypeAlias = tuple[Int8Array, FloatArray]  # a document's codes (t, d) and scales (t,)

QUERY_BLOCK = 128  # query tokens at a time: bounds the product's width for very long queries
BLOCK_ELEMENTS = 1 << 21  # of a token-by-token product held at a time, 8 MB as int32: stays in the cache


def maxsim(query: FloatArray, documents: Sequence[TokenCodes]) -> FloatArray:
    """`colbert_score` of one query (q, d) with n documents whose tokens are int8 codes: (n,) float32.

    The query is not rounded to int8: it is split into two int8 parts, which together hold about 15 bits, so
    that the documents' rounding is the only loss. A document's score does not depend on the others in the
    call. 0 where either has no tokens.
    """
    result = np.zeros(len(documents), np.float32)
    filled = [place for place, (_, scales) in enumerate(documents) if len(scales)]
    if not len(query) or not filled:
        return result
    best = np.empty((len(filled), len(query)), np.float32)
    chosen = [documents[place] for place in filled]
    for start in range(0, len(query), QUERY_BLOCK):
        block = slice(start, start + QUERY_BLOCK)
        best[:, block] = best_matches(QueryCodes.of(query[block]), chosen)
    result[filled] = best.mean(axis=1, dtype=np.float64)
    return result


def maxsim_int8(query: FloatArray, codes: Int8Array, scales: FloatArray, offsets: IntArray) -> FloatArray:
    """`maxsim` where the documents lie one after the other: document i is codes[offsets[i]:offsets[i + 1]]."""
    edges = offsets.tolist()
    spans = [slice(begin, end) for begin, end in pairwise(edges)]
    return maxsim(query, [(codes[span], scales[span]) for span in spans])


def best_matches(query: QueryCodes, documents: Sequence[TokenCodes]) -> FloatArray:
    """For each document, none without tokens, and each query token, the best match: (n, q) float32."""
    dim = query.codes.shape[1]
    if native.LIBRARY is None or not exact_in_float32(dim):
        return best_matches_in_numpy(query, documents)
    codes, scales = zip(*documents, strict=True)
    best = np.empty((len(documents), len(query.coarse)), np.float32)
    native.LIBRARY.best_matches(
        codes, scales, dim, query.codes, query.coarse, query.fine, best, native.threads(), native.LEVEL
    )  # fmt: skip
    return best


def best_matches_in_numpy(query: QueryCodes, documents: Sequence[TokenCodes]) -> FloatArray:
    """`best_matches`, with some documents' codes copied together at a time."""
    starts = offsets([len(scales) for _, scales in documents])
    best = np.empty((len(documents), len(query.coarse)), np.float32)
    for block in _blocks(starts[:-1], BLOCK_ELEMENTS // len(query.codes)):
        codes, scales = zip(*documents[block], strict=True)
        similarity = query.products(np.concatenate(codes), np.concatenate(scales))
        best[block] = np.maximum.reduceat(similarity, starts[:-1][block] - starts[block.start], axis=0)
    return best


def _blocks(starts: IntArray, tokens: int) -> Iterator[slice]:
    """Runs of documents, at least one each, that begin within `tokens` tokens of their first."""
    first = 0
    while first < len(starts):
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + tokens)))
        yield slice(first, last)
        first = last
