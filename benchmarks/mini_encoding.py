"""Encoding and scoring of real texts by the mini model, against FlagEmbedding on the same checkpoint, fp32 and all modes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.measuring import NotEqualError, Row, interleaved
from benchmarks.sizes import Size
from m3retriever import BGEM3Encoder
from m3retriever.demo.corpus import standard_library_documents
from m3retriever.scoring import score
from m3retriever.types import Weights

GROUP = "encoding"
MAX_LENGTH = 256
DOCUMENTS, PAIRS = 50, 16
DOCUMENT_ROUNDS = 3
CLOSE = 1e-3  # scores through both: FlagEmbedding's depend on padding


def rows(size: Size) -> Iterator[Row]:
    """A query, some documents, and the scores of pairs."""
    try:
        from FlagEmbedding import BGEM3FlagModel
    except ImportError:
        yield Row.missing(GROUP, "encode, mini model", "FlagEmbedding")
        return
    from tests.checkpoints import mini_as_folder

    texts = [document.text for document in standard_library_documents()]
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = mini_as_folder(Path(folder) / "model")
        flag = BGEM3FlagModel(str(checkpoint), use_fp16=False, devices="cpu", pooling_method="mean")
        encoder = BGEM3Encoder(checkpoint, pooling="mean", precision="fp32", max_length=MAX_LENGTH)
        yield from _encoded(flag, encoder, texts, size)
        yield _scored(flag, encoder, texts, size)


def _encoded(flag: object, encoder: BGEM3Encoder, texts: list[str], size: Size) -> Iterator[Row]:
    def theirs(given: list[str]) -> dict[str, object]:
        return flag.encode(  # type: ignore[attr-defined,no-any-return]
            given, max_length=MAX_LENGTH, return_dense=True, return_sparse=True, return_colbert_vecs=True
        )

    queries, documents = [text.splitlines()[-1][:80] for text in texts], texts[:: max(1, len(texts) // DOCUMENTS)][:DOCUMENTS]
    documents = documents[: size.texts]
    off = float(np.abs(np.asarray(theirs(documents)["dense_vecs"]) - encoder.encode_documents(documents).dense).max())
    if off > CLOSE:
        raise NotEqualError(f"dense vectors differ from FlagEmbedding's by {off:.1g}")
    note = f"the same checkpoint in torch; dense vectors differ by {off:.0e} at most"
    timing = interleaved(
        lambda number: theirs([queries[number]]), lambda number: encoder.encode_documents([queries[number]]), size.rounds
    )
    yield Row(
        GROUP, "encode one query, mini model, fp32", "FlagEmbedding encode", size.rounds, timing.ratio, timing.ours, note=note
    )
    rounds = min(DOCUMENT_ROUNDS, size.rounds)
    timing = interleaved(lambda _: theirs(documents), lambda _: encoder.encode_documents(documents), rounds)
    what = f"encode {len(documents)} docstrings, mini model, fp32"
    yield Row(GROUP, what, "FlagEmbedding encode", rounds, timing.ratio, timing.ours, note=note)


def _scored(flag: object, encoder: BGEM3Encoder, texts: list[str], size: Size) -> Row:
    """One query with several documents, from texts to fused scores."""
    documents, weights = texts[: min(PAIRS, size.texts)], Weights()

    def theirs(number: int) -> list[float]:
        pairs = [(texts[number][:80], document) for document in documents]
        found = flag.compute_score(  # type: ignore[attr-defined]
            pairs, max_passage_length=MAX_LENGTH, weights_for_different_modes=list(weights)
        )
        return list(found["colbert+sparse+dense"])

    def ours(number: int) -> np.ndarray:
        query, vectors = encoder.encode_documents([texts[number][:80]]), encoder.encode_documents(documents)
        return score(query, vectors) @ np.array(tuple(weights.normalized()), np.float32)

    off = float(np.abs(np.array(theirs(0)) - ours(0)).max())
    rounds = min(DOCUMENT_ROUNDS, size.rounds)
    timing = interleaved(theirs, ours, rounds)
    what = f"scores of one query with {len(documents)} texts in all modes, mini model"
    note = f"scores differ by {off:.1g} at most: its ColBERT scores depend on the batch's padding"
    return Row(GROUP, what, "FlagEmbedding compute_score", rounds, timing.ratio, timing.ours, note=note)
