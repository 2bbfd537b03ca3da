"""The Bayesian search: it finds what is there, repeats, stays quiet, and looks at nothing held out."""

import logging
import sys

import numpy as np
import optuna
import pytest

from m3retriever import InvalidArgumentError, MissingExtraError
from m3retriever.fusion import FUSIONS
from m3retriever.tuning import FOLDS, SEED, tune
from m3retriever.tuning.searches import CONSTANTS, DEPTHS, BayesianSearch
from m3retriever.tuning.settings import Setting, SettingsTable
from m3retriever.types import MODES, ModeScores, Weights


def questions(count, mode, *, strength=0.5, candidates=15, seed=0):
    """Scores in which only one mode knows which of the candidates is relevant."""
    random = np.random.default_rng(seed)
    scores, qrels = {}, {}
    for number in range(count):
        values = random.random((candidates, 3))
        answer = int(random.integers(candidates))
        values[answer, MODES.index(mode)] += strength
        scores[f"q{number:03}"] = ModeScores(tuple(f"d{row:02}" for row in range(candidates)), values)
        qrels[f"q{number:03}"] = {f"d{answer:02}": 1}
    return scores, qrels


def search(scores, qrels, *, trials=25, fusions=("weighted_sum",), parameters=None):
    return BayesianSearch(SettingsTable(scores, qrels, "RR"), fusions, trials=trials, parameters=parameters or {})


@pytest.mark.parametrize("mode", MODES)
def test_the_mode_that_knows_gets_the_weight(mode):
    tuned = tune(*questions(40, mode), search="optuna", trials=25, fusions=["weighted_sum"], measure="RR")
    assert getattr(tuned.best.weights, mode) > 0.5
    assert tuned.against["default"].difference > 0


def test_one_trial_is_the_default_setting_and_more_are_never_worse_on_what_they_saw():
    scores, qrels = questions(30, "sparse", strength=0.2)
    table = SettingsTable(scores, qrels, "RR")
    assert search(scores, qrels, trials=1).best(table.everything) == Setting(Weights())
    means = [table.values([search(scores, qrels, trials=trials).best(table.everything)]).mean() for trials in (1, 5, 15)]
    assert means == sorted(means)
    assert means[-1] > means[0]


def test_the_search_is_the_same_whenever_it_runs():
    scores, qrels = questions(20, "dense")
    first, again = (tune(scores, qrels, search="optuna", trials=12) for _ in range(2))
    assert first == again


def test_constant_and_depth_are_searched_and_stay_in_their_ranges():
    scores, qrels = questions(12, "colbert", candidates=60)
    searching = search(scores, qrels, fusions=("rrf", "weighted_sum"), trials=40)
    searching.best(searching.table.everything)
    tried = list(searching._known)
    constants = [setting.parameters["constant"] for setting in tried if setting.fusion == "rrf"]
    assert len(set(constants)) > 5
    assert all(CONSTANTS[0] <= constant <= CONSTANTS[1] for constant in constants)
    assert all(not setting.parameters for setting in tried if setting.fusion == "weighted_sum")
    assert {setting.depth for setting in tried} == {*[depth for depth in DEPTHS if depth < searching.table.deepest], None}
    assert {10, 20} < {setting.depth for setting in tried}


def test_a_depth_that_leaves_out_what_misleads_is_found():
    """ColBERT knows the answer among what dense brings in early, and is misled by what comes in late."""
    random = np.random.default_rng(0)
    scores, qrels = {}, {}
    for number in range(20):
        values = np.zeros((40, 3))
        values[:, 0] = np.linspace(1, 0.5, 40)
        values[10:, 2] = 5 + random.random(30)
        answer = int(random.integers(2, 10))
        values[answer, 2] = 4
        scores[f"q{number}"] = ModeScores(tuple(f"d{row:02}" for row in range(40)), values)
        qrels[f"q{number}"] = {f"d{answer:02}": 1}
    searching = search(scores, qrels, trials=20)
    best = searching.best(searching.table.everything)
    assert best.depth == 10
    assert searching.table.values([best]).mean() == 1
    assert searching.table.values([Setting(best.weights)]).mean() < 0.2


def test_parameters_of_a_fusion_are_kept_beside_what_is_searched():
    scores, qrels = questions(12, "dense")
    unrelated = {"dense": {"scores": [0.0, 1.0], "rates": [1.0, 0.01]}}
    options = {"fusions": ("null_cdf",), "trials": 3, "parameters": {"null_cdf": {"unrelated": unrelated}}}
    searching = search(scores, qrels, **options)
    assert searching.best(searching.table.everything).parameters == {"unrelated": unrelated}


def test_a_questions_own_labels_have_no_say_in_the_fold_that_judges_it():
    scores, qrels = questions(30, "dense", strength=0.3)
    options = {"search": "optuna", "trials": 15, "measure": "RR", "fusions": ["weighted_sum"]}
    before = tune(scores, qrels, **options).found["linear"]
    fold_of = np.random.default_rng(SEED).permutation(len(qrels)) % FOLDS
    changed = qrels | {query: {"d00": 1} for query, fold in zip(qrels, fold_of, strict=True) if fold == 0}
    after = tune(scores, changed, **options).found["linear"]
    assert before.folds[0] == after.folds[0]
    assert before.folds[1:] != after.folds[1:], "labels do matter where they may"
    values = SettingsTable(scores, qrels, "RR").by_query(before.folds[0])
    for query, fold in zip(qrels, fold_of, strict=True):
        if fold == 0:
            assert before.held_out[query] == values[query]


def test_it_says_nothing_and_leaves_optunas_logging_as_it_was():
    told, before = [], optuna.logging.get_verbosity()
    handler = logging.Handler()
    handler.emit = told.append
    logging.getLogger("optuna").addHandler(handler)
    try:
        tune(*questions(12, "dense"), search="optuna", trials=3, fusions=list(FUSIONS))
        assert told == []
        assert optuna.logging.get_verbosity() == before
        optuna.create_study()
        assert told, "which Optuna by itself does not"
    finally:
        logging.getLogger("optuna").removeHandler(handler)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"optuna is not installed; run: pip install 'm3retriever\[optuna\]'"):
        tune(*questions(12, "dense"), search="optuna")
    assert tune(*questions(12, "dense"), step=0.5).best  # the grid does without it


@pytest.mark.parametrize("trials", [0, -1, 1.5, True, "many"])
def test_a_number_of_trials_that_is_none_is_refused(trials):
    with pytest.raises(InvalidArgumentError, match="trials must be an integer >= 1"):
        tune(*questions(12, "dense"), search="optuna", trials=trials)
