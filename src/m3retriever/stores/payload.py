"""What Chroma cannot hold: sparse weights, token vectors and exact dense vectors, in LMDB beside it.

Every document has a slot, a small number that its columns share. One write transaction changes all
of them or none, and a reader sees one commit from beginning to end, also in another process.

    ids       blake2b(id)          -> slot
    rows      slot                 -> hash of the text, id
    blobs     slot                 -> sparse ids and weights, token scales and int8 codes
    dense     chunk of 256 slots   -> their dense vectors, a (256, d) float32 matrix
    codes     chunk of 256 slots   -> the same in int8, a quarter of the bytes to scan
    postings  (token, segment)     -> the segment's slots that hold the token, and their weights
    pending   slot                 -> a write that Chroma has yet to confirm
    meta      name                 -> format, model, dimension, revision, which slots are live

A document is written in two steps around Chroma's own write: `stage` puts the large values into free
slots where no search sees them, and `publish` makes them count. What a crash leaves between the two
is in `pending`, and the store settles it by asking Chroma what it holds. All numbers on disk are
little-endian, keys are big-endian so that they sort.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from m3retriever.errors import StoreError
from m3retriever.kernels import SEGMENT, join_posting, quantize, split_posting
from m3retriever.stores.snapshot import (
    CHUNK,
    NUMBER,
    Blob,
    DenseCodes,
    Pending,
    Snapshot,
    key_of,
    posting_key,
    slot_key,
    sparse_columns,
)
from m3retriever.stores.usage import Usage
from m3retriever.vectors import IntArray, M3Vectors

logger = logging.getLogger(__name__)

FORMAT = 2  # 1 had no codes, and other posting lists: it is brought up to date when it is opened
UPGRADED = ("1",)
UPGRADED_AT_ONCE = 4096  # documents
DATABASES = ("ids", "rows", "blobs", "dense", "codes", "postings", "pending", "meta")
MAP_SIZE = 1 << 40  # bytes of address space, not of disk: the file grows with its content
MAX_READERS = 1024


def text_hash(text: str) -> bytes:
    """What tells whether vectors belong to a text, 16 bytes."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


class Payload:
    """One collection's payload; get it with `open_payload`, which shares it within a process."""

    def __init__(self, path: Path, upgrading: AbstractContextManager[None] | None) -> None:
        self.path = path
        self._format: str | None = None  # what every transaction must find
        self.lock = threading.RLock()  # writes of this process, one at a time
        self._usage = Usage(self.abandon)
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._env = lmdb.open(
                str(path), map_size=MAP_SIZE, max_dbs=len(DATABASES), max_readers=MAX_READERS, metasync=True, sync=True
            )
        except (lmdb.Error, OSError) as error:
            raise StoreError(f"cannot open the payload in {path}: {error}") from error
        try:
            self._check_size()
            self._env.reader_check()  # frees the slots of readers that were killed
            self._dbs = {"meta": self._env.open_db(b"meta")}
            found = self._check_format(can_upgrade=upgrading is not None)
            self._dbs = {name: self._env.open_db(name.encode()) for name in DATABASES}
            if found in UPGRADED and upgrading is not None:
                with upgrading:
                    self._upgrade(found)
            elif found is None:
                self.set_meta(format=str(FORMAT))
            self._format = str(FORMAT)
        except lmdb.Error as error:
            self._env.close()
            raise StoreError(f"cannot read the payload in {path}: {error}") from error
        except BaseException:
            self._env.close()
            raise

    @contextmanager
    def read(self) -> Iterator[Snapshot]:
        """A consistent view of the last commit; arrays taken from it are copies and may be kept."""
        try:
            with self._usage.use(), self._env.begin(buffers=True) as txn:
                yield self._of_our_format(Snapshot(txn, self._dbs))
        except lmdb.Error as error:
            raise StoreError(f"cannot read the payload in {self.path}: {error}") from error

    @contextmanager
    def _write(self) -> Iterator[Writer]:
        with self.lock:
            try:
                with self._usage.use(), self._env.begin(write=True, buffers=True) as txn:
                    writer = Writer(txn, self._dbs)
                    self._of_our_format(writer)
                    yield writer
                    writer.finish()
            except lmdb.Error as error:
                raise StoreError(f"cannot write to the payload in {self.path}: {error}; it is as it was before") from error

    def set_meta(self, **values: str) -> None:
        """Keep named strings, such as the model's name."""
        with self._write() as writer:
            for name, value in values.items():
                writer.put("meta", name.encode(), value.encode())

    def stage(self, ids: Sequence[str], hashes: Sequence[bytes], vectors: M3Vectors) -> list[Pending]:
        """Put documents into free slots, unseen by searches; pass the result to `publish` or `discard`."""
        with self._write() as writer:
            slots = writer.allocate(len(ids))
            writer.put_dense(slots, vectors.dense)
            codes, scales = quantize(vectors.colbert)
            staged = []
            for row, (slot, id, digest) in enumerate(zip(slots.tolist(), ids, hashes, strict=True)):
                entries = slice(*vectors.sparse_offsets[row : row + 2].tolist())
                tokens = slice(*vectors.colbert_offsets[row : row + 2].tolist())
                blob = Blob(vectors.sparse_ids[entries], vectors.sparse_weights[entries], scales[tokens], codes[tokens])
                writer.put("blobs", slot_key(slot), blob.to_bytes())
                staged.append(Pending(slot, "add", id, digest))
                writer.put("pending", slot_key(slot), staged[-1].to_bytes())
            return staged

    def stage_delete(self, ids: Sequence[str]) -> list[Pending]:
        """Note that these documents are about to go; they count until `publish`."""
        with self._write() as writer:
            staged = []
            for slot, id in zip(writer.slots(ids).tolist(), ids, strict=True):
                staged.append(Pending(slot, "delete", id))
                writer.put("pending", slot_key(slot), staged[-1].to_bytes())
            return staged

    def publish(self, staged: Sequence[Pending]) -> None:
        """Make staged writes count: new documents are found, what they replace is gone."""
        if not staged:
            return
        with self._write() as writer:
            added = [entry for entry in staged if entry.action == "add"]
            old = writer.slots([entry.id for entry in staged])
            writer.remove(old[old >= 0])
            for entry in added:
                writer.put("ids", key_of(entry.id), slot_key(entry.slot))
                writer.put("rows", slot_key(entry.slot), entry.hash + entry.id.encode())
            writer.insert_postings(np.array([entry.slot for entry in added], np.int64))
            for entry in staged:
                writer.drop("pending", slot_key(entry.slot))
            writer.bump_revision()

    def discard(self, staged: Sequence[Pending]) -> None:
        """Forget staged writes that Chroma does not hold."""
        if not staged:
            return
        with self._write() as writer:
            for entry in staged:
                writer.drop("pending", slot_key(entry.slot))
            writer.free([entry.slot for entry in staged if entry.action == "add"])

    def remove(self, ids: Sequence[str]) -> None:
        """Drop documents that Chroma no longer holds."""
        self.publish(self.stage_delete(ids))

    def clear(self) -> None:
        """Drop everything, the settings included."""
        with self._write() as writer:
            writer.clear()

    def close(self) -> None:
        """Release the file when nobody reads it any more; use `release_payload` instead, which knows of other users."""
        self._usage.close()

    def abandon(self) -> None:
        """Release the file at once, whoever reads it: in a forked child, whose readers did not come along."""
        self._env.close()

    def _check_size(self) -> None:
        """A file cut short would end the process when its missing pages are read."""
        want = (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]
        size = (self.path / "data.mdb").stat().st_size
        if size < want:
            raise StoreError(
                f"{self.path / 'data.mdb'} is cut short ({size} of {want} bytes): copy it again, "
                "or delete that folder and open the index to encode its documents anew"
            )

    def _check_format(self, *, can_upgrade: bool) -> str | None:
        """The format, None for a new payload; StoreError for one that this version does not read."""
        with self.read() as snapshot:
            found = snapshot.meta("format")
        if found in UPGRADED and not can_upgrade:
            raise StoreError(f"the payload in {self.path} has the older format {found}: open it once without read_only")
        if found not in (None, str(FORMAT), *UPGRADED):
            raise StoreError(
                f"the payload in {self.path} has format {found}, this version reads {FORMAT}: "
                "update m3retriever, or index the documents again into another folder"
            )
        return found

    def _upgrade(self, found: str) -> None:
        logger.warning("bringing the payload in %s from format %s to %d", self.path, found, FORMAT)
        with self._write() as writer:
            writer.upgrade()

    def _of_our_format(self, snapshot: Snapshot) -> Snapshot:
        """A newer version may have upgraded the payload while this process has it open."""
        if self._format is not None and (found := snapshot.meta("format")) != self._format:
            raise StoreError(
                f"the payload in {self.path} was brought to format {found} by another process, this version reads "
                f"{self._format}: update m3retriever here too, and open the index again"
            )
        return snapshot


class Writer(Snapshot):
    """The changes of one write transaction."""

    def __init__(self, txn: lmdb.Transaction, dbs: dict[str, Any]) -> None:
        super().__init__(txn, dbs)
        self._live_slots = self.live()
        self._free = self._numbers("free")
        self._next = int(self.meta("next") or 0)

    def put(self, database: str, key: bytes, value: bytes) -> None:
        """Set one value."""
        self._txn.put(key, value, db=self._dbs[database])

    def drop(self, database: str, key: bytes) -> None:
        """Remove one value, if it is there."""
        self._txn.delete(key, db=self._dbs[database])

    def clear(self) -> None:
        """Empty every database; the format stays, and the revision goes on, so that no cache takes old for new."""
        revision = self.revision + 1
        for name in DATABASES:
            self._txn.drop(self._dbs[name], delete=False)
        self._live_slots, self._free, self._next = np.zeros(0, bool), np.zeros(0, np.uint32), 0
        self.put("meta", b"format", str(FORMAT).encode())
        self.put("meta", b"revision", str(revision).encode())

    def upgrade(self) -> None:
        """From format 1: posting lists and int8 codes are made anew from what each document holds."""
        if self.meta("format") == str(FORMAT):
            return  # another process was first
        self._txn.drop(self._dbs["postings"], delete=False)
        live = np.flatnonzero(self._live_slots)
        for start in range(0, len(live), UPGRADED_AT_ONCE):
            self.insert_postings(live[start : start + UPGRADED_AT_ONCE])
        for key, value in self._txn.cursor(self._dbs["dense"]):
            self._put_codes(NUMBER.unpack(key)[0], np.arange(CHUNK), np.frombuffer(value, "<f4").reshape(CHUNK, -1))
        self.put("meta", b"format", str(FORMAT).encode())
        self.bump_revision()

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
            old = self._txn.get(slot_key(int(chunk)), db=self._dbs["dense"])
            matrix = np.zeros((CHUNK, dense.shape[1]), "<f4")
            if old is not None:
                matrix[:] = np.frombuffer(old, "<f4").reshape(CHUNK, -1)
            matrix[slots[inside] % CHUNK] = dense[inside]
            self.put("dense", slot_key(int(chunk)), matrix.tobytes())
            self._put_codes(int(chunk), slots[inside] % CHUNK, dense[inside])

    def _put_codes(self, chunk: int, rows: IntArray, dense: np.ndarray) -> None:
        old = self._txn.get(slot_key(chunk), db=self._dbs["codes"])
        codes = DenseCodes.empty(dense.shape[1]) if old is None else DenseCodes.view(old).copy()
        codes.put(rows, dense)
        self.put("codes", slot_key(chunk), codes.to_bytes())

    def insert_postings(self, slots: IntArray) -> None:
        """Enter documents into the inverted index and mark them live."""
        database = self._dbs["postings"]
        for key, places, weights in self._grouped(slots):
            self.put("postings", key, join_posting(self._txn.get(key, b"", db=database), places, weights))
        self._mark(slots, True)

    def remove(self, slots: IntArray) -> None:
        """Take documents out of every column."""
        for key, gone, _ in self._grouped(slots):
            places, weights = split_posting(self._txn.get(key, b"", db=self._dbs["postings"]))
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
        """Write down which slots are live and free; called once, before the commit."""
        self.put("meta", b"live", np.packbits(self._live_slots).tobytes())
        self.put("meta", b"free", self._free.astype("<u4").tobytes())
        self.put("meta", b"next", str(self._next).encode())

    def _mark(self, slots: IntArray, live: bool) -> None:
        if len(slots) and slots.max() >= len(self._live_slots):
            grown = np.zeros(max(int(slots.max()) + 1, self._next), bool)
            grown[: len(self._live_slots)] = self._live_slots
            self._live_slots = grown
        self._live_slots[slots] = live

    def _grouped(self, slots: IntArray) -> Iterator[tuple[bytes, bytes, bytes]]:
        """The documents' sparse entries by posting list: its key, the places in the segment, the weights."""
        if not len(slots):
            return
        tokens, weights, counts = sparse_columns(self.blobs(slots))
        owners = np.repeat(slots, np.diff(counts))
        order = np.lexsort([owners // SEGMENT, tokens])  # stable: slots stay as they come
        tokens, weights, owners = tokens[order], weights[order], owners[order]
        places, values = (owners % SEGMENT).astype("<u2").tobytes(), weights.astype("<f4").tobytes()
        lists = np.stack([tokens, owners // SEGMENT], axis=1)
        starts = np.flatnonzero(np.r_[True, (np.diff(lists, axis=0) != 0).any(axis=1)][: len(lists)])
        edges = [*starts.tolist(), len(lists)]
        for (token, segment), (begin, end) in zip(lists[starts].tolist(), pairwise(edges), strict=True):
            yield posting_key(token, segment), places[2 * begin : 2 * end], values[4 * begin : 4 * end]


_shared: dict[tuple[int, Path], tuple[Payload, int]] = {}  # LMDB refuses to open one file twice in a process
_sharing = threading.RLock()  # taken again where a garbage collection ends a store meanwhile


def open_payload(path: Path, *, upgrading: AbstractContextManager[None] | None = None) -> Payload:
    """The payload in a folder; the same object for every user in this process. Give it back with `release_payload`.

    One of an earlier format is upgraded inside `upgrading`, which holds the right to write; StoreError without it.
    """
    key = os.getpid(), path.resolve()
    with _sharing:
        payload, users = _shared.get(key) or (Payload(path, upgrading), 0)
        _shared[key] = payload, users + 1
        return payload


def release_payload(payload: Payload) -> None:
    """Give a payload back; the last user closes it."""
    key = os.getpid(), payload.path.resolve()
    with _sharing:
        held, users = _shared.get(key, (None, 0))
        if held is not payload:
            return  # a forked child holds its parent's object: not ours to close
        if users > 1:
            _shared[key] = payload, users - 1
        else:
            del _shared[key]
            payload.close()


def _forget_parents_payloads() -> None:
    """In a forked child: LMDB's environments do not survive a fork, and would bar the child from opening its own."""
    global _sharing
    _sharing = threading.RLock()
    for payload, _ in _shared.values():
        payload.abandon()
    _shared.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parents_payloads)
