"""A filter never lets another tenant's document through, whichever method, mode and filter; and relevance stays in [0, 1]."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document as LangChainDocument

from m3retriever import ChromaStore, Document, HashingEncoder, M3Index, MemoryStore, Profile, Weights
from m3retriever.langchain import M3Retriever, M3VectorStore
from m3retriever.ranking import SearchMode
from m3retriever.types import Where

MODES = get_args(SearchMode)
WORDS = ["apple", "pie", "red", "car", "house", "train", "noon", "sea", "tax", "law"]
TENANTS = ["north", "south", "east", "west"]
COUNT = 60  # documents, fewer than a search brings in, so that every one that may be found is found
SINGLE = settings(max_examples=250, deadline=None)


@dataclass(frozen=True)
class Filter:
    """A `where` and a `where_document`, and beside them what they should let through, in plain Python."""

    where: Where | None
    where_document: Where | None
    lets: Callable[[Document], bool]


@cache
def corpus() -> list[Document]:
    """Documents of four tenants, about the same things in the same words."""
    random = np.random.default_rng(7)
    documents = []
    for number in range(COUNT):
        text = " ".join(random.choice(WORDS, random.integers(1, 8)))
        tags = sorted(set(random.choice(["a", "b", "c"], 2).tolist()))
        metadata = {"tenant": TENANTS[number % 4], "page": number, "tags": tags}
        documents.append(
            Document(f"{TENANTS[number % 4]}-{number}", text, metadata if number % 5 else metadata | {"open": True})
        )
    return documents


@cache
def memory() -> M3Index:
    index = M3Index(HashingEncoder(), MemoryStore())
    index.add(corpus())
    return index


@pytest.fixture(scope="module")
def chroma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[M3Index]:
    with M3Index(HashingEncoder(), ChromaStore(tmp_path_factory.mktemp("tenants") / "index")) as index:
        index.add(corpus())
        yield index


def about(key: str, operator: str, operand: Any, holds: Callable[[Any], bool]) -> tuple[Where, Callable[[Document], bool]]:
    return {key: {operator: operand}}, lambda document: holds(document.metadata.get(key))


def own_tenants(tenants: list[str]) -> st.SearchStrategy[tuple[Where, Callable[[Document], bool]]]:
    """Ways to say "these tenants and no other"."""
    others = [tenant for tenant in TENANTS if tenant not in tenants]
    ways = [
        about("tenant", "$in", tenants, lambda tenant: tenant in tenants),
        about("tenant", "$nin", others, lambda tenant: tenant not in others),
        ({"$not": {"tenant": {"$in": others}}}, lambda document: document.metadata["tenant"] not in others),
    ]
    if len(tenants) == 1:
        ways.append(({"tenant": tenants[0]}, lambda document: document.metadata["tenant"] == tenants[0]))
    else:
        parts = [{"tenant": tenant} for tenant in tenants]
        ways.append(({"$or": parts}, lambda document: document.metadata["tenant"] in tenants))
    return st.sampled_from(ways)


CONDITIONS = st.one_of(
    st.integers(0, COUNT).map(lambda page: about("page", "$lt", page, lambda value: value < page)),
    st.integers(0, COUNT).map(lambda page: about("page", "$gte", page, lambda value: value >= page)),
    st.sampled_from(["a", "b"]).map(lambda tag: about("tags", "$contains", tag, lambda tags: tag in tags)),
    st.just(about("open", "$eq", True, lambda value: value is True)),
    st.just(about("open", "$ne", True, lambda value: value is not True)),
    st.sampled_from(WORDS).map(lambda word: ({"#document": {"$contains": word}}, lambda document: word in document.text)),
)


@st.composite
def filters(draw: st.DrawFn) -> Filter:
    """One or two tenants, at times with a further condition beside or around it, at times with one on the text."""
    tenants = draw(st.lists(st.sampled_from(TENANTS), min_size=1, max_size=2, unique=True))
    where, lets = draw(own_tenants(tenants))
    if draw(st.booleans()):
        [(first, one), (second, two)] = draw(st.tuples(CONDITIONS, CONDITIONS))
        join = draw(st.sampled_from(["$and", "$or"]))
        both = all if join == "$and" else any
        own = lets
        where = {"$and": [where, {join: [first, second]}]}

        def lets(document: Document) -> bool:
            return own(document) and both([one(document), two(document)])

    if not draw(st.booleans()):
        return Filter(where, None, lets)
    word, negated = draw(st.sampled_from(WORDS)), draw(st.booleans())
    of_metadata = lets
    return Filter(
        where,
        {"$not_contains" if negated else "$contains": word},
        lambda document: of_metadata(document) and (word in document.text) != negated,
    )


QUERIES = st.lists(st.sampled_from([*WORDS, "unknown"]), min_size=1, max_size=4).map(" ".join)
SEARCHES: dict[str, Callable[[M3Index, str, str, dict[str, Any]], Any]] = {
    "similarity": lambda index, query, mode, asked: M3VectorStore(index).similarity_search(query, COUNT, mode=mode, **asked),
    "score": lambda index, query, mode, asked: M3VectorStore(index, mode=mode).similarity_search_with_score(
        query, COUNT, **asked
    ),
    "relevance": lambda index, query, mode, asked: M3VectorStore(index).similarity_search_with_relevance_scores(
        query, COUNT, mode=mode, score_threshold=0, **asked
    ),
    "mmr": lambda index, query, mode, asked: M3VectorStore(index).max_marginal_relevance_search(
        query, COUNT, lambda_mult=0.1, mode=mode, **asked
    ),
    "asynchronous": lambda index, query, mode, asked: asyncio.run(
        M3VectorStore(index).asimilarity_search(query, COUNT, mode=mode, **asked)
    ),
    "asynchronous mmr": lambda index, query, mode, asked: asyncio.run(
        M3VectorStore(index).amax_marginal_relevance_search(query, COUNT, mode=mode, **asked)
    ),
    "store's retriever": lambda index, query, mode, asked: (
        M3VectorStore(index).as_retriever(search_type=mode, search_kwargs={"k": COUNT, **asked}).invoke(query)
    ),
    "store's retriever, mmr": lambda index, query, mode, asked: (
        M3VectorStore(index).as_retriever(search_type="mmr").invoke(query, k=COUNT, mode=mode, **asked)
    ),
    "retriever": lambda index, query, mode, asked: M3Retriever(index=index, k=COUNT, mode=mode).invoke(
        query, where=asked["filter"], where_document=asked["where_document"]
    ),
    "retriever's fields": lambda index, query, mode, asked: asyncio.run(
        M3Retriever(
            index=index, k=COUNT, mode=mode, where=asked["filter"], where_document=asked["where_document"], return_scores=True
        ).ainvoke(query)
    ),
    "by vector": lambda index, query, mode, asked: M3VectorStore(index).similarity_search_by_vector(
        M3VectorStore(index).embeddings.embed_query(query), COUNT, **asked
    ),
    "by vector, mmr": lambda index, query, mode, asked: M3VectorStore(index).max_marginal_relevance_search_by_vector(
        M3VectorStore(index).embeddings.embed_query(query), COUNT, **asked
    ),
}


def check(index: M3Index, search: str, mode: str, filter: Filter, query: str) -> None:
    """Exactly the documents come back that the filter lets through; by sparse those of them that share a word."""
    asked = {"filter": filter.where, "where_document": filter.where_document}
    found = [one[0] if isinstance(one, tuple) else one for one in SEARCHES[search](index, query, mode, asked)]
    want = {document.id for document in corpus() if filter.lets(document)}
    if mode == "sparse" and not search.startswith("by vector"):
        shared = set(query.split())
        want &= {document.id for document in corpus() if shared & set(document.text.split())}
    assert {document.id for document in found} == want
    assert len(found) == len(want)


@pytest.mark.parametrize("search", SEARCHES)
@SINGLE
@given(mode=st.sampled_from(MODES), filter=filters(), query=QUERIES)
def test_a_filter_lets_through_what_it_should_and_nothing_else(search: str, mode: str, filter: Filter, query: str) -> None:
    check(memory(), search, mode, filter, query)


@pytest.mark.parametrize("search", SEARCHES)
def test_so_it_does_over_chroma(search: str, chroma: M3Index) -> None:
    @settings(max_examples=40, deadline=None)
    @given(mode=st.sampled_from(MODES), filter=filters(), query=QUERIES)
    def holds(mode: str, filter: Filter, query: str) -> None:
        check(chroma, search, mode, filter, query)

    holds()


@SINGLE
@given(
    texts=st.lists(st.text(max_size=30), min_size=1, max_size=8),
    query=st.text(max_size=30),
    mode=st.sampled_from(MODES),
    fusion=st.sampled_from(["weighted_sum", "rrf"]),
    weights=st.tuples(*[st.floats(0, 10)] * 3).filter(any),
)
def test_relevance_stays_between_0_and_1(texts: list[str], query: str, mode: str, fusion: str, weights: tuple[float]) -> None:
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    index = M3Index(HashingEncoder(16), MemoryStore(), Profile(fusion=fusion, weights=Weights.of(weights)))
    store = M3VectorStore(index)
    ids = store.add_texts(texts)
    result = store.similarity_search_with_relevance_scores(query, len(texts), mode=mode)
    values = [relevance for _, relevance in result]
    assert all(0 <= value <= 1 for value in values)
    assert all(type(value) is float for value in values)
    assert mode == "sparse" or {document.id for document, _ in result} == set(ids)
    if fusion == "weighted_sum" or mode != "hybrid":
        assert values == sorted(values, reverse=True)
    assert isinstance(result[0][0] if result else LangChainDocument(""), LangChainDocument)


def test_a_text_with_itself_is_relevant_and_another_is_not() -> None:
    store = M3VectorStore(M3Index(HashingEncoder(), MemoryStore()), mode="dense")
    store.add_texts(["apple pie", "trains leave at noon"], ids=["same", "other"])
    (same, high), (_, low) = store.similarity_search_with_relevance_scores("apple pie")
    assert same.id == "same"
    assert high == pytest.approx(1, abs=1e-6)
    assert low < 0.3


def test_the_corpus_is_one_in_which_a_leak_would_show() -> None:
    """Without a filter the best documents for a query are of several tenants."""
    hits = memory().search("apple pie", 10)
    assert len({hit.document.metadata["tenant"] for hit in hits}) >= 3
