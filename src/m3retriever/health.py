"""Whether an index is whole, and mending it: `m3retriever verify` and `m3retriever repair`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from m3retriever.errors import DamagedIndexError, InvalidArgumentError

if TYPE_CHECKING:
    from m3retriever.stores.verify import Verdict
    from m3retriever.types import Encoder

Step = Callable[[int], object]


def verify(path: str | Path, collection: str | None = None, *, on_step: Step | None = None) -> Verdict:
    """What is not whole of the index in a folder, which may be too damaged to be opened; no model is loaded.

    Every stored value is checked, what is kept twice is compared, and Chroma's database and vector index are
    asked. Holds the right to write: StoreLockedError where another process has it. `on_step` is called with the
    number of documents done since its last call.
    """
    from m3retriever.stores.chroma import ChromaStore
    from m3retriever.stores.connection import integrity
    from m3retriever.stores.verify import Finding, Verdict

    if (problem := integrity(path)) is not None:
        return Verdict(0, 0, (Finding("chroma", detail=problem),))
    try:
        store = ChromaStore(path, collection=collection)
    except DamagedIndexError as error:
        return Verdict(0, 0, (Finding("unreadable", detail=str(error)),))
    try:
        return store.verify(on_step=on_step)
    finally:
        store.close()


def repair(
    path: str | Path,
    collection: str | None = None,
    *,
    model: str | Encoder | None = None,
    on_step: Step | None = None,
) -> tuple[Verdict, Verdict]:
    """Mend the index in a folder: the verdict before, and after.

    Vectors that are not whole are encoded again from the texts in Chroma; `model` as of `M3Index.open`. What another
    client changed is taken as it is. Chroma's own database is not mended: restore a copy of the folder.
    """
    from m3retriever.encoders import as_encoder, source_of
    from m3retriever.stores.chroma import ChromaStore
    from m3retriever.stores.connection import payload_folder_in
    from m3retriever.stores.lock import WriterLock
    from m3retriever.stores.repair import mend_payload

    before = verify(path, collection, on_step=on_step)
    if before.has("chroma"):
        raise DamagedIndexError(f"{before.findings[0]}: restore the folder from a copy; {path} stays as it is")
    if before.whole:
        return before, before
    if before.has("unreadable", "values", "entries", "derived"):
        folder = payload_folder_in(path, collection)
        with WriterLock(folder.parent).for_a_moment():
            mend_payload(folder)
    store = ChromaStore(path, collection=collection)
    try:
        encoder = as_encoder(model if model is not None else _recorded(store.settings()))
        store.source = source_of(encoder)
        store.bind(encoder.name, encoder.dim)
        store.repair(encoder.encode_documents)
        return before, store.verify(on_step=on_step)
    finally:
        store.close()


def _recorded(settings: Mapping[str, str | None]) -> str:
    if settings["source"] is None:
        raise InvalidArgumentError("the index does not say which model it was made with: give it (model=, --model)")
    return settings["source"]
