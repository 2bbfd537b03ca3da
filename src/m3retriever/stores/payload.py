"""What Chroma cannot hold: sparse weights, token vectors and exact dense vectors, in LMDB beside it.

Every document has a slot, a small number that its columns share. One write transaction changes all
of them or none, and a reader sees one commit from beginning to end, also in another process.

    ids       blake2b(id)          -> slot
    rows      slot                 -> hashes of the text and of the metadata, id
    blobs     slot                 -> sparse ids and weights, token scales and int8 codes
    dense     chunk of 256 slots   -> their dense vectors, a (256, d) float32 matrix
    codes     chunk of 256 slots   -> the same in int8, a quarter of the bytes to scan
    postings  (token, segment)     -> the segment's slots that hold the token, and their weights
    pending   slot                 -> a write that Chroma has yet to confirm
    meta      name                 -> format, model, dimension, revision, which slots are live, sums of keys

Every value carries a checksum (`seals`).

A document is written in two steps around Chroma's own write: `stage` puts the large values into free
slots where no search sees them, and `publish` makes them count. What a crash leaves between the two
is in `pending`, and the store settles it by asking Chroma what it holds. All numbers on disk are
little-endian, keys are big-endian so that they sort.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import os
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from m3retriever.errors import DamagedIndexError, M3RetrieverError, StoreError
from m3retriever.kernels import quantize
from m3retriever.stores.database import MENDS, how_to_mend
from m3retriever.stores.seals import DATABASES, Seals, sum_of_keys
from m3retriever.stores.snapshot import POSITION, UNCOUNTED, Blob, Pending, Row, Snapshot, key_of, slot_key
from m3retriever.stores.space import NO_ROOM, when_full
from m3retriever.stores.upgrade import UPGRADED, upgrade
from m3retriever.stores.usage import Usage
from m3retriever.stores.writer import FORMAT, Writer
from m3retriever.types import Document
from m3retriever.vectors import M3Vectors

logger = logging.getLogger(__name__)

DAMAGE = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.PanicError, lmdb.VersionMismatchError)
SILENT = ("ids", "postings", "pending", "meta")  # databases in which an entry may well be absent
FORMLESS = (ValueError, LookupError, ArithmeticError, struct.error)  # what NumPy and struct say of values without form
MAP_SIZE = 1 << 40  # bytes of address space, not of disk: the file grows with its content
MAX_READERS = 1024


def text_hash(text: str) -> bytes:
    """What tells whether vectors belong to a text, 16 bytes."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def metadata_hash(metadata: Mapping[str, Any]) -> bytes:
    """What tells whether metadata is what was stored, types included, 16 bytes."""
    kept = {key: value for key, value in metadata.items() if value is not None}
    return hashlib.blake2b(json.dumps(kept, sort_keys=True).encode(), digest_size=16).digest()


class Payload:
    """One collection's payload; get it with `open_payload`, which shares it within a process."""

    def __init__(self, path: Path, upgrading: AbstractContextManager[None] | None, *, mending: bool = False) -> None:
        self.path, self._mending = path, mending
        self._format: str | None = None  # what every transaction must find
        self.lock = threading.RLock()  # writes of this process, one at a time
        self._under_way: Any = None  # the write of this process, a context manager
        self._usage, self._seals = Usage(self.abandon), Seals()
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._env = lmdb.open(
                str(path), map_size=MAP_SIZE, max_dbs=len(DATABASES), max_readers=MAX_READERS, metasync=True, sync=True
            )
        except (lmdb.Error, OSError) as error:
            raise self._said("open", error) from error
        self._file = self.path / "data.mdb"
        self._inode = self._file.stat().st_ino
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
                self.set_meta()
            self._format = str(FORMAT)
            if not mending:
                self._check_keys()
        except DamagedIndexError as error:
            self._env.close()
            raise self._placed(error) from error
        except FORMLESS as error:
            self._env.close()
            raise error if isinstance(error, M3RetrieverError) else self._formless(error) from error
        except lmdb.Error as error:
            self._env.close()
            raise self._said("read", error) from error
        except BaseException:
            self._env.close()
            raise

    @contextmanager
    def read(self) -> Iterator[Snapshot]:
        """A consistent view of the last commit; arrays taken from it are copies and may be kept."""
        try:
            self._check_still_there()
            with self._usage.use(), self._env.begin(buffers=True) as txn:
                yield self._of_our_format(Snapshot(txn, self._dbs, self._seals))
        except DamagedIndexError as error:
            raise self._placed(error) from error
        except M3RetrieverError:
            raise
        except FORMLESS as error:
            raise self._formless(error) from error
        except lmdb.Error as error:
            raise self._said("read", error) from error

    def _write(self, *, mending: bool = False) -> AbstractContextManager[Writer]:
        """A transaction that changes the payload, or nothing where its block raises."""
        itself: list[Any] = []
        itself.append(self._writing(itself, mending))
        return itself[0]  # type: ignore[no-any-return]

    @contextmanager
    def _writing(self, itself: list[Any], mending: bool) -> Iterator[Writer]:
        with self.lock:
            if self._under_way is not None:  # interrupted, as by Ctrl-C, between its beginning and its block: that never ran
                self._under_way.gen.close()
            self._under_way = itself[0]
            try:
                self._check_still_there()
                with self._usage.use(), self._env.begin(write=True, buffers=True) as txn:
                    writer = Writer(txn, self._dbs, self._seals, mending=mending)
                    self._of_our_format(writer)
                    yield writer
                    writer.finish()
            except DamagedIndexError as error:
                raise self._placed(error) from error
            except M3RetrieverError:
                raise
            except FORMLESS as error:
                raise self._formless(error) from error
            except lmdb.Error as error:
                raise self._said("write to", error, f"; it is as it was before{when_full(self.path, NO_ROOM)}") from error
            finally:
                self._under_way = None

    def _placed(self, error: DamagedIndexError) -> DamagedIndexError:
        words = str(error)
        return error if MENDS in words else DamagedIndexError(f"{words}, in {self.path}; {how_to_mend(self.path)}")

    def _formless(self, error: Exception) -> DamagedIndexError:
        """Of values that fit their seals and make no sense: whoever makes an index can make its seals too."""
        return self._placed(DamagedIndexError(f"values in the payload make no sense: {type(error).__name__}: {error}"))

    def _said(self, act: str, error: Exception, after: str = "") -> StoreError:
        words = f"cannot {act} the payload in {self.path}: {error}{'' if isinstance(error, DAMAGE) else after}"
        return DamagedIndexError(f"{words}; {how_to_mend(self.path)}") if isinstance(error, DAMAGE) else StoreError(words)

    def set_meta(self, **values: str) -> None:
        """Keep named strings, such as the model's name."""
        with self._write() as writer:
            for name, value in values.items():
                writer.put("meta", name.encode(), value.encode())

    def stage(self, documents: Sequence[Document], vectors: M3Vectors) -> list[Pending]:
        """Put documents into free slots, unseen by searches; pass the result to `publish` or `discard`."""
        with self._write() as writer:
            slots = writer.allocate(len(documents))
            writer.put_dense(slots, vectors.dense)
            codes, scales = quantize(vectors.colbert)
            staged = []
            for row, (slot, document) in enumerate(zip(slots.tolist(), documents, strict=True)):
                entries = slice(*vectors.sparse_offsets[row : row + 2].tolist())
                tokens = slice(*vectors.colbert_offsets[row : row + 2].tolist())
                blob = Blob(vectors.sparse_ids[entries], vectors.sparse_weights[entries], scales[tokens], codes[tokens])
                writer.put("blobs", slot_key(slot), blob.to_bytes())
                staged.append(Pending(slot, "add", document.id, text_hash(document.text), metadata_hash(document.metadata)))
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

    def publish(self, staged: Sequence[Pending], position: int | None = None) -> None:
        """Make staged writes count: new documents are found, what they replace is gone.

        `position` is the number of Chroma's last change, where all of them are ours.
        """
        if not staged:
            return
        with self._write() as writer:
            added = [entry for entry in staged if entry.action == "add"]
            old = writer.slots([entry.id for entry in staged])
            writer.remove(old[old >= 0])
            for entry in added:
                writer.put("ids", key_of(entry.id), slot_key(entry.slot))
                writer.put("rows", slot_key(entry.slot), Row(entry.hash, entry.metadata, entry.id).to_bytes())
            writer.insert_postings(np.array([entry.slot for entry in added], np.int64))
            for entry in staged:
                writer.drop("pending", slot_key(entry.slot))
            if position is not None:
                writer.put("meta", POSITION.encode(), str(position).encode())
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

    def note(self, metadata: Mapping[str, bytes], position: int | None = None) -> None:
        """Take what Chroma holds as these documents' metadata, by their hashes, and as known up to a `position`."""
        if not metadata and position is None:
            return
        with self._write() as writer:
            slots = dict(zip(metadata, writer.slots(list(metadata)).tolist(), strict=True))
            for id, row in writer.rows_of(list(metadata)).items():
                writer.put("rows", slot_key(slots[id]), row._replace(metadata=metadata[id]).to_bytes())
            if position is not None:
                writer.put("meta", POSITION.encode(), str(position).encode())

    def mend(self) -> None:
        """Drop what is not whole, with the documents that it leaves incomplete, and make anew what is made of others."""
        with self._write(mending=True) as writer:
            writer.mend()

    def clear(self) -> None:
        """Drop everything, the settings included."""
        with self._write() as writer:
            writer.clear()

    def close(self) -> None:
        """Release the file when nobody reads it any more; use `release_payload` instead, which knows of other users."""
        self._usage.close()

    def abandon(self) -> None:
        """Release the file at once: in a forked child, whose readers did not come along.

        Where another thread of the parent was in the middle of a transaction it is kept for ever, for closing it would wait
        for that thread.
        """
        if self._usage.used_elsewhere():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._env))
        else:
            self._env.close()

    def _check_size(self) -> None:
        """A file cut short would end the process when its missing pages are read."""
        want = (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]
        size = self._file.stat().st_size
        if size < want:
            raise DamagedIndexError(
                f"{self._file} is cut short ({size} of {want} bytes): copy it again, or {how_to_mend(self.path)}"
            )

    def _check_still_there(self) -> None:
        """A repair may have moved the file aside, and what is written to it from then on nobody would see."""
        try:
            same = os.stat(self._file).st_ino == self._inode
        except FileNotFoundError:
            same = False
        if not same:
            raise StoreError(f"the payload in {self.path} was replaced or removed while it was open: open the index again")

    def _check_format(self, *, can_upgrade: bool) -> str | None:
        """The format, None for a new payload; StoreError for one that this version does not read."""
        with self._env.begin(buffers=True) as txn:
            snapshot = Snapshot(txn, self._dbs, self._seals)
            found, sealed = snapshot.format(), snapshot.has_seals
        if sealed != (found not in (None, *UPGRADED)) or not (found is None or found.isdecimal()):
            raise DamagedIndexError(
                f"the payload in {self.path} is damaged: its format says {found!r}; {how_to_mend(self.path)}"
            )
        if found in UPGRADED and self._mending:
            raise DamagedIndexError(f"the payload in {self.path} has the older format {found} and cannot be brought up to date")
        if found in UPGRADED and not can_upgrade:
            raise StoreError(f"the payload in {self.path} has the older format {found}: open it once without read_only")
        if found not in (None, str(FORMAT), *UPGRADED):
            raise StoreError(
                f"the payload in {self.path} has format {found}, this version reads {FORMAT}: "
                "update m3retriever, or index the documents again into another folder"
            )
        return found

    def _check_keys(self) -> None:
        """An entry that is lost could not be told from one that never was: compare the keys with their sums.

        Of those databases where nothing else would tell: a document without a row or vectors is an error when it is read.
        """
        with self._env.begin() as txn:
            sums = dict(zip(DATABASES, Snapshot(txn, self._dbs, self._seals).sums(), strict=True))
            for name in SILENT:
                keys = txn.cursor(self._dbs[name]).iternext(keys=True, values=False)
                if name == "meta":
                    keys = (key for key in keys if (name, key) not in UNCOUNTED)
                if sum_of_keys(keys) != sums[name]:
                    raise DamagedIndexError(f"entries of {name!r} are lost")

    def _upgrade(self, found: str) -> None:
        logger.warning("bringing the payload in %s from format %s to %d", self.path, found, FORMAT)
        with self.lock, self._env.begin(write=True, buffers=True) as txn:
            upgrade(txn, self._dbs, self._seals)

    def _of_our_format(self, snapshot: Snapshot) -> Snapshot:
        """A newer version may have upgraded the payload while this process has it open."""
        if self._format is not None and (found := snapshot.format()) != self._format:
            raise StoreError(
                f"the payload in {self.path} was brought to format {found} by another process, this version reads "
                f"{self._format}: update m3retriever here too, and open the index again"
            )
        return snapshot


def read_both_ends(folder: str) -> None:
    """Go through every page of the payload in a folder, by reading the first and the last byte of every value."""
    with closing(Payload(Path(folder), None, mending=True)) as payload, payload.read() as snapshot:
        snapshot.touch()


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


def is_open(path: Path) -> bool:
    """Whether this process has the payload in a folder open."""
    return (os.getpid(), path.resolve()) in _shared


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
