"""Keeping Chroma and the payload in step: after a crash, after another client's changes, after a failed write.

Chroma says which documents exist and what their texts are; the payload follows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from m3retriever.errors import DamagedIndexError, EncoderMismatchError, shown
from m3retriever.stores import vector_index
from m3retriever.stores.connection import Connection
from m3retriever.stores.database import how_to_mend
from m3retriever.stores.payload import Payload, metadata_hash, text_hash
from m3retriever.stores.snapshot import Pending, Row, Snapshot
from m3retriever.stores.vector_index import SAME_MODEL, SAME_VECTOR, cosine, vectors_held
from m3retriever.types import Document
from m3retriever.vectors import M3Vectors

logger = logging.getLogger(__name__)

COMPARED_AT_OPEN = 20_000  # documents up to which every id and text is compared at open: a quarter of a second
UNDER_WAY = 0.5  # seconds that a server may go on with what a client had sent that has died since: a tenth was seen
STAMP = "stamp"  # what the server said when it was last followed; see `Connection.stamp`
PAGE = 5_000  # ids a call; Chroma takes at most 5461


def disagree(connection: Connection, payload: Payload) -> bool:
    """Whether there is something for `make_agree` to do."""
    if vector_index.in_doubt(connection, payload):
        return True
    with payload.read() as snapshot:
        if snapshot.meta("collection") != str(connection.collection.id):
            return True
        if connection.remote and connection.stamp() != snapshot.meta(STAMP):
            return True
        count = connection.count()
        if len(snapshot) > COMPARED_AT_OPEN or count > COMPARED_AT_OPEN:
            return len(snapshot) > count
        held = {id for page in _pages(connection) for id in page}
        return any(row.id not in held for _, row in snapshot.all_rows())


def make_agree(connection: Connection, payload: Payload) -> None:
    """Settle what is pending and drop what Chroma does not hold. The caller holds the right to write."""
    connection.renew()
    in_doubt = vector_index.in_doubt(connection, payload)
    dropped = in_doubt and vector_index.make_readable(connection, payload)
    with payload.read() as snapshot:
        known = snapshot.meta("collection")
    if known not in (None, str(connection.collection.id)):
        logger.warning("the collection was made anew: its payload is dropped")
        payload.clear()
    with payload.read() as snapshot:
        pending = snapshot.pending()
    if pending and connection.remote:
        time.sleep(UNDER_WAY)
    settle(connection, payload, pending)
    _drop_orphans(connection, payload)
    if in_doubt:
        vector_index.refill(connection, payload, anew=dropped)
    if known != str(connection.collection.id):
        payload.set_meta(collection=str(connection.collection.id))


def settle(connection: Connection, payload: Payload, staged: Sequence[Pending]) -> None:
    """Publish staged writes that Chroma holds, discard the others."""
    if staged:
        connection.work_through_log()
    held = documents(connection, [entry.id for entry in staged])
    done = [_as_held(entry, held.get(entry.id)) for entry in staged if _arrived(entry, held.get(entry.id))]
    payload.publish(done)
    settled = {entry.slot for entry in done}
    payload.discard([entry for entry in staged if entry.slot not in settled])


@dataclass(frozen=True)
class Differences:
    """What Chroma holds otherwise than the payload knows it.

    Attributes
    ----------
    texts : ids whose vectors are not those of the text, or that have none
    metadata : the hashes of metadata that another client changed, by id
    damaged : ids whose text or metadata is another one, and that nobody changed through Chroma
    """

    texts: list[str] = field(default_factory=list)
    metadata: dict[str, bytes] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)

    def refuse_damage(self, payload: Payload) -> None:
        """DamagedIndexError where a document is damaged."""
        if self.damaged:
            raise DamagedIndexError(
                f"the text or metadata of {len(self.damaged)} documents are not what was written, and nobody changed them: "
                f"{', '.join(map(shown, self.damaged[:5]))}; {how_to_mend(payload.path)}",
                problem="text",
                ids=self.damaged,
            )


def differences(connection: Connection, payload: Payload) -> Differences:
    """What other clients changed, or a failing disk.

    In a collection of more than COMPARED_AT_OPEN documents, only where the numbers differ, or another of our writers has
    been at the server, and only ids that have no vectors at all. Records without a text cannot be encoded and are left alone.
    """
    with payload.read() as snapshot:
        count, found = connection.count(), Differences()
        if count > COMPARED_AT_OPEN:
            if len(snapshot) != count or (connection.remote and connection.stamp() != snapshot.meta(STAMP)):
                for page in _pages(connection):
                    rows = snapshot.rows_of(page)
                    texts = _texts(connection, [id for id in page if id not in rows])
                    found.texts.extend(id for id, text in texts.items() if text is not None)
            return found
        for held, with_text in _with_texts(connection):
            rows = snapshot.rows_of([document.id for document in held])
            found.texts.extend(id for id in with_text if id not in rows)
            _compare(held, rows, snapshot.position(), connection, found)
        return found


def known_position(connection: Connection, payload: Payload) -> int | None:
    """The number of Chroma's last change, where every change up to it is known, so that text which no longer fits its
    vectors is damage; else None.

    Where another client has changed something, or a write was cut short, all is compared once, if there is not too much.
    The caller holds the right to write.
    """
    with payload.read() as snapshot:
        known, empty = snapshot.position(), not len(snapshot)
    now = connection.position()  # before anything is compared: what changes from here on is not known
    if now is None or now == known or (known is None and empty):
        return now
    if connection.count() > COMPARED_AT_OPEN:
        return None
    found = differences(connection, payload)
    if found.texts or found.damaged:
        return None
    payload.note(found.metadata, now)
    return now


def position_after(connection: Connection, payload: Payload, staged: Sequence[Pending], position: int) -> int | None:
    """The number of Chroma's last change, where since `position` there was none but these writes; else None.

    Each document takes the next number, unless another collection of the folder took some: then the changes are counted.
    """
    now = connection.position()
    if now is None or now == position + len(staged):
        return now
    added = [entry.id for entry in staged if entry.action == "add"]
    with payload.read() as snapshot:
        replaced = int((snapshot.slots(added) >= 0).sum())
        expected = len(snapshot) + len(added) - replaced - (len(staged) - len(added))
    if expected > COMPARED_AT_OPEN or connection.count() != expected or connection.tables is None:
        return None
    return now if connection.tables.changed_since(position) == len(added) else None


def compare(documents: Sequence[Document], snapshot: Snapshot, connection: Connection) -> Differences:
    """The same of some documents as Chroma gave them."""
    found = Differences()
    _compare(documents, snapshot.rows_of([one.id for one in documents]), snapshot.position(), connection, found)
    return found


def _compare(
    documents: Sequence[Document], rows: Mapping[str, Row], position: int | None, connection: Connection, found: Differences
) -> None:
    texts, metadata = [], {}
    for document in documents:
        if (row := rows.get(document.id)) is None:
            continue
        if row.hash != text_hash(document.text):
            texts.append(document.id)
        if row.metadata != (held := metadata_hash(document.metadata)):
            metadata[document.id] = held
    other = [*dict.fromkeys([*texts, *(id for id in metadata if any(rows[id].metadata))])]
    damaged = _untouched(connection, position, other)
    found.texts.extend(id for id in texts if id not in damaged)
    found.metadata.update({id: held for id, held in metadata.items() if id not in damaged})
    found.damaged.extend(id for id in other if id in damaged)


def _untouched(connection: Connection, position: int | None, ids: Sequence[str]) -> set[str]:
    """Those that are there and that nobody has changed through Chroma since our last write; none where that cannot be told.

    Asked after the documents were read: what another thread has changed or deleted since is not among them.
    """
    if not ids or position is None or connection.tables is None:
        return set()
    return connection.tables.untouched_since(position, ids) or set()


def adopt(
    connection: Connection, payload: Payload, ids: Sequence[str], vectors: M3Vectors, *, ours: bool, correct: bool = True
) -> None:
    """Give vectors to documents that Chroma holds already; their texts and metadata stay as they are.

    Dense vectors in Chroma are corrected only in an index of ours, and where that is allowed (`correct`); in someone
    else's collection they are another model's, and an EncoderMismatchError says so before anything is changed.
    """
    got = connection.get(ids=list(ids), include=["documents", "metadatas"])
    place = {id: row for row, id in enumerate(got["ids"])}
    rows = [row for row, id in enumerate(ids) if id in place]  # the others have gone meanwhile
    ids, vectors = [ids[row] for row in rows], vectors.take(rows)
    theirs = vectors_held(connection, ids)
    lost = [row for row, id in enumerate(ids) if id not in theirs]
    least = SAME_VECTOR if ours else SAME_MODEL
    other = [row for row, id in enumerate(ids) if id in theirs and cosine(theirs[id], vectors.dense[row]) < least]
    if other and not ours:
        raise EncoderMismatchError(
            f"the collection {connection.collection.name!r} holds dense vectors of another model ({len(other)} of {len(ids)} "
            "compared differ): open it with that model, or index its texts into another collection or folder"
        )
    held = {document.id: document for document in _as_documents(got)}
    staged = payload.stage([held[id] for id in ids], vectors)
    if other and correct:
        connection.update(ids=[ids[row] for row in other], embeddings=vectors.dense[other])
    if lost and correct:
        connection.upsert(ids=[ids[row] for row in lost], embeddings=vectors.dense[lost])
    payload.publish(staged)


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


def _with_texts(connection: Connection) -> Iterator[tuple[list[Document], list[str]]]:
    """All documents a page at a time, and the ids of those that have a text."""
    start = 0
    while (got := connection.get(limit=PAGE, offset=start, include=["documents", "metadatas"]))["ids"]:
        yield _as_documents(got), [id for id, text in zip(got["ids"], got["documents"], strict=True) if text is not None]
        start += len(got["ids"])


def _texts(connection: Connection, ids: Sequence[str]) -> dict[str, str | None]:
    if not ids:
        return {}
    got = connection.get(ids=list(ids), include=["documents"])
    return dict(zip(got["ids"], got["documents"], strict=True))


def _drop_orphans(connection: Connection, payload: Payload) -> None:
    held = {id for page in _pages(connection) for id in page}
    with payload.read() as snapshot:
        orphans = [row.id for _, row in snapshot.all_rows() if row.id not in held]
        known, now = snapshot.position(), connection.position()
    if orphans and known is not None and now is not None and now <= known:
        raise DamagedIndexError(
            f"{len(orphans)} documents are no longer in Chroma and nobody deleted them ({', '.join(map(shown, orphans[:5]))}): "
            f"restore the folder from a copy, or lose them; {how_to_mend(payload.path)}",
            problem="entries",
            ids=sorted(orphans),
        )
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


def as_held(connection: Connection, staged: Sequence[Pending]) -> list[Pending]:
    """Staged documents with the hashes of their metadata as Chroma gives it back."""
    held = documents(connection, [entry.id for entry in staged])
    return [_as_held(entry, held.get(entry.id)) for entry in staged]


def _as_held(entry: Pending, held: Document | None) -> Pending:
    """Of a write of the same text with other metadata it is unknown whether it came that far: what Chroma holds counts."""
    return entry if held is None else replace(entry, metadata=metadata_hash(held.metadata))
