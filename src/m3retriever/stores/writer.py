"""Changing a payload: one LMDB write transaction, as changes of columns by slot."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import lmdb
import numpy as np

from m3retriever.errors import DamagedIndexError
from m3retriever.kernels import join_posting, split_posting
from m3retriever.stores.seals import DATABASES, NUMBERS, SUMS_TO, Seals, sealed, sum_of_keys
from m3retriever.stores.snapshot import (
    CHUNK,
    FORMAT_KEY,
    KEYS_KEY,
    POSITION,
    SUMS,
    UNCOUNTED,
    DenseCodes,
    Snapshot,
    key_of,
    slot_key,
)
from m3retriever.vectors import IntArray

FORMAT = 3  # 1 had no int8 codes and other posting lists, 2 no seals: `upgrade` brings them up to date
DERIVED = ("ids", "postings", "codes")
DERIVED_META = (b"live", b"free", b"next", KEYS_KEY)  # of `meta`
REBUILT_AT_ONCE = 4096  # documents


class Writer(Snapshot):
    """The changes of one write transaction."""

    def __init__(self, txn: lmdb.Transaction, dbs: dict[str, Any], seals: Seals, *, mending: bool = False) -> None:
        super().__init__(txn, dbs, seals)
        if self.format() is None:
            self._put_format()
        if mending:  # none of these can be relied on
            self._sums, self._live_slots, self._next = [0] * len(DATABASES), np.zeros(0, bool), 0
            self._free = np.zeros(0, np.uint32)
            return
        self._sums = self.sums()
        self._live_slots = self.live()
        self._free, self._next = self._numbers("free"), self.slot_count()
        self._check_free()

    def _check_free(self) -> None:
        """A slot that is taken for free and is not would mix two documents."""
        unused = np.ones(self._next, bool)
        unused[: len(self._live_slots)] = ~self._live_slots[: self._next]
        if len(self._free) and (self._free.max() >= self._next or not unused[self._free].all()):
            raise DamagedIndexError("the payload is damaged: a slot that is in use, or is not there, is said to be free")
        if len(np.unique(self._free)) < len(self._free):
            raise DamagedIndexError("the payload is damaged: a slot is said to be free twice")

    def put(self, database: str, key: bytes, value: bytes) -> None:
        """Set one value."""
        kept, handle = sealed(database, key, value), self._dbs[database]
        if self._txn.put(key, kept, overwrite=False, db=handle):
            self._count_key(database, key, 1)
        else:
            self._txn.put(key, kept, db=handle)

    def drop(self, database: str, key: bytes) -> None:
        """Remove one value, if it is there."""
        if self._txn.delete(key, db=self._dbs[database]):
            self._count_key(database, key, -1)

    def _count_key(self, database: str, key: bytes, times: int) -> None:
        number = NUMBERS[database]
        self._sums[number] = (self._sums[number] + times * sum_of_keys([key])) % SUMS_TO

    def _put_format(self) -> None:
        self._txn.put(FORMAT_KEY, str(FORMAT).encode(), db=self._dbs["meta"])

    def clear(self) -> None:
        """Empty every database; the format stays, and the revision goes on, so that no cache takes old for new."""
        revision = self.revision + 1
        for name in DATABASES:
            self._empty(name)
        self._live_slots, self._free, self._next = np.zeros(0, bool), np.zeros(0, np.uint32), 0
        self._put_format()
        self.put("meta", b"revision", str(revision).encode())

    def _empty(self, database: str) -> None:
        self._txn.drop(self._dbs[database], delete=False)
        self._sums[NUMBERS[database]] = 0

    def mend(self) -> None:
        """Drop what is not whole, with the documents that it leaves incomplete, and make anew what is made of others."""
        for database, key in [*self.damaged(), ("meta", POSITION.encode())]:
            self.drop(database, key)
        blobs, chunks = self.numbers("blobs"), self.numbers("dense")
        for name in ("rows", "pending"):
            slots = self.numbers(name)
            for slot in slots[~(np.isin(slots, blobs) & np.isin(slots // CHUNK, chunks))].tolist():
                self.drop(name, slot_key(slot))
        self.rebuild()

    def rebuild(self) -> None:
        """Make everything anew that is made of the documents' rows, their vectors and what is pending."""
        for name in DERIVED:
            self._empty(name)
        live = []
        for slot, row in list(self.all_rows()):
            self.put("ids", key_of(row.id), slot_key(slot))
            live.append(slot)
        kept = np.union1d(live, [entry.slot for entry in self.pending()]).astype(np.int64)
        for slot in np.setdiff1d(self.numbers("blobs"), kept).tolist():
            self.drop("blobs", slot_key(slot))
        self._next = int(kept.max(initial=-1)) + 1
        self._free = np.setdiff1d(np.arange(self._next), kept).astype(np.uint32)
        self._live_slots = np.zeros(self._next, bool)
        for start in range(0, len(live), REBUILT_AT_ONCE):
            self.insert_postings(np.array(live[start : start + REBUILT_AT_ONCE], np.int64))
        for number in self.numbers("dense").tolist():
            self._put_codes(number, np.arange(CHUNK), self._chunk(number))
        self.bump_revision()
        self._recount()

    def _recount(self) -> None:
        for name in DATABASES:
            keys = self._txn.cursor(self._dbs[name]).iternext(keys=True, values=False)
            self._sums[NUMBERS[name]] = sum_of_keys(key for key in map(bytes, keys) if (name, key) not in UNCOUNTED)

    def allocate(self, count: int) -> IntArray:
        """Slots that hold nothing: freed ones first."""
        reused, self._free = self._free[:count].astype(np.int64), self._free[count:]
        fresh = np.arange(self._next, self._next + count - len(reused))
        self._next += len(fresh)
        return np.concatenate([reused, fresh])

    def free(self, slots: Sequence[int]) -> None:
        """Give slots back; what they held is gone."""
        for slot in slots:
            self.drop("blobs", slot_key(slot))
            self.drop("rows", slot_key(slot))
        self._free = np.concatenate([self._free, np.array(slots, np.uint32)])

    def put_dense(self, slots: IntArray, dense: np.ndarray) -> None:
        """Write dense vectors into their chunks."""
        for chunk in np.unique(slots // CHUNK):
            inside = slots // CHUNK == chunk
            old = self._get("dense", slot_key(int(chunk)))
            matrix = np.zeros((CHUNK, dense.shape[1]), "<f4")
            if old is not None:
                matrix[:] = np.frombuffer(old, "<f4").reshape(CHUNK, -1)
            matrix[slots[inside] % CHUNK] = dense[inside]
            self.put("dense", slot_key(int(chunk)), matrix.tobytes())
            self._put_codes(int(chunk), slots[inside] % CHUNK, dense[inside])

    def _put_codes(self, chunk: int, rows: IntArray, dense: np.ndarray) -> None:
        old = self._get("codes", slot_key(chunk))
        codes = DenseCodes.empty(dense.shape[1]) if old is None else DenseCodes.view(old).copy()
        codes.put(rows, dense)
        self.put("codes", slot_key(chunk), codes.to_bytes())

    def insert_postings(self, slots: IntArray) -> None:
        """Enter documents into the inverted index and mark them live."""
        for key, places, weights in self.grouped(slots):
            self.put("postings", key, join_posting(self._get("postings", key) or b"", places, weights))
        self._mark(slots, True)

    def remove(self, slots: IntArray) -> None:
        """Take documents out of every column."""
        for key, gone, _ in self.grouped(slots):
            places, weights = split_posting(self._get("postings", key) or b"")
            keep = ~np.isin(places, np.frombuffer(gone, "<u2"))
            if keep.any():
                self.put("postings", key, join_posting(b"", places[keep].tobytes(), weights[keep].tobytes()))
            else:
                self.drop("postings", key)
        for id in self.ids(slots):
            self.drop("ids", key_of(id))
        self._mark(slots, False)
        self.free(slots.tolist())

    def bump_revision(self) -> None:
        """Tell readers that what they have cached is old."""
        self.put("meta", b"revision", str(self.revision + 1).encode())
        self.put("meta", b"writer", str(os.getpid()).encode())

    def finish(self) -> None:
        """Write down which slots are live and free, and what tells whether the keys are whole; called once, at the end."""
        self.put("meta", b"live", np.packbits(self._live_slots).tobytes())
        self.put("meta", b"free", self._free.astype("<u4").tobytes())
        self.put("meta", b"next", str(self._next).encode())
        value = sealed("meta", KEYS_KEY, SUMS.pack(*self._sums))
        self._txn.put(KEYS_KEY, value, db=self._dbs["meta"])

    def _mark(self, slots: IntArray, live: bool) -> None:
        if len(slots) and slots.max() >= len(self._live_slots):
            grown = np.zeros(max(int(slots.max()) + 1, self._next), bool)
            grown[: len(self._live_slots)] = self._live_slots
            self._live_slots = grown
        self._live_slots[slots] = live
