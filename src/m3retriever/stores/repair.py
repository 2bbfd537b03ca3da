"""Mending an index: what is kept twice is taken from the whole copy, vectors are encoded again from texts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from m3retriever.errors import DamagedIndexError
from m3retriever.stores import agreement
from m3retriever.stores.payload import Payload, metadata_hash, text_hash

if TYPE_CHECKING:
    from m3retriever.stores.connection import Connection
    from m3retriever.stores.verify import Verdict
    from m3retriever.vectors import FloatArray, M3Vectors

logger = logging.getLogger(__name__)

AT_ONCE = 256  # documents
SETTINGS = ("model", "source", "dim", "revision", "collection")


def mend_payload(folder: Path) -> None:
    """Make a payload readable that nobody has open; the caller holds the right to write.

    What is not whole is dropped, and what is made of others made anew. One that cannot be read at all, or does
    not say any more which model it is of, is moved aside, to a folder beside it: nothing is deleted.
    """
    try:
        with closing(Payload(folder, None, mending=True)) as payload:
            with payload.read() as snapshot:
                for name in SETTINGS:
                    snapshot.meta(name)  # raises where it is not whole
            payload.mend()
    except DamagedIndexError as error:
        aside = folder.with_name(f"{folder.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
        logger.warning("%s: moved to %s, every document is encoded again", error, aside)
        folder.rename(aside)


def mend(payload: Payload, connection: Connection, verdict: Verdict, encode: Callable[[Sequence[str]], M3Vectors]) -> None:
    """Mend what a verdict says, of an index that can be read. The caller holds the right to write."""
    if verdict.has("derived", "values", "entries"):
        payload.mend()
        agreement.make_agree(connection, payload)
    _restore_texts(payload, connection, verdict.ids("text"))
    differing = agreement.differences(connection, payload)
    stale = [*verdict.ids("without vectors", "text", "entries"), *differing.texts, *differing.damaged]
    for page in _pages(list(dict.fromkeys(stale))):
        held = agreement.documents(connection, page)
        known = [id for id in page if id in held]
        agreement.adopt(connection, payload, known, encode([held[id].text for id in known]), ours=True)
    for page in _pages([*verdict.ids("metadata"), *differing.metadata]):
        held = agreement.documents(connection, page)
        payload.note({id: metadata_hash(document.metadata) for id, document in held.items()})
    for page in _pages(verdict.ids("dense vectors", "vector index")):
        known, dense = _dense(payload, page)
        connection.update(ids=known, embeddings=dense)


def _restore_texts(payload: Payload, connection: Connection, ids: Sequence[str]) -> None:
    """Take texts from Chroma's second copy where that is what was stored."""
    for page in _pages(ids):
        copies = (connection.tables.copies(page) if connection.tables is not None else None) or {}
        with payload.read() as snapshot:
            rows = snapshot.rows_of(page)
        whole = {id: text for id, text in copies.items() if id in rows and text_hash(text) == rows[id].hash}
        if whole:
            known, dense = _dense(payload, list(whole))
            connection.update(ids=known, documents=[whole[id] for id in known], embeddings=dense)


def _dense(payload: Payload, ids: Sequence[str]) -> tuple[list[str], FloatArray]:
    """Dense vectors of those documents that the payload has, and their ids."""
    with payload.read() as snapshot:
        slots = snapshot.slots(ids)
        return [id for id, slot in zip(ids, slots.tolist(), strict=True) if slot >= 0], snapshot.dense(slots[slots >= 0])


def _pages(ids: Sequence[str]) -> list[list[str]]:
    return [list(ids[start : start + AT_ONCE]) for start in range(0, len(ids), AT_ONCE)]
