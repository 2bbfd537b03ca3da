"""Keeping Chroma and the payload in step: after a crash, after another client's changes, after a failed write.

Chroma says which documents exist and what their texts are; the payload follows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from m3retriever.errors import EncoderMismatchError
from m3retriever.stores.connection import Connection
from m3retriever.stores.payload import Payload, text_hash
from m3retriever.stores.snapshot import Pending
from m3retriever.types import Document
from m3retriever.vectors import FloatArray, M3Vectors

logger = logging.getLogger(__name__)

COMPARED_AT_OPEN = 20_000  # documents up to which every id and text is compared at open: a quarter of a second
SAME_MODEL = 0.95  # cosine of one text's dense vectors: other precisions of a model are above, other models far below
SMALLEST = 1e-12  # instead of a norm of 0
PAGE = 5_000  # ids a call; Chroma takes at most 5461


def disagree(connection: Connection, payload: Payload) -> bool:
    """Whether there is something for `make_agree` to do."""
    with payload.read() as snapshot:
        if not snapshot.settled or snapshot.meta("collection") != str(connection.collection.id):
            return True
        count = connection.count()
        if len(snapshot) > COMPARED_AT_OPEN or count > COMPARED_AT_OPEN:
            return len(snapshot) > count
        held = {id for page in _pages(connection) for id in page}
        return not held.issuperset(snapshot.all_ids())


def make_agree(connection: Connection, payload: Payload) -> None:
    """Settle what is pending and drop what Chroma does not hold. The caller holds the right to write."""
    connection.renew()
    with payload.read() as snapshot:
        known = snapshot.meta("collection")
    if known not in (None, str(connection.collection.id)):
        logger.warning("the collection was made anew: its payload is dropped")
        payload.clear()
    with payload.read() as snapshot:
        pending = snapshot.pending()
    settle(connection, payload, pending)
    _drop_orphans(connection, payload)
    if known != str(connection.collection.id):
        payload.set_meta(collection=str(connection.collection.id))


def settle(connection: Connection, payload: Payload, staged: Sequence[Pending]) -> None:
    """Publish staged writes that Chroma holds, discard the others."""
    held = documents(connection, [entry.id for entry in staged])
    done = [entry for entry in staged if _arrived(entry, held.get(entry.id))]
    payload.publish(done)
    payload.discard([entry for entry in staged if entry not in done])


def missing(connection: Connection, payload: Payload) -> list[str]:
    """Ids whose vectors are not those of the text that Chroma holds: another client added or changed them.

    In a collection of more than COMPARED_AT_OPEN documents, only where the numbers differ, and only ids
    that have no vectors at all. Records without a text cannot be encoded and are left alone.
    """
    with payload.read() as snapshot:
        count = connection.count()
        if count > COMPARED_AT_OPEN and len(snapshot) == count:
            return []
        found: list[str] = []
        for page in _pages(connection):
            hashes = snapshot.hashes(page)
            asked = page if count <= COMPARED_AT_OPEN else [id for id in page if id not in hashes]
            texts = _texts(connection, asked)
            found += [id for id, text in texts.items() if text is not None and hashes.get(id) != text_hash(text)]
        return found


def adopt(connection: Connection, payload: Payload, ids: Sequence[str], vectors: M3Vectors, *, ours: bool) -> None:
    """Give vectors to documents that Chroma holds already; their texts and metadata stay as they are.

    Dense vectors in Chroma are corrected only in an index of ours; in someone else's collection they are
    another model's, and an EncoderMismatchError says so before anything is changed.
    """
    got = connection.get(ids=list(ids), include=["documents", "embeddings"])
    place = {id: row for row, id in enumerate(got["ids"])}
    rows = [row for row, id in enumerate(ids) if id in place]  # the others have gone meanwhile
    ids, vectors = [ids[row] for row in rows], vectors.take(rows)
    theirs = np.array([got["embeddings"][place[id]] for id in ids], np.float32).reshape(len(ids), -1)
    other = [row for row in range(len(ids)) if _cosine(theirs[row], vectors.dense[row]) < SAME_MODEL]
    if other and not ours:
        raise EncoderMismatchError(
            f"the collection {connection.collection.name!r} holds dense vectors of another model ({len(other)} of {len(ids)} "
            "compared differ): open it with that model, or index its texts into another collection or folder"
        )
    staged = payload.stage(ids, [text_hash(got["documents"][place[id]] or "") for id in ids], vectors)
    if other:
        connection.update(ids=[ids[row] for row in other], embeddings=vectors.dense[other])
    payload.publish(staged)


def _cosine(left: FloatArray, right: FloatArray) -> float:
    return float(left @ right / max(float(np.linalg.norm(left) * np.linalg.norm(right)), SMALLEST))


def documents(connection: Connection, ids: Sequence[str]) -> dict[str, Document]:
    """What Chroma holds of these ids."""
    found: dict[str, Document] = {}
    unique = list(dict.fromkeys(ids))
    for start in range(0, len(unique), PAGE):
        got = connection.get(ids=unique[start : start + PAGE], include=["documents", "metadatas"])
        found |= {document.id: document for document in _as_documents(got)}
    return found


def all_documents(connection: Connection, *, texts: bool, **narrowed: Any) -> Iterator[list[Document]]:
    """All that Chroma holds, or what passes `where` and `where_document`, a page at a time; texts may be left out."""
    start, include = 0, ["documents", "metadatas"] if texts else ["metadatas"]
    while page := _as_documents(connection.get(**narrowed, limit=PAGE, offset=start, include=include)):
        yield page
        start += len(page)


def _as_documents(got: Mapping[str, Any]) -> list[Document]:
    columns = zip(got["ids"], got["documents"] or [None] * len(got["ids"]), got["metadatas"], strict=True)
    # sorted, for Chroma's order of keys changes from call to call
    return [Document(id, text or "", dict(sorted((metadata or {}).items()))) for id, text, metadata in columns]


def _texts(connection: Connection, ids: Sequence[str]) -> dict[str, str | None]:
    if not ids:
        return {}
    got = connection.get(ids=list(ids), include=["documents"])
    return dict(zip(got["ids"], got["documents"], strict=True))


def _drop_orphans(connection: Connection, payload: Payload) -> None:
    held = {id for page in _pages(connection) for id in page}
    with payload.read() as snapshot:
        orphans = [id for id in snapshot.all_ids() if id not in held]
    if orphans:
        logger.warning("%d documents are no longer in Chroma: their vectors are dropped", len(orphans))
        payload.remove(orphans)


def _pages(connection: Connection) -> Iterator[list[str]]:
    """All ids that Chroma holds, a page at a time."""
    start = 0
    while page := connection.get(limit=PAGE, offset=start, include=[])["ids"]:
        yield page
        start += len(page)


def _arrived(entry: Pending, held: Document | None) -> bool:
    """Whether Chroma shows the outcome of a staged write. Vectors depend on the text alone."""
    if entry.action == "delete":
        return held is None
    return held is not None and text_hash(held.text) == entry.hash
