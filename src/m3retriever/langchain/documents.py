"""LangChain's Documents and ours: the one place where they are translated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from uuid import uuid4

import numpy as np
from langchain_core.documents import Document

from m3retriever.checks import check_documents
from m3retriever.errors import InvalidArgumentError, shown
from m3retriever.types import Document as StoredDocument
from m3retriever.types import Hit

NODE = "_node_content"  # LlamaIndex's, in documents that it added to the same index, and beside it
BOOKKEEPING = (NODE, "_node_type", "document_id", "doc_id", "ref_doc_id")


def from_stored(document: StoredDocument) -> Document:
    """A fresh Document; the caller may change it. LlamaIndex's bookkeeping is left out of its metadata."""
    return Document(id=document.id, page_content=document.text, metadata=_without_bookkeeping(document.metadata))


def from_hit(hit: Hit, *, scored: bool = False) -> Document:
    """The document of a hit; `scored`, with its scores in the metadata, in place of stored keys of these names."""
    document = from_stored(hit.document)
    if scored:
        found_by = sorted(hit.found_by)
        document.metadata.update(score=hit.score, scores=dict(hit.scores), ranks=dict(hit.ranks), found_by=found_by)
    return document


def to_stored(
    texts: Iterable[str],
    metadatas: Sequence[Mapping[str, Any] | None] | None,
    ids: Sequence[str | None] | None,
) -> list[StoredDocument]:
    """What the index takes, checked: texts with their metadata and ids; a new id where there is none.

    LlamaIndex's account of a node is left out of the metadata: it would speak for another text.
    """
    if isinstance(texts, str):
        raise InvalidArgumentError(f"texts is a list of str; got the str {shown(texts)}: write [{shown(texts)}]")
    if not isinstance(texts, Iterable):
        raise InvalidArgumentError(f"texts is a list of str; got {shown(texts)}")
    texts = list(texts)
    metadatas = _one_each("metadatas", metadatas, texts)
    ids = _one_each("ids", ids, texts)
    documents = [
        StoredDocument(str(uuid4()) if id is None else id, text, _without_bookkeeping({} if metadata is None else metadata))
        for text, metadata, id in zip(texts, metadatas, ids, strict=True)
    ]
    check_documents(documents)
    return documents


def ids_of(documents: Sequence[Document], ids: Sequence[str | None] | None) -> list[str | None]:
    """The id of each document: the one given beside it, else its own, else None."""
    if wrong := [one for one in documents if not isinstance(one, Document)]:
        raise InvalidArgumentError(f"documents is a list of LangChain's Documents; got {shown(wrong[0])} among them")
    return [document.id if id is None else id for document, id in zip(documents, _one_each("ids", ids, documents), strict=True)]


def runs(documents: Sequence[StoredDocument], size: int | None) -> Iterator[Sequence[StoredDocument]]:
    """The documents, at most `size` at a time; all at once for None."""
    if size is None:
        size = max(len(documents), 1)
    if not isinstance(size, int | np.integer) or isinstance(size, bool) or size < 1:
        raise InvalidArgumentError(f"batch_size must be an integer >= 1; got {shown(size)}")
    return (documents[start : start + size] for start in range(0, len(documents), size))


def _without_bookkeeping(metadata: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(metadata, Mapping):
        return metadata  # refused by `check_documents`, which names the document
    hidden = BOOKKEEPING if NODE in metadata else ()
    return {key: value for key, value in metadata.items() if key not in hidden}


def _one_each(name: str, given: Sequence[Any] | None, texts: Sequence[Any]) -> Sequence[Any]:
    if given is None:
        return [None] * len(texts)
    given = list(given) if isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping) else given
    if not isinstance(given, list) or len(given) != len(texts):
        got = str(len(given)) if isinstance(given, list) else shown(given)
        raise InvalidArgumentError(f"{name} must be as many as the texts, {len(texts)}; got {got}: nothing was added")
    return given
