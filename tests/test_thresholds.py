"""Thresholds: by hand, against trying every one, and what each promises of questions it has not seen."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3retriever.calibrating.thresholds import (
    MIN_RETURNED,
    Pairs,
    for_certain_recall,
    for_f,
    for_precision,
    for_rate,
    for_recall,
    hoeffding_bentkus,
)
from m3retriever.errors import InvalidArgumentError
from m3retriever.rates import Rates

RUN = {"q1": {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.2}, "q2": {"e": 0.85, "f": 0.6, "g": 0.5, "h": 0.1}}
QRELS = {"q1": {"a": 1, "b": 2, "d": 0}, "q2": {"e": 1, "g": 1, "never found": 1}}
PAIRS = Pairs.of(RUN, QRELS)  # from the best down: right right right wrong wrong right wrong wrong

grades = st.floats(0, 1).map(lambda value: round(value, 2))  # coarse, so that ties are common
drawn_pairs = st.lists(
    st.tuples(st.lists(st.tuples(grades, st.booleans()), min_size=1, max_size=12), st.integers(0, 3)), min_size=1, max_size=5
)


def pairs_of(drawn):
    run = {
        str(query): {f"{query}-{row}": score for row, (score, _) in enumerate(rows)} for query, (rows, _) in enumerate(drawn)
    }
    qrels = {
        str(query): {
            **{f"{query}-{row}": int(right) for row, (_, right) in enumerate(rows)},
            **{f"lost{place}": 1 for place in range(lost)},
        }
        for query, (rows, lost) in enumerate(drawn)
    }
    return Pairs.of(run, qrels)


def test_pairs_count_what_was_found_and_what_was_not():
    assert PAIRS.relevant.tolist() == [True, True, False, False, True, False, True, False]
    assert PAIRS.wanted.tolist() == [2, 3]
    measured = PAIRS.measured(0.65)
    assert (measured.returned, measured.right, measured.relevant) == (4, 3, 5)
    assert (measured.answered, measured.questions) == (2, 2)
    assert (measured.precision, measured.recall) == (0.75, 0.6)
    assert measured.f() == pytest.approx(2 * 0.75 * 0.6 / 1.35)
    assert measured.f(2) == pytest.approx(5 * 0.75 * 0.6 / (4 * 0.75 + 0.6))
    second = PAIRS.only(np.array([False, True])).measured(0.55)
    assert (second.returned, second.right, second.relevant, second.questions) == (2, 1, 3, 1)


def test_where_nothing_is_returned_nothing_is_wrong():
    nothing = PAIRS.measured(2)
    assert (nothing.precision, nothing.recall, nothing.answered) == (1, 0, 0)
    assert Pairs.of({}, {"q": {"a": 0}}).measured(0).recall == 1


def test_the_threshold_for_a_precision_is_the_lowest_that_has_it():
    assert for_precision(PAIRS, 0.6) == pytest.approx((0.5 + 0.2) / 2)  # 4 of 6 are right; one lower 4 of 7
    with pytest.raises(InvalidArgumentError, match=rf"precision 0.9 is not reached: at best 0.667 on {MIN_RETURNED} answers"):
        for_precision(PAIRS, 0.9)


def test_the_threshold_for_a_recall_is_the_highest_that_has_it():
    assert for_recall(PAIRS, 0.6) == pytest.approx((0.8 + 0.7) / 2)
    assert for_recall(PAIRS, 0.61) == pytest.approx((0.5 + 0.2) / 2)
    with pytest.raises(
        InvalidArgumentError, match=r"recall 0.9 is not reached: 0.800 of the relevant documents are candidates"
    ):
        for_recall(PAIRS, 0.9)


def test_the_threshold_for_f_balances_both():
    assert for_f(PAIRS) == pytest.approx((0.8 + 0.7) / 2)  # 3 of 3 right, 3 of 5 found: .75; with all 4: 8/11
    assert for_f(PAIRS, 3) == pytest.approx((0.5 + 0.2) / 2)


def test_the_threshold_for_a_rate_lets_no_more_pass():
    sample = np.arange(10) / 10
    assert for_rate(sample, 0.2) == 0.8
    assert for_rate(sample, 0) > 0.9
    assert for_rate(sample, 1) == 0
    assert for_rate(np.array([0.5, 0.5, 0.5, 0.1]), 0.5) > 0.5
    assert for_rate(np.array([0.7, 0.2, -np.inf, -np.inf]), 0.5) == 0.2
    with pytest.raises(InvalidArgumentError, match=r"10 scores tell rates down to 0.1; got 0.05"):
        for_rate(sample, 0.05)


@settings(max_examples=100, deadline=None)
@given(st.lists(grades, min_size=1, max_size=40), st.floats(0.05, 1))
def test_a_rate_asked_of_a_sample_and_of_its_rates_is_the_same_score(sample, wanted):
    rates = Rates.of(sample)
    if rates.rates[-1] <= wanted:
        assert for_rate(np.array(sample), wanted) == rates.score_at(wanted)


def test_a_rate_that_is_a_share_up_to_rounding_is_that_share():
    sample = np.arange(10) / 10
    below = np.nextafter(0.3, 0)
    assert for_rate(sample, below) == Rates.of(sample).score_at(below) == for_rate(sample, 0.3) == 0.7


@settings(max_examples=100, deadline=None)
@given(drawn_pairs, st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_no_other_threshold_would_do_better(drawn, wanted):
    pairs = pairs_of(drawn)
    tried = {threshold: pairs.measured(threshold) for threshold in pairs.scores.tolist()}
    exact = [threshold for threshold, one in tried.items() if one.returned >= MIN_RETURNED and one.precision >= wanted]
    if exact:
        assert pairs.measured(for_precision(pairs, wanted)).returned == tried[min(exact)].returned
    else:
        with pytest.raises(InvalidArgumentError, match="not reached"):
            for_precision(pairs, wanted)
    kept = [threshold for threshold, one in tried.items() if one.relevant and one.recall >= wanted]
    if kept:
        assert pairs.measured(for_recall(pairs, wanted)).returned == tried[max(kept)].returned
    if pairs.relevant.any():
        assert pairs.measured(for_f(pairs)).f() == pytest.approx(max(one.f() for one in tried.values()))


@settings(max_examples=100, deadline=None)
@given(st.lists(grades, min_size=1, max_size=40), st.floats(0, 1))
def test_a_rate_is_kept_on_its_own_sample_and_nearly_used(sample, wanted):
    if 0 < wanted < 1 / len(sample) - 1e-9:
        with pytest.raises(InvalidArgumentError, match="tell rates down to"):
            for_rate(np.array(sample), wanted)
        return
    threshold = for_rate(np.array(sample), wanted)
    share = np.mean(np.array(sample) >= threshold)
    assert share <= wanted + 1e-9
    lower = [score for score in sample if score < threshold]
    assert not lower or np.mean(np.array(sample) >= max(lower)) > wanted - 1e-9


def test_the_bound_is_that_of_the_binomial_where_losses_are_0_and_1():
    """Twenty questions, none lost: were the loss .2 or more, that would happen with probability .8 ** 20."""
    assert hoeffding_bentkus(0, 20, 0.2) == pytest.approx(0.8**20)
    assert hoeffding_bentkus(0.2, 20, 0.2) == 1
    at_most = sum(math.comb(50, lost) * 0.4**lost * 0.6 ** (50 - lost) for lost in range(11))
    assert hoeffding_bentkus(0.2, 50, 0.4) == pytest.approx(math.e * at_most)  # Hoeffding's alone would be .0103
    assert math.e * at_most < 0.0103
    assert hoeffding_bentkus(0.19, 50, 0.4) == pytest.approx(math.e * at_most), "9.5 lost of 50 count as 10"
    losses = [hoeffding_bentkus(loss, 50, 0.3) for loss in np.linspace(0, 0.4, 30)]
    assert losses == sorted(losses)
    assert hoeffding_bentkus(0.1, 200, 0.3) < hoeffding_bentkus(0.1, 20, 0.3)


def test_a_promised_recall_is_kept_for_other_questions_as_often_as_promised():
    """The same world, drawn again and again: the threshold's true mean recall falls short in at most a tenth."""
    random = np.random.default_rng(0)

    def world(count):
        scores = random.beta(5, 2, size=(count, 3))
        run = {
            str(query): {f"{query}-{row}": float(score) for row, score in enumerate(rows)} for query, rows in enumerate(scores)
        }
        return Pairs.of(run, {query: dict.fromkeys(scored, 1) for query, scored in run.items()})

    short, truth = 0, world(20_000)
    for _ in range(200):
        threshold = for_certain_recall(world(100), 0.8, confidence=0.9)
        short += truth.measured(threshold).recall < 0.8
    assert short <= 20 + 3 * math.sqrt(200 * 0.1 * 0.9), f"{short} of 200 fell short"
    assert truth.measured(threshold).recall < 0.95, "a promise that returns everything is no use"


def test_a_recall_that_too_few_questions_can_promise_is_refused():
    with pytest.raises(InvalidArgumentError, match=r"cannot be promised with confidence 0.95: there are 2 questions"):
        for_certain_recall(PAIRS, 0.7)


@pytest.mark.parametrize(
    "call",
    [
        lambda: for_precision(PAIRS, 0),
        lambda: for_precision(PAIRS, 1.1),
        lambda: for_recall(PAIRS, float("nan")),
        lambda: for_f(PAIRS, 0),
        lambda: for_f(PAIRS, float("inf")),
        lambda: for_f(Pairs.of({}, {"q": {"a": 1}})),
        lambda: for_rate(np.empty(0), 0.1),
        lambda: for_rate(np.ones(3), -0.1),
        lambda: for_certain_recall(PAIRS, 0.5, confidence=1),
        lambda: for_precision(Pairs.of({}, QRELS), 0.5),
        lambda: for_recall(Pairs.of({}, QRELS), 0.5),
    ],
)
def test_what_has_no_meaning_is_refused(call):
    with pytest.raises(InvalidArgumentError):
        call()
