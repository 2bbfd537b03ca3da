"""M3Index as a LangChain vector store. It only translates: what it does, M3Index does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from m3retriever.errors import InvalidArgumentError
from m3retriever.index import M3Index, check_index
from m3retriever.langchain.documents import from_hit, from_stored, ids_of, runs, to_stored
from m3retriever.langchain.embeddings import M3Embeddings
from m3retriever.langchain.opening import opened_for
from m3retriever.langchain.retriever import M3VectorStoreRetriever, check_score_threshold
from m3retriever.ranking import SEARCH_MODES, Ranking, SearchMode, WeightsLike
from m3retriever.twins import in_thread
from m3retriever.types import Document as StoredDocument
from m3retriever.types import Encoder, FloatArray, Profile, Where

Result = TypeVar("Result")


class M3VectorStore(VectorStore):
    """An M3Index with the methods of a LangChain vector store; `M3VectorStore.open("./index")` opens a folder.

    Every search takes `filter` (Chroma's `where` language over metadata) and `where_document` (over the text);
    those by text also `mode`, `weights`, `threshold` and `profile`, by keyword, as in `M3Index.search`.
    Scores are higher for better documents. Every method has an async twin that leaves the event loop free; an unknown keyword
    is a TypeError.

    Parameters
    ----------
    index
        Where the documents are. The caller closes it: `store.index.close()`.
    mode, weights
        For calls that give none; weights where the mode is "hybrid".
    """

    def __init__(self, index: M3Index, *, mode: SearchMode = "hybrid", weights: WeightsLike | None = None) -> None:
        check_index(index)
        Ranking.of(index.profile, mode, weights, None)  # refuses nonsense now, not at the first search
        self.index, self.mode, self.weights = index, mode, weights

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        model: str | Encoder | None = None,
        collection: str | None = None,
        profile: Profile | str | Path | None = None,
        mode: SearchMode = "hybrid",
        weights: WeightsLike | None = None,
    ) -> M3VectorStore:
        """The store in a folder; `path` to `profile` as in `M3Index.open`."""
        return cls(M3Index.open(path, model=model, collection=collection, profile=profile), mode=mode, weights=weights)

    @property
    def embeddings(self) -> M3Embeddings:
        """The encoder of the index as LangChain's embeddings."""
        return M3Embeddings(self.index.encoder)

    # -- documents ---------------------------------------------------------------------------------

    def add_texts(  # type: ignore[override]  # no **kwargs: an unknown keyword is an error
        self,
        texts: Iterable[str],
        metadatas: Sequence[Mapping[str, Any] | None] | None = None,
        ids: Sequence[str | None] | None = None,
        *,
        batch_size: int | None = None,
    ) -> list[str]:
        """Store texts, at most `batch_size` at a time, and give their ids; a known id is replaced, None is made."""
        return self._add(to_stored(texts, metadatas, ids), batch_size)

    def add_documents(  # type: ignore[override]  # as above
        self,
        documents: Iterable[Document],
        ids: Sequence[str | None] | None = None,
        *,
        batch_size: int | None = None,
    ) -> list[str]:
        """`add_texts`; each document has the id in `ids`, else its own, else a new one."""
        return self.add_texts(*_columns(documents, ids), batch_size=batch_size)

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents with these ids, in this order, without those that are not here."""
        return [from_stored(document) for document in self.index.get(ids, skip_unknown=True)]

    def delete(  # type: ignore[override]  # as above
        self,
        ids: Sequence[str] | None = None,
        *,
        where: Where | None = None,
        where_document: Where | None = None,
    ) -> bool:
        """Remove the documents with these ids that pass the filters; ids that are not here are left out.

        With none of the three, InvalidArgumentError: for all documents say `delete(store.index.ids())`.
        """
        if ids is None and where is None and where_document is None:
            raise InvalidArgumentError("delete takes ids, where or where_document; got none: for all, ids=store.index.ids()")
        self.index.delete_where(where, where_document=where_document, among=ids)
        return True

    @classmethod
    def from_texts(  # type: ignore[override]  # as above
        cls,
        texts: Iterable[str],
        embedding: Embeddings,
        metadatas: Sequence[Mapping[str, Any] | None] | None = None,
        ids: Sequence[str | None] | None = None,
        *,
        path: str | Path | None = None,
        collection: str | None = None,
        profile: Profile | str | Path | None = None,
        index: M3Index | None = None,
        mode: SearchMode = "hybrid",
        weights: WeightsLike | None = None,
        batch_size: int | None = None,
    ) -> M3VectorStore:
        """A store with these texts: in the folder `path`, or in `index`, or without either in memory only.

        `embedding` is an M3Embeddings, whose encoder makes all vectors. Documents that are there already
        stay. Nothing is opened or made where the texts, metadatas or ids cannot be stored.
        """
        documents = to_stored(texts, metadatas, ids)
        with opened_for(embedding, index=index, path=path, collection=collection, profile=profile) as opened:
            store = cls(opened, mode=mode, weights=weights)
            store._add(documents, batch_size)
        return store

    @classmethod
    def from_documents(
        cls, documents: Iterable[Document], embedding: Embeddings, ids: Sequence[str | None] | None = None, **settings: Any
    ) -> M3VectorStore:
        """`from_texts`, of documents; their ids as in `add_documents`."""
        texts, metadatas, ids = _columns(documents, ids)
        return cls.from_texts(texts, embedding, metadatas, ids, **settings)

    # -- searching ---------------------------------------------------------------------------------

    def similarity_search(
        self, query: str, k: int = 4, filter: Where | None = None, where_document: Where | None = None, **settings: Any
    ) -> list[Document]:
        """The k best documents, best first."""
        hits = self.index.search(query, k, **self._asked(filter, where_document, **settings))
        return [from_hit(hit) for hit in hits]

    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: Where | None = None, where_document: Where | None = None, **settings: Any
    ) -> list[tuple[Document, float]]:
        """The k best documents, each with the score that ranked it: higher is better, it is no distance."""
        hits = self.index.search(query, k, **self._asked(filter, where_document, **settings))
        return [(from_hit(hit), hit.score) for hit in hits]

    def similarity_search_with_relevance_scores(
        self,
        query: str,
        k: int = 4,
        filter: Where | None = None,
        where_document: Where | None = None,
        *,
        score_threshold: float | None = None,
        **settings: Any,
    ) -> list[tuple[Document, float]]:
        """The k best documents, each with a number in [0, 1]; those below `score_threshold` are left out.

        The probability of being relevant where the profile has a calibration; without one a similarity,
        `Ranking.relevance`, of which unrelated texts have more than 0 too.
        """
        check_score_threshold(score_threshold)
        hits = self.index.search(query, k, **self._asked(filter, where_document, **settings))
        floor = 0 if score_threshold is None else score_threshold
        relevances = [(hit, hit.relevance or 0.0) for hit in hits]
        return [(from_hit(hit), relevance) for hit, relevance in relevances if relevance >= floor]

    def similarity_search_by_vector(
        self,
        embedding: Sequence[float] | FloatArray,
        k: int = 4,
        filter: Where | None = None,
        where_document: Where | None = None,
        **settings: Any,
    ) -> list[Document]:
        """The k documents whose dense vectors are nearest; of `settings` it takes `threshold` only."""
        hits = self.index.search_by_vector(embedding, k, where=filter, where_document=where_document, **settings)
        return [from_hit(hit) for hit in hits]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Where | None = None,
        where_document: Where | None = None,
        **settings: Any,
    ) -> list[Document]:
        """k documents of the `fetch_k` best that are unlike each other; `lambda_mult` 1 takes the best."""
        asked = self._asked(filter, where_document, **settings)
        hits = self.index.search_diverse(query, k, among=fetch_k, balance=lambda_mult, **asked)
        return [from_hit(hit) for hit in hits]

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: Sequence[float] | FloatArray,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Where | None = None,
        where_document: Where | None = None,
        **settings: Any,
    ) -> list[Document]:
        """As `max_marginal_relevance_search`, of the documents whose dense vectors are nearest."""
        filters: dict[str, Any] = {"where": filter, "where_document": where_document}
        hits = self.index.search_diverse_by_vector(embedding, k, among=fetch_k, balance=lambda_mult, **filters, **settings)
        return [from_hit(hit) for hit in hits]

    def search(self, query: str, search_type: str, **given: Any) -> list[Document]:
        """The method that `search_type` names: similarity, similarity_score_threshold, mmr, or a mode."""
        if search_type in SEARCH_MODES:
            return self.similarity_search(query, mode=search_type, **given)
        return super().search(query, search_type, **given)

    def as_retriever(self, **given: Any) -> M3VectorStoreRetriever:
        """A retriever over this store; takes `search_type`, `search_kwargs`, `tags` and what retrievers take."""
        tags = given.pop("tags", None) or self._get_retriever_tags()
        return M3VectorStoreRetriever(vectorstore=self, tags=tags, **given)

    # -- async twins -------------------------------------------------------------------------------

    aadd_texts = in_thread(add_texts)
    aadd_documents = in_thread(add_documents)
    aget_by_ids = in_thread(get_by_ids)
    adelete = in_thread(delete)
    asimilarity_search = in_thread(similarity_search)
    asimilarity_search_with_score = in_thread(similarity_search_with_score)
    asimilarity_search_with_relevance_scores = in_thread(similarity_search_with_relevance_scores)
    asimilarity_search_by_vector = in_thread(similarity_search_by_vector)
    amax_marginal_relevance_search = in_thread(max_marginal_relevance_search)
    amax_marginal_relevance_search_by_vector = in_thread(max_marginal_relevance_search_by_vector)
    asearch = in_thread(search)

    @classmethod
    async def afrom_texts(cls, *given: Any, **settings: Any) -> M3VectorStore:
        """`from_texts`, in a thread."""
        return await asyncio.to_thread(cls.from_texts, *given, **settings)

    @classmethod
    async def afrom_documents(cls, *given: Any, **settings: Any) -> M3VectorStore:
        """`from_documents`, in a thread."""
        return await asyncio.to_thread(cls.from_documents, *given, **settings)

    # -- steps -------------------------------------------------------------------------------------

    def _add(self, documents: Sequence[StoredDocument], batch_size: int | None) -> list[str]:
        for run in runs(documents, batch_size):
            self.index.add(run)
        return [document.id for document in documents]

    def _asked(
        self,
        filter: Where | None,
        where_document: Where | None,
        *,
        mode: SearchMode | None = None,
        weights: WeightsLike | None = None,
        **settings: Any,
    ) -> dict[str, Any]:
        """What goes to the index: the call's settings, and the store's for those left out."""
        mode = self.mode if mode is None else mode
        if weights is None and mode == "hybrid":
            weights = self.weights
        return {"where": filter, "where_document": where_document, "mode": mode, "weights": weights, **settings}


def _columns(documents: Iterable[Document], ids: Sequence[str | None] | None) -> tuple[list[str], list[Any], list[str | None]]:
    """Texts, metadata and ids, one each."""
    if isinstance(documents, Document):  # which is an Iterable too, of its fields
        raise InvalidArgumentError("documents is a list of LangChain's Documents; got one Document: write [document]")
    documents = list(documents) if isinstance(documents, Iterable) else [documents]  # the one, which is none, is refused
    ids = ids_of(documents, ids)
    return [document.page_content for document in documents], [document.metadata for document in documents], ids
