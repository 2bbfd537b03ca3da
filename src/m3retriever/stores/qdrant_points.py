"""Documents and vectors as points of Qdrant, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from m3retriever.checks import clean_metadata
from m3retriever.errors import InvalidDocumentError, StoreError, shown
from m3retriever.stores.qdrant_filter import NUMBERS, TERMS, numbers, point_id, terms
from m3retriever.types import Document, Mode
from m3retriever.vectors import FloatArray, IntArray, M3Vectors, offsets

if TYPE_CHECKING:
    from qdrant_client import models

DENSE: Mode = "dense"  # names of a point's vectors
SPARSE: Mode = "sparse"
COLBERT: Mode = "colbert"
OUR_ID, TEXT, METADATA, EXACT_METADATA, SIZES, STAMP = "id", "text", "metadata", "metadata_json", "sizes", "stamp"
OF_DOCUMENT = [OUR_ID, TEXT, EXACT_METADATA]
OF_METADATA = [OUR_ID, EXACT_METADATA]

MOST_NUMBERS = (1 << 20) - 1  # of one multi-vector: Qdrant 1.19 refuses 1024 * 1024 (MAX_MULTIVECTOR_FLATTENED_LEN)
REQUEST_BYTES = 32 << 20  # of one REST request, by default (service.max_request_size_mb)
BATCH_BYTES = 8 << 20  # of one upsert: well below, and about 100 long passages
BATCH_POINTS = 256
NUMBER_BYTES = 16  # of a float32 in JSON, but for very small ones: sign, nine digits, point, exponent, comma
POINT_BYTES = 512  # names and brackets of one point, at most
DIGITS = 9  # decimal digits that tell every float32 from the others
POWERS = np.array([float(10**exponent) for exponent in range(23)])  # all exact as doubles


def points(documents: Sequence[Document], vectors: M3Vectors, stamp: Callable[[], int]) -> Iterator[list[models.PointStruct]]:
    """The documents as points, in batches that one request takes; `check_sizes` has let them pass."""
    batch: list[models.PointStruct] = []
    held = 0
    for document, row in zip(documents, vectors, strict=True):
        payload = payload_of(document, row, stamp())
        size = _bytes(payload, row)
        if batch and (held + size > BATCH_BYTES or len(batch) == BATCH_POINTS):
            yield batch
            batch, held = [], 0
        batch.append(_point(document.id, row, payload))
        held += size
    if batch:
        yield batch


def check_sizes(documents: Sequence[Document], vectors: M3Vectors) -> None:
    """InvalidDocumentError for a document that Qdrant does not take, because of its token vectors or as a whole."""
    for document, row in zip(documents, vectors, strict=True):
        most = MOST_NUMBERS // max(1, row.dim)
        if len(row.colbert) > most:
            raise InvalidDocumentError(
                f"document {shown(document.id)}: Qdrant takes at most {most} token vectors of {row.dim} numbers a document; "
                f"got {len(row.colbert)}: cut it into passages (split=True, on the command line --split)"
            )
        if (size := _bytes(payload_of(document, row, 0), row)) > REQUEST_BYTES:
            raise InvalidDocumentError(
                f"document {shown(document.id)}: Qdrant takes at most {REQUEST_BYTES >> 20} MB a request; text, metadata and "
                f"vectors make up to {size / (1 << 20):.1f} MB: cut it into passages (split=True, on the command line --split)"
            )


def payload_of(document: Document, row: M3Vectors, stamp: int) -> dict[str, Any]:
    """What a point says beside its vectors.

    "metadata" is for other clients and for eyes. JSON on the way, and what Qdrant makes of its numbers, may turn a
    float into one beside it: "metadata_json", a text, is what a document is read from.
    """
    metadata = clean_metadata(document.metadata)
    return {
        OUR_ID: document.id,
        TEXT: document.text,
        METADATA: metadata,
        EXACT_METADATA: json.dumps(metadata, ensure_ascii=False),
        TERMS: terms(metadata),
        NUMBERS: numbers(metadata),
        SIZES: [len(row.sparse_ids), len(row.colbert)],
        STAMP: stamp,
    }


def query_of(query: M3Vectors, mode: Mode) -> list[Any]:
    """A query in one mode, as Qdrant takes it; none where it has no vector in this mode, several where it has more tokens
    than one multi-vector holds: their sums over tokens add up."""
    from qdrant_client import models

    if mode == DENSE:
        return [plain_numbers(query.dense[0])]
    if mode == SPARSE:
        if not len(query.sparse_ids):
            return []
        return [models.SparseVector(indices=query.sparse_ids.tolist(), values=plain_numbers(query.sparse_weights))]
    most = max(1, MOST_NUMBERS // max(1, query.dim))
    return [plain_numbers(query.colbert[start : start + most]) for start in range(0, len(query.colbert), most)]


def plain_numbers(values: FloatArray) -> list[Any]:
    """float32 values as Python's floats, which are the same float32 and whose decimals are no longer than that needs.

    The exact value of a float32 has up to 17 digits as a double; nine are enough to find it again. Requests are 40 %
    shorter, and a reader of JSON that is off by a last bit in long numbers, as Rust's serde_json is, reads them rightly.
    """
    exact = np.asarray(values, np.float64)
    size = np.abs(exact)
    usual = (size > 1e-13) & (size < 1e8)  # where the power of ten below is a double exactly
    power = POWERS[(DIGITS - 1 - np.floor(np.log10(np.where(usual, size, 1.0)))).astype(np.int64)]
    numbers: list[Any] = np.where(usual, np.round(exact * power) / power, exact).tolist()
    return numbers


def id_of(payload: Mapping[str, Any] | None) -> str:
    """Our id of a point; StoreError for a point that another client put into the collection."""
    id = (payload or {}).get(OUR_ID)
    if not isinstance(id, str):
        raise StoreError("the collection holds a point that m3retriever did not write: remove it, or use another collection")
    return id


def document_of(payload: Mapping[str, Any] | None) -> Document:
    """A document from its point's payload; its text is empty where the payload was asked for without."""
    id = id_of(payload)
    try:
        metadata = json.loads((payload or {})[EXACT_METADATA])
        return Document(id, (payload or {}).get(TEXT, ""), dict(sorted(metadata.items())))  # as every store gives them
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"the point of document {shown(id)} was changed by another client: add the document again") from error


def sizes_of(payload: Mapping[str, Any] | None) -> list[int]:
    """Number of sparse entries and of token vectors."""
    held = (payload or {}).get(SIZES)
    if not isinstance(held, list) or len(held) != 2:
        raise StoreError(f"the point of document {shown(id_of(payload))} was changed by another client: add it again")
    return [int(held[0]), int(held[1])]


def vectors_of(held: Sequence[Any], dim: int) -> M3Vectors:
    """Vectors from what Qdrant gave for n points, those left out empty."""
    rows = [one if isinstance(one, Mapping) else {} for one in held]
    sparse = [_sparse(row.get(SPARSE)) for row in rows]
    tokens = [np.array(row.get(COLBERT) or [], np.float32).reshape(-1, dim) for row in rows]
    nothing = [0.0] * dim
    return M3Vectors(
        np.array([row.get(DENSE) or nothing for row in rows], np.float32).reshape(-1, dim),
        np.concatenate([np.empty(0, np.int32), *(ids for ids, _ in sparse)]),
        np.concatenate([np.empty(0, np.float32), *(weights for _, weights in sparse)]),
        offsets([len(ids) for ids, _ in sparse]),
        np.concatenate([np.empty((0, dim), np.float32), *tokens]),
        offsets([len(one) for one in tokens]),
    )


def _sparse(held: Any) -> tuple[IntArray, FloatArray]:
    if held is None:
        return np.empty(0, np.int32), np.empty(0, np.float32)
    ids, weights = np.array(held.indices, np.int64), np.array(held.values, np.float32)
    order = np.argsort(ids, kind="stable")
    return ids[order].astype(np.int32), weights[order]


def _point(id: str, row: M3Vectors, payload: dict[str, Any]) -> models.PointStruct:
    from qdrant_client import models

    vector: dict[str, Any] = {DENSE: plain_numbers(row.dense[0])}
    if len(row.sparse_ids):
        vector[SPARSE] = models.SparseVector(indices=row.sparse_ids.tolist(), values=plain_numbers(row.sparse_weights))
    if len(row.colbert):
        vector[COLBERT] = plain_numbers(row.colbert)
    return models.PointStruct(id=point_id(id), vector=vector, payload=payload)


def _bytes(payload: dict[str, Any], row: M3Vectors) -> int:
    """How long a point is as JSON, at most."""
    count = row.dense.size + 2 * len(row.sparse_ids) + row.colbert.size
    return POINT_BYTES + len(json.dumps(payload)) + NUMBER_BYTES * count + 2 * len(row.colbert)
