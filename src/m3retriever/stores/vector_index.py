"""Chroma's vector index: whether its files are whole, and how it is made again from the payload.

Chroma writes these files in place. A process that is killed meanwhile may leave them in pieces, and then Chroma
answers nothing at all, or has lost vectors without a word. Every dense vector is in the payload too.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from m3retriever.errors import StoreError
from m3retriever.stores.connection import Connection
from m3retriever.stores.dense import RECORD
from m3retriever.stores.hnsw_files import METADATA, whole
from m3retriever.stores.payload import Payload
from m3retriever.vectors import FloatArray

logger = logging.getLogger(__name__)

SAME_MODEL = 0.95  # cosine of one text's dense vectors: other precisions of a model are above, other models far below
SAME_VECTOR = 0.999  # cosine of two copies, of which one may have been rounded: Chroma's brings in candidates, and is no score
SMALLEST = 1e-12  # instead of a norm of 0
IN_DOUBT = "vector_index"  # in the payload: "in doubt" from before the index is looked at until it is known to be whole
AT_ONCE = 500  # vectors compared and put back at a time


def in_doubt(connection: Connection, payload: Payload) -> bool:
    """Whether the vector index may lack vectors: its files are damaged, or a write or a mending was cut short."""
    with payload.read() as snapshot:
        if not snapshot.settled or snapshot.meta(IN_DOUBT):
            return True
    return damaged(connection)


def damaged(connection: Connection) -> bool:
    """Whether Chroma's files of the vector index are missing or cut short; False where they are not in reach."""
    found = connection.vector_folder()
    if found is None:
        return False
    folder, written = found
    return not whole(folder) if written or (folder / METADATA).exists() else False


def make_readable(connection: Connection, payload: Payload) -> bool:
    """Note that the vector index is in doubt, and drop files that Chroma cannot read: whether it did."""
    payload.set_meta(**{IN_DOUBT: "in doubt"})
    if not damaged(connection):
        return False
    logger.warning("Chroma's vector index is damaged: it is made again from the payload")
    connection.drop_vector_index()
    return True


def make_anew(connection: Connection, payload: Payload) -> None:
    """Give Chroma every dense vector again, in an empty index where its files are ours. The caller holds the right to write."""
    payload.set_meta(**{IN_DOUBT: "in doubt"})
    if connection.owns_engine:
        connection.drop_vector_index()
    refill(connection, payload, anew=True)


def refill(connection: Connection, payload: Payload, *, anew: bool) -> None:
    """Give Chroma every dense vector that it lacks or holds otherwise, all of them `anew` where the index was dropped.

    What is in the payload is settled already. Where some vectors were lost, the graph around them may be too.
    """
    if _put_back(connection, payload, anew=anew) and not anew and connection.vector_folder() is not None:
        connection.drop_vector_index()
        _put_back(connection, payload, anew=True)
    payload.set_meta(**{IN_DOUBT: "", RECORD: ""})


def _put_back(connection: Connection, payload: Payload, *, anew: bool) -> int:
    """Upsert vectors that differ, or all of them; how many."""
    count = 0
    with payload.read() as snapshot:
        ids = snapshot.ids(np.flatnonzero(snapshot.live()))
        for start in range(0, len(ids), AT_ONCE):
            page = ids[start : start + AT_ONCE]
            vectors = snapshot.dense(snapshot.slots(page))
            theirs = {} if anew else vectors_held(connection, page)
            wrong = [row for row, id in enumerate(page) if id not in theirs or not alike(theirs[id], vectors[row])]
            if wrong:
                connection.upsert(ids=[page[row] for row in wrong], embeddings=vectors[wrong])
            count += len(wrong)
    if count:
        logger.warning("%d dense vectors were put back into Chroma's vector index", count)
    return count


def vectors_held(connection: Connection, ids: Sequence[str]) -> dict[str, FloatArray]:
    """The dense vectors that Chroma holds; of ids whose vector it has lost, none."""
    if not ids:
        return {}
    try:
        got = connection.get(ids=list(ids), include=["embeddings"])
    except StoreError:
        if len(ids) == 1:
            return {}
        middle = len(ids) // 2
        return vectors_held(connection, ids[:middle]) | vectors_held(connection, ids[middle:])
    return {id: np.asarray(vector, np.float32) for id, vector in zip(got["ids"], got["embeddings"], strict=True)}


def alike(left: FloatArray, right: FloatArray) -> bool:
    """Whether two vectors, (d,) each, are copies of one."""
    return left.shape == right.shape and cosine(left, right) >= SAME_VECTOR


def cosine(left: FloatArray, right: FloatArray) -> float:
    """Of two vectors, (d,) each; 0 where one has no length."""
    return float(left @ right / max(float(np.linalg.norm(left) * np.linalg.norm(right)), SMALLEST))
