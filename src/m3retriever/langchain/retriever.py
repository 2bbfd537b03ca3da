"""M3Index as a LangChain retriever: one class, which only translates."""

from __future__ import annotations

from enum import Enum
from typing import Any, Final, Literal

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams
from pydantic import ConfigDict, SkipValidation

from m3retriever.index import M3Index
from m3retriever.ranking import SearchMode, WeightsLike
from m3retriever.types import Hit, Where


class Unset(Enum):
    """Tells a setting that a call left out from one it set to None."""

    UNSET = "the retriever's own"


UNSET: Final = Unset.UNSET


class M3Retriever(BaseRetriever):
    """Gives any LangChain chain the hits of an M3Index, best first.

    Every setting but `index` can also be given to one call, as in `invoke(query, k=3, where=None)`;
    None there means none, not the retriever's own. What has no meaning is refused by the index, at
    the call, with InvalidArgumentError; a keyword that is not listed here raises.

    Parameters
    ----------
    index
        Where to search. The caller closes it.
    k, mode, weights, threshold, where
        As in `M3Index.search`. Weights go with mode "hybrid" only, and a number as threshold is on
        the scale of the score that ranks: a call that changes the mode may have to change them too.
    return_scores
        Whether each Document's metadata also holds `score` (which ranked it), `scores` and `ranks`
        (by mode) and `found_by` (a sorted list of modes), in place of stored keys of these names.
        False leaves the metadata as stored: for comparing documents, or storing them elsewhere.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    index: M3Index
    k: SkipValidation[int] = 10
    mode: SkipValidation[SearchMode] = "hybrid"
    weights: SkipValidation[WeightsLike | None] = None
    threshold: SkipValidation[float | Literal["profile"] | None] = None
    where: SkipValidation[Where | None] = None
    return_scores: bool = True

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | Unset = UNSET,
        mode: SearchMode | Unset = UNSET,
        weights: WeightsLike | Unset | None = UNSET,
        threshold: float | Literal["profile"] | Unset | None = UNSET,
        where: Where | Unset | None = UNSET,
        return_scores: bool | Unset = UNSET,
    ) -> list[Document]:
        settings = self._settings(k=k, mode=mode, weights=weights, threshold=threshold, where=where)
        hits = self.index.search(query, **settings)
        return self._documents(hits, return_scores)

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | Unset = UNSET,
        mode: SearchMode | Unset = UNSET,
        weights: WeightsLike | Unset | None = UNSET,
        threshold: float | Literal["profile"] | Unset | None = UNSET,
        where: Where | Unset | None = UNSET,
        return_scores: bool | Unset = UNSET,
    ) -> list[Document]:
        settings = self._settings(k=k, mode=mode, weights=weights, threshold=threshold, where=where)
        hits = await self.index.asearch(query, **settings)
        return self._documents(hits, return_scores)

    def _settings(self, **given: Any) -> dict[str, Any]:
        """What goes to the index: the call's settings, and the retriever's for those left out."""
        return {name: getattr(self, name) if value is UNSET else value for name, value in given.items()}

    def _documents(self, hits: list[Hit], return_scores: bool | Unset) -> list[Document]:
        scored = self.return_scores if return_scores is UNSET else return_scores
        return [_document(hit, scored=scored) for hit in hits]

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        """What a trace says of this retriever."""
        return LangSmithRetrieverParams(
            ls_retriever_name="m3",
            ls_vector_store_provider=type(self.index.store).__name__,
            ls_embedding_provider=type(self.index.encoder).__name__,
            ls_embedding_model=self.index.encoder.name,
        )


def _document(hit: Hit, *, scored: bool) -> Document:
    """A fresh Document, so that no score is ever written into stored metadata."""
    metadata = dict(hit.document.metadata)
    if scored:
        metadata.update(score=hit.score, scores=dict(hit.scores), ranks=dict(hit.ranks), found_by=sorted(hit.found_by))
    return Document(id=hit.document.id, page_content=hit.document.text, metadata=metadata)
