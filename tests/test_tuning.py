"""Tuning: a plain reference, what is known beforehand is found, and nothing held out is looked at."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3retriever.encoders.hashing import HashingEncoder
from m3retriever.errors import InvalidArgumentError
from m3retriever.evaluation import evaluate_run, run_of
from m3retriever.fitting import tuned_profile
from m3retriever.fusion import FUSIONS, fuse
from m3retriever.ranking import Ranking
from m3retriever.stores.memory import MemoryStore
from m3retriever.tuning import BASELINES, FOLDS, MIN_QUERIES, SEED, Setting, SettingsTable, simplex, steps_of, tune
from m3retriever.tuning.settings import best_of, entry_depths, shallower
from m3retriever.types import MODES, Document, ModeScores, Profile, Weights


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


def test_where_nothing_can_be_learned_the_held_out_value_says_so_and_the_default_stays():
    tuned = tune(*questions(80, {}), step=0.1, measure="RR")
    found = tuned.found["linear"]
    assert found.fitted > np.mean(list(found.held_out.values()))  # what was fitted flatters
    assert tuned.chosen == "default"
    assert tuned.best == Setting(Weights())
    assert tuned.against["default"].difference == 0


def test_one_mode_alone_is_chosen_where_what_was_found_is_worse_on_held_out_questions():
    tuned = tune(*questions(20, {"dense": 0.4}), step=0.5, measure="RR")
    table = SettingsTable(*questions(20, {"dense": 0.4}), "RR")
    alone = {mode: np.mean(list(table.by_query(setting).values())) for mode, setting in BASELINES.items()}
    assert np.mean(list(tuned.held_out.values())) >= max(alone.values())
    for name, one in tuned.against.items():
        assert one.second == pytest.approx(np.mean(list(tuned.held_out.values()))), name


def test_of_settings_that_are_hardly_worse_the_most_usual_is_preferred():
    """Four questions; the first setting is best, by a hair over the default: half a standard error is 0.0025."""
    settings = [Setting(Weights(1, 0, 0)), Setting(Weights()), Setting(Weights(), "rrf"), Setting(Weights(0, 1, 0))]
    best = np.array([0.5, 0.6, 0.7, 0.8])
    near = best - [0.01, -0.01, 0.005, -0.002]
    values = np.array([best, near, near, best - 0.2])
    assert best_of(settings, values) == Setting(Weights())
    assert best_of(settings, np.array([best, best - 0.05, best - 0.05, best - 0.2])) == settings[0], "always worse is no noise"
    assert best_of([settings[2], settings[0]], np.array([best, best])) == settings[0], "a plain sum before other fusions"
    assert best_of(settings[:1], values[:1, :1]) == settings[0]


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
    with pytest.raises(InvalidArgumentError, match="fusion must be one of .* got none"):
        tune(scores, qrels, fusions=[])
    with pytest.raises(InvalidArgumentError, match="search must be grid or optuna; got 'random'"):
        tune(scores, qrels, search="random")


def test_parameters_of_a_fusion_are_passed_through_and_kept():
    scores, qrels = questions(20, {"dense": 0.4})
    unrelated = {"dense": {"scores": [0.0, 0.5, 1.0], "rates": [1.0, 0.1, 0.001]}}
    options = {"fusions": ["null_cdf"], "step": 0.5, "measure": "RR"}
    tuned = tune(scores, qrels, parameters={"null_cdf": {"unrelated": unrelated}}, **options)
    best = tuned.found["linear"].setting
    assert best.parameters == {"unrelated": unrelated}
    for query, value in SettingsTable(scores, qrels, "RR").by_query(best).items():
        held = scores[query]
        fused = fuse(held, best.weights, "null_cdf", best.parameters)
        [answer] = qrels[query]
        assert value == 1 / (1 + (fused > fused[held.ids.index(answer)]).sum())
    assert tune(scores, qrels, **options).found["linear"].setting.parameters == {}


def test_a_setting_says_what_it_is_in_a_few_characters():
    said = {
        "0.4/0.2/0.4": Setting(Weights()),
        "1/0/0 min_max depth 20": Setting(Weights(2, 0, 0), "min_max", depth=20),
        "0.333/0.333/0.333 rrf constant 12": Setting(Weights(1, 1, 1), "rrf", {"constant": 12}),
        "0.5/0/0.5 null_cdf": Setting(Weights(1, 0, 1), "null_cdf", {"unrelated": {"dense": {}}}),
        "logistic": Setting(Weights(), "logistic", {"intercept": 1.0}),
    }
    assert [str(setting) for setting in said.values()] == list(said)
    assert len({Setting(Weights(), "rrf", {"constant": constant}) for constant in (1, 1, 2)}) == 2


@settings(max_examples=40, deadline=None)
@given(st.lists(tables, min_size=1, max_size=4), st.data())
def test_settings_together_have_the_values_each_has_alone(all_rows, data):
    scores = {
        str(number): ModeScores(tuple(f"d{row}" for row in range(len(rows))), np.array(rows), query="what is it")
        for number, rows in enumerate(all_rows)
    }
    table = SettingsTable(scores, {query: {"d0": 1} for query in scores}, "RR")
    one = st.builds(
        lambda weights, rest, depth: Setting(Weights(*weights), *rest, depth),
        st.sampled_from([(1, 1, 2), (1, 0, 0), (0, 1, 1)]),
        st.sampled_from(
            [("weighted_sum", {}), ("rrf", {}), ("rrf", {"constant": 3}), ("routed", {"kinds": {}}), ("min_max", {})]
        ),
        st.sampled_from([None, 1, 3]),
    )
    chosen = data.draw(st.lists(one, min_size=1, max_size=5))
    on = np.array(data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores))))
    together = table.values(chosen)
    assert together.tolist() == [list(table.by_query(setting).values()) for setting in chosen]
    assert table.values(chosen, on).tolist() == together[:, on].tolist()
    for number, setting in enumerate(chosen):
        cut = {query: shallower(held, setting.depth or 99) for query, held in scores.items()}
        deep = Setting(setting.weights, setting.fusion, setting.parameters)
        plain = SettingsTable(cut, {query: {"d0": 1} for query in scores}, "RR").by_query(deep)
        assert together[number].tolist() == list(plain.values())


@settings(max_examples=40, deadline=None)
@given(tables, st.sampled_from(sorted(FUSIONS)), st.sampled_from([None, 2]), st.data())
def test_passages_count_for_their_documents(rows, fusion, depth, data):
    owners = tuple(data.draw(st.sampled_from(["x", "y", "z"])) for _ in rows)
    held = ModeScores(tuple(f"p{row}" for row in range(len(rows))), np.array(rows), owners=owners)
    cut = held if depth is None else shallower(held, depth)
    run = run_of(cut, Ranking.of(Profile(weights=Weights(1, 0, 0), fusion=fusion), "hybrid", None, None))
    expected = evaluate_run({"q": run}, {"q": {"y": 1, "p0": 2}}, ["nDCG@2"])["nDCG@2"]
    setting = Setting(Weights(1, 0, 0), fusion, depth=depth)
    assert SettingsTable({"q": held}, {"q": {"y": 1, "p0": 2}}, "nDCG@2").by_query(setting) == expected


def test_the_constant_of_rank_fusion_decides_between_one_first_place_and_two_good_ones():
    held = ModeScores(("a", "b", "c", "d"), np.array([(9, 1, 0), (8, 3, 0), (7, 4, 0), (6, 2, 0)]))
    table = SettingsTable({"q": held}, {"q": {"b": 1}}, "RR")  # b has places 2 and 2; a 1 and 4, c 3 and 1
    values = table.values([Setting(Weights(1, 1, 0), "rrf", {"constant": constant}) for constant in (0, 200)])
    assert values.tolist() == [[1 / 3], [1 / 2]]


def test_a_candidate_comes_in_by_its_better_rank_and_by_sparse_only_with_a_shared_token():
    held = ModeScores(("a", "b", "c", "d"), np.array([(0.9, 0, 0), (0.8, 0.1, 0), (0.7, 0.3, 0), (0.6, 0, 9)]), query="q")
    assert entry_depths(held).tolist() == [1, 2, 1, 4]
    assert shallower(held, 1).ids == ("a", "c")
    assert shallower(held, 3).ids == ("a", "b", "c")
    assert shallower(held, 4).values.tolist() == held.values.tolist()
    assert shallower(held, 1).query == "q"


words = st.lists(st.sampled_from(["tax", "form", "dog", "cat", "hat", "red"]), min_size=1, max_size=5).map(" ".join)


@settings(max_examples=30, deadline=None)
@given(st.lists(words, min_size=1, max_size=20), words, st.integers(1, 12))
def test_shallower_scores_are_those_of_a_shallower_search(texts, query, depth):
    encoder, store = HashingEncoder(), MemoryStore()
    store.add([Document(f"{place:02}", text) for place, text in enumerate(texts)], encoder.encode_documents(texts))
    vectors = encoder.encode_queries([query])
    deep, wanted = (store.search(vectors, depth=each) for each in (20, depth))
    found = shallower(deep, depth)
    assert sorted(found.ids) == sorted(wanted.ids)
    assert {id: found.of(row) for row, id in enumerate(found.ids)} == {id: wanted.of(row) for row, id in enumerate(wanted.ids)}


def test_what_is_not_learned_is_chosen_without_learners_and_drawn_whatever_the_fusion():
    tuned = tune(*questions(20, {"dense": 0.4, "colbert": 0.4}), step=0.5, fusions=["rrf"])
    assert tuned.learned == {}
    assert set(tuned.found) == {"linear", tuned.chosen}
    assert tuned.found["linear"].setting.fusion == "rrf"
    assert [weights for weights, _ in tuned.grid] == simplex(0.5)


def test_fusions_that_look_at_the_other_candidates_must_be_clearly_better():
    tuned = tune(*questions(40, {"dense": 0.4, "colbert": 0.4}), step=0.5)
    assert {"linear", "relative"} <= set(tuned.found)
    assert tuned.found["linear"].setting.fusion == "weighted_sum"
    assert tuned.found["relative"].setting.fusion in ("rrf", "min_max", "z_score")
    assert tuned.chosen != "relative" or tuned.learned["relative"].p_value < 0.05
    assert list(tune(*questions(40, {"dense": 0.4}), step=0.5, fusions=["rrf"]).learned) == []


def test_a_tuned_profile_has_the_weights_found_and_nothing_that_was_fitted_to_others():
    curve = {"scores": [0.1], "probabilities": [0.5]}
    before = Profile(
        depth=50,
        thresholds={"hybrid": 0.3, "dense": 0.4},
        calibration={"hybrid": curve, "dense": curve},
        fitted={"calibration": {"questions": 9, "hybrid": {"brier": 0.1}, "dense": {"brier": 0.2}}},
    )
    tuned = tune(*questions(60, {"dense": 0.6, "sparse": 0.2}), fusions=["weighted_sum"], step=0.1)
    after = tuned_profile(before, tuned, documents=12)
    assert after.weights == tuned.best.weights
    assert after.weights.dense > after.weights.colbert, "so that a wrong order would show"
    assert (after.fusion, after.depth) == ("weighted_sum", 50)
    assert (after.thresholds, after.calibration) == ({"dense": 0.4}, {"dense": curve})
    assert after.fitted["calibration"] == {"questions": 9, "dense": {"brier": 0.2}}
    assert after.fitted["tuning"]["held_out"] == pytest.approx(np.mean(list(tuned.held_out.values())))
    assert after.fitted["tuning"]["documents"] == 12


def test_every_search_and_every_fold_is_a_step():
    done, fusions = [], ["weighted_sum", "rrf"]
    tune(*questions(20, {"dense": 0.3}), step=0.5, folds=3, fusions=fusions, learners=["routed"], on_step=done.append)
    assert done == [1] * steps_of(fusions, ["routed"], folds=3)
    assert len(done) == 2 + 3 * 4  # two searches are prepared; they and the learner find a setting for 3 folds and for all


def test_tuning_ends_where_a_step_raises():
    class StoppedError(Exception):
        pass

    def stop(done):
        raise StoppedError

    with pytest.raises(StoppedError):
        tune(*questions(20, {"dense": 0.3}), step=0.5, on_step=stop)
