"""`where` and `where_document` in every call of M3Index and its async twin: exactly the documents that pass."""

import asyncio
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3retriever import ChromaStore, Document, HashingEncoder, InvalidFilterError, M3Index, MemoryStore
from m3retriever.filters import matches
from m3retriever.ranking import SEARCH_MODES

LINES = [
    Document(
        f"{row:02}", " ".join(["red", "fox", "blue", "whale", "wine", "Sea"][row % 6 : row % 6 + 1 + row % 4]), {"n": row % 5}
    )
    for row in range(36)
]
EXPLAINED = {document.id for document in LINES[::7]}  # a call for each takes its time
CALLS = ("search", "search_many", "search_diverse", "search_by_vector", "score", "score of ids", "ids", "explain")


def passing(where, where_document):
    """The documents that pass, by a plain reading of Chroma's `where_document`."""

    def reads(part, text):
        [(key, value)] = part.items()
        if key in ("$and", "$or"):
            return (all if key == "$and" else any)(reads(one, text) for one in value)
        found = value in text if key.endswith("contains") else bool(re.search(value, text))
        return found != key.startswith("$not")

    return {
        document.id
        for document in LINES
        if matches(where, document) and (where_document is None or reads(where_document, document.text))
    }


def answer(index, call, mode, twin, **filters):
    """Ids in the answer of a call, or of its async twin."""
    name, _, of = call.partition(" of ")
    everything, hybrid = [document.id for document in LINES], {} if name == "search_by_vector" else {"mode": mode}
    first = {"search_many": ["red fox sea"], "search_by_vector": HashingEncoder().encode_queries(["red fox sea"]).dense[0]}

    def run(*arguments, **settings):
        called = getattr(index, "a" * twin + name)(*arguments, **settings, **filters)
        return asyncio.run(called) if twin else called

    if name == "ids":
        return set(run())
    if name == "explain":
        return {id for id in EXPLAINED if run("red fox sea", id, mode=mode).stage != "filtered out"}
    if name == "score":
        return set(run("red fox sea", **({"ids": everything} if of else {})).ids)
    hits = run(first.get(name, "red fox sea"), 100, **hybrid)
    return {hit.document.id for hit in (hits[0] if name == "search_many" else hits)}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same documents in memory and in Chroma."""
    memory = M3Index(HashingEncoder(), MemoryStore())
    on_disk = M3Index(HashingEncoder(), ChromaStore(tmp_path_factory.mktemp("both")))
    for each in (memory, on_disk):
        each.add(LINES)
    yield memory, on_disk
    on_disk.close()


TEXT_FILTERS = [
    None,
    {"$contains": "fox"},
    {"$not_contains": "red"},
    {"$regex": "^(red|blue) [f-x]"},
    {"$not_regex": "(?i)SEA"},
    {"$and": [{"$contains": "whale"}, {"$or": [{"$regex": "e S"}, {"$not_contains": "wine"}]}]},
    {"$contains": "none has it"},
]
FILTERS = [None, {"n": {"$lt": 3}}, {"$or": [{"n": 4}, {"#id": {"$in": ["00", "01", "02"]}}]}, {"$not": {"n": {"$gt": 1}}}]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("mode", SEARCH_MODES)
def test_every_call_answers_with_the_documents_that_pass_both_filters_and_no_other(both, call, mode):
    whole = {document.id for document in LINES if set(document.text.lower().split()) & {"red", "fox", "sea"}}
    for where_document in TEXT_FILTERS:
        for where in FILTERS:
            expected = passing(where, where_document)
            if mode == "sparse" and call in ("search", "search_many", "search_diverse"):
                expected &= whole
            if call == "explain":
                expected &= EXPLAINED
            for index in both:
                for twin in (False, True):
                    got = answer(index, call, mode, twin, where=where, where_document=where_document)
                    assert got == expected, (type(index.store).__name__, twin, where, where_document)


texts = st.sampled_from(["red", "fox", "e", " ", "Sea", "sea", "d f", "zebra"])
text_filters = st.recursive(
    st.builds(
        lambda operator, part: {operator: part}, st.sampled_from(["$contains", "$not_contains", "$regex", "$not_regex"]), texts
    ),
    lambda parts: st.builds(
        lambda join, parts: {join: parts}, st.sampled_from(["$and", "$or"]), st.lists(parts, min_size=2, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=40, deadline=None)
@given(text_filters, st.sampled_from(FILTERS), st.sampled_from(CALLS), st.sampled_from(["hybrid", "dense", "colbert"]))
def test_no_filter_lets_a_document_through_that_does_not_pass(both, where_document, where, call, mode):
    for index in both:
        got = answer(index, call, mode, False, where=where, where_document=where_document)
        assert got == passing(where, where_document) & (EXPLAINED if call == "explain" else passing(None, None))


def test_a_bad_filter_is_refused_by_every_call(both):
    for index in both:
        for call in CALLS:
            for bad in ({"where": {}}, {"where": {"n": {"$like": 1}}}, {"where_document": {"n": 1}}, {"where_document": "fox"}):
                for twin in (False, True):
                    with pytest.raises(InvalidFilterError):
                        answer(index, call, "hybrid", twin, **bad)
