"""The sparse search over posting lists as they lie in the payload, without the payload around it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from benchmarks.measuring import Row, Step, against_bound, interleaved, must_equal
from benchmarks.sizes import Size
from benchmarks.synthetic import Corpus
from m3retriever import M3Vectors
from m3retriever.kernels import SEGMENT, best_postings, join_posting, split_posting
from m3retriever.stores.candidates import best
from m3retriever.vectors import FloatArray, IntArray

GROUP = "kernels"
QUERIES, DEPTH = 16, 100
WITHIN = {100_000: 0.3e-3, 1_000_000: 3e-3}  # seconds, the targets
SCAN_TIMES = 1.2  # likewise
SCAN = "a pure scan of the same lists"  # NumPy's sums of their places and of their weights, each joined to one array


@dataclass(eq=False)
class Lists:
    """One query's posting lists, by segment, then token, with what the search is told of each."""

    values: list[bytes] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def search(self, slots: int) -> tuple[IntArray, FloatArray]:
        """What `best_postings` gives, ties and all."""
        return best_postings(
            self.values, np.array(self.segments, np.int64), np.array(self.weights), DEPTH, slots=slots, allowed=None
        )

    def searched_in_numpy(self, slots: int) -> tuple[IntArray, FloatArray]:
        """Every document with a score above 0: the plain computation."""
        total = np.zeros(slots)
        for value, segment, weight in zip(self.values, self.segments, self.weights, strict=True):
            places, values = split_posting(value)
            total[places.astype(np.int64) + segment * SEGMENT] += values.astype(np.float64) * weight
        scores = total.astype(np.float32)
        return (found := np.flatnonzero(scores)), scores[found]

    def joined(self) -> tuple[IntArray, FloatArray]:
        """All places and all weights."""
        places, weights = zip(*map(split_posting, self.values), strict=True)
        return np.concatenate(places), np.concatenate(weights)


def sparse(size: Size) -> Iterator[Row]:
    """Against NumPy term at a time, and against FlagEmbedding's loop over documents."""
    for count in size.sparse_documents:
        corpus = Corpus(dim=8, tokens=0)
        queries = corpus.queries(QUERIES, count)
        lists = posting_lists(corpus, queries, count)
        yield from _rows(corpus, queries, lists, count, size)


def _rows(corpus: Corpus, queries: M3Vectors, lists: list[Lists], count: int, size: Size) -> Iterator[Row]:
    what = f"sparse search, {count:,} documents, the best {DEPTH}"

    def ours(number: int) -> IntArray:
        slots, scores = lists[number % QUERIES].search(count)
        return best(scores, slots, DEPTH, _names)

    def theirs(number: int) -> IntArray:
        slots, scores = lists[number % QUERIES].searched_in_numpy(count)
        return best(scores, slots, DEPTH, _names)

    for query in range(QUERIES):
        must_equal(what, ours=ours(query).tolist(), plain=theirs(query).tolist())
    bounds = (against_bound(ours, _scan(lists), SCAN, size.rounds, SCAN_TIMES),)
    entries = np.mean([len(one.joined()[0]) for one in lists])
    timing = interleaved(theirs, ours, size.rounds)
    note = f"{entries:,.0f} entries in a query's lists; the same documents in the same order"
    yield Row(
        GROUP, what, "NumPy, term at a time", size.rounds, timing.ratio, timing.ours, within=WITHIN.get(count),
        bounds=bounds, note=note,
    )  # fmt: skip
    sample = min(size.lexical_sample, count)
    try:
        loop = _flag_loop(corpus, queries, sample)
    except ImportError:
        yield Row.missing(GROUP, what, "FlagEmbedding compute_lexical_matching_score")
        return
    timing = interleaved(loop, ours, min(size.rounds, 5), factor=count / sample)
    note = f"its time extrapolated from {sample:,} documents" if sample < count else ""
    yield Row(
        GROUP, what, "FlagEmbedding compute_lexical_matching_score", min(size.rounds, 5), timing.ratio, timing.ours, note=note
    )


def posting_lists(corpus: Corpus, queries: M3Vectors, count: int) -> list[Lists]:
    """For each query, the lists of its tokens over the first `count` documents, as a payload holds them."""
    lists = [Lists() for _ in range(len(queries))]
    for segment in range(-(-count // SEGMENT)):
        ids, weights, bounds = corpus.sparse(segment * SEGMENT, min(count, (segment + 1) * SEGMENT))
        places = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds)).astype("<u2")
        order = np.argsort(ids, kind="stable")
        ids, weights, places = ids[order], weights[order].astype("<f4"), places[order]
        for query, one in enumerate(lists):
            for token, weight in queries.sparse_row(query).items():
                begin, end = np.searchsorted(ids, [token, token + 1])
                if end > begin:
                    one.values.append(join_posting(b"", places[begin:end].tobytes(), weights[begin:end].tobytes()))
                    one.segments.append(segment)
                    one.weights.append(weight)
    return lists


def _scan(lists: list[Lists]) -> Step:
    joined = [one.joined() for one in lists]
    return lambda number: [array.sum() for array in joined[number % QUERIES]]


def _flag_loop(corpus: Corpus, queries: M3Vectors, sample: int) -> Step:
    from FlagEmbedding.inference.embedder.encoder_only.m3 import M3Embedder

    def named(row: dict[int, float]) -> dict[str, float]:
        return {str(token): weight for token, weight in row.items()}

    ids, weights, bounds = corpus.sparse(0, sample)
    documents = [
        named(dict(zip(ids[begin:end].tolist(), weights[begin:end].tolist(), strict=True)))
        for begin, end in pairwise(bounds.tolist())
    ]
    asked = [named(queries.sparse_row(query)) for query in range(QUERIES)]
    score = M3Embedder.compute_lexical_matching_score
    return lambda number: [score(None, asked[number % QUERIES], document) for document in documents]


def _names(slots: IntArray) -> list[str]:
    return [f"d{slot:08d}" for slot in slots.tolist()]
