"""`where`: a table by hand, what is refused, and the same answer as a real Chroma, operator by operator."""

from collections.abc import Iterator

import chromadb
import numpy as np
import pytest
from chromadb.config import Settings
from hypothesis import given, settings
from hypothesis import strategies as st

from m3retriever.errors import InvalidFilterError
from m3retriever.filters import JOINS, OPERATORS, check_where, for_chroma, matches

METADATA = {"n": 2, "f": 2.5, "whole": 2.0, "s": "a", "yes": True, "words": ["a", "b"], "numbers": [1, 2], "none": None}

TABLE = [
    (None, True),
    ({"n": 2}, True),
    ({"n": 2.0}, True),
    ({"n": 3}, False),
    ({"n": "2"}, False),
    ({"whole": 2}, True),
    ({"yes": True}, True),
    ({"yes": 1}, False),  # a bool is no number
    ({"n": True}, False),
    ({"s": "a"}, True),
    ({"s": "A"}, False),
    ({"words": "a"}, False),  # a list equals none of its items
    ({"missing": 1}, False),
    ({"none": 1}, False),
    ({"n": {"$eq": 2}}, True),
    ({"n": {"$ne": 2}}, False),
    ({"n": {"$ne": 3}}, True),
    ({"n": {"$ne": "2"}}, True),
    ({"missing": {"$ne": 2}}, True),
    ({"none": {"$ne": 2}}, True),
    ({"n": {"$gt": 1}}, True),
    ({"n": {"$gt": 2}}, False),
    ({"n": {"$gte": 2}}, True),
    ({"n": {"$gte": 2.5}}, False),
    ({"n": {"$lt": 2.5}}, True),
    ({"n": {"$lt": 2}}, False),
    ({"n": {"$lte": 2}}, True),
    ({"f": {"$gt": 2}}, True),
    ({"f": {"$lt": 2}}, False),
    ({"f": {"$lte": 2.5}}, True),
    ({"s": {"$gt": 0}}, False),
    ({"yes": {"$gte": 0}}, False),
    ({"numbers": {"$gt": 0}}, False),
    ({"missing": {"$lt": 100}}, False),
    ({"n": {"$in": [1, 2]}}, True),
    ({"n": {"$in": [1, 3]}}, False),
    ({"n": {"$in": (2.0, 3.0)}}, True),
    ({"n": {"$nin": [1, 2]}}, False),
    ({"n": {"$nin": [1, 3]}}, True),
    ({"missing": {"$nin": [1]}}, True),
    ({"missing": {"$in": [1]}}, False),
    ({"words": {"$contains": "a"}}, True),
    ({"words": {"$contains": "c"}}, False),
    ({"words": {"$not_contains": "c"}}, True),
    ({"words": {"$not_contains": "a"}}, False),
    ({"numbers": {"$contains": 1}}, True),
    ({"numbers": {"$contains": 1.0}}, False),  # inside a list an int and a float are not the same
    ({"numbers": {"$contains": "1"}}, False),
    ({"s": {"$contains": "a"}}, False),  # a str is no list
    ({"missing": {"$contains": "a"}}, False),
    ({"missing": {"$not_contains": "a"}}, True),
    ({"$and": [{"n": 2}, {"s": "a"}]}, True),
    ({"$and": [{"n": 2}, {"s": "b"}]}, False),
    ({"$or": [{"n": 3}, {"s": "a"}]}, True),
    ({"$or": [{"n": 3}, {"s": "b"}]}, False),
    ({"$or": [{"$and": [{"n": 2}, {"s": "b"}]}, {"f": {"$gt": 2}}]}, True),
    ({"$and": [{"$or": [{"n": 2}, {"s": "b"}]}, {"f": {"$lt": 2}}]}, False),
]


@pytest.mark.parametrize(("where", "expected"), TABLE, ids=str)
def test_a_document_passes_the_filter_or_does_not(where, expected):
    check_where(where)
    assert matches(where, METADATA) is expected


def test_the_table_uses_every_operator():
    used = {
        operator for where, _ in TABLE if where for value in where.values() if isinstance(value, dict) for operator in value
    }
    assert used == set(OPERATORS)


@pytest.mark.parametrize(
    "where",
    [
        {},
        [],
        "n",
        {"n": 1, "s": "a"},
        {1: 2},
        {"$not": [{"n": 1}, {"n": 2}]},
        {"$eq": 1},
        {"$and": [{"n": 1}]},
        {"$and": []},
        {"$or": {"n": 1}},
        {"$or": "ab"},
        {"$or": b"ab"},
        {"$or": [{"n": 1}, None]},
        {"$and": [{"n": 1}, {}]},
        {"$and": [{"n": 1}, {"$or": [{"n": 1}]}]},
        {"n": {}},
        {"n": {"$gt": 1, "$lt": 3}},
        {"n": {"$like": "a"}},
        {"n": {"eq": 1}},
        {"n": None},
        {"n": [1]},
        {"n": {"$eq": None}},
        {"n": {"$eq": [1]}},
        {"n": {"$gt": "1"}},
        {"n": {"$lte": True}},
        {"n": {"$in": []}},
        {"n": {"$in": "ab"}},
        {"n": {"$in": 1}},
        {"n": {"$nin": [1, 1.0]}},
        {"n": {"$in": [True, 1]}},
        {"n": {"$in": [[1]]}},
        {"n": {"$nin": [None]}},
        {"n": float("nan")},
        {"n": {"$gt": float("inf")}},
        {"n": {"$in": [1.0, float("-inf")]}},
        {"n": {"$contains": ["a"]}},
        {"n": {"$contains": None}},
        {"n": 2**63},  # what Chroma could never have stored it answers with an error of its own
        {"n": {"$gt": -(2**63) - 1}},
        {"n": "lone \ud800"},
        {"#document": "a"},  # Chroma's own names for the text, not metadata
        {"chroma:document": "a"},
    ],
    ids=ascii,
)
def test_what_is_not_the_filter_language_is_refused(where):
    with pytest.raises(InvalidFilterError):
        check_where(where)


def test_an_error_names_the_key_and_what_came():
    with pytest.raises(InvalidFilterError, match=r"\$gt on 'price' takes an int or a float; got 'cheap'"):
        check_where({"$and": [{"n": 1}, {"price": {"$gt": "cheap"}}]})


def test_no_filter_stays_no_filter():
    check_where(None)
    assert for_chroma(None) is None


def test_a_filter_that_chroma_answers_rightly_is_passed_on_as_it_is():
    where = {"$and": [{"n": {"$gte": 2}}, {"$or": [{"s": {"$in": ["a", "b"]}}, {"f": {"$lt": 2.0}}]}]}
    assert for_chroma(where) == where
    assert for_chroma({"n": 2}) == {"n": {"$eq": 2}}


# fmt: off
STORED = [
    None, 0, 1, 2, 3, -1, -2, -3, 7, -7, 0.0, 1.0, -2.0, 2.5, 2.4, 2.6, -2.5, -2.4, -2.6, 0.5, -0.5, True, False,
    "", "a", "b", "1", "true", [1, 2], [2], [-2], [1.0, 2.5], [-2.5], [0.5], [True], [True, False], ["a", "b"], ["1"], [""],
]
# fmt: on
DOCUMENTS = {f"x{row}": {"x": value, "k": row} for row, value in enumerate(STORED)}
DOCUMENTS |= {f"y{row}": {"y": value, "x": STORED[-row], "k": -row / 2} for row, value in enumerate(STORED, start=1)}
DOCUMENTS |= {"bare": {"k": 99}}

integers = st.integers(-4, 4)
floats = st.integers(-16, 16).map(lambda quarter: quarter / 4) | st.sampled_from([2.4, 2.6, -2.4, -2.6, 0.1, -0.1])
numbers = integers | floats
strings = st.sampled_from(["", "a", "b", "1", "true", "none has it"])
scalars = numbers | strings | st.booleans()
alternatives = st.one_of(
    *[st.lists(one, min_size=1, max_size=3) for one in (integers, floats, strings, st.booleans())],
)
conditions = st.one_of(
    scalars,
    st.builds(lambda operator, value: {operator: value}, st.sampled_from(["$eq", "$ne"]), scalars),
    st.builds(lambda operator, value: {operator: value}, st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), numbers),
    st.builds(lambda operator, value: {operator: value}, st.sampled_from(["$in", "$nin"]), alternatives),
    st.builds(lambda operator, value: {operator: value}, st.sampled_from(["$contains", "$not_contains"]), scalars),
)
leaves = st.builds(lambda key, condition: {key: condition}, st.sampled_from(["x", "x", "y", "k", "missing"]), conditions)


def joined(parts: st.SearchStrategy) -> st.SearchStrategy:
    return st.builds(lambda join, parts: {join: parts}, st.sampled_from(JOINS), st.lists(parts, min_size=2, max_size=3))


filters = st.recursive(leaves, joined, max_leaves=5)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromadb.Collection]:
    folder = tmp_path_factory.mktemp("chroma")
    client = chromadb.PersistentClient(str(folder), settings=Settings(anonymized_telemetry=False))
    collection = client.create_collection("filters", embedding_function=None)
    embeddings = np.eye(len(DOCUMENTS), 4, dtype=np.float32) + 1
    collection.upsert(ids=list(DOCUMENTS), embeddings=embeddings, metadatas=list(DOCUMENTS.values()))
    yield collection
    client.close()


def found(collection: chromadb.Collection, where: dict) -> set[str]:
    return set(collection.get(where=for_chroma(where), include=[])["ids"])


def passing(where: dict) -> set[str]:
    return {id for id, metadata in DOCUMENTS.items() if matches(where, metadata)}


def test_chroma_gives_every_metadata_value_back_as_it_came(collection):
    held = collection.get(include=["metadatas"])
    back = {id: repr(sorted(metadata.items())) for id, metadata in zip(held["ids"], held["metadatas"], strict=True)}
    went = {id: {key: value for key, value in data.items() if value is not None} for id, data in DOCUMENTS.items()}
    assert back == {id: repr(sorted(metadata.items())) for id, metadata in went.items()}


@pytest.mark.parametrize("operator", [operator for operator in OPERATORS if operator not in ("$in", "$nin")])
def test_chroma_and_matches_agree_on_every_operator_with_every_number(collection, operator):
    for operand in [-3, -2.6, -2.5, -2, -0.5, 0, 0.0, 0.5, 1, 2, 2.0, 2.4, 2.5, 3]:
        where = {"x": {operator: operand}}
        assert found(collection, where) == passing(where), where


@settings(max_examples=250, deadline=None)
@given(filters)
def test_chroma_finds_exactly_the_documents_that_match(collection, where):
    check_where(where)
    assert found(collection, where) == passing(where)
