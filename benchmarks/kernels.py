"""The inner loops alone: late interaction, the sparse and the dense search. To add a row, add a function to MEASURES.

Every row first checks that what is fast gives what the plain computation gives, bit by bit where that is promised.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks import machine
from benchmarks.measuring import Bound, NotEqualError, Row, Step, against_bound, interleaved, must_equal
from benchmarks.postings import sparse
from benchmarks.sizes import Size
from benchmarks.synthetic import Corpus
from m3retriever.documents import Document
from m3retriever.kernels import matching, maxsim, quantize
from m3retriever.kernels.codes import QueryCodes
from m3retriever.scoring import colbert_score, dense_score
from m3retriever.stores.allowed import Allowed
from m3retriever.stores.candidates import best
from m3retriever.stores.legs import exact_dense_leg
from m3retriever.stores.payload import open_payload, release_payload
from m3retriever.stores.snapshot import Snapshot
from m3retriever.vectors import FloatArray, M3Vectors, offsets

GROUP = "kernels"
READ = "reading the same bytes"
MULTIPLY = "the same int8 products at torch's peak"
QUERIES, DEPTH = 16, 100
MAXSIM_TIMES, READ_TIMES = 8.0, 3.0  # the targets
COLBERT_LOSS = 5e-4  # from fp32, at 1024 dimensions; more at smaller ones
STAGED = 4096  # documents written to a payload at a time


def rows(size: Size) -> Iterator[Row]:
    """All rows of this group."""
    for measure in MEASURES:
        yield from measure(size)


def late_interaction(size: Size) -> Iterator[Row]:
    """FlagEmbedding's `colbert_score` per document in fp32, against the int8 codes of the same documents."""
    what = f"MaxSim, {size.candidates:,} candidates of {size.tokens} tokens, d = {size.dim}, 32 query tokens"
    corpus = Corpus(dim=size.dim, tokens=size.tokens)
    vectors, queries = corpus.vectors(0, size.candidates), corpus.queries(QUERIES, size.candidates)
    documents = [vectors.colbert_row(row) for row in range(len(vectors))]
    codes, scales = quantize(vectors.colbert)
    ours_of = [(codes[begin:end], scales[begin:end]) for begin, end in pairwise(vectors.colbert_offsets.tolist())]
    asked = [queries.colbert_row(row) for row in range(QUERIES)]
    parts = QueryCodes.of(asked[0])
    fast, plain = matching.best_matches(parts, ours_of), matching.best_matches_in_numpy(parts, ours_of)
    must_equal(what, ours=fast.tobytes(), plain=plain.tobytes())
    exact = np.array([colbert_score(asked[0], document) for document in documents])
    loss = float(np.abs(maxsim(asked[0], ours_of) - exact).max())
    if size.dim >= 1024 and loss > COLBERT_LOSS:
        raise NotEqualError(f"{what}: scores are off by {loss:.1g} from fp32, at most {COLBERT_LOSS:g} is allowed")
    note = f"the same bits as NumPy; off by {loss:.1g} at most from fp32"

    def ours(number: int) -> object:
        return maxsim(asked[number % QUERIES], ours_of)

    multiply = 2 * len(codes) * size.dim * len(asked[0]) / machine.peak(np.int8)
    read = against_bound(ours, machine.read(codes), READ, size.rounds, READ_TIMES)
    try:
        timing = interleaved(_flag_loop(asked, documents), ours, size.rounds)
    except ImportError:
        yield Row.missing(GROUP, what, "FlagEmbedding colbert_score")
        return
    bounds = (read, Bound(MULTIPLY, timing.ours / multiply))
    yield Row(
        GROUP, what, "FlagEmbedding colbert_score", size.rounds, timing.ratio, timing.ours, at_least=MAXSIM_TIMES,
        bounds=bounds, note=note,
    )  # fmt: skip


def _flag_loop(asked: list[FloatArray], documents: list[FloatArray]) -> Step:
    from FlagEmbedding.inference.embedder.encoder_only.m3 import M3Embedder

    return lambda number: [M3Embedder.colbert_score(None, asked[number % QUERIES], document) for document in documents]


def dense(size: Size) -> Iterator[Row]:
    """An exact scan in NumPy, fp32, against ours: int8 codes with bounds, then fp32 for what could be among the best."""
    for count in size.dense_documents:
        what = f"dense search, {count:,} documents, d = {size.dim}, the best {DEPTH}"
        corpus = Corpus(dim=size.dim, tokens=0)
        matrix, asked = corpus.dense(0, count), corpus.queries(QUERIES, count).dense
        with _payload_of(matrix) as snapshot:
            yield _dense_row(what, matrix, asked, snapshot, size.rounds)


def _dense_row(what: str, matrix: FloatArray, asked: FloatArray, snapshot: Snapshot, rounds: int) -> Row:
    allowed = Allowed(snapshot.live(), everything=True)
    depth = min(DEPTH, len(matrix))

    def ours(number: int) -> np.ndarray:
        return exact_dense_leg(snapshot, asked[number % QUERIES], allowed, depth)

    def theirs(number: int) -> object:
        products = matrix @ asked[number % QUERIES]
        near = np.argpartition(-products, depth - 1)[:depth]
        return near[np.argsort(-products[near], kind="stable")]

    slots = np.arange(len(matrix))
    for query in range(2):
        plain = best(dense_score(asked[query], matrix), slots, depth, snapshot.ids)
        must_equal(what, ours=ours(query).tolist(), plain=plain.tolist())
    timing = interleaved(theirs, ours, rounds)
    codes = quantize(matrix)[0]
    return Row(
        GROUP, what, "NumPy, fp32", rounds, timing.ratio, timing.ours,
        bounds=(against_bound(ours, machine.read(codes), "reading the int8 codes", rounds),),
        note=f"the same {depth} documents in the same order as scoring all of them in float64",
    )  # fmt: skip


@contextmanager
def _payload_of(matrix: FloatArray) -> Iterator[Snapshot]:
    """A payload in a folder of its own that holds dense vectors and nothing else; document i has slot i."""
    with tempfile.TemporaryDirectory() as folder:
        payload = open_payload(Path(folder) / "payload")
        try:
            for start in range(0, len(matrix), STAGED):
                part = matrix[start : start + STAGED]
                documents = [Document(f"d{start + row:08d}", "") for row in range(len(part))]
                payload.publish(payload.stage(documents, _dense_only(part)))
            with payload.read() as snapshot:
                yield snapshot
        finally:
            release_payload(payload)


def _dense_only(dense: FloatArray) -> M3Vectors:
    nothing = offsets([0] * len(dense))
    return M3Vectors(dense, [], [], nothing, np.empty((0, dense.shape[1]), np.float32), nothing)  # type: ignore[arg-type]


MEASURES = (late_interaction, sparse, dense)
