"""M3Index: text in, ranked hits out. The one class most users need, and the one that holds state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

import numpy as np

from m3retriever.checks import check_documents, check_k, listed_ids
from m3retriever.diversity import check_balance, mmr, on_the_scale_of
from m3retriever.errors import InvalidArgumentError, UnknownDocumentError
from m3retriever.explanation import Explanation, SharedToken, explain, shared_tokens
from m3retriever.filters import ID, about_text, both, check_where, predicate
from m3retriever.fusion import mode_ranks, top_k
from m3retriever.ingest import Added, batches, same
from m3retriever.profile import as_profile, check_profile
from m3retriever.ranking import Ranking, SearchMode, WeightsLike
from m3retriever.twins import in_thread
from m3retriever.types import (
    MODES,
    Adopts,
    BindsModel,
    Document,
    Encoder,
    FloatArray,
    Hit,
    HoldsVectors,
    ListsIds,
    M3Vectors,
    Mode,
    ModeScores,
    Profile,
    Store,
    Tokenizes,
    Where,
)

Result = TypeVar("Result")


class M3Index:
    """Documents under a store, searched with BGE-M3's three scores.

    Safe to use from several threads. Every method has an async twin (`asearch` for `search`, ...) that
    runs in a thread and leaves the event loop free.

    Parameters
    ----------
    encoder, store
        Anything that fulfils the Protocols in `types`. Documents that another client put into the store,
        or whose vectors were lost, are encoded here, so that no mode misses them.
    profile
        Weights, fusion, thresholds and depth; what a call does not say comes from here.
    """

    def __init__(self, encoder: Encoder, store: Store, profile: Profile | None = None) -> None:
        self.encoder, self.store = encoder, store
        self.profile = profile if profile is not None else Profile()
        check_profile(self.profile, encoder.name)
        if isinstance(store, BindsModel):
            store.bind(encoder.name, encoder.dim)
        if isinstance(store, Adopts):
            store.adopt(encoder.encode_documents)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        model: str | Encoder | None = None,
        collection: str | None = None,
        profile: Profile | str | Path | None = None,
    ) -> M3Index:
        """The index in a folder; made with the first document where there is none.

        Parameters
        ----------
        path
            A folder. Chroma keeps its files there, so an existing Chroma folder may be given.
        model
            "BAAI/bge-m3" or another hub name, a folder, "mini", "hashing", or an Encoder. Default: the
            model the index was made with, BAAI/bge-m3 for a new one.
        collection
            The Chroma collection; default: "m3retriever".
        profile
            A Profile, a TOML file or the name of a preset; default: `profile.toml` in the folder where
            there is one.
        """
        if not str(path):
            raise InvalidArgumentError("path must name a folder; got ''")
        from m3retriever.encoders import DEFAULT_MODEL, as_encoder, source_of
        from m3retriever.stores.chroma import ChromaStore

        if model is None and not ChromaStore.exists(path, collection):
            model = DEFAULT_MODEL
        encoder = None if model is None else as_encoder(model)  # before a folder is made for it
        store = ChromaStore(path, collection=collection)
        try:
            if encoder is None:
                encoder = as_encoder(store.settings()["source"] or DEFAULT_MODEL)
            store.source = source_of(encoder)
            return cls(encoder, store, _profile_of(profile, Path(path)))
        except BaseException:
            store.close()
            raise

    # -- documents ---------------------------------------------------------------------------------

    def add(self, documents: Sequence[Document], *, progress: bool = False) -> Added:
        """Encode and store documents; one whose id is known replaces the old one.

        Documents that the index holds already, text and metadata alike, are not encoded again, so
        that an interrupted call can simply be repeated. When it returns, all of them are on disk.
        """
        if isinstance(documents, Document):
            raise InvalidArgumentError("add takes a list of documents; got one Document: write [document]")
        documents = list(documents)
        check_documents(documents)
        done = Added()
        for batch in batches(documents):
            done += self._add(batch, progress=progress)
        return done

    def delete(self, ids: Sequence[str], *, skip_unknown: bool = False) -> None:
        """Remove documents; UnknownDocumentError, before any is removed, where an id is not here, or they are skipped."""
        self._for_known(self.store.delete, listed_ids(ids), skip_unknown)

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
        where = _where(where, where_document)
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

    # -- searching ---------------------------------------------------------------------------------

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
        where = _where(where, where_document)
        vectors = self._encode_queries(queries)
        return [self._search(row, ranking, k, depth=max(chosen.depth, k), where=where) for row in vectors]

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
        return [_dense_only(hit) for hit in self._search(query, ranking, k, depth=k, where=_where(where, where_document))]

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

    def score(
        self,
        query: str,
        *,
        ids: Sequence[str] | None = None,
        where: Where | None = None,
        where_document: Where | None = None,
    ) -> ModeScores:
        """Raw scores in every mode, before any weight: of the candidates, or of the documents with these ids.

        Ids that do not pass the filters are left out; UnknownDocumentError where one is not here. This is
        what tuning, calibration and the inspector work on: score once, then move weights for free.
        """
        where = _where(where, where_document)
        vectors = self._encode_queries([query])
        if ids is not None:
            self.store.get(wanted := listed_ids(ids))
            passing = set(wanted if where is None else self.ids(where, among=wanted))
            return self.store.score(vectors, [id for id in wanted if id in passing])
        return self.store.search(vectors, depth=self.profile.depth, where=where)

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
        """Why a document has the place it has, or which stage cut it. Takes what `search` takes."""
        check_k(k)
        chosen = self._chosen(profile)
        ranking = Ranking.of(chosen, mode, weights, threshold)
        where = _where(where, where_document)
        document = next(iter(self.get([id])), None)
        if document is None:
            raise UnknownDocumentError([id], asked=1)
        vectors = self._encode_queries([query])
        candidates = self.store.search(vectors, depth=max(chosen.depth, k), where=where)
        return explain(
            query,
            document,
            own=self.store.score(vectors, [id]),
            candidates=candidates,
            ranking=ranking,
            k=k,
            passes=where is None or id in self.ids(where, among=[id]),
            shared=self._shared_tokens(vectors, query, id),
        )

    # -- housekeeping ------------------------------------------------------------------------------

    def close(self) -> None:
        """Release the store's files and the right to write."""
        self.store.close()

    def __enter__(self) -> M3Index:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # -- async twins -------------------------------------------------------------------------------

    aadd = in_thread(add)
    adelete = in_thread(delete)
    aget = in_thread(get)
    aids = in_thread(ids)
    avectors = in_thread(vectors)
    asearch = in_thread(search)
    asearch_many = in_thread(search_many)
    asearch_diverse = in_thread(search_diverse)
    asearch_by_vector = in_thread(search_by_vector)
    asearch_diverse_by_vector = in_thread(search_diverse_by_vector)
    ascore = in_thread(score)
    aexplain = in_thread(explain)

    # -- steps -------------------------------------------------------------------------------------

    def _add(self, documents: Sequence[Document], *, progress: bool) -> Added:
        held = self._held([document.id for document in documents])
        changed = [document for document in documents if not same(document, held.get(document.id))]
        if changed:
            texts = [document.text for document in changed]
            self.store.add(changed, self.encoder.encode_documents(texts, progress=progress))
        replaced = sum(document.id in held for document in changed)
        return Added(len(changed) - replaced, replaced, len(documents) - len(changed))

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

    def _encode_queries(self, queries: Sequence[str]) -> M3Vectors:
        queries = [queries] if not isinstance(queries, Iterable) else queries if isinstance(queries, str) else list(queries)
        if isinstance(queries, str) or not all(isinstance(query, str) for query in queries):
            raise InvalidArgumentError(f"a query is a str; got {queries!r}")
        return self.encoder.encode_queries([query.encode("utf-8", "replace").decode() for query in queries])

    def _chosen(self, profile: Profile | str | Path | None) -> Profile:
        """The profile of one call."""
        if profile is None:
            return self.profile
        chosen = as_profile(profile)
        check_profile(chosen, self.encoder.name)
        return chosen

    def _search(self, query: M3Vectors, ranking: Ranking, k: int, *, depth: int, where: Where | None) -> list[Hit]:
        scores = self.store.search(query, depth=depth, where=where)
        fused = ranking.fuse(scores)
        rows = ranking.eligible(scores, fused, top_k(scores, fused, len(scores)))
        ranks, passes = mode_ranks(scores), predicate(where, patterns=True)  # the store has searched for patterns
        hits: list[Hit] = []
        for start in range(0, len(rows), k):  # a second round only where a document changed meanwhile
            batch = rows[start : start + k]
            held = self._held([scores.ids[row] for row in batch])
            for row in batch:
                document = held.get(scores.ids[row])
                if document is not None and passes(document):
                    place = {mode: ranks[mode][row] for mode in MODES}
                    score, by_mode = float(fused[row]), scores.of(row)
                    hits.append(Hit(document, score, by_mode, place, scores.found_by[row], *ranking.judged(score, by_mode)))
            if len(hits) >= k:
                break
        return hits[:k]

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


def _profile_of(given: Profile | str | Path | None, folder: Path) -> Profile:
    own = folder / "profile.toml"
    if given is None and not own.is_file():
        return Profile()
    return as_profile(own if given is None else given)


def _where(where: Where | None, where_document: Where | None) -> Where | None:
    """Both filters as one, checked."""
    check_where(where)
    return both(where, about_text(where_document))


def _dense_only(hit: Hit) -> Hit:
    scores: dict[Mode, float] = {"dense": hit.scores["dense"]}
    ranks: dict[Mode, int] = {"dense": hit.ranks["dense"]}
    return replace(hit, scores=scores, ranks=ranks, found_by=frozenset(scores))
