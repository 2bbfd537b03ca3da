"""Whether an index is whole, and mending it: `m3retriever verify` and `m3retriever repair`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from m3retriever.errors import DamagedIndexError, InvalidArgumentError, StoreError

if TYPE_CHECKING:
    from m3retriever.stores.chroma import ChromaStore
    from m3retriever.stores.verify import Verdict
    from m3retriever.types import Encoder

Step = Callable[[int], object]


def verify(path: str | Path, collection: str | None = None, *, on_step: Step | None = None) -> Verdict:
    """What is not whole of an index, in a folder that may be too damaged to be opened, or of a Chroma server; no model
    is loaded.

    Every stored value is checked, what is kept twice is compared, and Chroma's database and vector index are
    asked. `on_step` is called with the number of documents done since its last call.

    Raises
    ------
    StoreError
        There is no index. StoreLockedError where another process has the right to write, which is held meanwhile.
    """
    from m3retriever.stores.chroma import ChromaStore
    from m3retriever.stores.database import check_links, check_not_lost, problem_of
    from m3retriever.stores.payload import is_open
    from m3retriever.stores.repair import look_through
    from m3retriever.stores.verify import Finding, Verdict

    if (served := _served(path, collection)) is not None:
        with closing(served) as store:
            return store.verify(on_step=on_step)
    folder = _payload_folder(path, collection)
    try:
        check_not_lost(Path(path))
        if (problem := problem_of(path)) is not None:
            return Verdict(0, 0, (Finding("chroma", detail=problem),))
        if not ChromaStore.exists(path, collection):
            raise StoreError(f"no collection {folder.name!r} in {path}, only what was stored beside one: {folder}")
        check_links(Path(path), folder.name, however_large=True)
        if not is_open(folder):  # LMDB cannot take a file a second time, and who has it open has read it
            look_through(folder)
        store = ChromaStore(path, collection=collection)
    except DamagedIndexError as error:
        return Verdict(0, 0, (Finding(error.problem, error.ids, str(error)),))  # type: ignore[arg-type]  # one of them
    with closing(store):
        return store.verify(on_step=on_step)


def repair(
    path: str | Path,
    collection: str | None = None,
    *,
    model: str | Encoder | None = None,
    on_step: Step | None = None,
) -> tuple[Verdict, Verdict]:
    """Mend the index in a folder or of a Chroma server: the verdict before, and after.

    Vectors that are not whole are encoded again from the texts in Chroma; `model` as of `M3Index.open`. What another
    client changed is taken as it is. Of Chroma's own database only its indexes are made anew, and a copy of it is kept.

    Raises
    ------
    DamagedIndexError
        Chroma's database is damaged beyond its indexes: restore a copy of the folder.
    StoreError
        There is no index, or this process has it open.
    InvalidArgumentError
        The index does not say which model it is of: nothing is changed before that is known.
    """
    from m3retriever.stores.chroma import ChromaStore
    from m3retriever.stores.database import drop_vector_index, make_indexes_anew
    from m3retriever.stores.lock import WriterLock
    from m3retriever.stores.payload import is_open
    from m3retriever.stores.repair import mend_payload, recorded_model

    if (served := _served(path, collection)) is not None:
        return _mended_at_server(served, model, on_step)
    folder = _payload_folder(path, collection)
    if is_open(folder):
        raise StoreError(f"this process has the index in {path} open: close it, then repair it")
    before = found = verify(path, collection, on_step=on_step)
    if before.whole:
        return before, before
    encoder = _encoder_of(model, recorded_model(folder))
    with WriterLock(folder.parent).for_a_moment():
        if before.has("chroma"):
            make_indexes_anew(path)
    if before.has("chroma"):
        found = verify(path, collection, on_step=on_step)
    if found.has("vector index"):
        with WriterLock(folder.parent).for_a_moment():
            drop_vector_index(path, folder.name)  # whoever opens the collection next makes it anew
    if found.has("unreadable", "values", "entries", "derived"):
        with WriterLock(folder.parent).for_a_moment():
            mend_payload(folder)
    return before, _mended(ChromaStore(path, collection=collection), encoder, on_step)


def _mended_at_server(store: ChromaStore, model: str | Encoder | None, on_step: Step | None) -> tuple[Verdict, Verdict]:
    with closing(store):
        before = store.verify(on_step=on_step)
        if before.whole:
            return before, before
        return before, _mended(store, _encoder_of(model, store.settings()["source"]), on_step)


def _mended(store: ChromaStore, encoder: Encoder, on_step: Step | None) -> Verdict:
    from m3retriever.encoders import source_of

    with closing(store):
        store.source = source_of(encoder)
        store.bind(encoder.name, encoder.dim)
        return store.repair(encoder.encode_documents, on_step=on_step)


def _served(path: str | Path, collection: str | None) -> ChromaStore | None:
    """The store of a Chroma server's index; None for a folder, InvalidArgumentError for another engine's."""
    from m3retriever.stores.chroma import ChromaStore
    from m3retriever.stores.places import place_of

    place = place_of(path, collection)
    if place.is_folder:
        return None
    if place.engine != "chroma":
        raise InvalidArgumentError(
            f"verify and repair read indexes of Chroma; got {place.given}: its engine looks after its own"
        )
    if not place.exists():
        raise StoreError(f"there is no index at {place.given}")
    store = place.open()
    return store if isinstance(store, ChromaStore) else None


def _payload_folder(path: str | Path, collection: str | None) -> Path:
    """Where the payload lies; StoreError where there is no index."""
    from m3retriever.stores.database import DATABASE, collections_in, payload_folder, problem_of
    from m3retriever.stores.inside import check_inside
    from m3retriever.stores.names import collection_name

    check_inside(path)
    name = collection_name(collection)
    folder = payload_folder(path, name)
    if (folder / "data.mdb").is_file():
        return folder
    if not (Path(path) / DATABASE).is_file() or (problem_of(path) is None and name not in collections_in(path)):
        raise StoreError(f"no index in {path}: want a folder with {DATABASE} that holds the collection {name!r}")
    return folder


def _encoder_of(model: str | Encoder | None, recorded: str | None) -> Encoder:
    from m3retriever.encoders import as_encoder, recorded_source

    if model is None and recorded is None:
        raise InvalidArgumentError(
            "the index does not say, or not any more, which model it was made with: give it (model=, --model)"
        )
    return as_encoder(model if model is not None else recorded_source(recorded or ""))
