"""Texts of another search, scored in all three modes: as an index would, in an order that never surprises."""

import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3retriever import MODES, Document, HashingEncoder, InvalidArgumentError, M3Index, MemoryStore, Profile, ProfileError
from m3retriever.fusion import FUSIONS
from m3retriever.profile import PRESETS, save_profile
from m3retriever.ranking import SEARCH_MODES, Ranking
from m3retriever.reranking import rerank

ENCODER = HashingEncoder(64)
TEXTS = ["a blue whale sings", "red red wine", "the red fox jumps", "", "the red fox jumps"]
WORDS = st.lists(st.sampled_from(["red", "fox", "blue", "whale", "wine"]), max_size=5).map(" ".join)


def places(found):
    return [one.place for one in found]


def slow_scores(query, text):
    """Every mode's score as its definition says, without the library's scoring."""
    one, other = ENCODER.encode_queries([query]), ENCODER.encode_documents([text])
    left, right = one.sparse_row(0), other.sparse_row(0)
    best = [max(float(a @ b) for b in other.colbert.astype(float)) for a in one.colbert.astype(float)]
    return {
        "dense": sum(float(a) * float(b) for a, b in zip(one.dense[0], other.dense[0], strict=True)),
        "sparse": sum(left[token] * right[token] for token in left if token in right),
        "colbert": sum(best) / len(best),
    }


def test_the_best_text_comes_first_and_says_where_it_stood():
    found = rerank(ENCODER, "red fox jumps", TEXTS)
    assert places(found)[:3] == [2, 4, 1], "the two equal texts stay in their order"
    best = found[0]
    assert best.score == pytest.approx(0.4 * best.scores["dense"] + 0.2 * best.scores["sparse"] + 0.4 * best.scores["colbert"])
    assert [best.ranks[mode] for mode in MODES] == [1, 1, 1]
    assert [found[1].ranks[mode] for mode in MODES] == [2, 2, 2]


@pytest.mark.parametrize("mode", SEARCH_MODES)
@settings(max_examples=30, deadline=None)
@given(texts=st.lists(WORDS, max_size=8), query=WORDS)
def test_every_text_comes_back_once_with_its_own_scores_in_the_order_of_the_definition(mode, texts, query):
    found = rerank(ENCODER, query, texts, mode=mode)
    assert sorted(places(found)) == list(range(len(texts)))
    for one in found:
        assert one.scores == pytest.approx(slow_scores(query, texts[one.place]), abs=1e-5)
        plain = sum(w * one.scores[m] for w, m in zip((0.4, 0.2, 0.4), MODES, strict=True))
        assert one.score == pytest.approx(plain if mode == "hybrid" else one.scores[mode])
        assert one.relevance == Ranking.of(Profile(), mode, None, None).relevance(one.scores)
        assert 0 <= one.relevance <= 1
        for each in MODES:
            before = [o for o in found if (-o.scores[each], o.place) < (-one.scores[each], one.place)]
            assert one.ranks[each] == len(before) + 1
    assert places(found) == places(sorted(found, key=lambda one: (-one.score, one.place)))


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(WORDS, min_size=1, max_size=8),
    query=WORDS,
    mode=st.sampled_from(SEARCH_MODES),
    fusion=st.sampled_from(sorted(FUSIONS)),
    preset=st.sampled_from(sorted(PRESETS)),
)
def test_the_scores_are_those_an_index_gives_the_same_texts(texts, query, mode, fusion, preset):
    profile = Profile(weights=PRESETS[preset], fusion=fusion)
    index = M3Index(ENCODER, MemoryStore())
    index.add([Document(f"{place:03}", text) for place, text in enumerate(texts)])
    hits = index.search(query, 100, mode=mode, profile=profile)
    found = rerank(ENCODER, query, texts, mode=mode, profile=profile)
    if mode == "sparse":  # a search wants a shared token; reranking keeps every text
        found = [one for one in found if one.score > 0]
    assert [f"{one.place:03}" for one in found] == [hit.document.id for hit in hits]
    np.testing.assert_allclose([one.score for one in found], [hit.score for hit in hits], atol=1e-6)
    assert [one.scores for one in found] == [hit.scores for hit in hits]
    assert [one.ranks for one in found] == [hit.ranks for hit in hits]


def test_texts_that_tie_stay_in_the_order_they_came_in_however_many():
    for mode in SEARCH_MODES:
        assert places(rerank(ENCODER, "red", ["wine", *["red"] * 120], mode=mode)) == [*range(1, 121), 0]


def test_k_keeps_the_best_and_a_threshold_those_that_reach_it():
    found = rerank(ENCODER, "red fox jumps", TEXTS)
    for k in (1, 2, len(TEXTS), 100, np.int64(3)):
        assert rerank(ENCODER, "red fox jumps", TEXTS, k=k) == found[:k]
    assert rerank(ENCODER, "red fox jumps", TEXTS, threshold=found[2].score) == found[:3]
    assert rerank(ENCODER, "red fox jumps", TEXTS, threshold=found[2].score, k=2) == found[:2]
    assert rerank(ENCODER, "red fox jumps", TEXTS, threshold=found[0].score + 1e-9) == []


def test_weights_and_profiles_rank_as_in_an_index(tmp_path):
    only_sparse = rerank(ENCODER, "red", TEXTS, weights=(0, 1, 0))
    assert [one.score for one in only_sparse] == [pytest.approx(one.scores["sparse"]) for one in only_sparse]
    save_profile(Profile(weights=(0, 1, 0), thresholds={"hybrid": 0.01}), tmp_path / "mine.toml")
    assert rerank(ENCODER, "red", TEXTS, profile=tmp_path / "mine.toml") == only_sparse
    above = rerank(ENCODER, "red", TEXTS, profile=tmp_path / "mine.toml", threshold="profile")
    assert above == [one for one in only_sparse if one.score >= 0.01] != only_sparse
    assert rerank(ENCODER, "red", TEXTS, profile="keyword") == rerank(ENCODER, "red", TEXTS, weights=PRESETS["keyword"])


def test_no_texts_give_no_result_and_the_arguments_are_checked_all_the_same():
    assert rerank(ENCODER, "red", []) == rerank(ENCODER, "red", ()) == rerank(ENCODER, "red", iter([])) == []
    with pytest.raises(InvalidArgumentError, match="k must be"):
        rerank(ENCODER, "red", [], k=0)
    with pytest.raises(InvalidArgumentError, match="mode must be"):
        rerank(ENCODER, "red", [], mode="best")


def test_texts_may_come_from_any_iterable():
    expected = rerank(ENCODER, "red fox", TEXTS)
    for texts in (tuple(TEXTS), (text for text in TEXTS), np.array(TEXTS), dict(enumerate(TEXTS)).values()):
        assert rerank(ENCODER, "red fox", texts) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": "one text"}, "texts is a list of str; got 'one text'"),
        ({"texts": b"one text"}, "texts is a list of str"),
        ({"texts": None}, "texts is a list of str; got None"),
        ({"texts": 3}, "texts is a list of str; got 3"),
        ({"texts": ["a", None]}, "texts is a list of str"),
        ({"texts": [Document("a", "a")]}, "texts is a list of str"),
        ({"texts": [1.0]}, "texts is a list of str"),
        ({"query": None}, "a query is a str; got None"),
        ({"query": ["red"]}, "a query is a str"),
        ({"k": 0}, "k must be an integer >= 1; got 0"),
        ({"k": True}, "k must be"),
        ({"k": 1.0}, "k must be"),
        ({"mode": "mmr"}, "mode must be one of"),
        ({"mode": "dense", "weights": (1, 1, 1)}, "weights go with mode 'hybrid'"),
        ({"weights": (float("nan"), 1, 1)}, "finite numbers"),
        ({"threshold": float("nan")}, "threshold must be"),
        ({"profile": "no such profile"}, "cannot read the profile"),
        ({"profile": Profile(fusion="best")}, "fusion must be one of"),
    ],
    ids=str,
)
def test_what_has_no_meaning_is_refused(arguments, message):
    with pytest.raises(InvalidArgumentError, match=message):
        rerank(ENCODER, **{"query": "red", "texts": ["red"], **arguments})


def test_a_profile_of_another_model_is_refused():
    with pytest.raises(ProfileError, match="fitted on 'other', not on 'hashing-64'"):
        rerank(ENCODER, "red", ["red"], profile=Profile(model="other"))


def test_odd_texts_are_scored_and_the_callers_list_stays_as_it_is():
    texts = ["", "   ", "\x00", "\ud800 red", "red " * 3000, "🦊"]
    before = list(texts)
    for one in rerank(ENCODER, "\ud800 red", texts):
        assert all(math.isfinite(value) for value in [one.score, one.relevance, *asdict(one)["scores"].values()])
    assert texts == before
