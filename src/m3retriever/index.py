"""M3Index: text in, ranked hits out. The one class most users need, and the one that holds state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from m3retriever.checks import check_encoded, check_k, listed_ids
from m3retriever.diversity import check_balance, mmr, on_the_scale_of
from m3retriever.documents import Documents, one_filter
from m3retriever.errors import InvalidArgumentError, UnknownDocumentError, shown
from m3retriever.explanation import Deeper, Explanation, SharedToken, deeper, explain, filtered_out, shared_tokens
from m3retriever.filters import predicate
from m3retriever.observing.answering import Answering, answers, noted
from m3retriever.observing.query_log import QueryLog, as_query_log
from m3retriever.observing.spans import span
from m3retriever.passages import DocumentSearch
from m3retriever.profile import as_profile, check_profile
from m3retriever.ranking import Ranking, SearchMode, WeightsLike, ranked_hits
from m3retriever.twins import in_thread
from m3retriever.types import (
    Adopts,
    Encoder,
    FloatArray,
    Hit,
    HoldsVectors,
    M3Vectors,
    Mode,
    ModeScores,
    Profile,
    Store,
    Tokenizes,
    Where,
)
from m3retriever.watched import WatchedProfile

if TYPE_CHECKING:
    from m3retriever.encoders.engine import Backend, Precision

DEEPEST = 5_000  # candidates among which `explain` looks for a document that is none at the depth asked for


class M3Index(Answering, DocumentSearch, Documents):
    """Documents under a store, searched with BGE-M3's three scores.

    Safe to use from several threads. Every method has an async twin (`asearch` for `search`, ...) that
    runs in a thread and leaves the event loop free.

    Parameters
    ----------
    encoder, store
        Anything that fulfils the Protocols in `types`. Documents that another client put into the store,
        or whose vectors were lost, are encoded here, so that no mode misses them.
    profile
        Weights, fusion, thresholds and depth; what a call does not say comes from here. A WatchedProfile is
        read again when its file changes.
    """

    def __init__(self, encoder: Encoder, store: Store, profile: Profile | WatchedProfile | None = None) -> None:
        self._profile = profile if profile is not None else Profile()
        check_profile(self.profile, *_of(encoder))
        super().__init__(encoder, store)

    @property
    def profile(self) -> Profile:
        """What a call does not say; of a profile in a file, as the file is now."""
        return self._profile.current() if isinstance(self._profile, WatchedProfile) else self._profile

    @profile.setter
    def profile(self, profile: Profile) -> None:
        check_profile(profile, *_of(self.encoder))
        self._profile = profile

    @property
    def profile_problem(self) -> str | None:
        """Why the profile's file as it is now cannot be used, so that the one read before stays in force; else None."""
        return self._profile.problem if isinstance(self._profile, WatchedProfile) else None

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        model: str | Encoder | None = None,
        collection: str | None = None,
        profile: Profile | str | Path | None = None,
        read_only: bool = False,
        precision: Precision | None = None,
        backend: Backend | None = None,
        query_log: QueryLog | str | Path | None = None,
    ) -> M3Index:
        """The index in a folder or of a server; made with the first document where there is none.

        Parameters
        ----------
        path
            A folder. Chroma keeps its files there, so an existing Chroma folder may be given. Or a server:
            "chroma://host:8000", "qdrant://host:6333" (see `stores.places`).
        model
            "BAAI/bge-m3" or another hub name, a folder, "mini", "hashing", the address of a service
            ("http://host:7860"), or an Encoder. Default: the model the index was made with, BAAI/bge-m3 for a new one.
        collection
            The collection; default: "m3retriever".
        profile
            A Profile, a TOML file or the name of a preset; default: `profile.toml` in the folder (of a server's
            index: in a folder of the user's) where there is one. A file is read again when it changes.
        read_only
            Change no document; StoreError where there is no index. See `ChromaStore`.
        precision, backend
            How the model computes, as of `load_encoder`; whoever opens the index chooses, it is not kept.
        query_log
            A file that queries and what was answered are appended to, or a QueryLog; default: none.
        """
        from m3retriever.opening import open_parts

        log = as_query_log(query_log)
        encoder, store, chosen = open_parts(
            path, model=model, collection=collection, profile=profile, read_only=read_only, precision=precision, backend=backend
        )
        try:
            opened = cls(encoder, store, chosen)
            opened.query_log = log
            return opened
        except BaseException:
            store.close()
            raise

    # -- searching ---------------------------------------------------------------------------------

    @answers
    def search(
        self,
        query: str,
        k: int = 10,
        *,
        mode: SearchMode = "hybrid",
        weights: WeightsLike | None = None,
        threshold: float | Literal["profile"] | None = None,
        where: Where | None = None,
        where_document: Where | None = None,
        profile: Profile | str | Path | None = None,
    ) -> list[Hit]:
        """The k best documents for a query, best first; fewer where fewer match.

        Parameters
        ----------
        k
            At least 1; may be larger than the index.
        mode
            "hybrid" ranks by the profile's fusion, a mode by its own score alone. "sparse" returns only
            documents that share a token with the query.
        weights
            For this call, instead of the profile's: only with mode "hybrid".
        threshold
            The lowest score that counts, on the scale of the score that ranks; "profile" takes the
            profile's. Default: none.
        where
            Chroma's filter language over metadata, such as {"lang": "en"}; more in `filters`.
        where_document
            Chroma's filter language over the text, such as {"$contains": "tax"}.
        profile
            Instead of the index's own, for this call: a Profile, a TOML file or the name of a preset.
        """
        [hits] = self.search_many(
            [query],
            k,
            mode=mode,
            weights=weights,
            threshold=threshold,
            where=where,
            where_document=where_document,
            profile=profile,
        )
        return hits

    @answers
    def search_many(
        self,
        queries: Sequence[str],
        k: int = 10,
        *,
        mode: SearchMode = "hybrid",
        weights: WeightsLike | None = None,
        threshold: float | Literal["profile"] | None = None,
        where: Where | None = None,
        where_document: Where | None = None,
        profile: Profile | str | Path | None = None,
    ) -> list[list[Hit]]:
        """`search` for several queries, which are encoded together."""
        check_k(k)
        chosen = self._chosen(profile)
        ranking = Ranking.of(chosen, mode, weights, threshold)
        where = one_filter(where, where_document)
        texts, depth = _listed(queries), max(chosen.depth, k)
        vectors = self._encode_queries(texts)
        return [self._search(text, row, ranking, k, depth=depth, where=where) for text, row in zip(texts, vectors, strict=True)]

    @answers
    def search_diverse(
        self,
        query: str,
        k: int = 10,
        *,
        among: int = 50,
        balance: float = 0.5,
        **settings: Any,
    ) -> list[Hit]:
        """k hits that are relevant and unlike each other, in the order picked; see `diversity.mmr`.

        Parameters
        ----------
        among
            How many of the best hits to pick from; at least k are.
        balance
            In [0, 1]: 1 takes the best hits, 0 only avoids what is alike.
        settings
            Those of `search`: the picking starts from its hits. Likeness is the cosine of dense vectors.
        """
        check_k(k)
        check_k(among, "among")
        check_balance(balance)
        return self._diverse(self.search(query, max(k, among), **settings), k, balance)

    @answers
    def search_by_vector(
        self,
        vector: Sequence[float] | FloatArray,
        k: int = 10,
        *,
        threshold: float | None = None,
        where: Where | None = None,
        where_document: Where | None = None,
    ) -> list[Hit]:
        """The k documents whose dense vectors are nearest to one, (d,), of this index's model.

        A dense vector says nothing of tokens: the hits have a dense score and no other.
        """
        check_k(k)
        ranking = Ranking.of(self.profile, "dense", None, threshold)
        query = M3Vectors.dense_only(vector)
        where = one_filter(where, where_document)
        return [_dense_only(hit) for hit in self._search("", query, ranking, k, depth=k, where=where)]

    @answers
    def search_diverse_by_vector(
        self,
        vector: Sequence[float] | FloatArray,
        k: int = 10,
        *,
        among: int = 50,
        balance: float = 0.5,
        **settings: Any,
    ) -> list[Hit]:
        """`search_diverse`, from the hits of `search_by_vector`, whose settings it takes."""
        check_k(k)
        check_k(among, "among")
        check_balance(balance)
        return self._diverse(self.search_by_vector(vector, max(k, among), **settings), k, balance)

    search_documents = answers(DocumentSearch.search_documents)

    def score(
        self,
        query: str,
        *,
        ids: Sequence[str] | None = None,
        depth: int | None = None,
        where: Where | None = None,
        where_document: Where | None = None,
    ) -> ModeScores:
        """Raw scores in every mode, before any weight: of the candidates, or of the documents with these ids.

        `depth` candidates are brought in by the dense and the sparse search each; default: the profile's.
        Ids that do not pass the filters are left out; UnknownDocumentError where one is not here. This is
        what tuning, calibration and the inspector work on: score once, then move weights for free.
        """
        if ids is None:
            return self.score_many([query], depth=depth, where=where, where_document=where_document)[0]
        if depth is not None:
            raise InvalidArgumentError("depth is for candidates: give ids or depth, not both")
        where = one_filter(where, where_document)
        vectors = self._encode_queries([query])
        self.store.get(wanted := listed_ids(ids))
        passing = set(wanted if where is None else self.ids(where, among=wanted))
        return replace(self.store.score(vectors, [id for id in wanted if id in passing]), query=query)

    def score_many(
        self,
        queries: Sequence[str],
        *,
        depth: int | None = None,
        where: Where | None = None,
        where_document: Where | None = None,
    ) -> list[ModeScores]:
        """`score` of several queries' candidates; the queries are encoded together."""
        if depth is not None:
            check_k(depth, "depth")
        where, deep = one_filter(where, where_document), depth or self.profile.depth
        texts = _listed(queries)
        vectors = self._encode_queries(texts)
        return [
            replace(self.store.search(row, depth=deep, where=where), query=text)
            for text, row in zip(texts, vectors, strict=True)
        ]

    def explain(
        self,
        query: str,
        id: str,
        *,
        k: int = 10,
        mode: SearchMode = "hybrid",
        weights: WeightsLike | None = None,
        threshold: float | Literal["profile"] | None = None,
        where: Where | None = None,
        where_document: Where | None = None,
        profile: Profile | str | Path | None = None,
    ) -> Explanation:
        """Why a document has the place it has, or which stage cut it. Takes what `search` takes.

        Of a document that does not pass the filter it says only that; see `Explanation`. UnknownDocumentError where no
        document has this id.
        """
        check_k(k)
        if not isinstance(id, str):
            raise InvalidArgumentError(f"an id is a str; got {shown(id)}")
        chosen = self._chosen(profile)
        ranking = Ranking.of(chosen, mode, weights, threshold)
        where = one_filter(where, where_document)
        document = next(iter(self.get([id])), None)
        if document is None:
            raise UnknownDocumentError([id], asked=1)
        vectors, depth = self._encode_queries([query]), max(chosen.depth, k)
        candidates = replace(self.store.search(vectors, depth=depth, where=where), query=query)
        if where is not None and not (id in self.ids(where, among=[id]) and predicate(where, patterns=True)(document)):
            return filtered_out(query, id, candidates=candidates, ranking=ranking, k=k)
        return explain(
            query,
            document,
            own=replace(self.store.score(vectors, [id]), query=query),
            candidates=candidates,
            ranking=ranking,
            k=k,
            shared=self._shared_tokens(vectors, query, id),
            deeper=self._deeper(query, vectors, id, ranking, depth, where) if id not in candidates.ids else None,
        )

    def refresh(self) -> int:
        """Learn what other clients of a Chroma server, or of a folder, have changed; how many documents had to be encoded.

        Documents that they added are found from then on, and those that they deleted are forgotten. Opening an index
        does the same. Over a server it takes a count where nothing is new, else every id and, of up to 20,000
        documents, every text is looked at; beyond that a text that a client other than m3retriever's replaced is
        learnt of when it is found.
        """
        return self.store.adopt(self.encoder.encode_documents) if isinstance(self.store, Adopts) else 0

    # -- async twins -------------------------------------------------------------------------------

    asearch = in_thread(search)
    asearch_many = in_thread(search_many)
    asearch_documents = in_thread(search_documents)
    asearch_diverse = in_thread(search_diverse)
    asearch_by_vector = in_thread(search_by_vector)
    asearch_diverse_by_vector = in_thread(search_diverse_by_vector)
    ascore = in_thread(score)
    ascore_many = in_thread(score_many)
    aexplain = in_thread(explain)
    arefresh = in_thread(refresh)

    # -- steps -------------------------------------------------------------------------------------

    def _encode_queries(self, queries: Sequence[str]) -> M3Vectors:
        texts = [query.encode("utf-8", "replace").decode() for query in _listed(queries)]
        with span("encode", queries=len(texts)):
            return check_encoded(self.encoder.encode_queries(texts), len(texts))

    def _chosen(self, profile: Profile | str | Path | None) -> Profile:
        """The profile of one call."""
        if profile is None:
            return self.profile
        chosen = as_profile(profile)
        check_profile(chosen, *_of(self.encoder))
        return chosen

    def _search(
        self, query: str, vectors: M3Vectors, ranking: Ranking, k: int, *, depth: int, where: Where | None
    ) -> list[Hit]:
        noted(query, ranking, depth=depth, where=where)
        scores = replace(self.store.search(vectors, depth=depth, where=where), query=query)
        return ranked_hits(scores, ranking, k, self._held, predicate(where, patterns=True))  # the store looked for patterns

    def _deeper(
        self, query: str, vectors: M3Vectors, id: str, ranking: Ranking, depth: int, where: Where | None
    ) -> Deeper | None:
        def search(wanted: int) -> ModeScores:
            return replace(self.store.search(vectors, depth=wanted, where=where), query=query)

        return deeper(id, search, ranking, depth, min(len(self), DEEPEST))

    def _shared_tokens(self, query: M3Vectors, text: str, id: str) -> tuple[SharedToken, ...]:
        if not isinstance(self.store, HoldsVectors):
            return ()
        tokens = self.encoder.tokenize(text) if isinstance(self.encoder, Tokenizes) else []
        names = {token.id: text[token.start : token.end] for token in tokens}
        return shared_tokens(query.sparse_row(0), self.store.vectors([id]).sparse_row(0), names)

    def _diverse(self, hits: list[Hit], k: int, balance: float) -> list[Hit]:
        hits, dense = self._with_dense(hits)
        if not hits:
            return []
        scores = on_the_scale_of(np.array([hit.score for hit in hits]), np.array([hit.scores["dense"] for hit in hits]))
        return [hits[row] for row in mmr(scores, dense, k, balance=balance)]

    def _with_dense(self, hits: list[Hit]) -> tuple[list[Hit], FloatArray]:
        """The hits with their documents' dense vectors, without those that were deleted meanwhile."""
        try:
            return hits, self.vectors([hit.document.id for hit in hits]).dense
        except UnknownDocumentError as error:
            return self._with_dense([hit for hit in hits if hit.document.id not in error.ids])


def check_index(index: M3Index) -> M3Index:
    """An M3Index as it is; InvalidArgumentError for a path, or a framework's own index."""
    if not isinstance(index, M3Index):
        raise InvalidArgumentError(f"index must be an M3Index; got {index!r}: for a folder write M3Index.open(path)")
    return index


def _listed(queries: Sequence[str]) -> list[str]:
    """The queries as a list; InvalidArgumentError for one that is no str, or one str alone."""
    if isinstance(queries, str) or not isinstance(queries, Iterable):
        raise InvalidArgumentError(f"a query is a str, queries are a list of them; got {shown(queries)}")
    listed = list(queries)
    if not all(isinstance(query, str) for query in listed):
        raise InvalidArgumentError(f"a query is a str; got {shown(listed)}")
    return listed


def _of(encoder: Encoder) -> tuple[str, str | None]:
    """What a profile is tied to."""
    return encoder.name, getattr(encoder, "precision", None)


def _dense_only(hit: Hit) -> Hit:
    scores: dict[Mode, float] = {"dense": hit.scores["dense"]}
    ranks: dict[Mode, int] = {"dense": hit.ranks["dense"]}
    return replace(hit, scores=scores, ranks=ranks, found_by=frozenset(scores))
