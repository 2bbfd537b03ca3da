"""Keeping Chroma and the payload in step: after a crash, after another client's changes, after a failed write.

Chroma says which documents exist and what their texts are; the payload follows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from m3retriever.stores.connection import Connection
from m3retriever.stores.payload import Payload, text_hash
from m3retriever.stores.snapshot import Pending
from m3retriever.types import Document

logger = logging.getLogger(__name__)

COMPARED_AT_OPEN = 20_000  # documents up to which every id and text is compared at open: a quarter of a second
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
    that have no vectors at all.
    """
    with payload.read() as snapshot:
        count = connection.count()
        if count > COMPARED_AT_OPEN:
            if len(snapshot) == count:
                return []
            return [id for page in _pages(connection) for id, slot in zip(page, snapshot.slots(page), strict=True) if slot < 0]
        found = []
        for page in _pages(connection):
            held = documents(connection, page)
            hashes = snapshot.hashes(page)
            found += [id for id in page if id in held and hashes.get(id) != text_hash(held[id].text)]
        return found


def documents(connection: Connection, ids: Sequence[str]) -> dict[str, Document]:
    """What Chroma holds of these ids."""
    found: dict[str, Document] = {}
    unique = list(dict.fromkeys(ids))
    for start in range(0, len(unique), PAGE):
        got = connection.get(ids=unique[start : start + PAGE], include=["documents", "metadatas"])
        for id, text, metadata in zip(got["ids"], got["documents"], got["metadatas"], strict=True):
            in_order = dict(sorted((metadata or {}).items()))  # Chroma's order of keys changes from call to call
            found[id] = Document(id, text or "", in_order)
    return found


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
