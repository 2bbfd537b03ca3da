"""Which slots pass a filter: asked of Chroma once per filter, and again when the index or Chroma's files have changed."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from m3retriever.filters import ID, both, has_pattern, plain, predicate, reads_text
from m3retriever.observing.counters import count
from m3retriever.observing.spans import span
from m3retriever.stores import agreement
from m3retriever.stores.chroma_filter import Question, question
from m3retriever.stores.connection import Connection
from m3retriever.stores.payload import Payload
from m3retriever.types import Where
from m3retriever.vectors import IntArray

if TYPE_CHECKING:
    from m3retriever.stores.snapshot import Snapshot

FILTERS_KEPT = 64
_Key: TypeAlias = tuple[str, int, tuple[int, ...] | None]  # the filter, the payload's revision, and Chroma's last change


@dataclass(frozen=True, eq=False)
class Allowed:
    """The slots that a search may bring in: a mask over all slots, bool, that is never written to."""

    mask: np.ndarray
    everything: bool  # whether no filter narrows them

    @cached_property
    def _count(self) -> int:
        return int(np.count_nonzero(self.mask))

    def __len__(self) -> int:
        return self._count

    def slots(self) -> IntArray:
        """The same as numbers, ascending."""
        return np.flatnonzero(self.mask)


class AllowedSlots:
    """Turns filters into slots, and remembers the answers for as long as the index stays as it is."""

    def __init__(self, payload: Payload) -> None:
        self._payload = payload
        self._kept: dict[_Key, Allowed] = {}
        self._guard = threading.Lock()

    def passing(self, where: Where | None, snapshot: Snapshot, connection: Connection) -> Allowed:
        """The live slots whose documents pass the filter."""
        where = None if where is None else plain(where)
        changed = None if where is None else connection.changed()  # before it is asked: what changes then is asked again
        key = repr(where), snapshot.revision, changed
        with self._guard:
            kept = self._kept.get(key)
        if where is not None:
            count("filter_cache_misses" if kept is None else "filter_cache_hits")
        if kept is not None:
            return kept
        live = snapshot.live()
        if where is None:
            return self._keep(key, Allowed(live, everything=True))
        with span("filter") as filtering:
            found = Allowed(live & _mask(where, snapshot, connection, len(live)), everything=False)
            filtering.set(allowed=len(found))
        with self._payload.read() as now:
            unchanged = snapshot.settled and now.settled and now.revision == snapshot.revision
        return self._keep(key, found) if unchanged and changed is not None else found

    def _keep(self, key: _Key, found: Allowed) -> Allowed:
        with self._guard:
            while len(self._kept) >= FILTERS_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = found
        return found


def _mask(where: Where, snapshot: Snapshot, connection: Connection, size: int) -> np.ndarray:
    """Which of the first `size` slots hold documents that pass, live or not: bool."""
    asked = question(where, most=connection.limits.predicates, longest=connection.limits.search)

    def slots_of(ids: Sequence[str]) -> np.ndarray:
        mask = np.zeros(size, bool)
        slots = snapshot.slots(ids)
        mask[slots[slots >= 0]] = True
        return mask

    if asked.ids is not None and not has_pattern(where):
        return slots_of(_passing_of(asked.ids, where, connection))
    mask = slots_of(_answered(asked, connection))
    if asked.ids is not None:
        mask &= slots_of(asked.ids)
    for group in asked.alternatives:
        mask &= np.logical_or.reduce([_mask(one, snapshot, connection, size) for one in group])
    return mask


def _passing_of(ids: Sequence[str], where: Where, connection: Connection) -> Sequence[str]:
    """Those of a few named documents that pass."""
    if set(where) == {ID}:
        return ids
    passes = predicate(where)
    return [id for id, document in agreement.documents(connection, ids).items() if passes(document)]


def _answered(asked: Question, connection: Connection) -> list[str]:
    """Ids of the documents that pass what Chroma is asked and what is checked here."""
    narrowed: dict[str, Any] = {"where": asked.where, "where_document": asked.where_document}
    left = both(*asked.checked)
    if left is None:
        found: list[str] = connection.get(**narrowed, include=[])["ids"]
        return found
    passes = predicate(left)
    pages = agreement.all_documents(connection, texts=reads_text(left), **narrowed)
    return [document.id for page in pages for document in page if passes(document)]
