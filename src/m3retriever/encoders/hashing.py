"""An encoder without a model: words hashed to fixed random vectors. For tests and plumbing."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np

from m3retriever.encoders.engine import Independence
from m3retriever.types import Token
from m3retriever.vectors import FloatArray, M3Vectors

WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
WEIGHT = 0.3  # of every word in the sparse view: within BGE-M3's usual range
DIM = 256
NO_WORD = 0  # the token of a text without words
ID_MASK = 0x7FFFFFFF


class HashingEncoder:
    """Same word, same vector, on every machine. Knows nothing of meaning.

    A word is a run of letters and digits, or one Chinese or Japanese character. Dense is the
    normalised mean of the words' vectors, sparse gives each word 0.3, ColBERT has a vector per word.
    """

    independence: Independence = "always"

    def __init__(self, dim: int = DIM) -> None:
        self.dim = dim
        self.source = "hashing" if dim == DIM else None
        self.name = f"hashing-{dim}"

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> M3Vectors:
        """Vectors of n texts; `progress` changes nothing here, it is too quick to show."""
        rows = [[token.id for token in self.tokenize(text)] for text in texts]
        known = {token: self._vector(token) for row in rows for token in row}
        colbert = [np.stack([known[token] for token in row]) for row in rows]
        sums = [vectors.sum(axis=0) for vectors in colbert]
        dense = np.array([total / max(np.linalg.norm(total), 1e-12) for total in sums], np.float32)
        sparse = [dict.fromkeys((token for token in row if token != NO_WORD), WEIGHT) for row in rows]
        return M3Vectors.from_rows(dense.reshape(-1, self.dim), sparse, colbert)

    def encode_queries(self, texts: Sequence[str]) -> M3Vectors:
        """As `encode_documents`."""
        return self.encode_documents(texts)

    def tokenize(self, text: str) -> list[Token]:
        """The words with their places; one empty token for a text without words."""
        words = WORD.finditer(text)
        return [Token(_hash(word.group()), word.start(), word.end()) for word in words] or [Token(NO_WORD, 0, 0)]

    def _vector(self, token: int) -> FloatArray:
        vector = np.random.default_rng(token).standard_normal(self.dim)
        unit: FloatArray = (vector / np.linalg.norm(vector)).astype(np.float32)
        return unit


def _hash(word: str) -> int:
    return (zlib.crc32(word.lower().encode("utf-8", "replace")) & ID_MASK) or 1
