"""int8 codes of vectors, one scale a row, and the exact products of codes."""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from m3retriever.kernels import native
from m3retriever.vectors import FloatArray

Int8Array: TypeAlias = npt.NDArray[np.int8]

CODE_MAX = 127  # symmetric int8: -128 is not used, so that a code can be negated
TORCH_FROM = 16  # values in a row: torch 2.13's product of rows of one value is wrong
EXACT_IN_FLOAT32 = 2**24  # whole numbers up to here are exact in float32


def quantize(vectors: FloatArray) -> tuple[Int8Array, FloatArray]:
    """Codes (t, d) int8 and one scale per row (t,) float32, so that codes * scale is about the vectors.

    Each value is off by at most half a scale, which is max|row| / 127. A row of zeros has scale 0.
    """
    if native.LIBRARY is not None and vectors.dtype == np.float32 and vectors.shape[1]:
        codes, scales = np.empty(vectors.shape, np.int8), np.empty(len(vectors), np.float32)
        native.LIBRARY.quantize(np.ascontiguousarray(vectors), vectors.shape[1], codes, scales, native.threads())
        return codes, scales
    scales = (np.abs(vectors).max(axis=1, initial=0) / CODE_MAX).astype(np.float32)
    rounded = np.rint(vectors / np.where(scales > 0, scales, 1)[:, None])
    return np.clip(rounded, -CODE_MAX, CODE_MAX).astype(np.int8), scales  # scales of denormal rows are too coarse


def dequantize(codes: Int8Array, scales: FloatArray) -> FloatArray:
    """The vectors that codes and scales stand for, (t, d) float32."""
    return codes.astype(np.float32) * scales[:, None]


@dataclass(frozen=True, eq=False)
class QueryCodes:
    """A query's vectors in two int8 parts, the codes and the codes of what they leave over: about 15 bits.

    codes (2q, d): the coarse ones, then the fine ones; their scales (q,) each.
    """

    codes: Int8Array
    coarse: FloatArray
    fine: FloatArray

    @classmethod
    def of(cls, query: FloatArray) -> QueryCodes:
        """Of vectors (q, d) float32."""
        coarse, coarse_scales = quantize(query)
        fine, fine_scales = quantize(query - dequantize(coarse, coarse_scales))
        return cls(np.concatenate([coarse, fine]), coarse_scales, fine_scales)

    def vectors(self) -> FloatArray:
        """What they stand for, (q, d) float64."""
        scales = np.concatenate([self.coarse, self.fine]).astype(np.float64)
        parts: FloatArray = self.codes.astype(np.float64) * scales[:, None]
        return parts[: len(self.coarse)] + parts[len(self.coarse) :]

    def products(self, rows: Int8Array, scales: FloatArray) -> FloatArray:
        """Inner products with rows (t, d) of codes and their scales (t,): (t, q)."""
        parts = int8_product(rows, self.codes)
        tokens = len(self.coarse)
        similarity: FloatArray = parts[:, :tokens] * self.coarse + parts[:, tokens:] * self.fine
        similarity *= scales[:, None]
        return similarity


def exact_in_float32(dim: int) -> bool:
    """Whether every product of two rows of codes is a whole number that float32 holds: up to d = 1040."""
    return dim * CODE_MAX * CODE_MAX < EXACT_IN_FLOAT32


def int8_product(left: Int8Array, right: Int8Array) -> FloatArray:
    """left (m, d) @ right (q, d).T, exactly, as (m, q) float32 (float64 where float32 could round)."""
    dtype = np.float32 if exact_in_float32(left.shape[1]) else np.float64
    if "torch" in sys.modules and left.shape[1] >= TORCH_FROM and _torch_is_exact():
        import torch

        if not left.flags.writeable:  # torch warns of memory it could write to
            left = left.copy()
        product = torch._int_mm(torch.from_numpy(left), torch.from_numpy(right).t().contiguous())
        return product.numpy().astype(dtype)
    result: FloatArray = left.astype(dtype) @ right.astype(dtype).T
    return result


@functools.cache
def _torch_is_exact() -> bool:
    """Whether torch's int8 product neither saturates nor is missing here: old processors add in 16 bits."""
    import torch

    try:
        full = torch.full((32, 256), CODE_MAX, dtype=torch.int8)
        return bool((torch._int_mm(full, -full.t().contiguous()) == -256 * CODE_MAX * CODE_MAX).all())
    except (AttributeError, RuntimeError):
        return False
