"""The index that `from_texts` fills."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from langchain_core.embeddings import Embeddings

from m3retriever.errors import EncoderMismatchError, InvalidArgumentError
from m3retriever.index import M3Index
from m3retriever.langchain.embeddings import M3Embeddings
from m3retriever.profile import as_profile
from m3retriever.stores.memory import MemoryStore
from m3retriever.types import Profile


@contextmanager
def opened_for(
    embedding: Embeddings,
    *,
    index: M3Index | None,
    path: str | Path | None,
    collection: str | None,
    profile: Profile | str | Path | None,
) -> Iterator[M3Index]:
    """The index given, or one in a folder, or one in memory; what is opened here is closed where filling it fails."""
    if not isinstance(embedding, M3Embeddings):
        raise InvalidArgumentError(
            f"embedding must be an M3Embeddings; got {type(embedding).__name__}: this store makes its dense, sparse and "
            "ColBERT vectors itself, with one model, so pass M3Embeddings() or M3Embeddings('a name or folder')"
        )
    if index is not None:
        _check_fits(index, embedding, any(one is not None for one in (path, collection, profile)))
        yield index
        return
    opened = _opened(embedding, path, collection, profile)
    try:
        yield opened
    except BaseException:
        opened.close()
        raise


def _opened(
    embedding: M3Embeddings, path: str | Path | None, collection: str | None, profile: Profile | str | Path | None
) -> M3Index:
    if path is None:
        if collection is not None:
            raise InvalidArgumentError(f"a collection lies in a folder; got collection {collection!r} and no path")
        return M3Index(embedding.encoder, MemoryStore(), None if profile is None else as_profile(profile))
    return M3Index.open(path, model=embedding.encoder, collection=collection, profile=profile)


def _check_fits(index: M3Index, embedding: M3Embeddings, others: bool) -> None:
    if others:
        raise InvalidArgumentError("path, collection and profile say which index to open; got them beside an index")
    if index.encoder.name != embedding.encoder.name:
        raise EncoderMismatchError(
            f"the index has vectors of {index.encoder.name!r}; got embeddings of {embedding.encoder.name!r}: "
            "pass M3Embeddings(index.encoder)"
        )
