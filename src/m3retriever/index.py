"""M3Index: text in, ranked hits out. The one class most users need, and the one that holds state."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np

from m3retriever.checks import check_documents
from m3retriever.errors import InvalidArgumentError, ProfileError, UnknownDocumentError
from m3retriever.explanation import Explanation, SharedToken, explain
from m3retriever.filters import check_where, matches
from m3retriever.fusion import fusion_named, mode_ranks, top_k
from m3retriever.profile import load_profile
from m3retriever.ranking import Ranking, SearchMode, WeightsLike
from m3retriever.types import (
    MODES,
    Adopts,
    BindsModel,
    Document,
    Encoder,
    Hit,
    HoldsVectors,
    M3Vectors,
    ModeScores,
    Profile,
    Store,
    Tokenizes,
    Where,
)

BATCH = 256  # documents encoded and stored at a time: bounds what a crash can cost
BATCH_CHARACTERS = 400_000  # and their texts: about 100,000 tokens, whose vectors take 400 MB at d = 1024


@dataclass(frozen=True)
class Added:
    """What `add` did: how many documents were new, replaced an older one, or were there already."""

    new: int = 0
    replaced: int = 0
    unchanged: int = 0

    def __add__(self, other: Added) -> Added:
        return Added(self.new + other.new, self.replaced + other.replaced, self.unchanged + other.unchanged)


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
        if self.profile.model not in (None, encoder.name):
            raise ProfileError(
                f"the profile was fitted on {self.profile.model!r}, not on {encoder.name!r}: fit it again for this model"
            )
        fusion_named(self.profile.fusion)  # a wrong name is said here, not at the first search
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
            A Profile or a TOML file; default: `profile.toml` in the folder where there is one.
        """
        if not str(path):
            raise InvalidArgumentError("path must name a folder; got ''")
        from m3retriever.encoders import DEFAULT_MODEL, lasting, load_encoder
        from m3retriever.stores.chroma import ChromaStore

        if model is None and not ChromaStore.exists(path, collection):
            model = DEFAULT_MODEL
        source = lasting(model) if isinstance(model, str) else None
        encoder = load_encoder(model) if isinstance(model, str) else model  # before a folder is made for it
        store = ChromaStore(path, collection=collection)
        try:
            if encoder is None:
                source = store.settings()["source"] or DEFAULT_MODEL
                encoder = load_encoder(source)
            store.source = source
            return cls(encoder, store, _profile(profile, Path(path)))
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
        for batch in _batches(documents):
            done += self._add(batch, progress=progress)
        return done

    def delete(self, ids: Sequence[str]) -> None:
        """Remove documents; UnknownDocumentError, before any is removed, where an id is not here."""
        self.store.delete(_ids(ids))

    def get(self, ids: Sequence[str]) -> list[Document]:
        """Documents by id, in this order; UnknownDocumentError where an id is not here."""
        return self.store.get(_ids(ids))

    def vectors(self, ids: Sequence[str]) -> M3Vectors:
        """The stored vectors of documents, in this order."""
        if not isinstance(self.store, HoldsVectors):
            raise InvalidArgumentError(f"{type(self.store).__name__} does not give back vectors")
        return self.store.vectors(_ids(ids))

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
            Chroma's filter language over metadata, such as {"lang": "en"}.
        """
        [hits] = self.search_many([query], k, mode=mode, weights=weights, threshold=threshold, where=where)
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
    ) -> list[list[Hit]]:
        """`search` for several queries, which are encoded together."""
        _check_k(k)
        ranking = Ranking.of(self.profile, mode, weights, threshold)
        check_where(where)
        depth = max(self.profile.depth, k)
        vectors = self._encode_queries(queries)
        return [
            self._hits(self.store.search(vectors[row], depth=depth, where=where), ranking, k, where)
            for row in range(len(vectors))
        ]

    def score(self, query: str, *, ids: Sequence[str] | None = None, where: Where | None = None) -> ModeScores:
        """Raw scores in every mode, before any weight: of the candidates, or of the documents with these ids.

        This is what tuning, calibration and the inspector work on: score once, then move weights for free.
        """
        vectors = self._encode_queries([query])
        if ids is not None:
            return self.store.score(vectors, _ids(ids))
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
    ) -> Explanation:
        """Why a document has the place it has, or which stage cut it. Takes what `search` takes."""
        _check_k(k)
        ranking = Ranking.of(self.profile, mode, weights, threshold)
        check_where(where)
        document = next(iter(self.get([id])), None)
        if document is None:
            raise UnknownDocumentError([id], asked=1)
        vectors = self._encode_queries([query])
        candidates = self.store.search(vectors, depth=max(self.profile.depth, k), where=where)
        return explain(
            query,
            document,
            own=self.store.score(vectors, [id]),
            candidates=candidates,
            ranking=ranking,
            k=k,
            where=where,
            shared=self._shared(vectors, query, id),
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

    async def aadd(self, documents: Sequence[Document], *, progress: bool = False) -> Added:
        """`add`, in a thread."""
        return await asyncio.to_thread(self.add, documents, progress=progress)

    async def adelete(self, ids: Sequence[str]) -> None:
        """`delete`, in a thread."""
        await asyncio.to_thread(self.delete, ids)

    async def aget(self, ids: Sequence[str]) -> list[Document]:
        """`get`, in a thread."""
        return await asyncio.to_thread(self.get, ids)

    async def asearch(self, query: str, k: int = 10, **settings: Any) -> list[Hit]:
        """`search`, in a thread; takes its keyword arguments."""
        return await asyncio.to_thread(self.search, query, k, **settings)

    async def asearch_many(self, queries: Sequence[str], k: int = 10, **settings: Any) -> list[list[Hit]]:
        """`search_many`, in a thread; takes its keyword arguments."""
        return await asyncio.to_thread(self.search_many, queries, k, **settings)

    async def ascore(self, query: str, **settings: Any) -> ModeScores:
        """`score`, in a thread; takes its keyword arguments."""
        return await asyncio.to_thread(self.score, query, **settings)

    async def aexplain(self, query: str, id: str, **settings: Any) -> Explanation:
        """`explain`, in a thread; takes its keyword arguments."""
        return await asyncio.to_thread(self.explain, query, id, **settings)

    # -- steps -------------------------------------------------------------------------------------

    def _add(self, documents: Sequence[Document], *, progress: bool) -> Added:
        held = self._held([document.id for document in documents])
        changed = [document for document in documents if not _same(document, held.get(document.id))]
        if changed:
            texts = [document.text for document in changed]
            self.store.add(changed, self.encoder.encode_documents(texts, progress=progress))
        replaced = sum(document.id in held for document in changed)
        return Added(len(changed) - replaced, replaced, len(documents) - len(changed))

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

    def _hits(self, scores: ModeScores, ranking: Ranking, k: int, where: Where | None) -> list[Hit]:
        fused = ranking.fuse(scores)
        rows = ranking.eligible(scores, fused, top_k(scores, fused, len(scores)))
        ranks = mode_ranks(scores)
        hits: list[Hit] = []
        for start in range(0, len(rows), k):  # a second round only where a document changed meanwhile
            batch = rows[start : start + k]
            held = self._held([scores.ids[row] for row in batch])
            for row in batch:
                document = held.get(scores.ids[row])
                if document is not None and matches(where, document.metadata):
                    place = {mode: ranks[mode][row] for mode in MODES}
                    hits.append(Hit(document, float(fused[row]), scores.of(row), place, scores.found_by[row]))
            if len(hits) >= k:
                break
        return hits[:k]

    def _shared(self, query: M3Vectors, text: str, id: str) -> tuple[SharedToken, ...]:
        if not isinstance(self.store, HoldsVectors):
            return ()
        names: dict[int, str] = {}
        if isinstance(self.encoder, Tokenizes):
            names = {token.id: text[token.start : token.end] for token in self.encoder.tokenize(text)}
        document = self.store.vectors([id]).sparse_row(0)
        shared = [
            SharedToken(names.get(token, str(token)), weight, document[token])
            for token, weight in query.sparse_row(0).items()
            if token in document
        ]
        return tuple(sorted(shared, key=lambda token: -token.product))


def _profile(given: Profile | str | Path | None, folder: Path) -> Profile:
    if isinstance(given, Profile):
        return given
    if given is not None:
        return load_profile(given)
    own = folder / "profile.toml"
    return load_profile(own) if own.is_file() else Profile()


def _same(document: Document, held: Document | None) -> bool:
    if held is None or document.text != held.text:
        return False
    stored = {key: value for key, value in document.metadata.items() if value is not None}
    kept = dict(held.metadata)
    return stored == kept and all(type(stored[key]) is type(kept[key]) for key in stored)


def _batches(documents: Sequence[Document]) -> Iterator[Sequence[Document]]:
    """Runs of documents, at least one each, within BATCH documents and BATCH_CHARACTERS characters."""
    start, characters = 0, 0
    for place, document in enumerate(documents):
        characters += len(document.text)
        if place > start and (place - start >= BATCH or characters > BATCH_CHARACTERS):
            yield documents[start:place]
            start, characters = place, len(document.text)
    if documents:
        yield documents[start:]


def _ids(ids: Sequence[str]) -> list[str]:
    if isinstance(ids, str):
        raise InvalidArgumentError(f"ids is a list of str; got the str {ids!r}: write [{ids!r}]")
    ids = list(ids)
    if wrong := [id for id in ids if not isinstance(id, str)]:
        raise InvalidArgumentError(f"ids is a list of str; got {wrong[0]!r} among them")
    return ids


def _check_k(k: int) -> None:
    if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
        raise InvalidArgumentError(f"k must be an integer >= 1; got {k!r}")
