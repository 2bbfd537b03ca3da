"""Whole queries over the same documents, text in and hits out, against others. To add a row, add a function to MEASURES.

With the peers of `peers.py` vectors are known beforehand, so that nobody's model runs; where a peer brings its own model,
both run the mini model on the docstrings of Python's library.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import numpy as np

from benchmarks.measuring import NotEqualError, Row, Step, interleaved, must_equal
from benchmarks.peers import PEERS, K, Known, chroma_filtered
from benchmarks.sizes import Size
from benchmarks.synthetic import Corpus
from m3retriever import BGEM3Encoder, ChromaStore, Document, Hit, M3Index
from m3retriever.demo.corpus import standard_library_documents
from m3retriever.scoring import score

GROUP = "search"
QUERIES = 64
HALF = {"page": {"$lt": 50}}  # half of the documents
MAX_LENGTH = 256  # tokens, the mini model's
TOGETHER_ROUNDS, PEER_ROUNDS = 5, 9
CHECKED = 3  # queries whose hits' scores are computed plainly as well
COLBERT_LOSS = 5e-4  # from fp32, at 1024 dimensions
CLOSE = 1e-3  # scores of one text alone and among others: a model's padding moves the last digits


def rows(size: Size) -> Iterator[Row]:
    """All rows of this group."""
    for measure in MEASURES:
        yield from measure(size)


def known_vectors(size: Size) -> Iterator[Row]:
    """Our search in all three modes against each peer, and under a filter."""
    corpus = Corpus(dim=size.dim, tokens=size.tokens)
    count = size.search_documents
    vectors = corpus.queries(QUERIES, count)
    texts = [" ".join(f"w{token}" for token in row.sparse_ids.tolist()) for row in vectors]
    known = Known(corpus.documents(0, count), corpus.vectors(0, count), texts, vectors)
    what = f"search, {count:,} documents of {size.tokens} token vectors, d = {size.dim}, k = {K}"
    with tempfile.TemporaryDirectory() as folder, _index(known, Path(folder) / "ours") as index:

        def ours(number: int) -> Sequence[Hit]:
            return index.search(known.text(number), K)

        _check_scores(known, [(number, ours(number)) for number in range(CHECKED)])
        for place, peer in enumerate(PEERS):
            try:
                theirs = peer.build(known, Path(folder) / f"peer{place}")
            except ImportError:
                yield Row.missing(GROUP, what, peer.name)
                continue
            timing = interleaved(theirs, ours, min(size.rounds, PEER_ROUNDS))
            yield Row(
                GROUP, what, peer.name, min(size.rounds, PEER_ROUNDS), timing.ratio, timing.ours,
                note=f"vectors known beforehand; {peer.note}; our scores are those of the plain functions",
            )  # fmt: skip
        yield from _filtered(known, index, Path(folder) / "filtered", size)


def _check_scores(known: Known, answers: Sequence[tuple[int, Sequence[Hit]]]) -> None:
    """Every hit's scores, against the plain functions on the vectors as they were given."""
    rows = {document.id: row for row, document in enumerate(known.documents)}
    loss = COLBERT_LOSS * (1024 / known.dim) ** 0.5  # the steps of int8 codes grow as rows get shorter
    for number, hits in answers:
        query = known.encode_queries([known.text(number)])
        plain = score(query, known.vectors.take([rows[hit.document.id] for hit in hits]))
        ours = np.array([list(hit.scores.values()) for hit in hits], np.float32)
        must_equal("dense and sparse scores of a search", ours=ours[:, :2].tolist(), plain=plain[:, :2].tolist())
        if np.abs(ours - plain).max() > loss:
            raise NotEqualError(f"ColBERT scores of a search are off by {np.abs(ours - plain).max():.1g}; at most {loss:.1g}")


def _filtered(known: Known, index: M3Index, folder: Path, size: Size) -> Iterator[Row]:
    """The first use of a filter asks Chroma which documents pass; the answer is kept until the index changes."""
    what = f"search under a filter that half of {len(known.documents):,} documents pass"
    fresh = ({"$and": [HALF, {"page": {"$ne": 1000 + number}}]} for number in range(10_000))

    def again(number: int) -> list[Hit]:
        return index.search(known.text(number), K, where=HALF)

    def first(number: int) -> list[Hit]:
        return index.search(known.text(number), K, where=next(fresh))

    must_equal(what, ours=_answers(again(0)), plain=_answers(first(0)))
    if not all(hit.document.metadata["page"] < 50 for hit in again(0)):
        raise NotEqualError(f"{what}: a hit does not pass")
    timing = interleaved(first, again, size.rounds)
    note = "a filter used again is not asked of Chroma again until the index changes"
    yield Row(GROUP, what, "ours, a filter used for the first time", size.rounds, timing.ratio, timing.ours, note=note)
    try:
        theirs = chroma_filtered(known, folder, HALF)
    except ImportError:
        yield Row.missing(GROUP, what, "langchain-chroma, dense only")
        return
    timing = interleaved(theirs, again, size.rounds)
    note = "vectors known beforehand; our filter was used before"
    yield Row(GROUP, what, "langchain-chroma, dense only", size.rounds, timing.ratio, timing.ours, note=note)


def with_a_model(size: Size) -> Iterator[Row]:
    """Queries through the same checkpoint: against the LlamaIndex index for BGE-M3, and several queries at once."""
    from tests.checkpoints import mini_as_folder

    documents = standard_library_documents()
    queries = [document.text.splitlines()[1][:80] for document in documents if len(document.text.splitlines()) > 1]
    documents = documents[:: max(1, len(documents) // size.texts)][: size.texts]
    what = f"search, {len(documents):,} docstrings, mini model, query encoded, k = {K}"
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = mini_as_folder(Path(folder) / "model")
        encoder = BGEM3Encoder(checkpoint, pooling="mean", precision="fp32", max_length=MAX_LENGTH)
        with M3Index.open(Path(folder) / "ours", model=encoder) as index:
            index.add(documents)
            yield _managed(what, index, documents, queries, checkpoint, min(size.rounds, PEER_ROUNDS))
            yield _together(index, queries, size.together, min(size.rounds, TOGETHER_ROUNDS))


def _managed(
    what: str, index: M3Index, documents: Sequence[Document], queries: Sequence[str], checkpoint: Path, rounds: int
) -> Row:
    name = "llama-index-indices-managed-bge-m3"
    try:
        theirs = _managed_step(documents, queries, checkpoint)
    except ImportError:
        return Row.missing(GROUP, what, name)

    def ours(number: int) -> list[Hit]:
        return index.search(queries[number], K)

    shared = [len({hit.document.id for hit in ours(number)} & set(theirs(number))) for number in range(3)]
    timing = interleaved(theirs, lambda number: ours(number + 3), rounds)  # not those whose vectors are kept by now
    note = f"it scores every document in Python and ignores filters; {np.mean(shared):.1f} of the {K} best are the same"
    return Row(GROUP, what, name, rounds, timing.ratio, timing.ours, note=note)


def _managed_step(documents: Sequence[Document], queries: Sequence[str], checkpoint: Path) -> Step:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from llama_index.core.schema import TextNode
        from llama_index.indices.managed.bge_m3 import BGEM3Index

        nodes = [TextNode(id_=document.id, text=document.text) for document in documents]
        index = BGEM3Index(
            nodes, model_name=str(checkpoint), pooling_method="mean", weights_for_different_modes=[0.4, 0.2, 0.4],
            doc_maxlen=MAX_LENGTH, query_maxlen=MAX_LENGTH,
        )  # fmt: skip
    return lambda number: [found.node.node_id for found in index.query(queries[number], top_k=K)]


def _together(index: M3Index, queries: Sequence[str], count: int, rounds: int) -> Row:
    """Each call asks what was not asked before, for the encoder keeps the last queries' vectors."""
    unasked = cycle(reversed(queries))

    def asked() -> list[str]:
        return [next(unasked) for _ in range(count)]

    def together(number: int) -> list[list[Hit]]:
        return index.search_many(asked(), K)

    def alone(number: int) -> list[list[Hit]]:
        return [index.search(query, K) for query in asked()]

    some = asked()
    pairs = zip(index.search_many(some, K), (index.search(query, K) for query in some), strict=True)
    if any(not np.allclose([hit.score for hit in many], [hit.score for hit in one], atol=CLOSE) for many, one in pairs):
        raise NotEqualError("search_many gives other scores than search")
    timing = interleaved(alone, together, rounds)
    what = f"search_many of {count} queries, {len(index):,} docstrings, mini model"
    note = "the same scores; mostly the time of encoding"
    return Row(GROUP, what, f"ours, {count} calls of search", rounds, timing.ratio, timing.ours, note=note)


@contextmanager
def _index(known: Known, folder: Path) -> Iterator[M3Index]:
    store = ChromaStore(folder)
    with M3Index(known, store) as index:
        for start in range(0, len(known.documents), 256):
            store.add(known.documents[start : start + 256], known.vectors[start : start + 256])
        yield index


def _answers(hits: Sequence[Hit]) -> list[tuple[str, float]]:
    return [(hit.document.id, hit.score) for hit in hits]


MEASURES = (known_vectors, with_a_model)
