"""How rare a score is: by hand, against counting, and what must hold for every sample."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3retriever.errors import ProfileError
from m3retriever.rates import POINTS, Rates

samples = st.lists(st.floats(-2, 2).map(lambda value: round(value, 3)), min_size=1, max_size=60)


def test_the_rate_is_the_share_that_reaches_the_score():
    rates = Rates.of([3.0, 1.0, 2.0, 2.0])
    assert (rates.scores, rates.rates) == ((1, 2, 3), (1, 0.75, 0.25))
    assert rates.rate(2) == pytest.approx(0.75)
    assert rates.rate(0) == 1
    assert rates.rate(2.5) == pytest.approx((0.75 * 0.25) ** 0.5)


def test_beyond_the_sample_the_share_falls_on_as_its_tail_did():
    rates = Rates((0.0, 1.0, 2.0), (1.0, 0.1, 0.01))
    assert rates.rate(3) == pytest.approx(0.001)
    assert rates.rarity(np.array([-5.0, 0.5, 2.0, 4.0])).tolist() == pytest.approx([0, 0.5, 2, 4])


def test_the_score_of_a_rate_is_the_lowest_that_no_larger_share_reaches():
    rates = Rates.of(np.arange(100) / 100)
    assert rates.score_at(0.05) == 0.95
    assert rates.score_at(1) == 0
    with pytest.raises(ProfileError, match=r"rates down to 0.01; got 0.001: fit on more"):
        rates.score_at(0.001)


@settings(max_examples=100, deadline=None)
@given(samples, st.floats(0.02, 1))
def test_rates_are_what_counting_gives(sample, wanted):
    rates = Rates.of(sample)
    for score in sample:
        assert rates.rate(score) == pytest.approx(np.mean(np.array(sample) >= score))
    if rates.rates[-1] <= wanted:
        score = rates.score_at(wanted)
        assert np.mean(np.array(sample) >= score) <= wanted
        lower = [value for value in sample if value < score]
        assert not lower or np.mean(np.array(sample) >= max(lower)) > wanted


def test_of_a_large_sample_few_points_are_kept_and_the_rare_ones_most_exactly():
    sample = np.random.default_rng(0).normal(size=20_000)
    rates = Rates.of(sample)
    assert len(rates.scores) <= POINTS + 1
    assert rates.rates[0] == 1
    assert rates.scores[-1] == sample.max()
    for rate in (0.5, 0.1, 0.01, 0.001):
        assert np.mean(sample >= rates.score_at(rate)) == pytest.approx(rate, rel=0.1)
        assert np.mean(sample >= rates.score_at(rate)) <= rate


@settings(max_examples=60, deadline=None)
@given(samples, st.lists(st.floats(-4, 4), min_size=2, max_size=10))
def test_a_higher_score_is_never_less_rare(sample, scores):
    rarity = Rates.of(sample).rarity(np.sort(scores))
    assert (rarity >= 0).all()
    assert (np.diff(rarity) >= -1e-12).all()


@pytest.mark.parametrize(
    ("scores", "rates"),
    [
        ((), ()),
        ((1,), (1, 0.5)),
        ((1, 1), (1, 0.5)),
        ((1, 2), (0.5, 1)),
        ((1, 2), (1.5, 1)),
        ((1, 2), (1, 0)),
        ((1, "x"), (1, 0.5)),
    ],
)
def test_what_are_no_rates_is_refused(scores, rates):
    with pytest.raises(ProfileError, match="rates|numbers"):
        Rates(scores, rates)


def test_no_sample_has_no_rates():
    with pytest.raises(ProfileError, match="at least one score"):
        Rates.of([])
