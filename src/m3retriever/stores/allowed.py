"""Which slots pass a filter: asked of Chroma once per filter and revision."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from m3retriever.filters import predicate
from m3retriever.stores import agreement
from m3retriever.stores.chroma_filter import question
from m3retriever.stores.connection import Connection
from m3retriever.stores.payload import Payload
from m3retriever.types import Where
from m3retriever.vectors import IntArray

if TYPE_CHECKING:
    from m3retriever.stores.snapshot import Snapshot

FILTERS_KEPT = 64


class AllowedSlots:
    """Turns filters into slots, and remembers the answers for as long as the index stays as it is."""

    def __init__(self, payload: Payload) -> None:
        self._payload = payload
        self._kept: dict[tuple[str, int], np.ndarray] = {}
        self._guard = threading.Lock()

    def passing(self, where: Where | None, snapshot: Snapshot, connection: Connection) -> IntArray:
        """The live slots whose documents pass the filter, ascending."""
        live = snapshot.live()
        if where is None:
            return np.flatnonzero(live)
        return np.flatnonzero(live & self._mask(where, snapshot, connection, len(live)))

    def _mask(self, where: Where, snapshot: Snapshot, connection: Connection, size: int) -> np.ndarray:
        key = repr(where), snapshot.revision
        with self._guard:
            if key in self._kept:
                return self._kept[key]
        mask = np.zeros(size, bool)
        slots = snapshot.slots(_ids(where, connection))
        mask[slots[slots >= 0]] = True
        with self._payload.read() as now:
            if snapshot.settled and now.settled and now.revision == snapshot.revision:
                self._keep(key, mask)
        return mask

    def _keep(self, key: tuple[str, int], mask: np.ndarray) -> None:
        with self._guard:
            while len(self._kept) >= FILTERS_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = mask


def _ids(where: Where, connection: Connection) -> list[str]:
    asked, passes = question(where), predicate(where)
    if asked.ids is not None:
        if asked.exact and asked.where is None and asked.where_document is None:
            return list(asked.ids)
        held = agreement.documents(connection, asked.ids)
        return [id for id, document in held.items() if passes(document)]
    narrowed: dict[str, Any] = {"where": asked.where, "where_document": asked.where_document}
    if asked.exact:
        found: list[str] = connection.get(**narrowed, include=[])["ids"]
        return found
    return [document.id for page in agreement.all_documents(connection, **narrowed) for document in page if passes(document)]
