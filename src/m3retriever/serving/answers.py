"""What is sent back, made of vectors: plain functions, which run in threads of the service."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt

from m3retriever.calibration import calibration_of
from m3retriever.index import M3Index
from m3retriever.ranking import Ranking, SearchMode
from m3retriever.report import explanation_json, search_json, used_weights
from m3retriever.reranking import rerank
from m3retriever.scoring import score
from m3retriever.serving.asked import Prepared, asked
from m3retriever.serving.batching import Encoded
from m3retriever.serving.opening import Served
from m3retriever.serving.schemas import (
    EmbeddingsRequest,
    EncodeRequest,
    ExplainRequest,
    RerankRequest,
    Searching,
    SearchRequest,
)
from m3retriever.types import MODES, FloatArray, M3Vectors, ModeScores, Profile, Weights
from m3retriever.wire import COLUMNS, to_columns, to_rows

Content = dict[str, Any]
HYBRID: SearchMode = "hybrid"
NUMBER = 24  # bytes of a float32 in JSON at most: -1.2345678806304932e-05 and a comma
WEIGHT = 40  # bytes of a token's weight: its id, quoted, and the number
AROUND = 1 << 10  # bytes around a text's views


def bytes_of(body: EncodeRequest, vectors: M3Vectors) -> int:
    """How long the answer to a request gets, at most."""
    if body.encoding_format == "columns":
        arrays: list[npt.NDArray[Any]] = [getattr(vectors, name) for name in COLUMNS]
        return AROUND * (1 + len(vectors)) + sum(array.nbytes for array in arrays) * 4 // 3
    sizes = {
        "dense": NUMBER * vectors.dense.size,
        "sparse": WEIGHT * vectors.sparse_ids.size,
        "colbert": (NUMBER + 1) * vectors.colbert.size,  # the brackets of a token
    }
    return AROUND * (1 + len(vectors)) + sum(sizes[mode] for mode in set(body.modes or MODES))


def encoded(served: Served, body: EncodeRequest, given: Encoded) -> Content:
    """The views of texts, as rows or as columns."""
    vectors = given.vectors
    if body.encoding_format == "columns":
        views: Content = {"vectors": to_columns(vectors)}
    else:
        views = {"data": to_rows(vectors, [mode for mode in MODES if mode in (body.modes or MODES)])}
    return {
        "model": served.encoder.name,
        "dim": vectors.dim,
        "precision": served.precision,
        "n": len(vectors),
        "encoding_format": body.encoding_format,
        **views,
        "truncated": given.truncated,
    }


def tokenized(served: Served, tokenize: Callable[[str], Sequence[Any]], text: str) -> Content:
    """A text's tokens."""
    return {"model": served.encoder.name, "tokens": [token._asdict() for token in tokenize(text)]}


def compared(served: Served, pairs: Sequence[Sequence[str]], given: Sequence[Encoded]) -> Content:
    """What each pair scores; `given` holds a query's and a document's vectors for each, in turn."""
    profile = served.profile
    results = [
        _pair(profile, query, score(asking.vectors, held.vectors))
        for (query, _), asking, held in zip(pairs, given[::2], given[1::2], strict=True)
    ]
    return {"model": served.encoder.name, "results": results}


def _pair(profile: Profile, query: str, values: FloatArray) -> Content:
    """One pair, of its raw scores (1, 3): those that `rerank` gives for this one text."""
    raw = ModeScores(("",), values, query=query)
    fused = float(Ranking.of(profile, HYBRID, None, None).fuse(raw)[0])
    meaning, least = calibration_of(profile, HYBRID), profile.thresholds.get(HYBRID)
    return {
        "scores": raw.of(0),
        "score": fused,
        "probability": None if meaning is None else meaning.probability(fused),
        "level": None if meaning is None else meaning.level(fused),
        "relevant": None if least is None else fused >= least,
    }


def found(index: M3Index, body: SearchRequest, query: M3Vectors) -> Content:
    """The hits of a search."""
    profile, settings = index.profile, _settings(body)
    asked.set(query)
    hits = index.search(body.query, body.k, profile=profile, **settings)
    weights = profile.weights if settings["weights"] is None else Weights.of(settings["weights"])
    return search_json(body.query, body.mode, used_weights(body.mode, weights), hits)


def explained(index: M3Index, body: ExplainRequest, query: M3Vectors) -> Content:
    """Why a document has its place."""
    asked.set(query)
    return explanation_json(index.explain(body.query, body.id, k=body.k, **_settings(body)))


def _settings(body: Searching) -> Content:
    return {name: getattr(body, name) for name in ("mode", "weights", "threshold", "where", "where_document")}


def reranked(served: Served, body: RerankRequest, query: M3Vectors, documents: M3Vectors) -> Content:
    """Texts in the order of their scores."""
    prepared = Prepared(served.encoder, query, documents)
    results = [
        {
            "index": one.place,
            "relevance_score": one.score,
            "scores": dict(one.scores),
            "probability": one.probability,
            **({"document": body.documents[one.place]} if body.return_documents else {}),
        }
        for one in rerank(prepared, body.query, body.documents, k=body.top_n, profile=served.profile)
    ]
    return {"model": served.encoder.name, "results": results}


def embedded(served: Served, body: EmbeddingsRequest, vectors: M3Vectors) -> Content:
    """Dense vectors as OpenAI sends them."""
    plain = body.encoding_format == "float"
    tokens = int(vectors.colbert_offsets[-1])
    return {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": place,
                "embedding": row.tolist() if plain else base64.b64encode(row.astype("<f4").tobytes()).decode("ascii"),
            }
            for place, row in enumerate(vectors.dense)
        ],
        "model": served.encoder.name,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
