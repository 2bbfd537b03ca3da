"""Confidence and comparison: cases by hand, a reference, and what must hold for any values."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from m3retriever.errors import InvalidArgumentError
from m3retriever.evaluation import compare, compare_values, interval, randomisation_p

values = st.lists(st.floats(0, 1), min_size=1, max_size=20).map(lambda one: {str(place): v for place, v in enumerate(one)})


def test_wins_losses_and_ties_are_counted_by_query():
    qrels = {"q1": {"a": 1}, "q2": {"a": 1}, "q3": {"b": 1}, "q4": {"c": 1}}
    first = {"q1": {"b": 2.0, "a": 1.0}, "q2": {"a": 1.0}, "q3": {"b": 1.0}}
    second = {"q1": {"a": 2.0, "b": 1.0}, "q2": {"a": 1.0}, "q3": {"a": 2.0, "b": 1.0}}
    compared = compare(first, second, qrels, "RR")
    assert (compared.queries, compared.wins, compared.losses, compared.ties) == (4, 1, 1, 2)
    assert (compared.first, compared.second) == ((0.5 + 1 + 1 + 0) / 4, (1 + 1 + 0.5 + 0) / 4)
    assert compared.difference == 0
    assert compared.p_value == 1


def test_the_p_value_is_that_of_all_sign_changes():
    differences = np.array([0.1, 0.3, -0.05, 0.2, 0.4, 0.15, -0.1, 0.25, 0.0])
    signs = np.array(list(itertools.product([1, -1], repeat=8)))
    exact = (np.abs(signs @ differences[:8]) >= abs(differences.sum()) - 1e-12).mean()
    assert randomisation_p(differences) == pytest.approx(exact, abs=0.01)


def test_the_p_value_is_near_a_t_test_s_on_many_queries():
    differences = np.random.default_rng(1).normal(0.03, 0.2, 300)
    assert randomisation_p(differences) == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.02)


@settings(max_examples=30, deadline=None)
@given(values)
def test_a_run_is_no_better_than_itself_and_p_is_never_zero(one):
    same = compare_values(one, one)
    assert (same.wins, same.losses, same.p_value) == (0, 0, 1)
    better = compare_values(one, {query: value + 0.5 for query, value in one.items()})
    assert 0 < better.p_value <= 1
    assert better.wins == len(one)


def test_a_comparison_wants_the_same_queries():
    with pytest.raises(InvalidArgumentError, match="the same queries"):
        compare_values({"a": 1.0}, {"b": 1.0})


def test_an_interval_covers_the_true_mean_about_as_often_as_it_says():
    random = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        sample = random.binomial(1, 0.6, 60).astype(float)
        low, high = interval(dict(enumerate(sample)), confidence=0.9)
        covered += low <= 0.6 <= high
    assert 0.83 <= covered / 200 <= 0.97


@settings(max_examples=30, deadline=None)
@given(values)
def test_an_interval_holds_the_mean_and_widens_with_confidence(one):
    narrow, wide = interval(one, confidence=0.5), interval(one, confidence=0.99)
    assert wide[0] <= narrow[0] <= narrow[1] <= wide[1]
    assert min(one.values()) - 1e-12 <= wide[0] <= np.mean(list(one.values())) + 1e-12
    assert interval(one) == interval(one)


def test_no_values_have_an_interval_of_zero():
    assert interval({}) == (0, 0)
    with pytest.raises(InvalidArgumentError, match="between 0 and 1"):
        interval({"a": 1.0}, confidence=95)
