"""Probabilities of relevance: by hand, against scikit-learn, and whether what is said is true."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from m3retriever.calibrating.reliability import FITS, POINTS, brier, expected_calibration_error, isotonic, logistic, reliability
from m3retriever.errors import InvalidArgumentError


def world(count, seed=0):
    """Scores and labels whose true probability is known: an S-curve around 0.5."""
    random = np.random.default_rng(seed)
    scores = random.random(count)
    return scores, random.random(count) < truth(scores)


def truth(scores):
    return 1 / (1 + np.exp(-12 * (scores - 0.5)))


def test_isotonic_by_hand():
    """The second and third are in the wrong order, so they share their mean."""
    curve = isotonic(np.array([0.1, 0.2, 0.3, 0.4]), np.array([False, True, False, True]))
    assert [curve.probability(score) for score in (0.1, 0.2, 0.3, 0.4)] == [0, 0.5, 0.5, 1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=60))
def test_isotonic_is_scikit_learn_s(drawn):
    scores, relevant = np.array([score / 20 for score, _ in drawn]), np.array([right for _, right in drawn])
    if relevant.all() or not relevant.any():
        with pytest.raises(InvalidArgumentError, match="relevant and other pairs"):
            isotonic(scores, relevant)
        return
    expected = IsotonicRegression(out_of_bounds="clip").fit(scores, relevant).predict(scores)
    assert [isotonic(scores, relevant).probability(score) for score in scores] == pytest.approx(expected.tolist(), abs=1e-9)


@pytest.mark.parametrize("name", sorted(FITS))
def test_what_is_said_is_near_the_truth(name):
    curve = FITS[name](*world(20_000))
    at = np.linspace(0.05, 0.95, 50)
    off = np.abs(np.array([curve.probability(score) for score in at]) - truth(at))
    assert len(curve.scores) <= 2 * POINTS + 2
    assert off.mean() < 0.02
    assert off.max() < (0.1 if name == "isotonic" else 0.02)


def test_logistic_is_the_curve_of_its_two_numbers():
    from sklearn.linear_model import LogisticRegression

    scores, relevant = world(2_000)
    fitted = LogisticRegression(C=1e6, max_iter=1000, tol=1e-8).fit(scores[:, None], relevant)
    at = np.linspace(scores.min(), scores.max(), 333)
    said = [logistic(scores, relevant).probability(score) for score in at]
    np.testing.assert_allclose(said, fitted.predict_proba(at[:, None])[:, 1], atol=2e-3)


def test_a_score_that_is_worse_when_higher_says_nothing():
    scores, relevant = world(500)
    curve = logistic(scores, ~relevant)
    assert curve.probability(0.1) == curve.probability(0.9) == pytest.approx((~relevant).mean())


def test_scores_of_any_scale_are_fitted():
    scores, relevant = world(500)
    small, large = logistic(scores / 1e4, relevant), logistic(scores * 1e4, relevant)
    assert small.probability(0.7e-4) == pytest.approx(large.probability(0.7e4), abs=1e-3)
    same = logistic(np.ones(10), np.arange(10) < 3)
    assert same.probability(1) == pytest.approx(0.3, abs=1e-3)


def test_the_reliability_of_a_hand_made_case():
    said, true = np.array([0.05, 0.15, 0.12, 0.95, 1.0]), np.array([False, False, True, True, True])
    assert brier(said, true) == pytest.approx((0.05**2 + 0.15**2 + 0.88**2 + 0.05**2) / 5)
    bins = reliability(said, true)
    assert [(one.low, one.pairs) for one in bins] == [(0, 1), (0.1, 2), (0.9, 2)]
    assert [one.true for one in bins] == [0, 0.5, 1]
    assert expected_calibration_error(bins) == pytest.approx((1 * 0.05 + 2 * 0.365 + 2 * 0.025) / 5)
    assert brier(np.empty(0), np.empty(0, bool)) == expected_calibration_error([]) == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_bins_hold_every_pair_once(drawn):
    said, true = np.array([one for one, _ in drawn]), np.array([one for _, one in drawn])
    bins = reliability(said, true)
    assert sum(one.pairs for one in bins) == len(drawn)
    assert sum(one.pairs * one.true for one in bins) == pytest.approx(true.sum())
    assert all(one.low <= one.said + 1e-12 and one.said <= one.high + 1e-12 for one in bins)
    assert 0 <= expected_calibration_error(bins) <= 1
