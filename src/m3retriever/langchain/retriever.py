"""LangChain retrievers over an M3Index, and over M3VectorStore."""

from __future__ import annotations

from collections.abc import Collection
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar, Literal

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams
from langchain_core.vectorstores import VectorStoreRetriever
from pydantic import ConfigDict, SkipValidation, model_validator

from m3retriever.errors import InvalidArgumentError
from m3retriever.index import M3Index
from m3retriever.langchain.documents import from_hit
from m3retriever.ranking import SEARCH_MODES, SearchMode, WeightsLike
from m3retriever.types import Profile, Where

SETTINGS = ("k", "mode", "weights", "threshold", "where", "where_document", "profile", "return_scores")
SEARCH_TYPES = ("similarity", "similarity_score_threshold", "mmr", *SEARCH_MODES)


class M3Retriever(BaseRetriever):
    """Gives any LangChain chain the hits of an M3Index, best first.

    Every setting but `index` can also be given to one call, as in `invoke(query, k=3, where=None)`, and be
    made configurable (`configurable_fields`); None means none, not the retriever's own. What has no meaning
    is refused by the index, at the call, with InvalidArgumentError; an unknown keyword with TypeError.

    Parameters
    ----------
    index
        Where to search. The caller closes it.
    k, mode, weights, threshold, where, where_document, profile
        As in `M3Index.search`. Weights go with mode "hybrid" only, and a number as threshold is on
        the scale of the score that ranks: a call that changes the mode may have to change them too.
    return_scores
        Whether each Document's metadata also holds `score` (which ranked it), `scores` and `ranks`
        (by mode) and `found_by` (a sorted list of modes), in place of stored keys of these names.
        Default: the metadata is as stored.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    index: M3Index
    k: SkipValidation[int] = 10
    mode: SkipValidation[SearchMode] = "hybrid"
    weights: SkipValidation[WeightsLike | None] = None
    threshold: SkipValidation[float | Literal["profile"] | None] = None
    where: SkipValidation[Where | None] = None
    where_document: SkipValidation[Where | None] = None
    profile: SkipValidation[Profile | str | Path | None] = None
    return_scores: bool = False

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **given: Any
    ) -> list[Document]:
        scored, settings = self._settings(given)
        return [from_hit(hit, scored=scored) for hit in self.index.search(query, **settings)]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **given: Any
    ) -> list[Document]:
        scored, settings = self._settings(given)
        return [from_hit(hit, scored=scored) for hit in await self.index.asearch(query, **settings)]

    def _settings(self, given: dict[str, Any]) -> tuple[bool, dict[str, Any]]:
        """`return_scores`, and what goes to the index: the retriever's settings, and before them the call's."""
        settings = {name: getattr(self, name) for name in SETTINGS} | given
        return settings.pop("return_scores"), settings

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        """What a trace says of this retriever."""
        return LangSmithRetrieverParams(
            ls_retriever_name="m3",
            ls_vector_store_provider=type(self.index.store).__name__,
            ls_embedding_provider=type(self.index.encoder).__name__,
            ls_embedding_model=self.index.encoder.name,
        )


class M3VectorStoreRetriever(VectorStoreRetriever):
    """What `M3VectorStore.as_retriever` gives.

    Parameters
    ----------
    search_type
        "similarity" searches in the store's own mode; "hybrid", "dense", "sparse" or "colbert" in that one;
        "mmr" takes hits that are unlike each other; "similarity_score_threshold" wants `score_threshold`
        in the search_kwargs, in [0, 1].
    search_kwargs
        Those of the store's search method, such as k and filter. Keywords of a call go before them.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")  # a filter that is not in search_kwargs
    allowed_search_types: ClassVar[Collection[str]] = SEARCH_TYPES

    @model_validator(mode="before")
    @classmethod
    def validate_search_type(cls, values: dict[str, Any]) -> Any:
        """LangChain's check, for our search types, and with 0 and 1 as thresholds."""
        search_type = values.get("search_type", "similarity")
        if search_type not in cls.allowed_search_types:
            raise InvalidArgumentError(f"search_type must be one of {', '.join(SEARCH_TYPES)}; got {search_type!r}")
        if search_type == "similarity_score_threshold":
            threshold = (values.get("search_kwargs") or {}).get("score_threshold")
            if threshold is None:
                raise InvalidArgumentError("similarity_score_threshold wants search_kwargs={'score_threshold': ...}; got none")
            check_score_threshold(threshold)
        return values

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **given: Any
    ) -> list[Document]:
        return self.vectorstore.search(query, self.search_type, **(self.search_kwargs | given))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **given: Any
    ) -> list[Document]:
        return await self.vectorstore.asearch(query, self.search_type, **(self.search_kwargs | given))


def check_score_threshold(threshold: float | None) -> None:
    """A relevance is in [0, 1], and so is what it is compared with; None cuts nothing."""
    if threshold is None:
        return
    if not isinstance(threshold, Real) or isinstance(threshold, bool) or not 0 <= float(threshold) <= 1:
        raise InvalidArgumentError(f"score_threshold must be a number between 0 and 1; got {threshold!r}")
