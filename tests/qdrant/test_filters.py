"""Filters in a QdrantStore: exactly the documents that MemoryStore lets through, whoever looks at them."""

import math

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from m3retriever import Document, HashingEncoder, InvalidFilterError, MemoryStore, StoreError
from m3retriever.stores import qdrant_reading
from m3retriever.stores.qdrant_filter import DEEPEST, LONGEST_TERM, narrowed, number_key, terms
from m3retriever.stores.qdrant_filter import numbers as numbers_of

ENCODER = HashingEncoder(16)
TEXTS = ["red fox", "blue whale", "red whale 中文", "", "fox fox"]
# fmt: off
STORED = [
    0, 1, 2, -3, 0.0, -0.0, 1.0, 2.5, -2.5, 0.1, 2**53, 2**53 + 1, float(2**53), -(2**53) - 1, 2**63 - 1, -(2**63),
    1e300, -1e300, 5e-324, True, False, "", "a", "b", "1", "True", "sha256:a", "x" * 300, "x" * 301, [1, 2], [1.0, 2.5],
    [-0.0], [True], ["a", "b"], ["1"], [""], ["x" * 300], [2**53 + 1],
]
# fmt: on
KEYS = ["x", "y.z", 'a "quoted" [0] key', "k" * 300, "schlüssel"]
values = st.sampled_from(STORED)
scalars = st.sampled_from([value for value in STORED if not isinstance(value, list)])
numbers = st.sampled_from([value for value in STORED if type(value) in (int, float)]) | st.integers(-3, 3) | st.floats(-3, 3)
strings = st.sampled_from([value for value in STORED if type(value) is str] + ["none has it"])
alternatives = st.one_of(
    st.lists(st.sampled_from([value for value in STORED if type(value) is kind]), min_size=1, max_size=3)
    for kind in (int, float, str, bool)
)


def condition(operators, operands):
    return st.builds(lambda operator, operand: {operator: operand}, st.sampled_from(operators), operands)


conditions = st.one_of(
    scalars,
    condition(["$eq", "$ne", "$contains", "$not_contains"], scalars),
    condition(["$gt", "$gte", "$lt", "$lte"], numbers | strings),
    condition(["$in", "$nin"], alternatives),
    condition(["$text_match", "$text_match_insensitive"], strings),
    condition(["$empty"], st.booleans()),
)
ids = st.integers(0, 9).map("d{}".format)
leaves = st.one_of(
    st.builds(lambda key, one: {key: one}, st.sampled_from([*KEYS[:3], *KEYS]), conditions),
    condition(["$in", "$nin"], st.lists(ids, min_size=1, max_size=4)).map(lambda one: {"#id": one}),
    condition(["$eq", "$ne"], ids).map(lambda one: {"#id": one}),
    condition(["$contains", "$not_contains"], st.sampled_from(["red", "fox f", "中", "none"])).map(
        lambda one: {"#document": one}
    ),
    condition(["$regex", "$not_regex"], st.sampled_from(["^red", "fox$", "e.*l"])).map(lambda one: {"#document": one}),
)
filters = st.recursive(
    leaves,
    lambda parts: (
        st.builds(lambda join, some: {join: some}, st.sampled_from(["$and", "$or"]), st.lists(parts, min_size=2, max_size=3))
        | parts.map(lambda part: {"$not": part})
    ),
    max_leaves=6,
)
metadata = st.dictionaries(st.sampled_from(KEYS), values, max_size=3)
any_number = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | numbers


def filled(store, documents):
    """The store with these documents and no others, and MemoryStore with the same."""
    exact, vectors = MemoryStore(), ENCODER.encode_documents([document.text for document in documents])
    if held := store.ids():
        store.delete(held)
    for each in (store, exact):
        each.add(documents, vectors)
    return store, exact


def documents_of(rows):
    return [Document(f"d{row}", TEXTS[row % len(TEXTS)], metadata) for row, metadata in enumerate(rows)]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(metadata, max_size=8), where=st.lists(filters, min_size=1, max_size=8))
@example(rows=[{"x": value} for value in STORED], where=[{"x": {"$gt": 2**53}}, {"x": {"$lte": 2**53}}, {"x": float(2**53)}])
@example(
    rows=[{"x": value} for value in STORED], where=[{"x": {"$eq": value}} for value in STORED if not isinstance(value, list)]
)
@example(
    rows=[{"x": value} for value in STORED],
    where=[{"x": {"$contains": value}} for value in (1, 1.0, True, "1", 0.0, "x" * 300)],
)
def test_any_filter_lets_through_what_memory_store_lets_through(store, rows, where):
    store, exact = filled(store, documents_of(rows))
    query = ENCODER.encode_queries(["red fox"])
    for one in where:
        assert store.ids(one) == exact.ids(one), one
        ours, theirs = store.search(query, depth=50, where=one), exact.search(query, depth=50, where=one)
        assert dict(zip(ours.ids, ours.found_by, strict=True)) == dict(zip(theirs.ids, theirs.found_by, strict=True)), one


@settings(max_examples=500)
@given(any_number, any_number)
def test_numbers_order_as_their_pairs_do(left, right):
    low, high = number_key(left), number_key(right)
    assert (left < right) == (low < high)
    assert (left == right) == (low == high)
    assert all(abs(part) < 2**53 for part in (*low, *high)), "each part is exact as a double"


@settings(max_examples=500)
@given(st.integers(-(2**63), 2**63 - 2), st.integers(1, 3000), st.floats(-1e300, 1e300, allow_nan=False))
@example(whole=2**53 + 2, further=1, fraction=1.0)
def test_neighbours_among_the_numbers_are_told_apart(whole, further, fraction):
    for other in (whole + 1, min(whole + further, 2**63 - 1)):  # beyond 2**53 often on two sides of a double
        assert number_key(whole) < number_key(other)
    assert number_key(fraction) < number_key(math.nextafter(fraction, math.inf))


def test_a_number_is_a_pair_that_can_be_made_by_hand():
    assert number_key(0) == number_key(-0.0) == (0, 0)
    assert number_key(1) == number_key(1.0) == (0x3FF00000, 0)
    assert number_key(5e-324) == (0, 1 << 11)  # the smallest double is one more than 0
    assert number_key(2**53 + 1) == (number_key(2**53)[0], number_key(2**53)[1] + 1)


def test_terms_name_key_kind_and_value_and_long_ones_are_hashed():
    assert terms({"x": 3.0, "y": "", "z": ["a", "a"], "b": True}) == [
        '["x", "number", "3"]',
        '["x", "filled", ""]',
        '["y", "text", ""]',
        '["z", "contains str", "a"]',
        '["z", "filled", ""]',
        '["b", "bool", "True"]',
        '["b", "filled", ""]',
    ]
    first, second = (terms({"x": "long " * 100 + end})[0] for end in "ab")
    assert first != second
    assert len(first) <= LONGEST_TERM
    [long] = numbers_of({"k" * 300: 1})
    [looks_alike] = numbers_of({long["key"]: 1})
    assert len(long["key"]) < 300
    assert long["key"] != looks_alike["key"], "a key that reads like the hash of another is not that key"


@pytest.mark.parametrize(
    "where",
    [
        {"x": 1},
        {"x": {"$in": ["a", "b"]}},
        {"x": {"$gt": 2**60}},
        {"$not": {"$or": [{"x": {"$nin": [1.5]}}, {"y": {"$empty": True}}]}},
        {"$and": [{"#id": {"$in": ["a"]}}, {"x": {"$not_contains": 1}}, {"x": {"$lte": -0.5}}]},
    ],
    ids=str,
)
def test_what_qdrant_can_say_it_is_asked_and_no_document_is_read(store, monkeypatch, where):
    filled(store, documents_of([{"x": 1}, {"y": "a"}]))
    monkeypatch.setattr(qdrant_reading, "document_of", lambda payload: pytest.fail("a document was read"))
    store.search(ENCODER.encode_queries(["red fox"]), depth=5, where=where)
    store.ids(where)


@pytest.mark.parametrize(
    "where",
    [
        {"#document": {"$contains": "red"}},
        {"#document": {"$not_regex": "^red"}},
        {"x": {"$gt": "a"}},
        {"x": {"$text_match": "a"}},
        {"$or": [{"x": 1}, {"x": {"$text_match_insensitive": "A"}}]},
    ],
    ids=str,
)
def test_what_it_cannot_say_is_looked_at_among_what_the_rest_of_an_and_lets_through(store, monkeypatch, where):
    said, whole = narrowed({"$and": [where, {"x": {"$gte": 2}}]})
    assert not whole
    assert len(said.must) == 1
    filled(store, documents_of([{"x": row} for row in range(10)]))
    read, whole_reader = [], qdrant_reading.document_of
    monkeypatch.setattr(qdrant_reading, "document_of", lambda payload: read.append(payload["id"]) or whole_reader(payload))
    store.ids({"$and": [where, {"x": {"$gte": 7}}]})
    assert sorted(read) == ["d7", "d8", "d9"]


def test_documents_are_looked_at_page_by_page_without_texts_unless_the_filter_reads_them(store, monkeypatch):
    documents = documents_of([{"x": f"v{row}"} for row in range(25)])
    filled(store, documents)
    monkeypatch.setattr(qdrant_reading, "PAGE", 4)
    monkeypatch.setattr(qdrant_reading, "TEXTS_PAGE", 3)
    pages, call = [], store._connection.call

    def counted(method, **arguments):
        pages.append((method, tuple(arguments.get("with_payload") or ())))
        return call(method, **arguments)

    monkeypatch.setattr(store._connection, "call", counted)
    assert len(store.ids({"x": {"$text_match": "v1"}})) == 11
    assert {fields for method, fields in pages if method == "scroll"} == {("id", "metadata_json")}
    assert sum(method == "scroll" for method, _ in pages) == 7
    pages.clear()
    assert len(store.ids({"#document": {"$contains": "red"}})) == 10
    assert {fields for method, fields in pages if method == "scroll"} == {("id", "text", "metadata_json")}


def test_a_filter_nested_as_deep_as_may_be_is_answered(store):
    _, exact = filled(store, documents_of([{"x": row} for row in range(8)]))
    where = {"x": {"$gte": 2}}
    for level in range(49):
        assert narrowed({"$not": where})[1] == (level < DEEPEST), "deeper ones are resolved here"
        where = {"$not": where} if level % 2 else {"$or": [where, {"x": level}]}
        assert store.ids(where) == exact.ids(where)


def test_many_values_are_one_condition(store):
    _, exact = filled(store, documents_of([{"x": row, "y.z": f"s{row}"} for row in range(8)]))
    for where in (
        {"x": {"$in": list(range(5, 20_000))}},
        {"y.z": {"$nin": [f"s{row}" for row in range(5, 20_000)]}},
        {"#id": {"$in": [f"d{row}" for row in range(5, 20_000)]}},
        {"$or": [{"x": row} for row in range(5, 2_000)]},
    ):
        assert store.ids(where) == exact.ids(where) != []


def test_more_documents_than_can_be_named_are_refused_in_words(store, monkeypatch):
    filled(store, documents_of([{"x": "a"}] * 4))
    monkeypatch.setattr(qdrant_reading, "MOST_PASSING", 3)
    query = ENCODER.encode_queries(["red fox"])
    with pytest.raises(StoreError, match=r"4 documents pass .* it takes 3: join it by \$and"):
        store.search(query, depth=5, where={"x": {"$text_match": "a"}})
    assert len(store.ids({"x": {"$text_match": "a"}})) == 4
    narrower = {"$and": [{"x": {"$text_match": "a"}}, {"#id": {"$in": ["d1", "d2"]}}]}
    assert set(store.search(query, depth=5, where=narrower).ids) == {"d1", "d2"}


def test_what_qdrant_was_told_stays_in_force_beside_the_names(store):
    """Between resolving and searching, a document may be replaced by one that passes no more."""
    filled(store, documents_of([{"x": 1, "y.z": "ab"}, {"x": 1, "y.z": "b"}]))
    passing, count = qdrant_reading.allowed(store._connection, {"$and": [{"x": 1}, {"y.z": {"$text_match": "b"}}]})
    assert count == 2
    store.add([Document("d0", "red fox", {"x": 2, "y.z": "ab"})], ENCODER.encode_documents(["red fox"]))
    left = store._connection.call("scroll", scroll_filter=passing, with_payload=["id"])[0]
    assert [record.payload["id"] for record in left] == ["d1"]


def test_a_pattern_that_is_none_is_refused(store):
    filled(store, documents_of([{"x": 1}]))
    for call in (store.ids, lambda where: store.search(ENCODER.encode_queries(["a"]), depth=1, where=where)):
        with pytest.raises(InvalidFilterError, match="regular expression"):
            call({"#document": {"$regex": "("}})
        with pytest.raises(InvalidFilterError):
            call({"x": {"$like": 1}})
