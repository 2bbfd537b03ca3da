"""A filter as a wall: documents of several tenants, filters and questions drawn at random, and what must hold.

Every way to ask is a function in `ASKS`. Its answer must be the same, to the bit, from an index of all documents and from
one of the passing documents alone: then no id, score, rank or count says anything of the others.
"""

from __future__ import annotations

import operator
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from llama_index.core.vector_stores.types import (
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from m3retriever import (
    ChromaStore,
    Document,
    Explanation,
    HashingEncoder,
    Hit,
    M3Index,
    MemoryStore,
    ModeScores,
    Profile,
    UnknownDocumentError,
)
from m3retriever.inspector import retrieval
from m3retriever.inspector.source import Source
from m3retriever.langchain import M3Retriever, M3VectorStore
from m3retriever.llama_index import M3Retriever as LlamaRetriever
from m3retriever.llama_index import M3VectorStore as LlamaStore
from m3retriever.ranking import SEARCH_MODES

DIM = 16
WORDS = [
    "red",
    "Red",
    "fox",
    "blue",
    "sea",
    "Sea",
    "été",
    "e\u0301te\u0301",
    "中",
    "文",
    "100%",
    "a_b",
    "it's",
    "\\",
    "*",
    "\x00",
    "🦊",
]
TENANTS = ["a", "A", "aa", "a ", "", "b", "tenant-1", "tenant-10", "é", "e\u0301", "a\x00b", "1", "1.0", "True", "null", "%"]
KEYS = ["tenant", "n", "ключ", "k'\"", "a.b"]
NUMBERS = [0, 1, 2, -1, -3, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 0.0, 1.0, 0.5, -2.5, 2.0**53, 1e300, -1e300, 5e-324, 1e-300]
SCORES_OF = {"scores": [0.0, 0.5, 1.0], "probabilities": [0.01, 0.5, 0.99]}
KINDS = (bool, (int, float), str)
ORDER = {"$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt, "$lte": operator.le}


# -- what the filter language says, read plainly ---------------------------------------------------


def passes(where: Any, document: Document) -> bool:
    """Whether a document passes; None is no filter."""
    if where is None:
        return True
    [(key, condition)] = where.items()
    if key in ("$and", "$or"):
        return (all if key == "$and" else any)(passes(part, document) for part in condition)
    if key == "$not":
        return not passes(condition, document)
    [(asked, operand)] = (condition if isinstance(condition, Mapping) else {"$eq": condition}).items()
    if key == "#document":
        return text_passes(asked, operand, document.text)
    return value_passes(asked, operand, document.id if key == "#id" else document.metadata.get(key))


def text_passes(asked: str, operand: str, text: str) -> bool:
    """One condition on the text."""
    found = operand in text if asked.endswith("contains") else re.search(operand, text) is not None
    return found != asked.startswith("$not_")


def value_passes(asked: str, operand: Any, held: Any) -> bool:
    """One condition on a value of the metadata, None where the key is missing."""
    if asked in ("$ne", "$nin", "$not_contains"):
        opposite = {"$ne": "$eq", "$nin": "$in", "$not_contains": "$contains"}[asked]
        return not value_passes(opposite, operand, held)
    if asked == "$empty":
        return (held is None or held == "") is operand
    if asked == "$contains":
        return isinstance(held, list) and any(type(one) is type(operand) and one == operand for one in held)
    if isinstance(held, list) or held is None:
        return False
    if asked.startswith("$text_match"):
        fold = str.lower if asked.endswith("insensitive") else str
        return isinstance(held, str) and fold(operand) in fold(held)
    if asked == "$in":
        return any(like(held, one) and held == one for one in operand)
    return like(held, operand) and ORDER.get(asked, operator.eq)(held, operand)


def like(one: Any, other: Any) -> bool:
    """Whether two values are of one kind: bools, numbers or texts."""
    return kind(one) is kind(other)


def kind(value: Any) -> Any:
    return next(kind for kind in KINDS if isinstance(value, kind))


# -- what is drawn ---------------------------------------------------------------------------------

texts = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)
scalars = st.one_of(st.sampled_from(TENANTS), st.sampled_from(NUMBERS), st.booleans())
lists = st.one_of(*(st.lists(one, min_size=1, max_size=3) for one in (st.sampled_from(TENANTS), st.booleans())))
numbers = st.sampled_from([int, float]).flatmap(
    lambda kind: st.lists(st.sampled_from([one for one in NUMBERS if isinstance(one, kind)]), min_size=1, max_size=3)
)
values = scalars | lists | numbers
metadata = st.fixed_dictionaries({}, optional={"tenant": st.sampled_from(TENANTS) | scalars, **dict.fromkeys(KEYS[1:], values)})


def condition_of(operators: list[str], operand: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(lambda asked, value: {asked: value}, st.sampled_from(operators), operand)


conditions = st.one_of(
    scalars,
    condition_of(["$eq", "$ne", "$contains", "$not_contains"], scalars),
    condition_of(list(ORDER), st.sampled_from(TENANTS) | st.sampled_from(NUMBERS)),
    condition_of(["$in", "$nin"], lists | numbers),
    condition_of(["$text_match", "$text_match_insensitive"], st.sampled_from(TENANTS)),
    condition_of(["$empty"], st.booleans()),
)
patterns = st.sampled_from([re.escape(word) for word in WORDS] + ["^red", "(?i)SEA", "[0-9]+%", "e. |中"])
text_conditions = st.one_of(
    condition_of(["$contains", "$not_contains"], st.sampled_from([*WORDS, "e", " ", "d f", "\\ *"])),
    condition_of(["$regex", "$not_regex"], patterns),
)


def joined(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(
        lambda join, parts: {join: parts}, st.sampled_from(["$and", "$or"]), st.lists(parts, min_size=2, max_size=3)
    )


wheres_documents = st.none() | st.recursive(text_conditions, joined, max_leaves=3)


@dataclass(frozen=True)
class Case:
    """Documents, a filter, and how to ask."""

    documents: tuple[Document, ...]
    where: Any
    where_document: Any
    query: str
    k: int
    depth: int
    mode: str
    fusion: str
    dense: str

    @property
    def passing(self) -> list[Document]:
        """The documents that pass both filters."""
        return [one for one in self.documents if passes(self.where, one) and about_text_passes(self.where_document, one)]

    @property
    def filters(self) -> dict[str, Any]:
        return {"where": self.where, "where_document": self.where_document}


def about_text_passes(where_document: Any, document: Document) -> bool:
    """As `passes`, of Chroma's `where_document`."""
    if where_document is None:
        return True
    [(key, condition)] = where_document.items()
    if key in ("$and", "$or"):
        return (all if key == "$and" else any)(about_text_passes(part, document) for part in condition)
    return text_passes(key, condition, document.text)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A case whose filter is over the very values that the documents have, and over others."""
    held = draw(st.lists(st.tuples(texts, metadata), min_size=2, max_size=14))
    documents = tuple(Document(f"{'ab'[row % 2]}/{row}", text, data) for row, (text, data) in enumerate(held))
    ids = st.sampled_from([one.id for one in documents])
    about_ids = condition_of(["$eq", "$ne"], ids) | condition_of(["$in", "$nin"], st.lists(ids, min_size=1, max_size=4))
    leaves = st.one_of(
        st.builds(lambda key, condition: {key: condition}, st.sampled_from(KEYS), conditions),
        st.sampled_from(TENANTS).map(lambda tenant: {"tenant": tenant}),
        about_ids.map(lambda condition: {"#id": condition}),
        text_conditions.map(lambda condition: {"#document": condition}),
    )
    filters = st.recursive(leaves, lambda parts: joined(parts) | parts.map(lambda part: {"$not": part}), max_leaves=5)
    return Case(
        documents,
        draw(filters),
        draw(wheres_documents),
        draw(texts),
        draw(st.sampled_from([1, 3, 50])),
        draw(st.sampled_from([1, 2, 4, 200])),
        draw(st.sampled_from(SEARCH_MODES)),
        draw(st.sampled_from(["weighted_sum", "rrf", "min_max", "z_score"])),
        draw(st.sampled_from(["exact", "hnsw", "auto", "memory"])),
    )


# -- how one may ask -------------------------------------------------------------------------------


def bits(answer: Any) -> Any:
    """An answer with every number in it to the last bit, in a form that can be compared."""
    if isinstance(answer, ModeScores):
        return answer.ids, answer.values.tobytes(), [sorted(one) for one in answer.found_by], answer.owners
    if isinstance(answer, Hit | Explanation):
        return {field.name: bits(getattr(answer, field.name)) for field in fields(answer)}
    if isinstance(answer, frozenset):
        return sorted(answer)
    if isinstance(answer, Document):
        return answer.id, answer.text, sorted((key, repr(value)) for key, value in answer.metadata.items())
    if isinstance(answer, Mapping):
        return {key: bits(value) for key, value in answer.items()}
    return [bits(one) for one in answer] if isinstance(answer, list | tuple) else answer


@dataclass(frozen=True)
class Asked:
    """An index with a case: what an ask is given."""

    index: M3Index
    case: Case
    folder: Path | None

    @property
    def settings(self) -> dict[str, Any]:
        return {"mode": self.case.mode, **self.case.filters}

    @property
    def held(self) -> list[str]:
        """Ids in this index, the passing ones and the others."""
        return [one.id for one in self.case.documents if one.id in set(self.index.ids())]

    @property
    def vector(self) -> Any:
        return self.index.encoder.encode_queries([self.case.query or "red"]).dense[0]

    def told(self, call: Callable[..., Any], *given: Any, **settings: Any) -> Any:
        return call(*given, **{**self.settings, **settings})


def _explained(asked: Asked) -> Any:
    case = asked.case
    return [asked.told(asked.index.explain, case.query, one.id, k=case.k) for one in case.passing[:3]]


def _documents(found: list[Any]) -> list[Any]:
    return [(one.id, one.page_content, sorted((key, repr(value)) for key, value in one.metadata.items())) for one in found]


def _langchain(name: str) -> Callable[[Asked], Any]:
    def ask(asked: Asked) -> Any:
        case, store = asked.case, M3VectorStore(asked.index)
        given = {"filter": case.where, "where_document": case.where_document}
        first = asked.vector if "by_vector" in name else case.query
        modes = {} if "by_vector" in name else {"mode": case.mode}
        found = getattr(store, name)(first, case.k, **given, **modes)
        if found and isinstance(found[0], tuple):
            return list(zip(_documents([one for one, _ in found]), [score for _, score in found], strict=True))
        return _documents(found)

    return ask


def _retriever(asked: Asked) -> Any:
    found = M3Retriever(index=asked.index, k=asked.case.k, return_scores=True, **asked.settings).invoke(asked.case.query)
    by_store = M3VectorStore(asked.index).as_retriever(
        search_kwargs={"k": asked.case.k, "filter": asked.case.where, "where_document": asked.case.where_document}
    )
    return _documents(found), _documents(by_store.invoke(asked.case.query))


def _llama(mode: VectorStoreQueryMode) -> Callable[[Asked], Any]:
    def ask(asked: Asked) -> Any:
        case, named = asked.case, [one.id for one in asked.case.documents[::2]]
        query = VectorStoreQuery(query_str=case.query, similarity_top_k=case.k, mode=mode)
        some = VectorStoreQuery(query_str=case.query, similarity_top_k=case.k, mode=mode, node_ids=named)
        found = [LlamaStore(asked.index).query(one, **case.filters) for one in (query, some)]
        return [(one.ids, one.similarities, [(node.text, node.metadata) for node in one.nodes]) for one in found]

    return ask


def _llama_retriever(asked: Asked) -> Any:
    found = LlamaRetriever(index=asked.index, k=asked.case.k, **asked.settings).retrieve(asked.case.query or "red")
    return [(one.node.node_id, one.score, one.scores, one.ranks, one.found_by, one.probability) for one in found]


def _inspector(asked: Asked) -> Any:
    """What the pages make their numbers of. They know metadata filters alone."""
    if asked.folder is None or asked.case.where_document is not None:
        return None
    source = Source(asked.folder)
    ask = partial(retrieval.explained, asked.index, source, asked.case.query, profile=asked.index.profile, k=asked.case.k)
    scores = retrieval.raw_scores(asked.index, source, asked.case.query, k=asked.case.k, where=asked.case.where)
    return scores, [ask(one.id, threshold=0.2, where=asked.case.where) for one in asked.case.passing[:2]]


ASKS: dict[str, Callable[[Asked], Any]] = {
    "search": lambda a: a.told(a.index.search, a.case.query, a.case.k),
    "search above a threshold": lambda a: a.told(a.index.search, a.case.query, a.case.k, threshold=0.2),
    "search_many": lambda a: a.told(a.index.search_many, [a.case.query, "sea fox"], a.case.k),
    "search_documents": lambda a: [
        (one.id, one.score, one.passages) for one in a.told(a.index.search_documents, a.case.query, a.case.k, aggregate="mean")
    ],
    "search_diverse": lambda a: a.told(a.index.search_diverse, a.case.query, a.case.k, among=5),
    "search_by_vector": lambda a: a.index.search_by_vector(a.vector, a.case.k, **a.case.filters),
    "search_diverse_by_vector": lambda a: a.index.search_diverse_by_vector(a.vector, a.case.k, among=4, **a.case.filters),
    "score": lambda a: a.index.score(a.case.query, **a.case.filters),
    "score to a depth": lambda a: a.index.score(a.case.query, depth=2, **a.case.filters),
    "score of ids": lambda a: a.index.score(a.case.query, ids=a.held, **a.case.filters),
    "ids": lambda a: a.index.ids(**a.case.filters),
    "ids among": lambda a: a.index.ids(among=[one.id for one in a.case.documents], **a.case.filters),
    "find": lambda a: a.index.find(**a.case.filters),
    "explain": _explained,
    "langchain": _langchain("similarity_search_with_score"),
    "langchain relevance": _langchain("similarity_search_with_relevance_scores"),
    "langchain diverse": _langchain("max_marginal_relevance_search"),
    "langchain by vector": _langchain("similarity_search_by_vector"),
    "langchain retrievers": _retriever,
    "llama dense": _llama(VectorStoreQueryMode.DEFAULT),
    "llama sparse": _llama(VectorStoreQueryMode.SPARSE),
    "llama hybrid": _llama(VectorStoreQueryMode.HYBRID),
    "llama diverse": _llama(VectorStoreQueryMode.MMR),
    "llama retriever": _llama_retriever,
    "inspector": _inspector,
}


# -- what must hold --------------------------------------------------------------------------------


@contextmanager
def opened(case: Case, documents: list[Document] | tuple[Document, ...]) -> Iterator[Asked]:
    """An index of these documents, asked the way the case says."""
    calibration = dict.fromkeys(SEARCH_MODES, SCORES_OF)
    profile = Profile(depth=case.depth, fusion=case.fusion, calibration=calibration)
    with ExitStack() as stack:
        folder = None if case.dense == "memory" else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = MemoryStore() if folder is None else ChromaStore(folder, dense=case.dense)  # type: ignore[arg-type]
        index = stack.enter_context(M3Index(HashingEncoder(DIM), store, profile))
        index.add(documents)
        yield Asked(index, case, folder)


def check(case: Case) -> int:
    """Hold every ask to what it must answer; how many answers were compared."""
    passing = case.passing
    with opened(case, case.documents) as everyone, opened(case, passing) as alone:
        assert everyone.index.ids(**case.filters) == sorted(one.id for one in passing), case.filters
        for name, ask in ASKS.items():
            assert bits(ask(everyone)) == bits(ask(alone)), (name, case)
        others = [one for one in case.documents if one not in passing]
        for one in others[:3]:
            check_silent(everyone, one)
        check_metadata_filters(everyone)
        return 2 * len(ASKS) + len(others[:3])


def check_silent(asked: Asked, other: Document) -> None:
    """Explaining a document that does not pass says that, and nothing else of it."""
    found = asked.told(asked.index.explain, asked.case.query, other.id, k=asked.case.k)
    hits = asked.told(asked.index.search, asked.case.query, max(asked.case.k, asked.case.depth))
    assert (found.document, found.stage, found.query) == (Document(other.id, ""), "filtered out", asked.case.query)
    assert {found.best, found.last} <= {None, *(hit.score for hit in hits)}
    said = {name for name, value in asdict(found).items() if value not in (None, {}, (), frozenset())}
    assert said <= {"document", "stage", "query", "best", "last"}, said
    assert found.advice == "it does not pass the filter"
    with pytest.raises(UnknownDocumentError):
        asked.told(asked.index.explain, asked.case.query, "an id that nobody has")


def check_metadata_filters(asked: Asked) -> None:
    """LlamaIndex's own filters: exactly what plain Python says, in the store, the retriever and by node ids."""
    for tenant in ("a", ""):
        filters = MetadataFilters(filters=[MetadataFilter(key="tenant", value=tenant, operator=FilterOperator.EQ)])
        wanted = {one.id for one in asked.case.documents if one.metadata.get("tenant") == tenant}
        store = LlamaStore(asked.index)
        found = store.query(VectorStoreQuery(query_str=asked.case.query, similarity_top_k=50, filters=filters))
        retrieved = LlamaRetriever(index=asked.index, k=50, filters=filters).retrieve("red sea")
        for ids in (
            found.ids,
            [one.node.node_id for one in retrieved],
            [one.node_id for one in store.get_nodes(filters=filters)],
        ):
            assert set(ids or []) <= wanted
        assert {one.node_id for one in store.get_nodes(filters=filters)} == wanted
