"""What a call asks for, and the relevance it gives: in [0, 1], and never against the scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3retriever import MODES, InvalidArgumentError, Profile, Weights
from m3retriever.fusion import FUSIONS
from m3retriever.ranking import SEARCH_MODES, Ranking
from m3retriever.types import ModeScores

SCORES = {"dense": 0.5, "sparse": 0.25, "colbert": 0.75}
numbers = st.floats(-2, 2, width=32)
some_scores = st.fixed_dictionaries(dict.fromkeys(MODES, numbers))
weight = st.floats(0, 100).filter(lambda value: value == 0 or value > 1e-3)
some_weights = st.tuples(weight, weight, weight).filter(any)


def ranking(mode="hybrid", weights=None, threshold=None, **profile):
    return Ranking.of(Profile(**profile), mode, weights, threshold)


def test_relevance_is_the_weighted_mean_or_the_modes_own_score():
    assert ranking().relevance(SCORES) == pytest.approx(0.4 * 0.5 + 0.2 * 0.25 + 0.4 * 0.75)
    assert ranking(weights=(1, 1, 2)).relevance(SCORES) == pytest.approx(0.5625)
    assert [ranking(mode).relevance(SCORES) for mode in MODES] == [0.5, 0.25, 0.75]


def test_relevance_ends_at_0_and_1():
    for mode in MODES:
        assert ranking(mode).relevance({**SCORES, mode: -0.25}) == 0.0
        assert ranking(mode).relevance({**SCORES, mode: 1.0000001}) == 1.0


@pytest.mark.parametrize("fusion", FUSIONS)
def test_relevance_is_the_weighted_mean_whatever_the_fusion(fusion):
    assert ranking(fusion=fusion).relevance(SCORES) == ranking().relevance(SCORES)


@given(some_scores, some_weights, st.sampled_from(SEARCH_MODES))
def test_relevance_is_what_a_plain_sum_says_and_lies_in_0_to_1(scores, weights, mode):
    value = ranking(mode, weights if mode == "hybrid" else None).relevance(scores)
    plain = (
        sum(w * scores[one] for w, one in zip(weights, MODES, strict=True)) / sum(weights) if mode == "hybrid" else scores[mode]
    )
    assert 0 <= value <= 1
    assert value == pytest.approx(min(1, max(0, plain)), abs=1e-9)


@given(some_scores, some_weights, st.sampled_from(SEARCH_MODES), st.sampled_from(MODES), numbers)
def test_relevance_never_falls_when_a_score_rises(scores, weights, mode, risen, higher):
    chosen = ranking(mode, weights if mode == "hybrid" else None)
    more = {**scores, risen: max(scores[risen], higher)}
    assert chosen.relevance(more) >= chosen.relevance(scores)
    if mode in MODES and risen != mode:
        assert chosen.relevance(more) == chosen.relevance(scores), "a mode's relevance knows nothing of the others"


@given(some_scores, some_weights, st.sampled_from([0.5, 2.0, 8.0]))
def test_only_the_ratios_of_the_weights_matter(scores, weights, factor):
    scaled = [factor * one for one in weights]
    assert ranking(weights=scaled).relevance(scores) == pytest.approx(ranking(weights=weights).relevance(scores), abs=1e-12)


def test_a_call_says_what_it_wants_and_the_profile_the_rest():
    profile = Profile(weights=Weights(1, 2, 3), fusion="rrf", thresholds={"dense": 0.3, "hybrid": 0.01})
    assert Ranking.of(profile, "hybrid", None, None) == Ranking("hybrid", Weights(1, 2, 3), "rrf", None)
    assert Ranking.of(profile, "hybrid", {"dense": 1}, None).weights == Weights(1, 0, 0)
    for mode, threshold in (("hybrid", 0.01), ("dense", 0.3), ("colbert", None)):
        assert Ranking.of(profile, mode, None, "profile").threshold == threshold
    for zero in (0, 0.0, np.float32(0), np.int64(0)):
        assert Ranking.of(profile, "dense", None, zero).threshold == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "bm25"}, "mode must be one of hybrid, dense, sparse, colbert; got 'bm25'"),
        ({"mode": None}, "mode must be one of"),
        ({"mode": ["dense"]}, "mode must be one of"),
        ({"mode": np.array(["dense", "sparse"])}, "mode must be one of"),
        ({"mode": "dense", "weights": (1, 1, 1)}, "weights go with mode 'hybrid'; got mode 'dense'"),
        ({"weights": (float("nan"), 1, 1)}, "three finite numbers"),
        ({"weights": (one for one in (1, 1, 1))}, "three numbers"),
        ({"weights": (0, 0, 0)}, "not all 0"),
        ({"threshold": float("nan")}, "threshold must be a finite number, .* got nan"),
        ({"threshold": float("inf")}, "threshold must be"),
        ({"threshold": True}, "threshold must be"),
        ({"threshold": "0.5"}, "threshold must be"),
        ({"threshold": np.array([0.1, 0.2])}, "threshold must be"),
    ],
)
def test_what_has_no_meaning_is_refused(arguments, message):
    with pytest.raises(InvalidArgumentError, match=message):
        ranking(**arguments)


def test_the_threshold_itself_counts_and_sparse_wants_a_shared_token():
    scores = ModeScores(("a", "b", "c"), [[0.5, 0.0, 0.1], [0.25, 0.5, 0.2], [0.0, -0.5, 0.3]])
    for mode, threshold, expected in [
        ("dense", 0.25, [0, 1]),
        ("dense", None, [0, 1, 2]),
        ("sparse", None, [1]),
        ("sparse", -1, [1]),
        ("colbert", 0.25, [2]),
    ]:
        chosen = ranking(mode, threshold=threshold)
        assert chosen.eligible(scores, chosen.fuse(scores), [0, 1, 2]) == expected
