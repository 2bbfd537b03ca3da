"""Tuning: a plain reference, what is known beforehand is found, and nothing held out is looked at."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3retriever.errors import InvalidArgumentError
from m3retriever.evaluation import evaluate_run
from m3retriever.fusion import FUSIONS
from m3retriever.tuning import FOLDS, MIN_QUERIES, SEED, Setting, SettingsTable, simplex, tune
from m3retriever.types import MODES, ModeScores, Weights


def questions(count, informative, *, candidates=12, seed=0):
    """Scores in which only the named modes know which of the candidates is relevant."""
    random = np.random.default_rng(seed)
    scores, qrels = {}, {}
    for number in range(count):
        values = random.random((candidates, 3))
        answer = int(random.integers(candidates))
        for mode, strength in informative.items():
            values[answer, MODES.index(mode)] += strength
        scores[f"q{number:03}"] = ModeScores(tuple(f"d{row:02}" for row in range(candidates)), values)
        qrels[f"q{number:03}"] = {f"d{answer:02}": 1}
    return scores, qrels


def test_the_grid_covers_the_simplex_once():
    grid = simplex(0.05)
    assert len(grid) == len(set(grid)) == 231
    assert all(sum(weights) == pytest.approx(1) for weights in grid)
    assert {Weights(1, 0, 0), Weights(0, 1, 0), Weights(0, 0, 1)} <= set(grid)
    assert simplex(1) == [Weights(0, 0, 1), Weights(0, 1, 0), Weights(1, 0, 0)]


@pytest.mark.parametrize("step", [0, -0.1, 0.3, 1.5])
def test_a_step_that_does_not_divide_one_is_refused(step):
    with pytest.raises(InvalidArgumentError, match="step must divide 1"):
        simplex(step)


grid = st.integers(0, 8).map(lambda step: step / 8)  # coarse, so that ties are common
tables = st.lists(st.tuples(grid, grid, grid), min_size=1, max_size=8)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(tables, min_size=1, max_size=3),
    st.sampled_from(sorted(FUSIONS)),
    st.sampled_from(["nDCG@3", "R@2", "RR", "AP", "P@1", "Success@2"]),
    st.data(),
)
def test_a_setting_s_value_is_that_of_the_run_it_makes(all_rows, fusion, measure, data):
    scores, qrels, run = {}, {}, {}
    weights = Weights(*data.draw(st.sampled_from([(1, 1, 1), (2, 1, 1), (1, 0, 0), (0.5, 0.25, 0.25)])))
    for number, rows in enumerate(all_rows):
        ids = tuple(data.draw(st.permutations([f"d{row}" for row in range(len(rows))])))
        scores[str(number)] = table = ModeScores(ids, np.array(rows, np.float32))
        judged = data.draw(st.dictionaries(st.sampled_from([*ids, "never found"]), st.integers(0, 2), min_size=1))
        qrels[str(number)] = judged
        run[str(number)] = dict(zip(ids, FUSIONS[fusion](table, weights).round(9).tolist(), strict=True))
    expected = evaluate_run(run, qrels, [measure])[measure]
    if fusion in ("weighted_sum", "min_max"):  # the others' fractions tie only up to rounding, which decides here
        assert SettingsTable(scores, qrels, measure).by_query(Setting(weights, fusion)) == pytest.approx(expected)
    assert set(SettingsTable(scores, qrels, measure).queries) == set(expected)


@pytest.mark.parametrize("mode", MODES)
def test_the_mode_that_knows_gets_the_weight(mode):
    tuned = tune(*questions(60, {mode: 0.6}), fusions=["weighted_sum"], step=0.1)
    assert max(MODES, key=lambda one: getattr(tuned.best.weights, one)) == mode
    assert tuned.against["default"].difference > 0
    assert len(tuned.grid) == 66


def test_two_modes_that_know_halves_are_better_together_than_each_alone():
    tuned = tune(*questions(80, {"dense": 0.4, "colbert": 0.4}), step=0.1)
    mean = np.mean(list(tuned.held_out.values()))
    for mode in ("dense", "colbert"):
        assert tuned.against[mode].second == pytest.approx(mean)
        assert tuned.against[mode].difference > 0
        assert tuned.against[mode].p_value < 0.05


def test_where_nothing_can_be_learned_the_held_out_value_says_so():
    tuned = tune(*questions(80, {}), step=0.1, measure="RR")
    assert tuned.fitted > np.mean(list(tuned.held_out.values()))  # what was fitted flatters
    assert tuned.against["default"].p_value > 0.05


def test_where_every_setting_is_as_good_the_default_stays():
    scores, qrels = questions(20, dict.fromkeys(MODES, 5))
    tuned = tune(scores, qrels)
    assert tuned.best == Setting(Weights())
    assert tuned.fitted == 1


def test_a_fold_s_own_questions_have_no_say_in_its_setting():
    """Half the questions are answered by dense, half by sparse: whoever holds out a question and still sees it
    does better on it than whoever does not."""
    scores, qrels = questions(40, {"dense": 0.8})
    others, more = questions(40, {"sparse": 0.8}, seed=1)
    scores |= {f"s{id}": value for id, value in others.items()}
    qrels |= {f"s{id}": value for id, value in more.items()}
    tuned = tune(scores, qrels, step=0.1, measure="RR", fusions=["weighted_sum"])
    table = SettingsTable(scores, qrels, "RR")
    by_setting = [table.by_query(setting) for setting in tuned.folds]
    for query, value in tuned.held_out.items():
        assert value in [values[query] for values in by_setting]
    changed = dict(qrels)
    first = next(iter(qrels))
    changed[first] = {"d00": 1, "d01": 1, "d02": 1}
    again = tune(scores, changed, step=0.1, measure="RR", fusions=["weighted_sum"])
    own = (np.random.default_rng(SEED).permutation(len(qrels)) % FOLDS)[list(qrels).index(first)]
    assert tuned.folds[own] == again.folds[own]  # the fold that held this question out chose without it


def test_a_question_without_scores_counts_zero_and_one_without_answers_is_left_out():
    scores, qrels = questions(12, {"dense": 5})
    qrels["lacking"] = {"d00": 1}
    qrels["unanswerable"] = {"d00": 0}
    tuned = tune(scores, qrels, step=0.5)
    assert tuned.held_out["lacking"] == 0
    assert "unanswerable" not in tuned.held_out


def test_the_same_input_gives_the_same_result():
    assert tune(*questions(30, {"dense": 0.3}), step=0.25) == tune(*questions(30, {"dense": 0.3}), step=0.25)


def test_too_few_questions_and_folds_are_refused():
    scores, qrels = questions(MIN_QUERIES - 1, {"dense": 1})
    with pytest.raises(InvalidArgumentError, match=rf"at least {MIN_QUERIES} questions .* got {MIN_QUERIES - 1}"):
        tune(scores, qrels)
    scores, qrels = questions(MIN_QUERIES, {"dense": 1})
    for folds in (1, MIN_QUERIES + 1):
        with pytest.raises(InvalidArgumentError, match="folds must be between 2 and"):
            tune(scores, qrels, folds=folds)
    with pytest.raises(InvalidArgumentError, match="fusion must be one of"):
        tune(scores, qrels, fusions=["max"])
    with pytest.raises(InvalidArgumentError, match="a measure is"):
        tune(scores, qrels, measure="MAP")
