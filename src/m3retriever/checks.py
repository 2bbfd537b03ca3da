"""What every store refuses before it changes anything: one clear error, and the batch is untouched."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, time
from enum import Enum
from os import PathLike, fsencode
from pathlib import Path
from typing import Any

import numpy as np

from m3retriever.errors import EncoderMismatchError, InvalidArgumentError, InvalidDocumentError, InvalidVectorsError, shown
from m3retriever.types import MAX_DEPTH, Document
from m3retriever.vectors import M3Vectors

INT64 = range(-(2**63), 2**63)
RESERVED_PREFIX = "chroma:"  # of keys that Chroma keeps for itself, and does not give back
MOST_VALUES = 5_000  # of one document's metadata: beyond 5,460 Chroma 1.5 takes the write, fails to apply it, and every
# later call on the collection fails with it (SQLite's 32,766 variables, six a value)

REMEDIES: tuple[tuple[type | tuple[type, ...], str], ...] = (  # for values that cannot be stored as they are
    (Enum, "value.value"),
    (np.generic, "value.item()"),
    (np.ndarray, "value.tolist()"),
    ((date, time), "value.isoformat()"),
    ((tuple, set, frozenset), "list(value)"),
    ((list, Mapping), "json.dumps(value)"),
)


def check_documents(documents: Sequence[Document]) -> None:
    """Refuse ids, texts and metadata that cannot be stored faithfully, and ids that come twice."""
    for place, document in enumerate(documents):
        if not isinstance(document, Document):
            raise InvalidDocumentError(f"want Document objects; got {type(document).__name__} at place {place}")
        if not isinstance(document.id, str) or not document.id:
            raise InvalidDocumentError(f"a document's id must be a non-empty str; got {shown(document.id)} at place {place}")
        _check_unicode(f"the id {shown(document.id)}", document.id)
        if not isinstance(document.text, str):
            raise InvalidDocumentError(f"document {shown(document.id)}: text must be a str; got {type(document.text).__name__}")
        _check_unicode(f"the text of document {shown(document.id)}", document.text)
        _check_metadata(document)
    twice = [id for id, count in Counter(document.id for document in documents).items() if count > 1]
    if twice:
        raise InvalidDocumentError(
            f"ids must be unique within one call; {shown(twice[0])} comes more than once ({len(twice)} such ids)"
        )


def check_vectors(documents: Sequence[Document], vectors: M3Vectors, dim: int | None) -> None:
    """Refuse vectors that do not belong to the documents: number, dimension, values not finite. What is wrong with
    one document's vectors is said with its id."""
    if not isinstance(vectors, M3Vectors):
        raise InvalidVectorsError(f"want M3Vectors; got {type(vectors).__name__}")
    if len(documents) != len(vectors):
        raise InvalidVectorsError(f"want one row of vectors a document; got {len(documents)} and {len(vectors)}")
    if dim is not None and len(documents) and vectors.dim != dim:
        raise EncoderMismatchError(
            f"this index holds vectors of dimension {dim}; got {vectors.dim}: use the model it was made with"
        )
    for name in ("dense", "sparse_weights", "colbert"):
        values = getattr(vectors, name)
        with np.errstate(all="ignore"):
            if np.isfinite(values.sum()):  # what is not finite stays so in a sum: a third of the time of looking at each
                continue
        broken = ~np.isfinite(values)
        if broken.any():
            where = _of_row(documents, vectors, name, int(np.argwhere(broken)[0, 0]))
            raise InvalidVectorsError(
                f"{where}: {name} must be finite; got {int(broken.sum())} values that are NaN or infinite"
            )
    negative = (vectors.sparse_weights < 0) | (vectors.sparse_ids < 0)
    if negative.any():
        where = _of_row(documents, vectors, "sparse_weights", int(np.argmax(negative)))
        raise InvalidVectorsError(f"{where}: sparse ids and weights must be >= 0")
    rows = np.repeat(np.arange(len(vectors)), np.diff(vectors.sparse_offsets))
    falling = (np.diff(rows) == 0) & (np.diff(vectors.sparse_ids) <= 0)
    if falling.any():
        where = _of_row(documents, vectors, "sparse_ids", int(np.argmax(falling)))
        raise InvalidVectorsError(f"{where}: sparse ids must ascend within a text; use M3Vectors.from_rows")


def _of_row(documents: Sequence[Document], vectors: M3Vectors, name: str, row: int) -> str:
    """The document that a row of `dense`, of `colbert` or of the sparse entries belongs to, in words."""
    if name != "dense":
        offsets = vectors.colbert_offsets if name == "colbert" else vectors.sparse_offsets
        row = int(np.searchsorted(offsets, row, side="right")) - 1
    return f"the vectors of document {shown(documents[row].id)}"


def check_query(query: M3Vectors, dim: int | None) -> None:
    """A query is one row of vectors, of the index's dimension."""
    if len(query) != 1:
        raise InvalidArgumentError(f"a search takes the vectors of one query; got {len(query)}")
    if dim is not None and query.dim != dim:
        raise EncoderMismatchError(f"this index holds vectors of dimension {dim}; the query has {query.dim}")
    if not all(np.isfinite(part).all() for part in (query.dense, query.sparse_weights, query.colbert)):
        raise InvalidVectorsError("a query's vectors must be finite")
    tokens = query.sparse_ids
    if (query.sparse_weights < 0).any() or (tokens < 0).any() or (tokens[1:] <= tokens[:-1]).any():
        raise InvalidVectorsError("a query's sparse ids must ascend, and they and the weights must be >= 0")


def check_encoded(vectors: M3Vectors, count: int) -> M3Vectors:
    """What an encoder gave for so many texts, as it is."""
    if not isinstance(vectors, M3Vectors) or len(vectors) != count:
        got = str(len(vectors)) if isinstance(vectors, M3Vectors) else type(vectors).__name__
        raise InvalidVectorsError(f"an encoder gives M3Vectors with a row for each of {count} texts; got {got}")
    return vectors


def check_depth(depth: int) -> None:
    """Candidates a mode, >= 1."""
    check_k(depth, "depth")


def check_k(k: int, name: str = "k") -> None:
    """How many hits are wanted, >= 1 and at most MAX_DEPTH, which is more than any index holds."""
    if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
        raise InvalidArgumentError(f"{name} must be an integer >= 1; got {shown(k)}")
    if k > MAX_DEPTH:
        raise InvalidArgumentError(f"{name} must be at most {MAX_DEPTH}; got {shown(k)}")


def as_path(given: object, wanted: str) -> Path:
    """A str or a Path as a Path; InvalidArgumentError, which says what was wanted, where no file can have such a name."""
    try:
        if isinstance(given, str | PathLike) and str(given) and b"\0" not in fsencode(given):
            return Path(given)
    except UnicodeEncodeError:
        pass
    raise InvalidArgumentError(f"{wanted}; got {shown(given)}")


def listed_ids(ids: Sequence[str]) -> list[str]:
    """The ids as a list; a single str, which is a sequence of str too, is refused."""
    if isinstance(ids, str):
        raise InvalidArgumentError(f"ids is a list of str; got the str {shown(ids)}: write [{shown(ids)}]")
    if not isinstance(ids, Iterable):
        raise InvalidArgumentError(f"ids is a list of str; got {shown(ids)}")
    ids = list(ids)
    if wrong := [id for id in ids if not isinstance(id, str)]:
        raise InvalidArgumentError(f"ids is a list of str; got {shown(wrong[0])} among them")
    return ids


def clean_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata as it is stored: without the keys whose value is None."""
    return {key: list(value) if isinstance(value, list) else value for key, value in metadata.items() if value is not None}


def _check_unicode(what: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidDocumentError(
            f"{what} holds a lone surrogate at character {error.start}, which is no text; "
            "replace it: text.encode('utf-8', 'replace').decode()"
        ) from None


def _check_metadata(document: Document) -> None:
    if not isinstance(document.metadata, Mapping):
        raise InvalidDocumentError(f"document {shown(document.id)}: metadata must be a mapping; got {shown(document.metadata)}")
    count = 0
    for key, value in document.metadata.items():
        where = f"document {shown(document.id)}, metadata key {shown(key)}"
        if not isinstance(key, str) or not key or key[0] in "#$" or key.startswith(RESERVED_PREFIX):
            raise InvalidDocumentError(
                f"{where}: a key must be a non-empty str that does not begin with #, $ or {RESERVED_PREFIX}"
            )
        _check_unicode(where, key)
        if isinstance(value, list):
            if not value or len({type(one) for one in value}) != 1:
                raise InvalidDocumentError(f"{where}: a list must be non-empty and of one type; got {shown(value)}")
            for one in value:
                _check_value(where, one)
        elif value is not None:
            _check_value(where, value)
        count += len(value) if isinstance(value, list) else value is not None
        if count > MOST_VALUES:
            raise InvalidDocumentError(f"{where}: a document has at most {MOST_VALUES} metadata values, those in lists counted")


def _check_value(where: str, value: Any) -> None:
    if type(value) not in (str, int, float, bool):  # numpy's scalars and subclasses do not come back as they went
        kind = type(value)
        got = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        remedy = next((remedy for kinds, remedy in REMEDIES if isinstance(value, kinds)), "str(value)")
        raise InvalidDocumentError(
            f"{where}: a value must be str, int, float, bool or a list of one of them; got {got}: write {remedy}"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidDocumentError(f"{where}: a number must be finite; got {value}")
    if type(value) is int and value not in INT64:
        raise InvalidDocumentError(f"{where}: an int must fit 64 bits; got {shown(value)}")
    if isinstance(value, str):
        _check_unicode(where, value)
