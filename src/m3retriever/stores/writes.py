"""Writing to a ChromaStore, step by step: payload (staged), Chroma, payload (published).

One thread of one process writes at a time. After a crash, or where a write fails in the middle, Chroma is asked
what it holds, and the payload follows it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

from m3retriever.checks import clean_metadata
from m3retriever.errors import StoreError, StoreLockedError
from m3retriever.observing.spans import span
from m3retriever.stores import agreement
from m3retriever.types import Document
from m3retriever.vectors import FloatArray, M3Vectors

if TYPE_CHECKING:
    from m3retriever.stores.connection import Connection
    from m3retriever.stores.lock import WriterLock
    from m3retriever.stores.payload import Payload
    from m3retriever.stores.snapshot import Pending

logger = logging.getLogger(__name__)


class Writes:
    """The changes of one store's documents.

    Attributes
    ----------
    hnsw_revision : the payload's revision up to which the engine's vector index is fresh
    frozen : whether even the payload stays as it is; read only, a server's follows the server still, for it is a cache
    """

    def __init__(self, connection: Connection, payload: Payload, lock: WriterLock, *, read_only: bool) -> None:
        self._connection, self._payload, self._lock, self._read_only = connection, payload, lock, read_only
        self._position: int | None = None  # of Chroma's last change, while we write and all of them are ours
        self._held = threading.local()
        self.frozen = read_only and not connection.remote
        self.hnsw_revision = self._revision()

    @contextmanager
    def right(self, *, to_follow: bool = False) -> Iterator[None]:
        """Hold the right to write: no other process and no other thread changes the index meanwhile.

        It stays with this process afterwards; StoreLockedError names the process that has it. `to_follow` changes the
        payload alone, which a server's may where documents may not be changed.
        """
        if self._read_only and not (to_follow and not self.frozen):
            raise StoreError("this index was opened to be read only: open it without read_only to change it")
        with self._payload.lock:
            self._lock.acquire()
            with self._payload.read() as snapshot:
                stale, settled = snapshot.revision != self.hnsw_revision, snapshot.settled
                elsewhere = snapshot.meta("writer") != str(os.getpid())
            if stale and elsewhere and not self._connection.renewable:
                raise StoreError("another process has written since your Chroma client was opened: give a fresh one")
            if (stale and self._connection.renewable) or not settled:
                self._make_agree()
            outer, self._held.here = self.here(), True
            if not outer:
                self._position = agreement.known_position(self._connection, self._payload)
            try:
                yield
            finally:
                self._held.here = outer

    @contextmanager
    def right_for_a_moment(self, *, to_follow: bool = False) -> Iterator[None]:
        """`right`, given back at the end where this process did not have it before."""
        mine = self._lock.held
        try:
            with self.right(to_follow=to_follow):
                yield
        finally:
            if not mine:
                self.stop()

    def here(self) -> bool:
        """Whether this thread is inside `with right()`."""
        return bool(getattr(self._held, "here", False))

    def stop(self) -> None:
        """Give back the right to write, so that another process may."""
        with self._payload.lock:
            self._lock.release()

    def add(self, documents: Sequence[Document], vectors: M3Vectors) -> None:
        """Store documents that were checked; the caller holds the right to write."""
        for start in range(0, len(documents), agreement.PAGE):
            self._add(documents[start : start + agreement.PAGE], vectors[start : start + agreement.PAGE])

    def delete(self, ids: Sequence[str]) -> None:
        """Remove documents that are here; the caller holds the right to write."""
        unique = list(dict.fromkeys(ids))
        for start in range(0, len(unique), agreement.PAGE):
            page = unique[start : start + agreement.PAGE]
            staged = self._payload.stage_delete(page)
            with self._settling(staged):
                self._connection.delete(page)
                self._publish(staged)

    def was_refilled(self) -> None:
        """The vector index holds what the payload holds now."""
        self.hnsw_revision = self._revision()

    def reconcile(self) -> None:
        """After a crash or another client's changes, bring the payload in step with Chroma, if that is ours to do."""
        if self.frozen or not agreement.disagree(self._connection, self._payload):
            return
        with self._payload.lock:  # not in the middle of another thread's write
            mine = self._lock.held
            try:
                self._lock.acquire()
            except StoreLockedError:
                return  # another process is in the middle of a write, and keeps both in step itself
            try:
                if agreement.disagree(self._connection, self._payload):
                    self._make_agree()
            finally:
                if not mine:
                    self._lock.release()

    def _make_agree(self) -> None:
        agreement.make_agree(self._connection, self._payload)
        self.was_refilled()

    def _add(self, documents: Sequence[Document], vectors: M3Vectors) -> None:
        with span("store", documents=len(documents)):
            with span("stage", documents=len(documents)):
                staged = self._payload.stage(documents, vectors)
            with self._settling(staged):
                with span("chroma", documents=len(documents)):
                    self._upsert(documents, vectors.dense)
                    staged = agreement.as_held(self._connection, staged)
                with span("publish", documents=len(documents)):
                    self._publish(staged)

    def _upsert(self, documents: Sequence[Document], dense: FloatArray) -> None:
        """Chroma's upsert merges metadata: keys that went are set to None, which removes them."""
        ids = [document.id for document in documents]
        old = self._connection.get(ids=ids, include=["metadatas"])
        keys = {id: list(metadata or {}) for id, metadata in zip(old["ids"], old["metadatas"], strict=True)}
        metadatas = [
            {**dict.fromkeys(keys.get(document.id, [])), **clean_metadata(document.metadata)} or None for document in documents
        ]
        self._connection.upsert(
            ids=ids,
            embeddings=dense,
            documents=[document.text for document in documents],
            metadatas=metadatas,  # None for a document without metadata
        )

    @contextmanager
    def _settling(self, staged: Sequence[Pending]) -> Iterator[None]:
        """Where a write fails or is interrupted, make the payload follow what Chroma now holds."""
        try:
            yield
        except BaseException:
            try:
                with self._payload.read() as snapshot:
                    waiting = {entry.slot: entry for entry in snapshot.pending()}  # what was published already is settled
                staged = [waiting[entry.slot] for entry in staged if entry.slot in waiting]
                agreement.settle(self._connection, self._payload, staged)
            except StoreError as second:
                logger.warning("a write waits to be settled, for Chroma does not answer: %s", type(second).__name__)
            raise

    def _publish(self, staged: Sequence[Pending]) -> None:
        fresh = self.hnsw_revision == self._revision()
        if self._position is not None:
            self._position = agreement.position_after(self._connection, self._payload, staged, self._position)
        self._payload.publish(staged, self._position)
        self._leave_stamp()
        if fresh:
            self.was_refilled()

    def _leave_stamp(self) -> None:
        """Tell other clients of a server that something was written, and note it where nobody else wrote since we looked."""
        if not self._connection.remote:
            return
        before, ours = self._connection.stamp(), uuid4().hex
        self._connection.leave_stamp(ours)
        with self._payload.read() as snapshot:
            known = snapshot.meta(agreement.STAMP)
        if before == known:
            self._payload.set_meta(**{agreement.STAMP: ours})

    def _revision(self) -> int:
        with self._payload.read() as snapshot:
            return snapshot.revision
