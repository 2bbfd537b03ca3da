"""`where`: a table by hand, what is refused, and the same answer as a real Chroma, operator by operator."""

import enum
import time
from collections.abc import Iterator

import chromadb
import numpy as np
import pytest
from chromadb.config import Settings
from hypothesis import given, settings
from hypothesis import strategies as st

from m3retriever import ChromaStore, Document, HashingEncoder, M3Index
from m3retriever.errors import InvalidFilterError
from m3retriever.filters import (
    CHROMA_OPERATORS,
    JOINS,
    MOST_NESTED,
    OPERATORS,
    TEXT_OPERATORS,
    about_text,
    both,
    check_where,
    predicate,
)
from m3retriever.filters import matches as document_matches
from m3retriever.stores.chroma_filter import MOST_CONDITIONS, for_chroma, question

METADATA = {"n": 2, "f": 2.5, "whole": 2.0, "s": "a", "yes": True, "words": ["a", "b"], "numbers": [1, 2], "none": None}
METADATA |= {"name": "Red Fox", "blank": ""}


class Letter(str, enum.Enum):
    A, B = "a", "b"


class Number(enum.IntEnum):
    ONE, TWO = 1, 2


def matches(where, metadata, *, text="The quick fox jumps"):
    return document_matches(where, Document("the id", text, metadata))


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
    ({"s": {"$gt": "A"}}, True),  # text compares with text, by code point: dates written as 2024-05-01
    ({"s": {"$gt": "a"}}, False),
    ({"s": {"$gte": "a"}}, True),
    ({"n": {"$gt": "1"}}, False),
    ({"words": {"$lt": "z"}}, False),
    ({"name": {"$text_match": "Fo"}}, True),
    ({"name": {"$text_match": "fo"}}, False),
    ({"name": {"$text_match": ""}}, True),
    ({"words": {"$text_match": "a"}}, False),  # a list is no text
    ({"missing": {"$text_match": ""}}, False),
    ({"name": {"$text_match_insensitive": "rED f"}}, True),
    ({"n": {"$text_match_insensitive": "2"}}, False),
    ({"s": {"$empty": True}}, False),
    ({"s": {"$empty": False}}, True),
    ({"n": {"$empty": True}}, False),
    ({"blank": {"$empty": True}}, True),
    ({"none": {"$empty": True}}, True),
    ({"missing": {"$empty": True}}, True),
    ({"missing": {"$empty": False}}, False),
    ({"$not": {"n": 2}}, False),
    ({"$not": {"n": 3}}, True),
    ({"$not": {"missing": {"$gt": 1}}}, True),
    ({"$not": {"$not": {"n": 2}}}, True),
    ({"$not": {"$or": [{"n": 3}, {"s": "a"}]}}, False),
    ({"#id": "the id"}, True),
    ({"#id": {"$ne": "the id"}}, False),
    ({"#id": {"$in": ["a", "the id"]}}, True),
    ({"#id": {"$nin": ["a", "the id"]}}, False),
    ({"#document": {"$contains": "quick"}}, True),
    ({"#document": {"$contains": "Quick"}}, False),
    ({"#document": {"$not_contains": "quick"}}, False),
    ({"#document": {"$regex": "^The .* fox"}}, True),
    ({"#document": {"$regex": "(?i)THE"}}, True),
    ({"#document": {"$regex": "fox$"}}, False),
    ({"#document": {"$not_regex": "[0-9]"}}, True),
    ({"$and": [{"n": 2}, {"#document": {"$contains": "slow"}}]}, False),
    ({"s": Letter.A}, True),  # a str of another kind, an Enum's or numpy's, is a str
    ({"s": np.str_("a")}, True),
    ({"s": {"$in": [Letter.A, Letter.B]}}, True),
    ({"s": {"$ne": Letter.A}}, False),
    ({"s": {"$gte": Letter.A}}, True),
    ({"words": {"$contains": Letter.B}}, True),
    ({"name": {"$text_match": np.str_("Fox")}}, True),
    ({"#id": np.str_("the id")}, True),
    ({"n": Number.TWO}, True),
    ({"n": {"$in": [Number.ONE, Number.TWO]}}, True),
    ({"n": {"$gt": Number.ONE}}, True),
    ({"yes": Number.ONE}, False),
    ({"numbers": {"$contains": Number.ONE}}, True),
    ({"f": np.float64(2.5)}, True),
    ({"n": {"$in": [True, False]}}, False),
    ({"yes": {"$in": [0, 1]}}, False),
    ({"yes": {"$in": [True]}}, True),
    ({"whole": {"$in": [1, 2]}}, True),
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
    assert used >= {*OPERATORS, *TEXT_OPERATORS}


@pytest.mark.parametrize(
    "where",
    [
        {},
        [],
        "n",
        {"n": 1, "s": "a"},
        {1: 2},
        {"$not": [{"n": 1}, {"n": 2}]},
        {"$nor": [{"n": 1}, {"n": 2}]},
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
        {"$not": None},
        {"$not": {}},
        {"$not": {"n": 1, "s": "a"}},
        {"n": {"$gt": None}},
        {"n": {"$gt": ["a"]}},
        {"n": {"$text_match": 1}},
        {"n": {"$text_match_insensitive": None}},
        {"n": {"$empty": 1}},
        {"#id": 1},
        {"#id": ""},
        {"#id": {"$in": []}},
        {"#id": {"$in": "abc"}},
        {"#id": {"$gt": "a"}},
        {"#document": {"$contains": ""}},
        {"#document": {"$contains": 1}},
        {"#document": {"$in": ["a"]}},
        {"#embedding": {"$eq": 1}},
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
        {"n": np.int64(2)},  # numpy's integers are no int
        {"n": np.float32(2)},
        {"n": {"$in": np.array([1, 2])}},
        {"n": {"$in": {1, 2}}},
        {"n": {"$in": range(1, 3)}},
        {"$or": {"n": 1, "s": 2}.items()},
        {"#id": {"$in": ["a", 1]}},
        {"#id": {"$in": ["a", ""]}},
        {"#document": "a"},  # Chroma's own names for the text, not metadata
        {"chroma:document": "a"},
        {"lone \ud800": "a"},
    ],
    ids=ascii,
)
def test_what_is_not_the_filter_language_is_refused(where):
    with pytest.raises(InvalidFilterError):
        check_where(where)


def test_an_error_names_the_key_and_what_came():
    with pytest.raises(InvalidFilterError, match=r"\$gt on 'price' takes an int, a float or a str; got True"):
        check_where({"$and": [{"n": 1}, {"price": {"$gt": True}}]})


@pytest.mark.parametrize(
    ("key", "said"), [("chroma:x", "a key that begins with chroma: is Chroma's own"), ("lone \ud800", "holds a lone surrogate")]
)
def test_a_key_that_no_document_has_is_refused_with_the_reason(key, said):
    with pytest.raises(InvalidFilterError, match=said):
        check_where({key: 1})


def test_no_filter_stays_no_filter():
    check_where(None)
    assert about_text(None) is None
    assert both(None, None) is None
    assert both(None, {"n": 1}) == {"n": 1}
    assert both({"n": 1}, {"s": "a"}) == {"$and": [{"n": 1}, {"s": "a"}]}


def test_where_document_is_where_about_the_text():
    assert about_text({"$contains": "a"}) == {"#document": {"$contains": "a"}}
    assert about_text({"$or": [{"$contains": "a"}, {"$and": [{"$regex": "b"}, {"$not_contains": "c"}]}]}) == {
        "$or": [
            {"#document": {"$contains": "a"}},
            {"$and": [{"#document": {"$regex": "b"}}, {"#document": {"$not_contains": "c"}}]},
        ]
    }


@pytest.mark.parametrize(
    "where_document",
    [
        {},
        [],
        "a",
        {"$contains": ""},
        {"n": 1},
        {"$and": [{"$contains": "a"}]},
        {"$and": "ab"},
        {"$or": [None, None]},
        {"$gt": 1},
    ],
    ids=ascii,
)
def test_what_is_no_where_document_is_refused(where_document):
    with pytest.raises(InvalidFilterError):
        about_text(where_document)


def test_what_chroma_can_answer_it_is_asked():
    asked = question({"$and": [{"n": 1}, {"#document": {"$contains": "a"}}, {"#id": {"$in": ["x", "y"]}}, {"#id": "y"}]})
    assert (asked.where, asked.where_document, asked.ids) == ({"n": {"$eq": 1}}, {"$regex": "a"}, ("y",))
    assert not asked.checked
    assert question({"$not": {"$and": [{"n": 1}, {"s": {"$nin": ["a"]}}]}}).where == {
        "$or": [{"n": {"$ne": 1}}, {"s": {"$in": ["a"]}}]
    }
    partly = question({"$and": [{"n": 1}, {"$not": {"n": {"$gt": 2}}}, {"$or": [{"s": "a"}, {"#id": "y"}]}]})
    assert (partly.where, len(partly.checked)) == ({"n": {"$eq": 1}}, 2)


def test_a_filter_that_chroma_answers_rightly_is_passed_on_as_it_is():
    where = {"$and": [{"n": {"$gte": 2}}, {"$or": [{"s": {"$in": ["a", "b"]}}, {"f": {"$lt": 2.0}}]}]}
    assert for_chroma(where) == where
    assert for_chroma({"n": 2}) == {"n": {"$eq": 2}}


def nested(where, deep):
    """A filter within filters, so many deep."""
    for level in range(deep - 1):
        where = (
            ({"$not": where}, {"$or": [where, where]}, {"$and": [where, where]})[level % 3] if level < 6 else {"$not": where}
        )
    return where


def test_a_filter_may_be_nested_but_not_without_end():
    check_where(nested({"n": 2}, MOST_NESTED))
    text = {"$contains": "quick"}
    for _ in range(MOST_NESTED - 1):
        text = {"$and": [text, {"$not_contains": "slow"}]}
    assert matches(about_text(text), {})
    for deep in (MOST_NESTED + 1, 10_000):
        with pytest.raises(InvalidFilterError, match=f"nested at most {MOST_NESTED} deep"):
            check_where(nested({"n": 2}, deep))
        for _ in range(deep):
            text = {"$and": [text, {"$contains": "a"}]}
        with pytest.raises(InvalidFilterError, match=f"nested at most {MOST_NESTED} deep"):
            about_text(text)


def test_many_values_are_looked_up_and_not_gone_through():
    values, documents = [f"d{number}" for number in range(30_000)], [Document(f"d{row}", "", {"n": row}) for row in range(5000)]
    began = time.perf_counter()
    for where, count in [
        ({"#id": {"$in": values}}, 5000),
        ({"#id": {"$nin": values[1000:]}}, 1000),
        ({"$not": {"n": {"$in": list(range(0, 60_000, 2))}}}, 2500),
    ]:
        check_where(where)
        passes = predicate(where)
        assert sum(passes(document) for document in documents) == count
    assert len(question({"$and": [{"#id": {"$in": values}}, {"#id": {"$in": values[::2]}}]}).ids) == 15_000
    assert time.perf_counter() - began < 5, "gone through one by one, this takes a minute"


def test_chroma_is_asked_for_no_more_than_it_can_take():
    many = {"$or": [{"n": number} for number in range(MOST_CONDITIONS + 1)]}
    asked = question({"$and": [many, {"s": "a"}, {"#document": {"$contains": "x"}}]})
    assert (asked.where, asked.where_document, asked.checked) == ({"s": {"$eq": "a"}}, {"$regex": "x"}, (many,))
    flat = question({"$and": [{"n": {"$ne": number}} for number in range(2 * MOST_CONDITIONS)]})
    assert (len(flat.where["$and"]), bool(flat.checked)) == (MOST_CONDITIONS, True)
    texts = question({"$and": [{"#document": {"$not_contains": str(number)}} for number in range(2 * MOST_CONDITIONS)]})
    assert (len(texts.where_document["$and"]), bool(texts.checked)) == (MOST_CONDITIONS, True)
    assert not question({"n": {"$in": list(range(9000))}}).checked
    assert question({"n": {"$in": list(range(10_000))}}).checked
    assert question({"f": {"$in": [number + 0.5 for number in range(MOST_CONDITIONS)]}}).checked, "two conditions a value"


def test_a_filter_as_the_question_has_it_is_no_different_one():
    where = {"$and": [{"$not": {"$or": [{"n": 1}, {"#id": "x"}]}}, {"$not": {"n": {"$empty": True}}}]}
    asked = question(where)
    assert (asked.where, asked.ids, len(asked.checked)) == ({"n": {"$ne": 1}}, None, 2)
    nobody = question({"$and": [{"#id": "x"}, {"#id": {"$in": ["y", "z"]}}]})
    assert (nobody.ids, nobody.checked) == ((), ())


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
more_conditions = st.one_of(
    conditions,
    st.builds(lambda operator, value: {operator: value}, st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), strings),
    st.builds(lambda operator, value: {operator: value}, st.sampled_from(["$text_match", "$text_match_insensitive"]), strings),
    st.builds(lambda value: {"$empty": value}, st.booleans()),
)
leaves = st.builds(lambda key, condition: {key: condition}, st.sampled_from(["x", "x", "y", "k", "missing"]), conditions)


some_ids = st.lists(st.sampled_from(["bare", "x0", "x1", "x7", "x11", "y3", "y8", "no such id"]), min_size=1, max_size=4)
special = st.one_of(
    st.builds(lambda operator, ids: {"#id": {operator: ids}}, st.sampled_from(["$in", "$nin"]), some_ids),
    st.builds(lambda operator, ids: {"#id": {operator: ids[0]}}, st.sampled_from(["$eq", "$ne"]), some_ids),
    st.builds(
        lambda operator, part: {"#document": {operator: part}},
        st.sampled_from(TEXT_OPERATORS),
        st.sampled_from(["x", "y1", "e", "中", "nowhere", "%", "_"]),
    ),
)


def joined(parts: st.SearchStrategy) -> st.SearchStrategy:
    return st.builds(lambda join, parts: {join: parts}, st.sampled_from(JOINS), st.lists(parts, min_size=2, max_size=3))


filters = st.recursive(leaves, joined, max_leaves=5)
more_leaves = special | st.builds(
    lambda key, condition: {key: condition}, st.sampled_from(["x", "x", "y", "k", "missing"]), more_conditions
)
more_filters = st.recursive(more_leaves, lambda parts: joined(parts) | parts.map(lambda part: {"$not": part}), max_leaves=6)


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
    return {id for id, metadata in DOCUMENTS.items() if document_matches(where, Document(id, text_of(id), metadata))}


def text_of(id: str) -> str:
    return f"{id} 中文 100%"


def test_chroma_gives_every_metadata_value_back_as_it_came(collection):
    held = collection.get(include=["metadatas"])
    back = {id: repr(sorted(metadata.items())) for id, metadata in zip(held["ids"], held["metadatas"], strict=True)}
    went = {id: {key: value for key, value in data.items() if value is not None} for id, data in DOCUMENTS.items()}
    assert back == {id: repr(sorted(metadata.items())) for id, metadata in went.items()}


@pytest.mark.parametrize("operator", [operator for operator in CHROMA_OPERATORS if operator not in ("$in", "$nin")])
def test_chroma_and_matches_agree_on_every_operator_with_every_number(collection, operator):
    for operand in [-3, -2.6, -2.5, -2, -0.5, 0, 0.0, 0.5, 1, 2, 2.0, 2.4, 2.5, 3]:
        where = {"x": {operator: operand}}
        assert found(collection, where) == passing(where), where


@settings(max_examples=250, deadline=None)
@given(filters)
def test_chroma_finds_exactly_the_documents_that_match(collection, where):
    check_where(where)
    assert found(collection, where) == passing(where)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChromaStore]:
    store = ChromaStore(tmp_path_factory.mktemp("store"))
    documents = [Document(id, text_of(id), {key: v for key, v in data.items() if v != []}) for id, data in DOCUMENTS.items()]
    store.add(documents, HashingEncoder(8).encode_documents([document.text for document in documents]))
    yield store
    store.close()


@settings(max_examples=250, deadline=None)
@given(more_filters)
def test_a_store_finds_exactly_the_documents_that_match(store, where):
    assert store.ids(where) == sorted(passing(where))


@pytest.mark.parametrize("pattern", ["(?=a)", "(", "a{99999999999999999999}", "(" * 5000, r"(a)\1"])
def test_a_pattern_that_chroma_cannot_read_is_said(store, pattern):
    with pytest.raises(InvalidFilterError, match="regular expression"):
        store.ids({"#document": {"$regex": pattern}})


@pytest.mark.parametrize("pattern", ["(", "a{99999999999999999999}", "(" * 5000, r"\p{L}"])
def test_a_pattern_that_python_cannot_read_is_said_where_python_searches(pattern):
    with pytest.raises(InvalidFilterError, match="regular expression"):
        document_matches({"#document": {"$regex": pattern}}, Document("a", "text"))


def test_over_chroma_only_chroma_searches_for_patterns(tmp_path, monkeypatch):
    """Python's engine takes for ever over "(a+)+$", blocks every thread meanwhile, and reads other dialects."""
    monkeypatch.setattr("m3retriever.filters.re", None)
    texts = ["a" * 40 + "b", "the end", "the end\n", "中文"]
    with M3Index.open(tmp_path, model=HashingEncoder()) as index:
        index.add([Document(str(place), text) for place, text in enumerate(texts)])
        for pattern, expected in [("(a+)+$", []), ("end$", ["1"]), ("[[:alpha:]]", ["0", "1", "2"]), (r"^\p{Han}", ["3"])]:
            where = {"#document": {"$regex": pattern}}
            mixed = {"$or": [where, {"#id": "nobody"}]}
            for one in (where, mixed, {"$and": [where, {"#id": {"$in": list("0123")}}]}):
                assert index.ids(one) == expected
                assert sorted(hit.document.id for hit in index.search("end", where=one)) == expected
                assert sorted(index.score("end", ids=list("0123"), where=one).ids) == expected
                others = sorted(set("0123") - set(expected))
                assert index.ids({"$not": one}) == others
                assert sorted(hit.document.id for hit in index.search("end", where={"$not": one})) == others
            assert (index.explain("end", "1", where=where).stage == "filtered out") == ("1" not in expected)
