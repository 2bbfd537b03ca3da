"""Maximal marginal relevance: by hand, against a slow twin and LangChain's, and as `search_diverse`."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from m3retriever import ChromaStore, Document, HashingEncoder, InvalidArgumentError, M3Index, MemoryStore, Profile
from m3retriever.diversity import mmr, on_the_scale_of
from m3retriever.ranking import SEARCH_MODES

EAST, NORTH, WEST = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]


def slow_mmr(scores, vectors, k, balance):
    """The definition, word by word, in plain Python."""
    picked = []
    while len(picked) < min(k, len(scores)):

        def gain(row):
            likeness = [sum(a * b for a, b in zip(vectors[row], vectors[other], strict=True)) for other in picked]
            return balance * scores[row] - (1 - balance) * max(likeness, default=0)

        picked.append(max((row for row in range(len(scores)) if row not in picked), key=gain))
    return picked


# Vectors of norm 1 and numbers whose sums and products float32 holds exactly: so that ties are ties.
signs = st.sampled_from([-0.5, 0.5])
units = st.lists(signs, min_size=4, max_size=4) | st.builds(
    lambda place, sign: [sign if at == place else 0.0 for at in range(4)], st.integers(0, 3), st.sampled_from([-1.0, 1.0])
)
candidates = st.lists(st.tuples(st.integers(-8, 8).map(lambda eighth: eighth / 8), units), min_size=1, max_size=12)
balances = st.integers(0, 8).map(lambda eighth: eighth / 8)


def columns(rows):
    return np.array([score for score, _ in rows]), np.array([vector for _, vector in rows], np.float32)


def test_the_second_pick_is_unlike_the_first():
    vectors = np.array([EAST, EAST, NORTH, WEST], np.float32)
    scores = np.array([1.0, 0.9, 0.6, 0.1])
    assert mmr(scores, vectors, 3, balance=1) == [0, 1, 2]
    assert mmr(scores, vectors, 3, balance=0.5) == [0, 3, 2]  # gains: 0.45-0.5, 0.3-0, 0.05+0.5; then 0.3-0 beats 0.45-0.5
    assert mmr(scores, vectors, 4, balance=0.75) == [0, 2, 1, 3]  # 0.675-0.25, 0.45, 0.075+0.25; then 0.425 beats 0.325


def test_the_likest_of_those_picked_counts_and_not_their_mean():
    vectors = np.array([EAST, WEST, WEST, NORTH], np.float32)
    assert mmr(np.array([1.0, 0.9, 0.9, 0.2]), vectors, 3) == [0, 1, 3]


@given(candidates, balances, st.integers(1, 14))
def test_the_picks_are_those_of_the_definition_ties_included(rows, balance, k):
    scores, vectors = columns(rows)
    assert mmr(scores, vectors, k, balance=balance) == slow_mmr(scores.tolist(), vectors.tolist(), k, balance)


@given(candidates, balances)
def test_picks_are_distinct_and_more_of_them_only_come_after(rows, balance):
    scores, vectors = columns(rows)
    everything = mmr(scores, vectors, len(rows) + 5, balance=balance)
    assert sorted(everything) == list(range(len(rows)))
    for k in range(1, len(rows) + 1):
        assert mmr(scores, vectors, k, balance=balance) == everything[:k]


@given(candidates, st.integers(1, 14))
def test_balance_1_is_the_order_of_the_scores(rows, k):
    scores, vectors = columns(rows)
    assert mmr(scores, vectors, k, balance=1) == np.argsort(-scores, kind="stable").tolist()[:k]


@given(candidates, balances, st.integers(-4, 4))
def test_the_picks_do_not_depend_on_a_constant_in_the_scores(rows, balance, constant):
    scores, vectors = columns(rows)
    assert mmr(scores + constant, vectors, 12, balance=balance) == mmr(scores, vectors, 12, balance=balance)


def unit_rows(random, n, d):
    rows = random.standard_normal((n, d)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("balance", [0.1, 0.3, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_picks_are_langchains_on_dense_scores(seed, balance):
    random = np.random.default_rng(seed)
    vectors, query = unit_rows(random, 40, 32), unit_rows(random, 1, 32)[0]
    theirs = maximal_marginal_relevance(query, list(vectors), lambda_mult=balance, k=12)
    assert mmr(vectors @ query, vectors, 12, balance=balance) == theirs


def test_the_picks_do_not_depend_on_the_order_of_the_candidates():
    random = np.random.default_rng(5)
    vectors, scores = unit_rows(random, 30, 16), random.random(30)
    shuffled = random.permutation(30)
    assert [shuffled[row] for row in mmr(scores[shuffled], vectors[shuffled], 30)] == mmr(scores, vectors, 30)


@pytest.mark.parametrize(("n", "dim"), [(20, 256), (50, 256), (50, 1024), (37, 63)])
def test_of_equal_candidates_the_earlier_comes_first_whatever_the_matrix_routine_rounds(n, dim):
    random = np.random.default_rng(n)
    vectors, scores = unit_rows(random, n, dim), random.random(n)
    for balance in (0, 0.3, 0.5, 0.9):
        picks = mmr(np.tile(scores, 2), np.tile(vectors, (2, 1)), 2 * n, balance=balance)
        assert all(picks.index(row) < picks.index(row + n) for row in range(n))


def test_no_candidates_give_no_picks():
    assert mmr(np.empty(0), np.empty((0, 4), np.float32), 3) == []


@pytest.mark.parametrize("balance", [-0.01, 1.01, float("nan"), "0.5", None, [0.5]])
def test_a_balance_outside_0_to_1_is_refused(balance):
    with pytest.raises(InvalidArgumentError, match="balance must be between 0 and 1; got"):
        mmr(np.ones(2), np.array([EAST, NORTH], np.float32), 1, balance=balance)


def test_scores_are_stretched_to_the_span_of_the_cosines():
    moved = on_the_scale_of(np.array([30.0, 10.0, 20.0]), np.array([0.2, 0.6, 0.4]))
    np.testing.assert_allclose(moved, [0.6, 0.2, 0.4])
    assert on_the_scale_of(np.array([0.3, 0.3]), np.array([0.2, 0.6])).tolist() == [0.6, 0.6]


@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(-1, 1)), min_size=1, max_size=20))
def test_stretched_scores_keep_their_order_and_cosines_stay_as_they_are(pairs):
    scores, cosines = (np.array(column) for column in zip(*pairs, strict=True))
    moved = on_the_scale_of(scores, cosines)
    assert moved.min() >= cosines.min() - 1e-12
    assert moved.max() <= cosines.max() + 1e-12
    ascending = np.argsort(scores, kind="stable")
    assert (np.diff(moved[ascending]) >= 0).all()
    np.testing.assert_allclose(on_the_scale_of(cosines, cosines), cosines, atol=1e-12)
    if len(set(scores.tolist())) > 1:
        assert (moved.min(), moved.max()) == pytest.approx((cosines.min(), cosines.max()), abs=1e-12)


DOCUMENTS = [
    Document("fox", "the red fox jumps", {"tenant": "a"}),
    Document("fox again", "the red fox jumps", {"tenant": "b"}),
    Document("fox once more", "the red fox jumps high", {"tenant": "a"}),
    Document("wine", "red red wine", {"tenant": "a"}),
    Document("whale", "a blue whale sings", {"tenant": "b"}),
    Document("empty", "", {"tenant": "b"}),
]


@pytest.fixture(params=["memory", "chroma"])
def index(request, tmp_path):
    store = MemoryStore() if request.param == "memory" else ChromaStore(tmp_path)
    with M3Index(HashingEncoder(), store) as opened:
        opened.add(DOCUMENTS)
        yield opened


def ids(hits):
    return [hit.document.id for hit in hits]


def test_equal_texts_are_not_picked_one_after_the_other(index):
    assert ids(index.search("red fox jumps", 2)) == ["fox", "fox again"]
    diverse = index.search_diverse("red fox jumps", 3)
    assert ids(diverse)[0] == "fox"
    assert not {"fox again", "fox once more"} & set(ids(diverse)[:2])


@pytest.mark.parametrize("mode", SEARCH_MODES)
@pytest.mark.parametrize("balance", [0.0, 0.4, 1.0])
def test_diverse_hits_are_the_hits_of_search_in_the_order_the_definition_picks(index, mode, balance):
    for settings_ in ({}, {"where": {"tenant": "a"}}, {"threshold": 0.05}, {"where_document": {"$contains": "red"}}):
        hits = index.search("red fox sings", 50, mode=mode, **settings_)
        dense = index.vectors(ids(hits)).dense
        scores = on_the_scale_of(np.array([hit.score for hit in hits]), np.array([hit.scores["dense"] for hit in hits]))
        expected = [hits[row] for row in slow_mmr(scores.tolist(), dense.tolist(), 4, balance)]
        assert index.search_diverse("red fox sings", 4, mode=mode, balance=balance, **settings_) == expected


@pytest.mark.parametrize("fusion", ["rrf", "weighted_sum"])
def test_balance_1_gives_the_hits_of_search(index, fusion):
    profile = Profile(fusion=fusion)
    assert index.search_diverse("red fox", 4, balance=1, profile=profile) == index.search("red fox", 4, profile=profile)


def test_only_the_best_are_picked_from_and_at_least_k(index):
    assert set(ids(index.search_diverse("red fox jumps", 2, among=3, balance=0))) <= set(ids(index.search("red fox jumps", 3)))
    assert ids(index.search_diverse("red fox jumps", 3, among=1, balance=1)) == ids(index.search("red fox jumps", 3))
    assert len(index.search_diverse("red fox", 100)) == len(DOCUMENTS)
    assert index.search_diverse("red fox", where={"tenant": "nobody"}) == []


def test_a_document_that_is_deleted_before_its_vector_is_read_is_left_out(index):
    search = index.search

    def and_then_one_goes(*arguments, **settings_):
        hits = search(*arguments, **settings_)
        index.delete(["fox"])
        return hits

    index.search = and_then_one_goes
    assert sorted(ids(index.search_diverse("red fox", 10))) == sorted({document.id for document in DOCUMENTS} - {"fox"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k must be an integer >= 1; got 0"),
        ({"k": "3"}, "k must be an integer >= 1; got '3'"),
        ({"k": None}, "k must be"),
        ({"k": True}, "k must be"),
        ({"among": 0}, "among must be an integer >= 1; got 0"),
        ({"among": -5}, "among must be"),
        ({"among": 2.5}, "among must be"),
        ({"among": True}, "among must be"),
        ({"among": None}, "among must be"),
        ({"balance": 1.5}, "balance must be between 0 and 1"),
        ({"balance": "much"}, "balance must be between 0 and 1"),
        ({"mode": "mmr"}, "mode must be one of"),
    ],
    ids=str,
)
def test_what_has_no_meaning_is_refused_in_an_empty_index_too(arguments, message):
    with pytest.raises(InvalidArgumentError, match=message):
        M3Index(HashingEncoder(), MemoryStore()).search_diverse("x", **arguments)


WORDS = st.lists(st.sampled_from(["red", "fox", "blue", "whale"]), min_size=1, max_size=4).map(" ".join)


@settings(max_examples=40, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=15), WORDS, balances, st.integers(1, 20), st.sampled_from(SEARCH_MODES))
def test_diverse_hits_are_distinct_and_start_with_the_best(texts, query, balance, k, mode):
    index = M3Index(HashingEncoder(32), MemoryStore())
    index.add([Document(f"{row:02}", text) for row, text in enumerate(texts)])
    hits, plain = index.search_diverse(query, k, balance=balance, mode=mode), index.search(query, 50, mode=mode)
    assert len(set(ids(hits))) == len(hits) == min(k, len(plain))
    assert hits[:1] == plain[:1]
