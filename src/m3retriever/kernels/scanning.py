"""One query's inner product with many dense vectors from their int8 codes, and by how much it may be off at most."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np

from m3retriever.kernels import native
from m3retriever.kernels.codes import CODE_MAX, Int8Array, QueryCodes, dequantize, exact_in_float32
from m3retriever.vectors import FloatArray, IntArray

ROUNDING = 1e-5  # of float32 in a product, a scale or a norm, relative to their size: some hundred times its step


class Chunk(Protocol):
    """Rows of codes: codes (c, d), scales (c,), and the lengths (c,) of what the codes leave over."""

    @property
    def codes(self) -> Int8Array: ...
    @property
    def scales(self) -> FloatArray: ...
    @property
    def residuals(self) -> FloatArray: ...


def rough_products(
    query: FloatArray, chunks: Sequence[Chunk], bounds: IntArray, wanted: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Inner products of a query (d,) with rows of chunks, and by how much each may be off at most: (m,) both.

    Of chunk i the rows wanted[bounds[i]:bounds[i + 1]] count, which ascend.
    """
    if not len(wanted):
        return np.empty(0, np.float32), np.empty(0, np.float32)
    codes = QueryCodes.of(query[None])
    edges = zip(chunks, pairwise(bounds.tolist()), strict=True)
    spans = [wanted[begin:end] if end - begin < len(chunk.scales) else slice(None) for chunk, (begin, end) in edges]
    scales = np.concatenate([chunk.scales[rows] for chunk, rows in zip(chunks, spans, strict=True)])
    residuals = np.concatenate([chunk.residuals[rows] for chunk, rows in zip(chunks, spans, strict=True)])
    found = scan(codes, [(chunk.codes, chunk.scales) for chunk in chunks], bounds, wanted)
    return found, error_bounds(query, codes, scales, residuals)


def scan(query: QueryCodes, chunks: Sequence[tuple[Int8Array, FloatArray]], bounds: IntArray, wanted: IntArray) -> FloatArray:
    """The products alone, for a query of one vector and chunks of codes (c, d) and scales (c,): (m,) float32."""
    result = np.empty(len(wanted), np.float32)
    dim = query.codes.shape[1]
    if native.LIBRARY is None or not exact_in_float32(dim):
        for (codes, scales), begin, end in zip(chunks, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            rows = wanted[begin:end]
            result[begin:end] = query.products(codes[rows], scales[rows])[:, 0]
        return result
    codes_of, scales_of = zip(*chunks, strict=True) if chunks else ((), ())
    native.LIBRARY.scan(
        codes_of, scales_of, dim, query.codes, query.coarse, query.fine, result,
        bounds.astype(np.int64), wanted.astype(np.int64), native.threads(), native.LEVEL,
    )  # fmt: skip
    return result


def residual_norms(vectors: FloatArray, codes: Int8Array, scales: FloatArray) -> FloatArray:
    """Length of what each row's codes leave over, (n,) float32, never too short."""
    left_over = np.linalg.norm(vectors - dequantize(codes, scales), axis=1)
    norms: FloatArray = (left_over + ROUNDING * np.abs(vectors).max(axis=1, initial=0)).astype(np.float32)
    return norms


def error_bounds(query: FloatArray, codes: QueryCodes, scales: FloatArray, residuals: FloatArray) -> FloatArray:
    """By how much `scan` of a query (d,) may be off, at most, for rows with these scales and residual norms: (m,).

    |q.x - q'.x'| <= |q||x - x'| + |q - q'||x'| (Cauchy-Schwarz), with |x'| at most 127 scales in every value.
    """
    length = float(np.linalg.norm(query.astype(np.float64)))
    lost = float(np.linalg.norm(query - codes.vectors()[0]))
    longest = scales * (CODE_MAX * np.sqrt(len(query)))
    bounds: FloatArray = length * residuals + (lost + ROUNDING * length) * longest
    return bounds
