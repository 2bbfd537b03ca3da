"""What an index holds: adding documents, finding them by id and filter, removing them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from functools import partial
from itertools import islice
from threading import Lock
from types import TracebackType
from typing import Any, NoReturn, TypeVar

from m3retriever.checks import check_documents, listed_ids
from m3retriever.errors import InvalidArgumentError, InvalidDocumentError, UnknownDocumentError, shown
from m3retriever.filters import ID, about_text, both, check_where, predicate
from m3retriever.ingest import Added, Behind, batches, runs, same, unique
from m3retriever.observing.counters import count
from m3retriever.observing.spans import span
from m3retriever.passages import PASSAGE_OF, Split, as_split, check_splittable, owner_of, split_documents
from m3retriever.twins import in_thread
from m3retriever.types import (
    Adopts,
    BindsModel,
    Document,
    Encoder,
    HoldsVectors,
    HoldsWriting,
    ListsIds,
    M3Vectors,
    Store,
    Where,
    WritesFromThreads,
)

READ_AT_ONCE = 5_000  # documents, where all that pass a filter are looked at

Result = TypeVar("Result")
Self = TypeVar("Self", bound="Documents")


class Documents:
    """The documents of an M3Index: an encoder that makes their vectors, and the store that keeps them."""

    def __init__(self, encoder: Encoder, store: Store) -> None:
        self.encoder, self.store = encoder, store
        self._splitting = Lock()  # one call at a time, for two versions of a document must not mix their passages
        if isinstance(store, BindsModel):
            store.bind(encoder.name, encoder.dim)
        if isinstance(store, Adopts):
            store.adopt(encoder.encode_documents)

    def add(self, documents: Iterable[Document], *, progress: bool = False, split: Split | bool = False) -> Added:
        """Encode and store documents; one whose id is known replaces the old one.

        Documents that the index holds already, text and metadata alike, are not encoded again, so
        that an interrupted call can simply be repeated. When it returns, all of them are on disk.

        A document that cannot be stored, wherever it stands in a list, is refused with InvalidDocumentError before
        anything is encoded or stored. What shows only later stops the call at its batch, and the batches before it
        (`ingest.batches`: 256 documents, or 200,000 characters) are stored, whole: an encoder that fails or gives
        vectors that are not finite (InvalidVectorsError names the document), an id that a passage has, a full disk.

        Parameters
        ----------
        documents
            A list is checked as a whole before any of it is stored. An iterator may give more than fits memory: what
            it gives is checked and stored run by run, a thousand documents at most, and nothing but ids is kept.
        split
            Whether, or how, to cut what is longer than the encoder reads into passages (`passages.split`), which
            are stored in the document's place. What is left of an earlier version of a document goes, passages
            or whole. Without it, passages that are here stay. InvalidDocumentError where one's id is taken.
        """
        if isinstance(documents, Document):
            raise InvalidArgumentError("add takes a list of documents; got one Document: write [document]")
        if not isinstance(documents, Iterable) or isinstance(documents, str | bytes):
            raise InvalidArgumentError(f"add takes a list of documents; got {shown(documents)}")
        if isinstance(documents, Iterator):
            return sum((self.add(run, progress=progress, split=split) for run in runs(unique(documents))), Added())
        documents, how = list(documents), as_split(split)
        check_documents(documents)
        if how is not None:
            check_splittable(documents)
        with span("add", documents=len(documents)):
            if how is None:
                return self._add(documents, progress=progress)
            return sum((self._add_split(batch, how, progress=progress) for batch in batches(documents)), Added())

    def delete(self, ids: Sequence[str], *, skip_unknown: bool = False) -> None:
        """Remove documents; UnknownDocumentError, before any is removed, where an id is not here, or they are skipped.

        Of a document that was split these are its passages, each by its own id; for all of them, by its id, write
        `delete_where({"passage_of": id})`.
        """
        self._for_known(self._delete, listed_ids(ids), skip_unknown)

    def delete_where(
        self,
        where: Where | None = None,
        *,
        where_document: Where | None = None,
        among: Sequence[str] | None = None,
    ) -> int:
        """Remove the documents that pass the filters, of those `among` only; how many. None else changes them meanwhile.

        InvalidArgumentError without any of the three: to remove every document say `delete(index.ids())`.
        """
        if where is None and where_document is None and among is None:
            raise InvalidArgumentError("delete_where takes where, where_document or among; got none: for all, delete(ids())")
        with self.store.writing() if isinstance(self.store, HoldsWriting) else nullcontext():
            ids = self.ids(where, where_document=where_document, among=among)
            passes, passing = predicate(one_filter(where, where_document), patterns=True), list[str]()
            for start in range(0, len(ids), READ_AT_ONCE):  # nothing is deleted on the word of a list alone
                held = self.get(ids[start : start + READ_AT_ONCE], skip_unknown=True)
                passing += [document.id for document in held if passes(document)]
            self.delete(passing, skip_unknown=True)
        return len(passing)

    def find(
        self,
        where: Where | None = None,
        *,
        where_document: Where | None = None,
        among: Sequence[str] | None = None,
    ) -> list[Document]:
        """The documents that pass the filters, of those `among` only and then in their order, else by id."""
        among = None if among is None else listed_ids(among)
        passing = self.ids(where, where_document=where_document, among=among)
        if among is not None:
            found = set(passing)
            passing = [id for id in dict.fromkeys(among) if id in found]
        passes = predicate(one_filter(where, where_document), patterns=True)  # one may have changed since it was listed
        return [document for document in self.get(passing, skip_unknown=True) if passes(document)]

    def get(self, ids: Sequence[str], *, skip_unknown: bool = False) -> list[Document]:
        """Documents by id, in this order; UnknownDocumentError where an id is not here, or they are skipped."""
        return self._for_known(self.store.get, listed_ids(ids), skip_unknown) or []

    def ids(
        self,
        where: Where | None = None,
        *,
        where_document: Where | None = None,
        among: Sequence[str] | None = None,
    ) -> list[str]:
        """Ids of the documents that pass the filters, all of them without one, ascending; of those `among` only."""
        if not isinstance(self.store, ListsIds):
            raise InvalidArgumentError(f"{type(self.store).__name__} does not list its ids")
        where = one_filter(where, where_document)
        wanted = None if among is None else listed_ids(among)
        if wanted == []:
            return []
        return self.store.ids(both(where, None if wanted is None else {ID: {"$in": wanted}}))

    def vectors(self, ids: Sequence[str]) -> M3Vectors:
        """The stored vectors of documents, in this order."""
        if not isinstance(self.store, HoldsVectors):
            raise InvalidArgumentError(f"{type(self.store).__name__} does not give back vectors")
        return self.store.vectors(listed_ids(ids))

    def __len__(self) -> int:
        return len(self.store)

    def close(self) -> None:
        """Release the store's files and the right to write."""
        self.store.close()

    def __deepcopy__(self: Self, memo: dict[int, Any]) -> Self:
        return self  # an open index, not a value: frameworks copy what holds it

    def __reduce__(self) -> NoReturn:
        raise TypeError("an open M3Index cannot be pickled: open it again where it is needed, with M3Index.open(path)")

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # -- async twins -------------------------------------------------------------------------------

    aadd = in_thread(add)
    adelete = in_thread(delete)
    adelete_where = in_thread(delete_where)
    afind = in_thread(find)
    aget = in_thread(get)
    aids = in_thread(ids)
    avectors = in_thread(vectors)

    # -- steps -------------------------------------------------------------------------------------

    def _add(self, documents: Sequence[Document], *, progress: bool) -> Added:
        done = Added()
        with self._storing(documents) as store:
            for batch in batches(documents):
                held = self._held([document.id for document in batch])
                check_owners(batch, held)
                changed = self._put(batch, held, store, progress=progress)
                replaced = sum(id in held for id in changed)
                done += Added(len(changed) - replaced, replaced, len(batch) - len(changed))
        return done

    def _add_split(self, documents: Sequence[Document], how: Split, *, progress: bool) -> Added:
        """`_add`, of the passages of what is too long; what they leave of earlier versions goes last, so that a
        call that was interrupted can be repeated."""
        parts = split_documents(documents, self.encoder, how)
        with self._splitting:
            held = self._earlier(documents, parts)
            check_owners(parts, held)
            with self._storing(parts) as store:
                changed = {id for batch in batches(parts) for id in self._put(batch, held, store, progress=progress)}
            known = {document.id for document in documents}
            gone = {id for id, document in held.items() if owner_of(document) in known} - {part.id for part in parts}
            self.delete(sorted(gone), skip_unknown=True)
        before = {owner_of(document) for document in held.values()}
        touched = {owner_of(part) for part in parts if part.id in changed} | {owner_of(held[id]) for id in gone}
        replaced = len(touched & before)
        return Added(len(touched) - replaced, replaced, len(documents) - len(touched))

    def _earlier(self, documents: Sequence[Document], parts: Sequence[Document]) -> dict[str, Document]:
        """What is held under the ids of documents and of their parts, and of passages that documents had."""
        named = {one.id for one in (*documents, *parts)}
        named.update(self.ids({PASSAGE_OF: {"$in": [document.id for document in documents]}}))
        return self._held(sorted(named))

    def _storing(self, documents: Sequence[Document]) -> AbstractContextManager[Behind]:
        """Where batches are stored: behind the encoder's back where there are several and the store can be written to from
        another thread than this one."""
        apart = isinstance(self.store, WritesFromThreads) and not self.store.writing_here()
        several = len(list(islice(batches(documents), 2))) > 1
        return Behind(threaded=apart and several)

    def _put(self, documents: Sequence[Document], held: Mapping[str, Document], store: Behind, *, progress: bool) -> list[str]:
        """Encode and store what is not held as it is; the ids of that."""
        changed = [document for document in documents if not same(document, held.get(document.id))]
        if changed:
            texts = [document.text for document in changed]
            with span("encode_documents", documents=len(texts)):
                vectors = self.encoder.encode_documents(texts, progress=progress)
            store.do(partial(copy_context().run, self._store, changed, vectors))  # spans in a thread belong to this call's
        return [document.id for document in changed]

    def _store(self, documents: Sequence[Document], vectors: M3Vectors) -> None:
        self.store.add(documents, vectors)
        count("documents_added", len(documents))

    def _delete(self, ids: list[str]) -> None:
        with span("delete", documents=len(ids)):
            self.store.delete(ids)
        count("documents_deleted", len(set(ids)))

    @staticmethod
    def _for_known(call: Callable[[list[str]], Result], ids: list[str], skip_unknown: bool) -> Result | None:
        """What a call gives, made again without the ids that it says it does not know; None where none is left."""
        while ids:
            try:
                return call(ids)
            except UnknownDocumentError as error:
                if not skip_unknown:
                    raise
                unknown = set(error.ids)
                ids = [id for id in ids if id not in unknown]
        return None

    def _held(self, ids: Sequence[str]) -> dict[str, Document]:
        """Those of the documents that the store has."""
        try:
            return {document.id: document for document in self.store.get(ids)}
        except UnknownDocumentError as error:
            unknown = set(error.ids)
            known = [id for id in ids if id not in unknown]
            return self._held(known) if known else {}
        except KeyError:  # a store of the user's own, which does not say which id is unknown
            return {} if len(ids) == 1 else {id: document for one in ids for id, document in self._held([one]).items()}


def one_filter(where: Where | None, where_document: Where | None) -> Where | None:
    """Both filters as one, checked."""
    check_where(where)
    return both(where, about_text(where_document))


def check_owners(documents: Sequence[Document], held: Mapping[str, Document]) -> None:
    """Refuse a passage that would replace a document, a document a passage, and a passage one of another document."""
    for document in documents:
        other = held.get(document.id)
        if other is not None and owner_of(other) != owner_of(document):
            raise InvalidDocumentError(
                f"the id {document.id!r} is that of {_described(document)}, and of {_described(other)} in this index; "
                "give one of the documents another id"
            )


def _described(document: Document) -> str:
    return "a document" if owner_of(document) == document.id else f"a passage of {owner_of(document)!r}"
