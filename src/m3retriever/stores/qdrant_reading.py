"""Reading a QdrantStore's points: by the ids of their documents, by a filter, and by what of a filter Qdrant cannot say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from m3retriever.errors import StoreError, UnknownDocumentError
from m3retriever.filters import predicate, reads_text
from m3retriever.observing.spans import span
from m3retriever.stores.qdrant_connection import Connection
from m3retriever.stores.qdrant_filter import among, both, narrowed, point_id
from m3retriever.stores.qdrant_points import OF_DOCUMENT, OF_METADATA, OUR_ID, document_of, id_of
from m3retriever.types import Document, Where

if TYPE_CHECKING:
    from qdrant_client import models

PAGE = 1_000  # points a call, without texts and vectors
TEXTS_PAGE = 256  # points a call, with their texts
VECTORS_PAGE = 32  # points a call, with their vectors: about 2 MB each as JSON
MOST_PASSING = 200_000  # documents that a filter may pass which is resolved here: their ids are sent with each leg, 8 MB


def points_of(
    connection: Connection, ids: Sequence[str], fields: list[str], *, page: int = PAGE, vectors: bool = False
) -> list[Any]:
    """The points of these documents, in this order; UnknownDocumentError where one is not here."""
    wanted = {point_id(id): id for id in ids}
    names, found = list(wanted), dict[str, Any]()
    for start in range(0, len(names), page):
        some = names[start : start + page]
        for record in connection.call("retrieve", ids=some, with_payload=fields, with_vectors=vectors):
            found[wanted[str(record.id)]] = record
    if missing := [id for id in ids if id not in found]:
        raise UnknownDocumentError(missing, asked=len(ids))
    return [found[id] for id in ids]


def passing_ids(connection: Connection, where: Where | None) -> list[str]:
    """Ids of the documents that pass a filter, ascending."""
    said, whole = narrowed(where)
    if not whole:
        return sorted(document.id for document in _looked_at(connection, where, said))
    pages = connection.pages(filter=said, payload=[OUR_ID], limit=PAGE)
    return sorted(id_of(record.payload) for page in pages for record in page)


def allowed(connection: Connection, where: Where | None) -> tuple[models.Filter | None, int | None]:
    """A filter as Qdrant's, and how many documents pass where that is known.

    Where Qdrant cannot say all of it, the documents that pass what it can say are read, and those that pass all of it
    are named. What was said stays in force beside the names, for a document may change meanwhile.

    Raises
    ------
    StoreError
        More documents pass than can be named.
    """
    said, whole = narrowed(where)
    if whole:
        return said, None
    with span("filter"):
        passing = [point_id(document.id) for document in _looked_at(connection, where, said)]
    if len(passing) > MOST_PASSING:
        raise StoreError(
            f"{len(passing)} documents pass a filter that Qdrant cannot answer by itself; it takes {MOST_PASSING}: "
            "join it by $and with a condition on metadata that fewer documents pass"
        )
    return both(said, among(passing)), len(passing)


def _looked_at(connection: Connection, where: Where | None, said: models.Filter | None) -> Iterator[Document]:
    """The documents that pass, of those that Qdrant lets through; without their texts, if the filter does not read them."""
    passes = predicate(where)
    with_text = where is not None and reads_text(where)
    fields, limit = (OF_DOCUMENT, TEXTS_PAGE) if with_text else (OF_METADATA, PAGE)
    for page in connection.pages(filter=said, payload=fields, limit=limit):
        for record in page:
            if passes(document := document_of(record.payload)):
                yield document
