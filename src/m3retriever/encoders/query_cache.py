"""The vectors of queries that were asked before."""

from __future__ import annotations

import threading
from collections import OrderedDict

from m3retriever.observing.counters import count
from m3retriever.vectors import M3Vectors

CACHED_QUERIES = 256
CACHED_BYTES = 1 << 19  # of one query: about 128 tokens at 1024 dimensions, so that all of them take 128 MB at most


class QueryCache:
    """Keeps the last 256 queries' vectors, except of very long ones. Safe from any thread.

    Attributes
    ----------
    hits, misses
        Queries whose vectors were there, and that were not.
    """

    def __init__(self) -> None:
        self.hits = self.misses = 0
        self._queries: OrderedDict[str, M3Vectors] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, query: str) -> M3Vectors | None:
        """A query's vectors, in arrays of the caller's own; None where they are not here."""
        with self._lock:
            known = self._queries.get(query)
            if known is None:
                self.misses += 1
            else:
                self._queries.move_to_end(query)
                self.hits += 1
        count("query_cache_misses" if known is None else "query_cache_hits")
        return None if known is None else known.copy()

    def keep(self, query: str, vectors: M3Vectors) -> None:
        """Keep a copy, and let the query go that was asked for least recently."""
        if vectors.colbert.nbytes + vectors.dense.nbytes > CACHED_BYTES:
            return
        kept = vectors.copy()
        with self._lock:
            self._queries[query] = kept
            while len(self._queries) > CACHED_QUERIES:
                self._queries.popitem(last=False)


class CachesQueries:
    """An encoder with a QueryCache, and what it says of it."""

    def __init__(self) -> None:
        self._queries = QueryCache()

    @property
    def cache_hits(self) -> int:
        """Queries, asked one by one, whose vectors were there."""
        return self._queries.hits

    @property
    def cache_misses(self) -> int:
        """Queries, asked one by one, that had to be encoded."""
        return self._queries.misses
