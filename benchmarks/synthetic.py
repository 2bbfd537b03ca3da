"""Documents and queries without a model: vectors that lie in clusters, tokens as common as words are.

Everything follows from a seed and a document's number: document 7 is the same in a corpus of ten and of a million.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from m3retriever import Document, M3Vectors
from m3retriever.vectors import FloatArray, IntArray, offsets

BLOCK = 256  # documents that are drawn together
VOCABULARY = 250_002  # BGE-M3's
CENTRES = 1_000  # of clusters
SPREAD = 0.9  # length of the noise over that of the centre: documents of a cluster have a cosine of 1/(1 + 0.81) = 0.55
NEAR = 0.3  # the same of a query's noise about its document: a cosine of 0.96
BANK = 4_096  # directions of token vectors
LEAN = 0.5  # how far a token vector leans to its document, in lengths of its own direction
NONZERO, QUERY_NONZERO = 80, 12  # sparse entries of a document and of a query
QUERY_TOKENS = 32
LIGHT, HEAVY = 0.02, 0.3  # sparse weights, BGE-M3's usual range
DRAWN = 3 * NONZERO  # tokens, of which the first 80 different ones are kept: the common ones come up often
PAGES = 100  # values of the number in the metadata


@dataclass(frozen=True)
class Corpus:
    """Documents by number, from 0 on, without end.

    dim of vectors, tokens (token vectors) a document, seed, vocabulary of sparse tokens.
    """

    dim: int = 1024
    tokens: int = 8
    seed: int = 0
    vocabulary: int = VOCABULARY

    def dense(self, start: int, stop: int) -> FloatArray:
        """A centre and noise about it, of norm 1: (stop - start, d) float32."""
        return _rows(self._dense_block, start, stop)

    def sparse(self, start: int, stop: int) -> tuple[IntArray, FloatArray, IntArray]:
        """CSR arrays: token ids, ascending within a document, weights, offsets. The token of rank r comes up with 1/r."""
        parts = [self._sparse_block(number) for number in range(start // BLOCK, -(-stop // BLOCK))]
        ids, weights, counts = (np.concatenate(column) for column in zip(*parts, strict=True))
        bounds, first = offsets(counts), start % BLOCK
        held = slice(bounds[first], bounds[first + stop - start])
        return ids[held], weights[held], bounds[first : first + stop - start + 1] - bounds[first]

    def vectors(self, start: int, stop: int) -> M3Vectors:
        """All three views. A token vector leans from one of 4,096 fixed directions to its document's dense vector."""
        dense = self.dense(start, stop)
        kinds = _rows(self._kinds_block, start, stop)
        tokens = _unit(bank(self.dim, self.seed)[kinds] + LEAN * dense[:, None, :]).reshape(-1, self.dim)
        return M3Vectors(dense, *self.sparse(start, stop), tokens, offsets([self.tokens] * len(dense)))

    def documents(self, start: int, stop: int) -> list[Document]:
        """Their texts are their sparse tokens as words, so that BM25 sees the same; metadata: a number, page."""
        ids, _, bounds = self.sparse(start, stop)
        rows = [ids[begin:end].tolist() for begin, end in pairwise(bounds.tolist())]
        texts = (" ".join(f"w{token}" for token in row) for row in rows)
        return [Document(f"d{start + row:08d}", text, {"page": (start + row) % PAGES}) for row, text in enumerate(texts)]

    def queries(self, count: int, among: int) -> M3Vectors:
        """Queries near documents drawn from the first `among`: some noise, 12 of its sparse tokens, 32 token vectors."""
        random = np.random.default_rng([self.seed, 4, count, among])
        targets = random.integers(0, among, count)
        parts = [self._query(int(target), random) for target in targets]
        return M3Vectors.concat(parts, dim=self.dim)

    def batches(self, stop: int, size: int) -> Iterator[tuple[list[Document], M3Vectors]]:
        """The first documents with their vectors, so many at a time."""
        for start in range(0, stop, size):
            end = min(start + size, stop)
            yield self.documents(start, end), self.vectors(start, end)

    def _query(self, target: int, random: np.random.Generator) -> M3Vectors:
        vectors = self.vectors(target, target + 1)
        noise = _unit(random.standard_normal((1, self.dim), dtype=np.float32))
        ids = vectors.sparse_ids
        kept = np.sort(random.permutation(len(ids))[:QUERY_NONZERO])
        held = vectors.colbert if len(vectors.colbert) else vectors.dense
        tokens = held[random.integers(0, len(held), QUERY_TOKENS)]
        tokens = tokens + NEAR * _unit(random.standard_normal((QUERY_TOKENS, self.dim), dtype=np.float32))
        return M3Vectors(
            _unit(vectors.dense + NEAR * noise), ids[kept], vectors.sparse_weights[kept], offsets([len(kept)]),
            _unit(tokens), offsets([QUERY_TOKENS]),
        )  # fmt: skip

    def _kinds_block(self, number: int) -> IntArray:
        return np.random.default_rng([self.seed, 3, number]).integers(0, BANK, (BLOCK, self.tokens))

    def _dense_block(self, number: int) -> FloatArray:
        random = np.random.default_rng([self.seed, 1, number])
        noise = random.standard_normal((BLOCK, self.dim), dtype=np.float32)
        places = centres(self.dim, self.seed)[random.integers(0, CENTRES, BLOCK)]
        return _unit(places + SPREAD * _unit(noise))

    def _sparse_block(self, number: int) -> tuple[IntArray, FloatArray, IntArray]:
        """Ids, weights and how many each document has: the first 80 different tokens of many that are drawn."""
        random = np.random.default_rng([self.seed, 2, number])
        drawn = np.searchsorted(chances(self.vocabulary), random.random((BLOCK, DRAWN)))
        tokens, places = np.divmod(np.sort(drawn * DRAWN + np.arange(DRAWN), axis=1), DRAWN)
        places[:, 1:][tokens[:, 1:] == tokens[:, :-1]] = DRAWN  # drawn before
        kept = (places < DRAWN) & (places <= np.partition(places, NONZERO - 1, axis=1)[:, NONZERO - 1 : NONZERO])
        ids = tokens[kept].astype(np.int32)
        return ids, random.uniform(LIGHT, HEAVY, len(ids)).astype(np.float32), kept.sum(axis=1)


@functools.cache
def centres(dim: int, seed: int) -> FloatArray:
    """The clusters' centres, (1000, d) of norm 1."""
    return _unit(np.random.default_rng([seed, 5]).standard_normal((CENTRES, dim), dtype=np.float32))


@functools.cache
def bank(dim: int, seed: int) -> FloatArray:
    """The directions of token vectors, (4096, d) of norm 1."""
    return _unit(np.random.default_rng([seed, 6]).standard_normal((BANK, dim), dtype=np.float32))


@functools.cache
def chances(vocabulary: int) -> FloatArray:
    """The sum of chances up to each token, which go with 1 over its rank (Zipf, 1949): (vocabulary,)."""
    summed = np.cumsum(1 / np.arange(1, vocabulary + 1))
    return summed / summed[-1]


def _rows(block: Callable[[int], np.ndarray], start: int, stop: int) -> np.ndarray:
    parts = [block(number) for number in range(start // BLOCK, -(-stop // BLOCK))]
    return np.concatenate(parts)[start % BLOCK :][: stop - start]


def _unit(vectors: FloatArray) -> FloatArray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
