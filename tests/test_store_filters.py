"""Filters in a ChromaStore: page by page, remembered, larger than Chroma can take, and while others write."""

import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m3retriever import ChromaStore, Document, HashingEncoder, M3Index, M3Vectors, MemoryStore
from m3retriever.filters import predicate
from m3retriever.stores import agreement, allowed
from m3retriever.stores.allowed import Allowed
from m3retriever.stores.candidates import best
from m3retriever.stores.connection import JUST_NOW
from m3retriever.stores.legs import exact_dense_leg, hnsw_dense_leg

ENCODER = HashingEncoder(16)
DOCUMENTS = [
    Document(
        f"d{row}", f"w{row} w{row % 4} fox", {"n": row, "f": row + 0.5, "s": f"s{row % 7}"} | ({"odd": True} if row % 2 else {})
    )
    for row in range(60)
]


def filled(store, documents=DOCUMENTS):
    store.add(documents, ENCODER.encode_documents([document.text for document in documents]))
    return store


def passing(where, documents=DOCUMENTS):
    passes = predicate(where)
    return sorted(document.id for document in documents if passes(document))


@pytest.fixture
def store(tmp_path):
    store = filled(ChromaStore(tmp_path))
    yield store
    store.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    store = filled(ChromaStore(tmp_path_factory.mktemp("shared")))
    yield store
    store.close()


LEFT_TO_US = [
    {"$not": {"n": {"$gt": 30}}},
    {"$and": [{"$not": {"n": {"$gt": 30}}}, {"odd": True}]},
    {"s": {"$text_match": "3"}},
    {"s": {"$text_match_insensitive": "S3"}},
    {"odd": {"$empty": True}},
    {"s": {"$gte": "s4"}},
    {"$or": [{"#id": "d7"}, {"#document": {"$contains": "w3 "}}, {"n": {"$gt": 57}}]},
    {"$or": [{"#id": {"$in": ["d7", "d8", "nobody"]}}, {"$and": [{"odd": True}, {"#document": {"$regex": "w[12] fox$"}}]}]},
    {"$and": [{"#id": {"$nin": ["d7", "d8"]}}, {"n": {"$lt": 20}}, {"#document": {"$not_contains": "w0"}}]},
    {"$and": [{"#id": {"$in": [f"d{row}" for row in range(40)]}}, {"$not": {"s": {"$text_match": "2"}}}, {"odd": True}]},
    {"$and": [{"#id": {"$in": ["d1", "d2"]}}, {"#id": {"$in": ["d2", "d3"]}}]},
    {"$and": [{"#id": "d1"}, {"#id": "d3"}, {"$not": {"n": {"$gt": 30}}}]},
]


@pytest.mark.parametrize("page", [1, 7, 20, 60])
@pytest.mark.parametrize("where", LEFT_TO_US, ids=str)
def test_what_chroma_cannot_answer_is_read_page_by_page(shared, monkeypatch, page, where):
    monkeypatch.setattr(agreement, "PAGE", page)
    shared._allowed._kept.clear()
    assert shared.ids(where) == passing(where)
    found = shared.search(ENCODER.encode_queries(["w1 fox"]), depth=100, where=where)
    assert sorted(found.ids) == passing(where)


values = st.integers(-1, 61)
leaves = st.one_of(
    st.builds(lambda operator, value: {"n": {operator: value}}, st.sampled_from(["$gt", "$lte", "$eq", "$ne"]), values),
    st.builds(lambda value: {"f": {"$lt": value + 0.25}}, values),
    st.builds(lambda rows: {"#id": {"$in": [f"d{row}" for row in rows]}}, st.lists(values, min_size=1, max_size=30)),
    st.builds(lambda row: {"#id": {"$ne": f"d{row}"}}, values),
    st.builds(lambda digit: {"s": {"$text_match": digit}}, st.sampled_from("0123")),
    st.builds(lambda part: {"#document": {"$contains": part}}, st.sampled_from(["w1", "w2 ", "3 fox", "none"])),
    st.just({"odd": {"$empty": False}}),
)
filters = st.recursive(
    leaves,
    lambda parts: (
        st.builds(lambda join, parts: {join: parts}, st.sampled_from(["$and", "$or"]), st.lists(parts, min_size=2, max_size=3))
        | parts.map(lambda part: {"$not": part})
    ),
    max_leaves=8,
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=filters)
def test_any_mixture_of_conditions_over_pages_is_answered_rightly(shared, monkeypatch, where):
    monkeypatch.setattr(agreement, "PAGE", 11)
    assert shared.ids(where) == passing(where)


MANY = 20_000
TOO_MUCH = {
    "numbers": {"n": {"$in": list(range(30, MANY + 30))}},  # SQLite: too many variables
    "fractions": {"f": {"$in": [row + 0.5 for row in range(30, MANY + 30)]}},  # as one filter, Chroma crashes
    "no fractions": {"f": {"$nin": [row + 0.5 for row in range(30, MANY + 30)]}},
    "conditions": {"$or": [{"n": row} for row in range(50, 10_050)]},  # Chroma crashes
    "negations": {"$and": [{"n": {"$ne": row}} for row in range(50, 2050)]},
    "mixture": {"$and": [{"s": {"$nin": ["s1", "s2"]}}, *({"f": {"$ne": row + 0.5}} for row in range(50, 1050))]},
    "texts": {"$or": [{"#document": {"$contains": f"w{row} w"}} for row in range(50, 2050)]},
    "ids": {"$or": [{"#id": {"$in": [f"d{row}" for row in range(50, MANY)]}}, {"n": 1}]},
}


@pytest.mark.parametrize("where", TOO_MUCH.values(), ids=TOO_MUCH)
def test_more_than_chroma_can_take_is_answered_all_the_same(shared, where):
    expected = passing(where)
    assert 0 < len(expected) < len(DOCUMENTS)
    assert shared.ids(where) == expected


def test_a_filter_nested_as_deep_as_may_be_is_answered(shared):
    where = {"n": {"$gte": 10}}
    for level in range(49):
        where = {"$and": [where, {"n": {"$lt": 50}}]} if level % 2 else {"$or": [where, {"n": 3}]}
    assert shared.ids(where) == passing(where)
    text = {"#document": {"$contains": "w1"}}
    for level in range(49):
        join, part = ("$and", {"$contains": "fox"}) if level % 2 else ("$or", {"$contains": "w3"})
        text = {join: [text, {"#document": part}]}
    assert shared.ids(text) == passing(text)


def test_thirty_thousand_ids_are_answered_in_little_time(tmp_path):
    documents = [Document(f"d{row}", "fox", {"n": row % 2}) for row in range(3000)]
    index = M3Index(ENCODER, filled(ChromaStore(tmp_path), documents))
    named = {"#id": {"$in": [f"d{row}" for row in range(500, 30_500)]}}
    began = time.perf_counter()
    for where, count in [
        (named, 2500),
        ({"$and": [named, {"n": 1}]}, 1250),
        ({"$or": [named, {"n": 1}]}, 2750),
        ({"$not": named}, 500),
        ({"$and": [named, {"#id": {"$in": named["#id"]["$in"][::-1]}}]}, 2500),
    ]:
        assert len(index.ids(where)) == count
        assert len(index.search("fox", 20, where=where)) == 20
    assert time.perf_counter() - began < 10, "compared one by one, this takes minutes"
    index.close()


def rest():
    """Wait until a file's time tells a further change from the last one."""
    time.sleep(2 * JUST_NOW / 1e9)


def test_an_answer_is_remembered_until_something_changes(store, monkeypatch):
    by_chroma, by_us = {"n": {"$lt": 3}}, {"$not": {"n": {"$gt": 2}}}
    named = {"$and": [{"#id": {"$in": ["d1", "new", "d3"]}}, {"odd": True}]}

    def answers():
        return [store.ids(by_chroma), store.ids(by_us), store.ids(named)]

    rest()
    first = answers()
    assert first == [["d0", "d1", "d2"], ["d0", "d1", "d2"], ["d1", "d3"]]
    with monkeypatch.context() as without:
        without.setattr(store._connection, "get", lambda **_: pytest.fail("this was asked before"))
        assert answers() == first
    filled(store, [Document("new", "fox", {"n": 0, "odd": True})])
    assert answers() == [["d0", "d1", "d2", "new"], ["d0", "d1", "d2", "new"], ["d1", "d3", "new"]]
    filled(store, [Document("d1", "fox", {"n": 9})])
    assert answers() == [["d0", "d2", "new"], ["d0", "d2", "new"], ["d3", "new"]]
    store.delete(["d0", "d3"])
    assert answers() == [["d2", "new"], ["d2", "new"], ["new"]]


def test_an_answer_from_the_middle_of_a_write_is_not_remembered(store):
    where, publish, answers = {"s": "new"}, store._payload.publish, []

    def ask_and_then_publish(*staged):  # Chroma has the change already, the payload has not
        rest()
        answers.append(store.ids(where))
        answers.append(len(store._allowed._kept))
        publish(*staged)

    store._payload.publish = ask_and_then_publish
    filled(store, [Document("d3", "fox", {"s": "new"})])
    assert answers == [["d3"], 0]
    rest()
    assert store.ids(where) == ["d3"]
    assert len(store._allowed._kept) == 1


def test_only_so_many_answers_are_remembered_and_the_oldest_goes(store):
    for number in range(3 * allowed.FILTERS_KEPT):
        assert store.ids({"n": {"$gte": number}}) == passing({"n": {"$gte": number}})
        assert len(store._allowed._kept) <= allowed.FILTERS_KEPT
    assert len(store._allowed._kept) == allowed.FILTERS_KEPT


def test_filters_that_look_alike_are_kept_apart(store):
    filled(store, [Document("int", "", {"k": 1}), Document("bool", "", {"k": True}), Document("str", "", {"k": "1"})])
    for value, expected in [(1, ["int"]), (True, ["bool"]), ("1", ["str"]), (1.0, ["int"])]:
        assert store.ids({"k": value}) == expected


def together(*calls):
    """Run in threads that switch often; what they raised."""
    failures, before = [], sys.getswitchinterval()

    def run(call):
        try:
            call()
        except Exception as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=run, args=[call]) for call in calls]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    return failures


def test_many_filters_at_once_do_not_trip_over_what_is_remembered(shared, monkeypatch):
    monkeypatch.setattr(allowed, "FILTERS_KEPT", 2)

    def ask(start):
        for number in range(40):
            where = {"#id": f"d{(start + number) % 5}"}
            assert shared.ids(where) == passing(where)

    def remember(start):
        for number in range(3000):
            shared._allowed._keep((f"{start} {number}", 0), np.zeros(1, bool))

    assert together(*(lambda start=start: ask(start) for start in range(4))) == []
    assert together(*(lambda start=start: remember(start) for start in range(4))) == []
    assert len(shared._allowed._kept) == 2


def test_a_filter_asked_while_another_thread_writes_lets_nothing_else_through(tmp_path):
    index = M3Index(ENCODER, ChromaStore(tmp_path))
    documents = [Document(f"d{row}", f"fox w{row}", {"tenant": "ab"[row % 2], "n": row}) for row in range(30)]
    index.add(documents)
    filters_ = [
        {"tenant": "a"},
        {"$not": {"tenant": {"$gt": "a"}}},
        {"$and": [{"#id": {"$in": ["d0", "d1", "d2"]}}, {"tenant": "a"}]},
    ]
    done = threading.Event()

    def ask(where):
        vector = ENCODER.encode_queries(["fox"]).dense[0]
        while not done.is_set():
            for hits in (index.search("fox w1", 40, where=where), index.search_by_vector(vector, 40, where=where)):
                assert {hit.document.metadata["tenant"] for hit in hits} <= {"a"}
            for hit in index.search_diverse("fox", 5, where=where):
                assert hit.document.metadata["tenant"] == "a"

    def write():
        try:
            for number in range(12):
                swapped = documents[number % 3 :: 3]
                index.add([Document(one.id, one.text, {**one.metadata, "tenant": "ba"[number % 2]}) for one in swapped])
                index.delete([f"d{number}"])
                index.add([documents[number]])
        finally:
            done.set()

    assert together(write, *(lambda where=where: ask(where) for where in filters_)) == []
    held = index.get(index.ids())
    for where in filters_:
        assert index.ids(where) == passing(where, held), "what was remembered meanwhile is not wrong afterwards"
    index.close()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), depth=st.integers(1, 40), noise=st.sampled_from([0.0, 1e-8, 1e-7, 1e-6, 1.0]))
def test_a_scan_that_rounds_still_brings_in_the_exactly_best(tmp_path_factory, seed, depth, noise):
    random = np.random.default_rng(seed)
    rows = random.standard_normal(64) + noise * random.standard_normal((60, 64))
    dense = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    vectors = M3Vectors.from_rows(dense, [{}] * 60, [np.empty((0, 64), np.float32)] * 60)
    documents = [Document(f"{number}", "x", {"n": int(number) % 2}) for number in random.permutation(60)]
    query = M3Vectors.from_rows(random.standard_normal((1, 64)).astype(np.float32), [{}], [np.empty((0, 64), np.float32)])
    exact, ours = MemoryStore(), ChromaStore(tmp_path_factory.mktemp("legs"))
    for each in (exact, ours):
        each.add(documents, vectors)
    for where in (None, {"n": 1}):
        best, found = exact.search(query, depth=depth, where=where), ours.search(query, depth=depth, where=where)
        assert dict(zip(found.ids, found.values[:, 0].tolist(), strict=True)) == dict(
            zip(best.ids, best.values[:, 0].tolist(), strict=True)
        )
    with ours._reading() as snapshot:
        slots = exact_dense_leg(snapshot, query.dense[0], Allowed(snapshot.live(), everything=True), depth)
        ranked = exact.search(query, depth=60)
        order = sorted(range(60), key=lambda row: (-ranked.values[row, 0], ranked.ids[row]))
        assert snapshot.ids(slots) == [ranked.ids[row] for row in order[:depth]], "best first, ties by id"
    ours.close()


def test_what_hnsw_brings_in_beyond_what_is_allowed_does_not_count(store):
    vector = ENCODER.encode_queries(["w7 fox"]).dense[0]
    with store._reading() as snapshot:
        live = Allowed(snapshot.live(), everything=True)
        [*_, worst] = snapshot.ids(exact_dense_leg(snapshot, vector, live, len(live)))
        names = ["d7", "nobody", "d8", worst]
        few = Allowed(snapshot.live() & (np.arange(len(snapshot.live())) < 10), everything=False)

        def found(allowed, depth, near):
            return snapshot.ids(hnsw_dense_leg(snapshot, vector, allowed, depth, near[: 2 * depth]))

        three = Allowed(np.isin(np.arange(len(live.mask)), snapshot.slots(["d7", "d8", worst])), everything=False)
        assert found(live, 2, names) == snapshot.ids(exact_dense_leg(snapshot, vector, three, 2))
        exactly = snapshot.ids(exact_dense_leg(snapshot, vector, live, 20))
        assert found(live, 20, names) == exactly, "too few came: all are scanned"
        assert set(found(few, 3, exactly)) <= set(snapshot.ids(few.slots()))
        assert sorted(found(few, 50, exactly)) == sorted(snapshot.ids(few.slots()))


@settings(max_examples=200, deadline=None)
@given(values=st.lists(st.sampled_from([0.5, 0.25, 0.75, 1.0, -1.0]), max_size=30), depth=st.integers(1, 35))
def test_the_best_are_those_of_a_plain_sort_with_ties_by_id(values, depth):
    names = [f"n{(7 * place) % 31:02}" for place in range(len(values))]
    asked: list[int] = []

    def ids(rows):
        asked.extend(rows.tolist())
        return [names[row - 100] for row in rows.tolist()]

    rows = 100 + np.arange(len(values))
    expected = sorted(range(len(values)), key=lambda place: (-values[place], names[place]))[:depth]
    assert best(np.array(values, np.float32), rows, depth, ids).tolist() == [100 + place for place in expected]
    assert all(values.count(values[row - 100]) > 1 for row in asked), "only ids that decide are looked up"
