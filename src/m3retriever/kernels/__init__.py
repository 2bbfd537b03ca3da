"""The inner loops of a search, each compiled where a compiler was at hand and in NumPy otherwise.

    codes     int8 codes of vectors, and their exact products
    matching  late interaction over the codes of token vectors, read where they lie
    scanning  one query's product with many dense vectors, and how far off it may be
    postings  sparse retrieval, term at a time over posting lists

Products of codes are whole numbers and sums are taken in one fixed order, so every way to compute them
gives the same bits. Which one ran is invisible in the scores; `native.engine()` tells.
"""

from __future__ import annotations

from m3retriever.kernels.codes import Int8Array, dequantize, quantize
from m3retriever.kernels.matching import maxsim, maxsim_int8
from m3retriever.kernels.postings import SEGMENT, best_postings, join_posting, split_posting
from m3retriever.kernels.scanning import residual_norms, rough_products

__all__ = [
    "SEGMENT",
    "Int8Array",
    "best_postings",
    "dequantize",
    "join_posting",
    "maxsim",
    "maxsim_int8",
    "quantize",
    "residual_norms",
    "rough_products",
    "split_posting",
]
