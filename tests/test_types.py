"""Weights, ModeScores, Profile: what they accept, what they refuse, and what only ratios mean."""

import math
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3retriever.errors import InvalidArgumentError
from m3retriever.types import MODES, Document, ModeScores, Profile, Weights

INFINITE, NAN = float("inf"), float("nan")
weight = st.floats(0, 1e6).filter(lambda value: value == 0 or value > 1e-6)
weights = st.tuples(weight, weight, weight).filter(any)


def test_modes_come_in_flagembedding_s_order():
    assert MODES == ("dense", "sparse", "colbert")


def test_the_default_weights_are_bge_m3_s():
    assert tuple(Weights()) == (0.4, 0.2, 0.4)
    assert (Weights(1, 2, 3).dense, Weights(1, 2, 3).sparse, Weights(1, 2, 3).colbert) == (1, 2, 3)


def test_only_the_ratios_of_weights_matter():
    assert tuple(Weights(5, 5, 10).normalized()) == (0.25, 0.25, 0.5)
    assert Weights(1, 1, 1).normalized() == Weights(5, 5, 5).normalized()


@given(weights)
def test_normalized_weights_sum_to_one_and_keep_their_ratios(values):
    normalized = tuple(Weights(*values).normalized())
    assert math.isclose(math.fsum(normalized), 1, rel_tol=1e-12)
    total = math.fsum(values)
    np.testing.assert_allclose(np.array(normalized) * total, values, rtol=1e-12)


@pytest.mark.parametrize(
    "values",
    [(-1, 1, 1), (1, -1e-9, 1), (0, 0, 0), (NAN, 1, 1), (1, INFINITE, 1), (1, 1, -INFINITE), ("1", 1, 1), (None, 1, 1)],
)
def test_weights_without_a_meaning_are_refused(values):
    with pytest.raises(InvalidArgumentError, match="weights must be"):
        Weights(*values)
    with pytest.raises(InvalidArgumentError, match="weights must be"):
        Weights.of(values)


@pytest.mark.parametrize("value", [(), (1,), (1, 1), (1, 1, 1, 1), "111", "abc"])
def test_anything_but_three_numbers_is_refused(value):
    with pytest.raises(InvalidArgumentError, match="three numbers"):
        Weights.of(value)


def test_three_numbers_become_weights_in_the_order_of_modes():
    assert Weights.of((1, 2, 3)) == Weights.of([1, 2, 3]) == Weights(dense=1, sparse=2, colbert=3)
    assert Weights.of(np.array([0.5, 0.25, 0.25])) == Weights(0.5, 0.25, 0.25)


def test_weights_by_mode_leave_out_the_modes_not_named():
    assert Weights.of({"colbert": 3, "dense": 1}) == Weights(1, 0, 3)
    assert Weights.of(MappingProxyType({"sparse": 2})) == Weights(0, 2, 0)


def test_weights_by_mode_refuse_another_mode_and_no_mode():
    with pytest.raises(InvalidArgumentError, match="splade"):
        Weights.of({"dense": 1, "splade": 1})
    with pytest.raises(InvalidArgumentError, match="not all 0"):
        Weights.of({})


def test_weights_of_weights_are_the_same_weights():
    weights = Weights(1, 2, 3)
    assert Weights.of(weights) is weights


def test_numpy_numbers_are_weights():
    assert tuple(Weights(np.float32(0.5), np.int64(1), np.float64(2.0))) == (0.5, 1, 2)


def two_candidates() -> ModeScores:
    return ModeScores(
        ["a", "b"],
        [[0.5, 0.25, 0.75], [1, 0, -1]],
        (frozenset({"dense"}), frozenset({"dense", "sparse"})),
    )


def test_mode_scores_are_read_by_mode_and_by_candidate():
    scores = two_candidates()
    assert (len(scores), scores.ids, scores.values.dtype) == (2, ("a", "b"), np.float32)
    assert [scores.column(mode).tolist() for mode in MODES] == [[0.5, 1], [0.25, 0], [0.75, -1]]
    assert scores.of(1) == {"dense": 1, "sparse": 0, "colbert": -1}
    assert scores.found_by[1] == {"dense", "sparse"}


def test_candidates_nobody_says_who_found_were_found_by_none():
    assert ModeScores(("a", "b"), np.zeros((2, 3))).found_by == (frozenset(), frozenset())


def test_no_candidates_are_mode_scores_too():
    scores = ModeScores((), np.empty((0, 3)))
    assert (len(scores), scores.found_by, scores.column("sparse").shape) == (0, (), (0,))


@pytest.mark.parametrize(
    ("values", "found_by"),
    [
        (np.zeros((1, 3)), ()),
        (np.zeros((2, 2)), ()),
        (np.zeros((3, 2)), ()),
        (np.zeros(6), ()),
        (np.zeros((2, 3)), (frozenset(),)),
        (np.zeros((2, 3)), (frozenset(),) * 3),
    ],
)
def test_mode_scores_that_do_not_fit_their_ids_are_refused(values, found_by):
    with pytest.raises(InvalidArgumentError, match="2 ids"):
        ModeScores(("a", "b"), values, found_by)


def test_a_profile_starts_with_bge_m3_s_defaults():
    profile = Profile()
    assert (profile.weights, profile.fusion, profile.depth) == (Weights(0.4, 0.2, 0.4), "weighted_sum", 200)
    assert (profile.thresholds, profile.calibration, profile.model) == ({}, None, None)


@pytest.mark.parametrize("depth", [0, -1, 1.0, True, "5", None])
def test_a_depth_that_is_no_positive_integer_is_refused(depth):
    with pytest.raises(InvalidArgumentError, match="depth must be"):
        Profile(depth=depth)


def test_thresholds_are_for_a_mode_or_hybrid():
    thresholds = {"dense": 0.5, "sparse": 0.1, "colbert": 0, "hybrid": -0.25}
    assert Profile(thresholds=thresholds).thresholds == thresholds
    with pytest.raises(InvalidArgumentError, match="splade"):
        Profile(thresholds={"splade": 0.5})


@pytest.mark.parametrize("thresholds", [["dense"], {"dense": "0.5"}, {"dense": NAN}, {"hybrid": INFINITE}, {"hybrid": True}])
def test_thresholds_that_are_no_finite_numbers_by_mode_are_refused(thresholds):
    with pytest.raises(InvalidArgumentError, match="thresholds"):
        Profile(thresholds=thresholds)


def test_documents_and_profiles_do_not_share_their_defaults():
    assert Document("a", "text").metadata == {}
    assert Document("a", "text").metadata is not Document("a", "text").metadata
    assert Profile().thresholds is not Profile().thresholds
