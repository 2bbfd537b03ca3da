"""What an index holds: adding documents, finding them by id and filter, removing them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from contextvars import copy_context
from functools import partial
from itertools import chain, islice
from threading import RLock
from types import TracebackType
from typing import Any, NoReturn, TypeVar

from m3retriever.checks import check_documents, listed_ids
from m3retriever.errors import InvalidArgumentError, InvalidDocumentError, UnknownDocumentError, shown
from m3retriever.filters import ID, about_text, both, check_where, predicate
from m3retriever.ingest import BATCH, Added, Behind, Delayed, EncodesStream, Step, batches, encoded, runs, same, unique
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

Told = Callable[[Added], object]

Result = TypeVar("Result")
Self = TypeVar("Self", bound="Documents")


class Documents:
    """The documents of an M3Index: an encoder that makes their vectors, and the store that keeps them."""

    def __init__(self, encoder: Encoder, store: Store) -> None:
        self.encoder, self.store = encoder, store
        self._splitting = RLock()  # one call at a time, for two versions of a document must not mix their passages
        if isinstance(store, BindsModel):
            store.bind(encoder.name, encoder.dim)
        if isinstance(store, Adopts):
            store.adopt(encoder.encode_documents)

    def add(self, documents: Iterable[Document], *, progress: bool | Told = False, split: Split | bool = False) -> Added:
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
            it gives is checked and stored run by run, 256 documents at most, and nothing but ids is kept. All of it
            is one stream for an encoder that works on several batches at once (`ingest.EncodesStream`).
        progress
            True shows a bar over each batch that is long to encode; a function is told what was done, batch by batch,
            as it is on disk.
        split
            Whether, or how, to cut what is longer than the encoder reads into passages (`passages.split`), which
            are stored in the document's place. What is left of an earlier version of a document goes, passages
            or whole. Without it, passages that are here stay. InvalidDocumentError where one's id is taken.
        """
        if isinstance(documents, Document):
            raise InvalidArgumentError("add takes a list of documents; got one Document: write [document]")
        if not isinstance(documents, Iterable) or isinstance(documents, str | bytes):
            raise InvalidArgumentError(f"add takes a list of documents; got {shown(documents)}")
        how = as_split(split)
        if isinstance(documents, Iterator):
            given: Iterable[list[Document]] = (_checked(run, how) for run in runs(unique(documents), most=BATCH))
        else:
            given = [_checked(list(documents), how)]
        done = list[Added]()
        with span("add") as adding, nullcontext() if how is None else self._splitting:
            self._add(given, how, progress is True, _telling(done, progress))
            total = sum(done, Added())
            adding.set(documents=total.new + total.replaced + total.unchanged)
        return total

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

    def _add(self, given: Iterable[list[Document]], how: Split | None, bar: bool, tell: Told) -> None:
        """Plan what is new, encode it, and store it behind the encoder's back where the store can be written to from
        another thread than this one and there is more than one batch of it."""
        under_way = deque[Step]()
        steps = Delayed(self._steps(given, how, under_way, tell))
        first = list(islice(steps, 2))
        apart = isinstance(self.store, WritesFromThreads) and not self.store.writing_here()
        with Behind(threaded=apart and len(first) > 1) as store:
            for step, vectors in encoded(chain(first, steps), partial(self._vectors, bar=bar)):
                store.wait()
                _tell_all_before(step, under_way, tell)
                if step.documents:
                    keep = partial(self._store, step.documents, vectors)
                    store.do(partial(copy_context().run, keep))  # spans in a thread belong to this call's
                if step.gone:
                    store.wait()
                    self.delete(step.gone, skip_unknown=True)
            store.wait()
            _tell_all_before(None, under_way, tell)
        steps.check()

    def _steps(self, given: Iterable[list[Document]], how: Split | None, under_way: deque[Step], tell: Told) -> Iterator[Step]:
        """What is to be done, batch by batch, and noted as under way; of what is here already it is only told."""
        for run in given:
            for batch in batches(run):
                for step in [self._step(batch)] if how is None else self._split_steps(batch, how, under_way):
                    if step.documents or step.gone:
                        under_way.append(step)
                        yield step
                    else:
                        tell(step.added)

    def _step(self, documents: Sequence[Document]) -> Step:
        held = self._held([document.id for document in documents])
        check_owners(documents, held)
        changed = [document for document in documents if not same(document, held.get(document.id))]
        replaced = sum(document.id in held for document in changed)
        return Step(changed, added=Added(len(changed) - replaced, replaced, len(documents) - len(changed)))

    def _split_steps(self, documents: Sequence[Document], how: Split, under_way: Iterable[Step]) -> list[Step]:
        """The passages of what is too long; what they leave of earlier versions goes last, so that a call that was
        interrupted can be repeated."""
        parts = split_documents(documents, self.encoder, how)
        held = _held_then(self._earlier(documents, parts), under_way)
        check_owners(parts, held)
        known, kept = {document.id for document in documents}, {part.id for part in parts}
        gone = sorted(id for id, document in held.items() if owner_of(document) in known and id not in kept)
        changed = [[part for part in batch if not same(part, held.get(part.id))] for batch in batches(parts)]
        before = {owner_of(document) for document in held.values()}
        touched = {owner_of(part) for batch in changed for part in batch} | {owner_of(held[id]) for id in gone}
        replaced = len(touched & before)
        done = Added(len(touched) - replaced, replaced, len(documents) - len(touched))
        *first, last = [batch for batch in changed if batch] or [[]]
        return [*map(Step, first), Step(last, gone, done)]

    def _earlier(self, documents: Sequence[Document], parts: Sequence[Document]) -> dict[str, Document]:
        """What is held under the ids of documents and of their parts, and of passages that documents had."""
        named = {one.id for one in (*documents, *parts)}
        named.update(self.ids({PASSAGE_OF: {"$in": [document.id for document in documents]}}))
        return self._held(sorted(named))

    def _vectors(self, batches: Iterable[Sequence[str]], *, bar: bool) -> Generator[M3Vectors, None, None]:
        """The vectors of each list of texts."""
        if isinstance(self.encoder, EncodesStream):
            yield from self.encoder.encode_stream(batches)
            return
        for texts in batches:
            with span("encode_documents", documents=len(texts)):
                vectors = self.encoder.encode_documents(texts, progress=bar)
            yield vectors

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


def _checked(documents: list[Document], how: Split | None) -> list[Document]:
    """The documents, if all of them can be stored."""
    check_documents(documents)
    if how is not None:
        check_splittable(documents)
    return documents


def _telling(done: list[Added], progress: bool | Told) -> Told:
    """What notes what was done, and tells it to who asked for it."""

    def tell(added: Added) -> None:
        done.append(added)
        if callable(progress):
            progress(added)

    return tell


def _tell_all_before(step: Step | None, under_way: deque[Step], tell: Told) -> None:
    """Steps that are done are no longer under way."""
    while under_way and under_way[0] is not step:
        tell(under_way.popleft().added)


def _held_then(held: Mapping[str, Document], under_way: Iterable[Step]) -> dict[str, Document]:
    """What will be held when the steps under way are done."""
    then = dict(held)
    for step in under_way:
        then.update((document.id, document) for document in step.documents)
        for id in step.gone:
            then.pop(id, None)
    return then


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
