"""What the encoders that run the encoding loop have in common. Does not import torch."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from m3retriever.observing.counters import count
from m3retriever.types import Token
from m3retriever.vectors import M3Vectors

if TYPE_CHECKING:
    from m3retriever.encoders.loop import EncodingLoop

CACHED_QUERIES = 256
CACHED_BYTES = 1 << 19  # of one query: about 128 tokens at 1024 dimensions, so that all of them take 128 MB at most


class LoopedEncoder:
    """The methods of an Encoder, given by a loop. A subclass makes the loop and the name.

    The vectors of the last 256 queries that came alone are kept, except of very long ones and those that
    were cut or mostly unknown.

    Attributes
    ----------
    cache_hits, cache_misses
        Queries, asked one by one, whose vectors were there, and that had to be encoded.
    """

    def __init__(self, loop: EncodingLoop, name: str) -> None:
        self._loop = loop
        self.name, self.dim = name, loop.dim
        self.cache_hits = self.cache_misses = 0
        self._queries: OrderedDict[str, M3Vectors] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def max_length(self) -> int:
        """Tokens read of a text, special ones included."""
        return self._loop.max_length

    @property
    def truncated(self) -> int:
        """How many texts have been cut so far."""
        return self._loop.truncated

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> M3Vectors:
        """The three views of n texts, in their order; `progress` shows a bar on long work."""
        return self._loop.encode(texts, progress=progress)

    def encode_queries(self, texts: Sequence[str]) -> M3Vectors:
        """As `encode_documents`: BGE-M3 knows no difference. The arrays are the caller's own.

        A query that comes alone is looked up first. Several at once are encoded together each time: their last bits
        depend on each other.
        """
        if isinstance(texts, str) or len(texts) != 1 or not isinstance(texts[0], str):
            return self._loop.encode(texts)
        known = self._cached(texts[0])
        count("query_cache_misses" if known is None else "query_cache_hits")
        if known is not None:
            return known
        warned = self._loop.truncated, self._loop.unknown
        vectors = self._loop.encode(texts)
        if (self._loop.truncated, self._loop.unknown) == warned:  # what is cut or unknown is to warn each time
            self._keep(texts[0], vectors)
        return vectors

    def _cached(self, query: str) -> M3Vectors | None:
        with self._lock:
            if (known := self._queries.get(query)) is None:
                self.cache_misses += 1
                return None
            self._queries.move_to_end(query)
            self.cache_hits += 1
        return known.copy()

    def _keep(self, query: str, vectors: M3Vectors) -> None:
        if vectors.colbert.nbytes + vectors.dense.nbytes > CACHED_BYTES:
            return
        kept = vectors.copy()
        with self._lock:
            self._queries[query] = kept
            while len(self._queries) > CACHED_QUERIES:
                self._queries.popitem(last=False)

    def tokenize(self, text: str) -> list[Token]:
        """The tokens that have a ColBERT vector, in order, with the characters they cover."""
        return self._loop.tokenize(text)
