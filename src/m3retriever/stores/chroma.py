"""ChromaStore: texts, metadata and dense vectors in a Chroma collection, the rest in a payload beside it.

Chroma owns a document's existence. A write goes payload (staged), Chroma, payload (published); after
a crash the store asks Chroma what it holds and settles what was staged. The collection stays an
ordinary one that any Chroma client can read.
"""

from __future__ import annotations

import logging
import os
import shutil
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from m3retriever.checks import check_depth, check_documents, check_query, check_vectors
from m3retriever.errors import EncoderMismatchError, StoreError, StoreLockedError, UnknownDocumentError
from m3retriever.filters import check_where
from m3retriever.stores import agreement
from m3retriever.stores.allowed import AllowedSlots
from m3retriever.stores.candidates import union
from m3retriever.stores.chroma_server import Limits, check_within
from m3retriever.stores.connection import Connection
from m3retriever.stores.database import collections_in
from m3retriever.stores.dense import RECORD, DenseLeg, DenseSearch, Nearest, check_dense_search
from m3retriever.stores.legs import scores_in_every_mode, sparse_leg
from m3retriever.stores.lock import WriterLock
from m3retriever.stores.names import collection_name
from m3retriever.stores.payload import Payload, open_payload, release_payload
from m3retriever.stores.writes import Writes
from m3retriever.types import Document, ModeScores, Where
from m3retriever.vectors import IntArray, M3Vectors

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

    from m3retriever.stores.snapshot import Snapshot
    from m3retriever.stores.verify import Verdict

logger = logging.getLogger(__name__)

ADOPTED_AT_ONCE = 256  # documents of another client encoded at a time


class ChromaStore:
    """Documents in Chroma, scored in all three modes.

    Parameters
    ----------
    path
        A folder: Chroma runs embedded in this process and keeps its files there.
    client
        Or a Chroma client of your own.
    host, port, ssl, headers, tenant, database
        Or a Chroma server (`chroma run`). It has no authentication of its own: keep it behind a proxy, which may ask for
        TLS and for headers. Of Chroma Cloud ("api.trychroma.com", port 443) the key is CHROMA_API_KEY's.
    limits
        What the server takes; default: Chroma Cloud's for Chroma Cloud, else what the server says.
    collection
        Its name, 3 to 512 characters from [a-zA-Z0-9._-]; default: "m3retriever".
    payload
        Folder of the payload; default: inside `path`, or for a server in the user's cache, where it
        can always be rebuilt from the texts.
    read_only
        Change no document: every write is refused, and what another client added to a folder is not encoded. (Chroma
        itself still keeps its own books in its files, and a server's payload, which is a cache, follows the server.)
    dense
        How dense candidates are found: "exact" by a scan, "hnsw" by Chroma's index wherever it can answer, "auto" by
        whichever is quick and misses nothing that counts (`stores.dense`).

    Raises
    ------
    StoreError
        The folder or server cannot be opened, or there is nothing to read. StoreLockedError on the first write, where another
        process is writing.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        client: ClientAPI | None = None,
        host: str | None = None,
        port: int = 8000,
        ssl: bool = False,
        headers: Mapping[str, str] | None = None,
        tenant: str | None = None,
        database: str | None = None,
        limits: Limits | None = None,
        collection: str | None = None,
        payload: str | Path | None = None,
        read_only: bool = False,
        dense: DenseSearch = "auto",
    ) -> None:
        check_dense_search(dense)
        self._read_only = read_only
        self.source: str | None = None  # how to load the model again; kept with the first document
        self._model: tuple[str, int] | None = None
        self._pid = os.getpid()
        self._followed = False  # whether what other clients of a server had changed was learnt once
        self._changed = set[str]()  # ids that were seen to have another text than their vectors are of
        server = {"ssl": ssl, "headers": headers, "tenant": tenant, "database": database}
        self._connection = Connection(
            collection, path=path, client=client, host=host, port=port, create=not read_only, limits=limits, **server
        )
        folder, temporary = self._connection.payload_folder(payload)
        self._lock = WriterLock(folder.parent)
        try:
            frozen = read_only and not self._connection.remote
            if frozen and not folder.is_dir():
                raise StoreError(f"{folder.parent} holds no vectors yet: open the index once without read_only")
            self._payload: Payload = open_payload(folder, upgrading=None if frozen else self._lock.for_a_moment())
        except BaseException:
            self._connection.close()
            raise
        self._allowed = AllowedSlots(self._payload)
        self._dense = DenseLeg(dense)
        rubbish = folder.parent if temporary else None
        self._close = weakref.finalize(self, _release, self._connection, self._payload, self._lock, rubbish, self._pid)
        try:
            self._writes = Writes(self._connection, self._payload, self._lock, read_only=read_only)
            self._writes.reconcile()
        except BaseException:
            self.close()
            raise

    @staticmethod
    def exists(path: str | Path, collection: str | None = None) -> bool:
        """Whether a folder holds this collection; looks without creating anything."""
        return collection_name(collection) in collections_in(path)

    # -- what it holds ---------------------------------------------------------------------------

    def __len__(self) -> int:
        with self._reading() as snapshot:
            return len(snapshot)

    def ids(self, where: Where | None = None) -> list[str]:
        """Ids of the documents that pass the filter, all of them without one, ascending."""
        check_where(where)
        with self._reading() as snapshot:
            return sorted(snapshot.ids(self._allowed.passing(where, snapshot, self._connection).slots()))

    def get(self, ids: Sequence[str]) -> list[Document]:
        """The documents, in this order; UnknownDocumentError names those that are not here."""
        with self._reading() as snapshot:
            _known(snapshot, ids)
            held = agreement.documents(self._connection, ids)
            found = agreement.compare(list(held.values()), snapshot, self._connection)
        found.refuse_damage(self._payload)
        self._note_changed(found.texts)
        if missing := [id for id in ids if id not in held]:
            raise UnknownDocumentError(missing, asked=len(ids))
        return [held[id] for id in ids]

    def vectors(self, ids: Sequence[str]) -> M3Vectors:
        """The documents' vectors; token vectors are off by up to half an int8 step."""
        with self._reading() as snapshot:
            return snapshot.vectors(_known(snapshot, ids), self._dim(snapshot) or 0)

    def sizes(self, ids: Sequence[str]) -> IntArray:
        """How many sparse tokens and token vectors each document has, (n, 2), without reading them."""
        with self._reading() as snapshot:
            return snapshot.sizes(_known(snapshot, ids))

    def writer(self) -> str | None:
        """Which other process is writing, in words; None where none is."""
        return self._lock.other()

    def missing(self) -> list[str]:
        """Ids whose vectors are not those of the text that Chroma holds: another client added or changed them."""
        self._check_open()
        found = agreement.differences(self._connection, self._payload)
        found.refuse_damage(self._payload)
        held = agreement.documents(self._connection, sorted(self._changed - set(found.texts)))
        with self._payload.read() as snapshot:
            return found.texts + agreement.compare(list(held.values()), snapshot, self._connection).texts

    def settings(self) -> dict[str, str | None]:
        """The model's name, how to load it, and the dimension; None until a document is added."""
        with self._reading() as snapshot:
            held = {name: snapshot.meta(name) or None for name in ("model", "source", "dim")}
        return held if held["model"] is not None else self._connection.noted()

    def revision(self) -> int:
        """A number that grows with every change."""
        with self._reading() as snapshot:
            return snapshot.revision

    def bind(self, model: str, dim: int) -> None:
        """Say which model the vectors come from; EncoderMismatchError where the index holds another's."""
        with self._reading() as snapshot:
            self._check_model(snapshot, model)
        held = self.settings()
        if held["model"] not in (None, model) and self._connection.count():
            raise EncoderMismatchError(_other_model(held["model"], model))
        if held["dim"] is None and self._connection.dim() not in (None, dim):
            raise EncoderMismatchError(
                f"the collection {self._connection.collection.name!r} holds vectors of dimension {self._connection.dim()}, the "
                f"model makes {dim}: open it with the model it was made with, or use another collection or folder"
            )
        self._model = model, dim

    def remember(self) -> None:
        """Keep the model that was bound, in an index that is still empty: `add` does so with the first document."""
        with self.writing(), self._payload.read() as snapshot:
            if not len(snapshot):
                self._keep_settings(snapshot)

    # -- changing it -----------------------------------------------------------------------------

    def add(self, documents: Sequence[Document], vectors: M3Vectors) -> None:
        """Store documents with their vectors; one whose id is known is replaced, metadata included."""
        documents = list(documents)
        check_documents(documents)
        with self.writing():
            with self._payload.read() as snapshot:
                check_vectors(documents, vectors, self._dim(snapshot))
                check_within(documents, vectors.dim, self._connection.limits)
                if documents:
                    self._keep_settings(snapshot)
                    if snapshot.meta("dim") is None:
                        self._payload.set_meta(dim=str(vectors.dim))
            self._writes.add(documents, vectors)
            self._watch_recall()

    def delete(self, ids: Sequence[str]) -> None:
        """Remove documents; UnknownDocumentError, before anything is changed, where an id is not here."""
        with self.writing():
            with self._payload.read() as snapshot:
                _known(snapshot, ids)
            self._writes.delete(ids)

    def adopt(self, encode: Callable[[Sequence[str]], M3Vectors]) -> int:
        """Encode the documents that `missing` names, without touching their texts or metadata; how many. What another
        client deleted is forgotten.

        Where another process is writing, nothing is done: it keeps what it writes in step itself.
        EncoderMismatchError where the collection is not ours and holds another model's vectors.
        """
        self._check_open()
        stamp = self._connection.stamp()
        if self._writes.frozen or self._is_followed(stamp):
            return 0
        self._writes.reconcile()
        ids: list[str] = []
        try:
            if self.missing():
                with self._writes.right_for_a_moment(to_follow=True):  # nobody changes the documents while they are encoded
                    ids, ours = self.missing(), self.settings()["dim"] is not None
                    logger.warning("%d documents in Chroma have no vectors in every mode yet: encoding them", len(ids))
                    for start in range(0, len(ids), ADOPTED_AT_ONCE):
                        self._adopt(ids[start : start + ADOPTED_AT_ONCE], encode, ours=ours)
        except StoreLockedError:
            return 0
        self._changed.difference_update(ids)
        self._followed = True
        if stamp is not None:
            self._payload.set_meta(**{agreement.STAMP: stamp})
        return len(ids)

    def _is_followed(self, stamp: str | None) -> bool:
        """Whether a server has nothing new, as far as its stamp and its count tell; in a folder all is looked at each time."""
        if stamp is None or not self._followed or self._changed:
            return False
        with self._payload.read() as snapshot:
            return stamp == snapshot.meta(agreement.STAMP) and len(snapshot) == self._connection.count()

    def _note_changed(self, ids: Sequence[str]) -> None:
        """Remember documents whose text another client has changed, so that `adopt` encodes them however many there are."""
        if self._connection.remote and (new := set(ids) - self._changed):
            self._changed |= new
            words = "%d documents were changed by another client: their scores are of the earlier texts until refresh()"
            logger.warning(words, len(new))

    def verify(self, *, on_step: Callable[[int], object] | None = None) -> Verdict:
        """Read all of the index, and say what is not as it was written (`stores.verify`).

        Holds the right to write meanwhile: StoreLockedError where another process has it.
        """
        from m3retriever.stores.verify import verify

        self._check_open()
        with self._writes.right_for_a_moment():
            position = self._connection.position()  # as of before: what another client changes meanwhile is not looked at
            verdict = verify(self._payload, self._connection, on_step=on_step)
            if verdict.whole:
                self._payload.note({}, position)
            return verdict

    def repair(
        self, encode: Callable[[Sequence[str]], M3Vectors], *, on_step: Callable[[int], object] | None = None
    ) -> Verdict:
        """Mend what `verify` finds, and say what it finds then; vectors that are not whole are encoded from their texts."""
        from m3retriever.stores.repair import mend
        from m3retriever.stores.verify import verify

        self._check_open()
        with self._writes.right_for_a_moment():
            mend(self._payload, self._connection, verify(self._payload, self._connection, on_step=on_step), encode)
            with self._payload.read() as snapshot:
                self._keep_settings(snapshot)
            self._writes.was_refilled()
            return self.verify(on_step=on_step)

    def _adopt(self, ids: Sequence[str], encode: Callable[[Sequence[str]], M3Vectors], *, ours: bool) -> None:
        held = agreement.documents(self._connection, ids)
        ids = [id for id in ids if id in held]
        vectors = encode([held[id].text for id in ids])
        agreement.adopt(self._connection, self._payload, ids, vectors, ours=ours, correct=not self._read_only)
        with self._payload.read() as snapshot:
            self._keep_settings(snapshot)
        self._writes.was_refilled()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the right to write: no other process and no other thread changes the index meanwhile.

        `add` and `delete` take it themselves. It stays with this process until `close` or `stop_writing`;
        StoreLockedError names the process that has it.
        """
        self._check_open()
        with self._writes.right():
            yield

    def writing_here(self) -> bool:
        """Whether this thread is inside `with store.writing()`: no other thread can write until it leaves."""
        return self._writes.here()

    def stop_writing(self) -> None:
        """Give back the right to write, so that another process may; the next write takes it again."""
        self._writes.stop()

    def close(self) -> None:
        """Release the files and the right to write. A closed store cannot be used."""
        self._close()

    # -- searching -------------------------------------------------------------------------------

    def search(self, query: M3Vectors, *, depth: int, where: Where | None = None) -> ModeScores:
        """The best `depth` of the dense and of the sparse search, each scored in every mode."""
        check_depth(depth)
        check_where(where)
        with self._reading() as snapshot:
            self._check_query(snapshot, query)
            allowed = self._allowed.passing(where, snapshot, self._connection)
            if not len(allowed):
                return ModeScores((), np.empty((0, 3), np.float32))
            slots, found_by = union(
                self._dense.search(snapshot, query.dense[0], allowed, depth, self._hnsw(snapshot), self._connection.ef_search),
                sparse_leg(snapshot, query, allowed, depth),
            )
            return ModeScores(tuple(snapshot.ids(slots)), scores_in_every_mode(snapshot, query, slots), found_by)

    def score(self, query: M3Vectors, ids: Sequence[str]) -> ModeScores:
        """Any documents' scores in every mode, found by a search or not."""
        with self._reading() as snapshot:
            self._check_query(snapshot, query)
            return ModeScores(tuple(ids), scores_in_every_mode(snapshot, query, _known(snapshot, ids)))

    def _hnsw(self, snapshot: Snapshot) -> Nearest | None:
        """How to ask HNSW; None where its index is behind what the payload holds."""
        behind = not self._connection.remote and snapshot.revision != self._writes.hnsw_revision
        return None if behind else self._connection.nearest

    def _watch_recall(self) -> None:
        """What was stored is stored, whatever comes of this."""
        try:
            with self._payload.read() as snapshot:
                recall = self._dense.to_record(snapshot, self._hnsw(snapshot), self._connection.ef_search)
            if recall is not None:
                self._payload.set_meta(**{RECORD: recall})
        except StoreError as error:
            logger.warning("the recall of Chroma's vector index could not be measured: %s", error)

    def _keep_settings(self, snapshot: Snapshot) -> None:
        """Refuse vectors of another model; in an index that is empty, remember whose they will be."""
        if self._model is None:
            return
        model, dim = self._model
        self._check_model(snapshot, model)
        if snapshot.meta("model") != model:
            self._payload.set_meta(model=model, dim=str(dim), source=self.source or "")
            self._connection.note(model=model, dim=str(dim), source=self.source or "")
        elif self.source and snapshot.meta("source") != self.source:
            self._payload.set_meta(source=self.source)
            self._connection.note(source=self.source)

    def _dim(self, snapshot: Snapshot) -> int | None:
        dim = snapshot.meta("dim") if len(snapshot) or self._model is None else None
        return int(dim) if dim else (self._model[1] if self._model else None)

    def _check_query(self, snapshot: Snapshot, query: M3Vectors) -> None:
        check_query(query, self._dim(snapshot))
        if self._model is not None:
            self._check_model(snapshot, self._model[0])

    @staticmethod
    def _check_model(snapshot: Snapshot, model: str) -> None:
        held = snapshot.meta("model")
        if len(snapshot) and held not in (None, model):
            raise EncoderMismatchError(_other_model(held, model))

    def _check_open(self) -> None:
        if not self._close.alive:
            raise StoreError("this store is closed; open it again")
        if self._pid != os.getpid():
            raise StoreError(f"this store was opened before the process forked: {self._connection.in_a_child}")

    def _reading(self) -> AbstractContextManager[Snapshot]:
        self._check_open()
        return self._payload.read()


def _release(connection: Connection, payload: Payload, lock: WriterLock, rubbish: Path | None, pid: int) -> None:
    if pid != os.getpid():
        return  # a forked child: all of it is its parent's, and Chroma's engine would wait for threads that are not here
    connection.close()
    release_payload(payload)
    lock.release()
    if rubbish is not None:
        shutil.rmtree(rubbish, ignore_errors=True)


def _other_model(held: str | None, got: str) -> str:
    return (
        f"this index was made with the model {held!r}; got {got!r}: open it with that model, "
        "or index the documents again into another folder or collection"
    )


def _known(snapshot: Snapshot, ids: Sequence[str]) -> IntArray:
    slots = snapshot.slots(ids)
    if (slots < 0).any():
        raise UnknownDocumentError([id for id, slot in zip(ids, slots, strict=True) if slot < 0], asked=len(ids))
    return slots
