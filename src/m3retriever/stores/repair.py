"""Mending an index: what is kept twice is taken from the whole copy, vectors are encoded again from texts."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from m3retriever.errors import DamagedIndexError, StoreError
from m3retriever.stores import agreement, vector_index
from m3retriever.stores.database import how_to_mend
from m3retriever.stores.payload import Payload, metadata_hash, text_hash

if TYPE_CHECKING:
    from m3retriever.stores.connection import Connection
    from m3retriever.stores.verify import Verdict
    from m3retriever.vectors import FloatArray, M3Vectors

logger = logging.getLogger(__name__)

AT_ONCE = 256  # documents
LOOK = (  # without the folder it is run in, which may be the index's: a file of a module's name there would be run
    "import sys; sys.path[:] = filter(None, sys.path); "
    "from m3retriever.stores.payload import read_both_ends; read_both_ends(sys.argv[1])"
)
SETTINGS = ("model", "source", "dim", "revision", "collection")


def look_through(folder: Path) -> None:
    """DamagedIndexError where the payload in a folder would end the process that reads it.

    LMDB follows what is written in its pages. Where that leads out of the file the system ends the process, so
    another one looks first: at every key, and at both ends of every value.
    """
    if not (folder / "data.mdb").is_file() or not sys.executable:
        return
    done = subprocess.run([sys.executable, "-c", LOOK, str(folder)], capture_output=True, check=False)
    if done.returncode not in (0, 1):  # 1: an error that can be raised here as well
        raise DamagedIndexError(
            f"the payload in {folder} cannot be read: a process that tried was ended by the system ({done.returncode}); "
            f"{how_to_mend(folder)}"
        )


def recorded_model(folder: Path) -> str | None:
    """How to load the model of a payload that nobody has open; None where it does not say, or not any more."""
    try:
        look_through(folder)
        with closing(Payload(folder, None, mending=True)) as payload, payload.read() as snapshot:
            return snapshot.meta("source") or None
    except StoreError:
        return None


def mend_payload(folder: Path) -> None:
    """Make a payload readable that nobody has open; the caller holds the right to write.

    What is not whole is dropped, and what is made of others made anew. One that cannot be read at all, or does
    not say any more which model it is of, is moved aside, to a folder beside it: nothing is deleted.
    """
    try:
        look_through(folder)
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
    if verdict.has("full text"):
        _write_full_text(payload, connection, verdict.ids("full text"))
    for page in _pages(verdict.ids("dense vectors")):
        known, dense = _dense(payload, page)
        connection.update(ids=known, embeddings=dense)
    if verdict.has("vector index"):
        vector_index.make_anew(connection, payload)


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


def _write_full_text(payload: Payload, connection: Connection, ids: Sequence[str]) -> None:
    """Make Chroma write its second copies of texts again; what it writes over must fit its index first."""
    connection.make_full_text_anew()
    for page in _pages(ids):
        known, dense = _dense(payload, page)
        held = agreement.documents(connection, known)
        connection.update(ids=known, documents=[held[id].text for id in known], embeddings=dense)


def _dense(payload: Payload, ids: Sequence[str]) -> tuple[list[str], FloatArray]:
    """Dense vectors of those documents that the payload has, and their ids."""
    with payload.read() as snapshot:
        slots = snapshot.slots(ids)
        return [id for id, slot in zip(ids, slots.tolist(), strict=True) if slot >= 0], snapshot.dense(slots[slots >= 0])


def _pages(ids: Sequence[str]) -> list[list[str]]:
    return [list(ids[start : start + AT_ONCE]) for start in range(0, len(ids), AT_ONCE)]
