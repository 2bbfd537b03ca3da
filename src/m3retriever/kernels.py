"""The inner loops: int8 codes of token vectors, and MaxSim over them.

Products of int8 codes are whole numbers, so every way to compute them gives the same bits: through
torch's int8 matrix product where torch is loaded and its product is right on this processor, through
NumPy otherwise. Which of the two ran is invisible in the scores.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from m3retriever.vectors import FloatArray, IntArray

Int8Array: TypeAlias = npt.NDArray[np.int8]

CODE_MAX = 127  # symmetric int8: -128 is not used, so that a code can be negated
QUERY_BLOCK = 128  # query tokens at a time: bounds the product's width for very long queries
EXACT_IN_FLOAT32 = 2**24  # whole numbers up to here are exact in float32
BLOCK_ELEMENTS = 1 << 21  # of a token-by-token product held at a time, 8 MB as int32: stays in the cache


def quantize(vectors: FloatArray) -> tuple[Int8Array, FloatArray]:
    """Codes (t, d) int8 and one scale per row (t,) float32, so that codes * scale is about the vectors.

    Each value is off by at most half a scale, which is max|row| / 127. A row of zeros has scale 0.
    """
    scales = (np.abs(vectors).max(axis=1, initial=0) / CODE_MAX).astype(np.float32)
    rounded = np.rint(vectors / np.where(scales > 0, scales, 1)[:, None])
    codes = np.clip(rounded, -CODE_MAX, CODE_MAX).astype(np.int8)  # scales of denormal rows are too coarse
    return codes, scales


def dequantize(codes: Int8Array, scales: FloatArray) -> FloatArray:
    """The vectors that codes and scales stand for, (t, d) float32."""
    return codes.astype(np.float32) * scales[:, None]


def maxsim_int8(query: FloatArray, codes: Int8Array, scales: FloatArray, offsets: IntArray) -> FloatArray:
    """`colbert_score` of one query (q, d) with n documents whose tokens are int8 codes: (n,) float32.

    Document i's tokens are codes[offsets[i]:offsets[i + 1]]. The query is not rounded to int8: it is
    split into two int8 parts (codes and the codes of what they leave over), which together hold about
    15 bits, so that the documents' rounding is the only loss. A document's score does not depend on
    the others in the call.
    """
    n = len(offsets) - 1
    result = np.zeros(n, np.float32)
    filled = np.flatnonzero(np.diff(offsets))
    if not len(query) or not len(filled):
        return result
    best = np.empty((len(filled), len(query)), np.float32)
    for start in range(0, len(query), QUERY_BLOCK):
        part = query[start : start + QUERY_BLOCK]
        best[:, start : start + len(part)] = _best_matches(part, codes, scales, offsets, filled)
    result[filled] = best.mean(axis=1, dtype=np.float64)
    return result


def _best_matches(query: FloatArray, codes: Int8Array, scales: FloatArray, offsets: IntArray, filled: IntArray) -> FloatArray:
    """For each document that has tokens, and each query token, the best match: (len(filled), q)."""
    coarse, coarse_scale = quantize(query)
    fine, fine_scale = quantize(query - dequantize(coarse, coarse_scale))
    both = np.concatenate([coarse, fine])
    best = np.empty((len(filled), len(query)), np.float32)
    for block in _blocks(offsets[filled], BLOCK_ELEMENTS // len(both)):
        rows = filled[block]
        begin, end = offsets[rows[0]], offsets[rows[-1] + 1]
        products = int8_product(codes[begin:end], both)
        similarity = products[:, : len(query)] * coarse_scale + products[:, len(query) :] * fine_scale
        similarity *= scales[begin:end, None]
        best[block] = np.maximum.reduceat(similarity, offsets[rows] - begin, axis=0)
    return best


def _blocks(starts: IntArray, tokens: int) -> Iterator[slice]:
    """Runs of documents, at least one each, that begin within `tokens` tokens of their first."""
    first = 0
    while first < len(starts):
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + tokens)))
        yield slice(first, last)
        first = last


def int8_product(left: Int8Array, right: Int8Array) -> FloatArray:
    """left (m, d) @ right (q, d).T, exactly, as (m, q) float32 (float64 where float32 could round)."""
    if "torch" in sys.modules and _torch_is_exact():
        import torch

        if not left.flags.writeable:  # torch warns of memory it could write to
            left = left.copy()
        product = torch._int_mm(torch.from_numpy(left), torch.from_numpy(right).t().contiguous())
        return product.numpy().astype(_exact_float(left.shape[1]))
    dtype = _exact_float(left.shape[1])
    result: FloatArray = left.astype(dtype) @ right.astype(dtype).T
    return result


def _exact_float(dim: int) -> type[np.float32] | type[np.float64]:
    return np.float32 if dim * CODE_MAX * CODE_MAX < EXACT_IN_FLOAT32 else np.float64


@functools.cache
def _torch_is_exact() -> bool:
    """Whether torch's int8 product neither saturates nor is missing here: old processors add in 16 bits."""
    import torch

    try:
        full = torch.full((32, 256), CODE_MAX, dtype=torch.int8)
        return bool((torch._int_mm(full, -full.t().contiguous()) == -256 * CODE_MAX * CODE_MAX).all())
    except (AttributeError, RuntimeError):
        return False
