"""Learned fusions: by hand, scikit-learn's own predictions, what must hold for every model, and hostile profiles."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3retriever import InvalidArgumentError, Profile
from m3retriever.fusion import FITTED, FUSIONS, contributions, fuse, weighted_sum
from m3retriever.fusion.learned import INPUTS, LARGEST, MAX_DEPTH, MAX_TREES, RANK_CONSTANT, inputs
from m3retriever.profile import load_profile, save_profile
from m3retriever.queries import FEATURES, KINDS, features
from m3retriever.tuning import SEED, Setting, SettingsTable, tune
from m3retriever.tuning.learning import (
    FAR,
    LEARNERS,
    MIN_OF_KIND,
    NEAR,
    balanced,
    boosted_model,
    examples_of,
    fit_boosted,
    fit_logistic,
    fit_router,
    logistic_model,
    with_products,
)
from m3retriever.types import ModeScores, Weights

ANY = Weights()  # learned fusions have nothing to ask of weights
STUMP = {"intercept": 0.0, "names": [["dense"]], "thresholds": [[0.5]], "values": [[-1.0, 1.0]]}
PLAIN = {"intercept": 0.0, "coefficients": {}, "products": {}}
grid = st.integers(-8, 8).map(lambda step: step / 8)  # coarse, so that ties are common
tables = st.lists(st.tuples(grid, grid, grid), min_size=1, max_size=10)


def table(rows, query="what is it"):
    return ModeScores(tuple(f"d{row:02}" for row in range(len(rows))), np.array(rows, np.float32).reshape(-1, 3), query=query)


def two_kinds(count, *, candidates=40, noise=0.25, seed=0):
    """Questions of two kinds: ids that only sparse knows, and sentences that only dense knows."""
    random = np.random.default_rng(seed)
    scores, qrels = {}, {}
    for number in range(count):
        values = random.random((candidates, 3))
        answer = int(random.integers(candidates))
        mode = number % 2
        values[answer, mode] = 1 - noise * random.random()
        query = f"what is the meaning of number {number}?" if mode == 0 else f"ERR_{number}"
        scores[f"q{number:03}"] = ModeScores(tuple(f"d{row:02}" for row in range(candidates)), values, query=query)
        qrels[f"q{number:03}"] = {f"d{answer:02}": 1}
    return scores, qrels


SCORES, QRELS = two_kinds(80)
FITTED_PARAMETERS = {name: learn(SCORES, QRELS) for name, learn in LEARNERS.items()}
learned_names = st.sampled_from(["logistic", "boosted"])


def sigmoid(logit):
    return 1 / (1 + math.exp(-logit))


def test_a_logistic_fusion_adds_scores_ranks_features_and_their_products():
    one = table([(0.5, 0.25, 0.75)])
    by_hand = {
        "intercept": -1.0,
        "coefficients": {"dense": 2.0, "sparse_rank": 0.5, "asking": 0.25},
        "products": {"asking": [0.0, 4.0, -1.0], "code": [100.0, 100.0, 100.0]},
    }
    assert fuse(one, ANY, "logistic", by_hand)[0] == pytest.approx(sigmoid(-1 + 1 + 0.5 + 0.25 + 1 - 0.75), abs=1e-15)
    silent = ModeScores(one.ids, one.values, query="cheap shoes")
    assert fuse(silent, ANY, "logistic", by_hand)[0] == pytest.approx(sigmoid(-1 + 1 + 0.5), abs=1e-15)


def test_ranks_are_reciprocals_that_ties_share():
    own, asked = inputs(table([(0.5, 0, 1), (0.5, 0.1, 2), (0.25, 0.2, 3)]))
    first, second, third = ((1 + RANK_CONSTANT) / (place + RANK_CONSTANT) for place in (1, 2, 3))
    np.testing.assert_allclose(own[:, 3:], [(1, third, third), (1, second, second), (third, first, 1)])
    assert own[:, :3].tolist() == np.array([(0.5, 0, 1), (0.5, 0.1, 2), (0.25, 0.2, 3)], np.float32).tolist()
    assert asked.tolist() == features("what is it").tolist()
    assert len(INPUTS) == own.shape[1] + len(asked)


def test_a_boosted_fusion_sums_the_leaves_its_trees_lead_to():
    rows = [(0.5, 0.1, 0), (0.51, 0.1, 0), (0.51, 0.2, 0)]  # the border itself goes left
    assert fuse(table(rows), ANY, "boosted", STUMP).tolist() == pytest.approx([sigmoid(-1), sigmoid(1), sigmoid(1)])
    deep = {
        "intercept": 0.5,
        "names": [["dense", "asking", "sparse"], ["colbert", "colbert", "colbert"]],
        "thresholds": [[0.5, 0.5, 0.15], [9.0, 9.0, 9.0]],
        "values": [[-4.0, -3.0, 1.0, 2.0], [0.25, 7.0, 7.0, 7.0]],
    }
    assert fuse(table(rows), ANY, "boosted", deep).tolist() == pytest.approx([sigmoid(x + 0.75) for x in (-3, 1, 2)])
    assert fuse(table(rows, "shoes"), ANY, "boosted", deep)[0] == pytest.approx(sigmoid(-4 + 0.75))


def test_the_logistic_parameters_predict_what_scikit_learn_predicts():
    model = logistic_model(examples_of(SCORES, QRELS, script="latin"))
    for held in [*SCORES.values(), *two_kinds(10, seed=5)[0].values(), table([(9, -9, 0)], "E1 \ud800 梵語")]:
        own, asked = inputs(held, script="latin")
        given = np.concatenate([own, np.tile(asked, (len(held), 1))], axis=1)
        expected = model.predict_proba(with_products(given))[:, 1]
        np.testing.assert_allclose(fuse(held, ANY, "logistic", FITTED_PARAMETERS["logistic"]), expected, rtol=0, atol=1e-9)


def test_the_boosted_parameters_predict_what_scikit_learn_predicts():
    model = boosted_model(examples_of(SCORES, QRELS, script="latin"))
    values = set()
    for held in [*SCORES.values(), *two_kinds(10, seed=5)[0].values(), table([(9, -9, 0)], "E1 \ud800 梵語")]:
        own, asked = inputs(held, script="latin")
        given = np.concatenate([own, np.tile(asked, (len(held), 1))], axis=1)
        fused = fuse(held, ANY, "boosted", FITTED_PARAMETERS["boosted"])
        np.testing.assert_allclose(fused, model.predict_proba(given)[:, 1], rtol=0, atol=1e-9)
        values.update(fused.round(6).tolist())
    assert len(values) > 50  # it has learned to tell candidates apart


def test_a_branch_that_ends_early_is_filled_up():
    scores, qrels = {}, {}
    for number in range(60):  # dense alone decides, in one step: later trees have little to ask
        rows = [(float(row == 3), 0.0, 0.0) for row in range(6)]
        scores[str(number)] = table(rows)
        qrels[str(number)] = {"d03": 1}
    parameters = fit_boosted(scores, qrels)
    assert {len(one) for one in parameters["names"]} == {7}
    assert {len(one) for one in parameters["values"]} == {8}
    fused = fuse(scores["0"], ANY, "boosted", parameters)
    assert fused.argmax() == 3
    assert (np.delete(fused, 3) < 0.1).all()
    assert fused[3] > 0.9


@settings(max_examples=60, deadline=None)
@given(learned_names, tables, st.sampled_from(["ERR_1", "what is this?"]), st.randoms(use_true_random=False))
def test_permuting_the_candidates_permutes_the_probabilities(name, rows, query, random):
    places = list(range(len(rows)))
    random.shuffle(places)
    fused = fuse(table(rows, query), ANY, name, FITTED_PARAMETERS[name])
    assert ((fused > 0) & (fused < 1)).all()
    shuffled = fuse(table([rows[place] for place in places], query), ANY, name, FITTED_PARAMETERS[name])
    assert shuffled.tolist() == fused[places].tolist()


@settings(max_examples=60, deadline=None)
@given(learned_names, tables, grid)
def test_candidates_matter_to_each_other_by_their_ranks_alone(name, rows, lowest):
    """A last place more in every mode changes nothing for those before it."""
    before = fuse(table(rows), ANY, name, FITTED_PARAMETERS[name])
    after = fuse(table([*rows, (-2 + lowest / 8,) * 3]), ANY, name, FITTED_PARAMETERS[name])
    assert after[:-1].tolist() == before.tolist()


@settings(max_examples=80, deadline=None)
@given(tables, st.sampled_from(["ERR_1", "what is this?"]), st.data())
def test_a_better_score_never_makes_a_document_worse_under_boosted_trees(rows, query, data):
    row, mode = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.integers(0, 2))
    better = [list(one) for one in rows]
    better[row][mode] += 0.5
    before, after = (fuse(table(each, query), ANY, "boosted", FITTED_PARAMETERS["boosted"]) for each in (rows, better))
    assert after[row] >= before[row]
    others = np.arange(len(rows)) != row
    assert (after[others] <= before[others]).all()


def test_probabilities_stay_inside_0_and_1_whatever_the_numbers():
    for sign in (1, -1):
        steep = {**PLAIN, "coefficients": {"dense": sign * LARGEST}, "intercept": sign * LARGEST}
        tall = {**STUMP, "values": [[sign * LARGEST] * 2]}
        for name, parameters in (("logistic", steep), ("boosted", tall)):
            [value] = fuse(table([(1e6, 0, 0)]), ANY, name, parameters)
            assert 0 < value < 1
            assert (value > 0.5) == (sign > 0)


@pytest.mark.parametrize("name", ["routed", "logistic", "boosted"])
def test_no_candidates_have_no_probability(name):
    assert fuse(table([]), ANY, name, FITTED_PARAMETERS[name]).shape == (0,)
    assert name in FITTED
    assert name not in FUSIONS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coefficients": {"cost": 1.0}}, r"coefficients go with dense, .*; got \['cost'\]"),
        ({"coefficients": [1.0]}, "coefficients go with"),
        ({"coefficients": {"dense": float("nan")}}, "coefficients.dense must be numbers of shape"),
        ({"coefficients": {"dense": [1.0]}}, "coefficients.dense must be numbers of shape"),
        ({"coefficients": {"dense": "x" * 1000}}, "coefficients.dense must be numbers; got 'x"),
        ({"coefficients": {"dense": 10**400}}, "coefficients.dense must be numbers; got 1000"),
        ({"products": {"dense": [1, 1, 1]}}, "products go with words"),
        ({"products": {"words": [1, 1]}}, r"products.words must be numbers of shape \(3,\)"),
        ({"intercept": float("inf")}, "intercept must be numbers"),
        ({"intercept": None}, "intercept must be numbers"),
        ({"intercept": 2 * LARGEST}, "intercept must be numbers of shape .* within"),
        ({"script": 3}, "script must be a name"),
        ({"trees": 3}, "unexpected keyword"),
    ],
)
def test_a_logistic_profile_that_is_none_is_refused_in_a_short_message(change, message):
    with pytest.raises(InvalidArgumentError, match=message) as refused:
        fuse(table([]), ANY, "logistic", {**PLAIN, **change})
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": []}, f"1 to {MAX_TREES} trees"),
        ({"names": "dense"}, f"1 to {MAX_TREES} trees"),
        ({"names": [["dense"]] * (MAX_TREES + 1)}, f"1 to {MAX_TREES} trees"),
        ({"names": [["dense", "dense"]]}, r"2\^d - 1 questions"),
        ({"names": [[]]}, r"2\^d - 1 questions"),
        ({"names": [["dense"], ["dense"] * 3]}, r"2\^d - 1 questions"),
        ({"names": ["dense"]}, r"2\^d - 1 questions"),
        ({"names": [["dense"] * (2 ** (MAX_DEPTH + 1) - 1)]}, r"2\^d - 1 questions"),
        ({"names": [["density"]]}, "a tree asks for dense, .*; got 'density'"),
        ({"names": [[["dense"]]]}, "a tree asks for"),
        ({"names": [[0]]}, "a tree asks for"),
        ({"thresholds": [[0.5, 0.5]]}, r"thresholds must be numbers of shape \(1, 1\)"),
        ({"thresholds": [[None]]}, "thresholds must be numbers"),
        ({"thresholds": [[float("inf")]]}, "thresholds must be numbers"),
        ({"values": [[1.0]]}, r"values must be numbers of shape \(1, 2\)"),
        ({"values": [[1.0, 2.0], [1.0, 2.0]]}, r"values must be numbers of shape \(1, 2\)"),
        ({"values": [[1.0], [1.0, 2.0]]}, "values must be numbers"),
        ({"intercept": "high"}, "intercept must be numbers"),
        ({"script": None}, "script must be a name"),
    ],
)
def test_a_forest_that_is_none_is_refused_in_a_short_message(change, message):
    with pytest.raises(InvalidArgumentError, match=message) as refused:
        fuse(table([]), ANY, "boosted", {**STUMP, **change})
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize("name", ["logistic", "boosted"])
def test_what_was_not_fitted_is_refused_and_has_no_parts(name):
    with pytest.raises(InvalidArgumentError, match=f"parameters that do not fit the fusion '{name}': .*missing"):
        fuse(table([]), ANY, name)
    with pytest.raises(KeyError):
        contributions(table([]), ANY, name, FITTED_PARAMETERS[name])


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_what_was_learned_comes_back_from_a_profile_file_to_the_last_bit(name, tmp_path):
    save_profile(Profile(fusion=name, parameters=FITTED_PARAMETERS[name]), tmp_path / "learned.toml")
    loaded = load_profile(tmp_path / "learned.toml")
    assert loaded.parameters == FITTED_PARAMETERS[name]
    for held in SCORES.values():
        again = fuse(held, loaded.weights, loaded.fusion, loaded.parameters)
        assert again.tolist() == fuse(held, loaded.weights, name, FITTED_PARAMETERS[name]).tolist()


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_learning_repeats(name):
    assert LEARNERS[name](SCORES, QRELS) == FITTED_PARAMETERS[name]


def test_the_sample_repeats_and_differs_from_question_to_question():
    scores, qrels = two_kinds(4, candidates=300)
    scores["q001"] = scores["q000"]
    first, again = (examples_of(scores, {**qrels, "q001": qrels["q000"]}, script="") for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert one.tolist() == other.tolist()
    alike = [first.given[first.question == number].tolist() for number in (0, 1)]
    assert len(alike[0]) == len(alike[1])
    assert alike[0] != alike[1]


def test_a_passage_is_relevant_where_its_document_is():
    rows = np.array([(1, 0, 0), (0.5, 0, 0), (0, 0, 0)])
    held = ModeScores(("a#0", "a#1", "b#0"), rows, query="q", owners=("a", "a", "b"))
    examples = examples_of({"q": held}, {"q": {"a": 1, "b#0": 1}}, script="")
    relevant = {row[0] for row in examples.given[examples.relevant].tolist()}
    assert relevant == {1, 0.5}


def test_probabilities_are_those_of_all_candidates_or_of_as_many_relevant_as_others():
    """A regression with a free intercept meets the mean of what it was fitted on, and boosting starts there."""
    examples = examples_of(SCORES, QRELS, script="latin")
    logistic_mean = np.mean([fuse(held, ANY, "logistic", FITTED_PARAMETERS["logistic"]).mean() for held in SCORES.values()])
    assert logistic_mean == pytest.approx(np.average(examples.relevant, weights=examples.counts), rel=0.02)
    assert logistic_mean == pytest.approx(1 / 40, rel=0.02)
    assert FITTED_PARAMETERS["boosted"]["intercept"] == pytest.approx(0, abs=1e-9)


def test_every_relevant_and_near_candidate_is_an_example_and_the_sampled_rest_stands_for_all():
    random = np.random.default_rng(3)
    rows = random.random((400, 3))
    held = ModeScores(tuple(f"d{row:03}" for row in range(400)), rows, query="what is it")
    far = int(held.values.max(axis=1).argmin())
    qrels = {"q": {f"d{far:03}": 2, "not found": 1, "d000": 0}, "missing": {"a": 1}, "unanswerable": {"d000": 0}}
    examples = examples_of({"q": held, "unanswerable": held}, qrels, script="")
    places = (-held.values).argsort(axis=0).argsort(axis=0).min(axis=1)  # from 0, as plainly as can be
    near = np.flatnonzero((places < NEAR) | (np.arange(400) == far))
    assert len(examples.given) == len(near) + FAR
    assert examples.counts.sum() == pytest.approx(400)
    assert examples.relevant.sum() == 1
    kept = {tuple(row) for row in examples.given[:, :3].tolist()}
    assert {tuple(row) for row in held.values[near].astype(np.float64).tolist()} <= kept
    assert (examples.given[:, 6:] == features("what is it")).all()
    assert set(examples.counts.tolist()) == {1.0, (400 - len(near)) / FAR}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(tables, st.integers(0, 9)), min_size=1, max_size=4))
def test_what_is_sampled_always_stands_for_every_candidate(questions):
    scores = {str(number): table(rows * 4) for number, (rows, _) in enumerate(questions)}
    qrels = {str(number): {f"d{row:02}": 1} for number, (_, row) in enumerate(questions)}
    scores["more"], qrels["more"] = table([(1, 1, 1), (0, 0, 0)]), {"d00": 1}
    examples = examples_of(scores, qrels, script="")
    assert examples.counts.sum() == pytest.approx(sum(map(len, scores.values())))
    assert examples.counts.min() >= 1
    for number, weights in enumerate(_by_question(examples)):
        relevant, others = weights
        if relevant and others:
            assert relevant == pytest.approx(others), number


def _by_question(examples):
    weights = balanced(examples)
    for number in np.unique(examples.question):
        own = examples.question == number
        yield weights[own & examples.relevant].sum(), weights[own & ~examples.relevant].sum()


def test_balance_by_hand():
    examples = examples_of({"a": table([(1, 0, 0), (0, 0, 0), (0, 0, 0)]), "b": table([(1, 0, 0), (0, 0, 0)])},
                           {"a": {"d00": 1}, "b": {"d01": 3}}, script="")  # fmt: skip
    order = np.lexsort([~examples.relevant, examples.question])
    assert (balanced(examples)[order] * 4 / 5).tolist() == pytest.approx([1, 0.5, 0.5, 1, 1])


@pytest.mark.parametrize("learn", [fit_logistic, fit_boosted])
def test_without_both_kinds_of_candidates_nothing_is_learned(learn):
    one = table([(1, 0, 0), (0, 0, 0)])
    for scores, qrels in [
        ({}, {}),
        ({"q": one}, {"q": {"elsewhere": 1}}),
        ({"q": one}, {"q": {"d00": 1, "d01": 1}}),
        ({"q": table([])}, {"q": {"d00": 1}}),
        ({}, {"q": {"d00": 1}}),
    ]:
        with pytest.raises(InvalidArgumentError, match="learning needs judged questions"):
            learn(scores, qrels)


def test_a_router_gives_each_kind_the_weights_that_are_best_for_it():
    routed = fit_router(SCORES, QRELS, "RR", step=0.1)
    code, sentence = (Weights(*routed["kinds"][kind]) for kind in ("code", "sentence"))
    assert code.sparse > 0.5 > code.dense
    assert sentence.dense > 0.5 > sentence.sparse
    for kind, part in (("code", "ERR"), ("sentence", "what")):
        own = {query: QRELS[query] for query, held in SCORES.items() if held.query.startswith(part)}
        alone = tune({query: SCORES[query] for query in own}, own, measure="RR", step=0.1, fusions=["weighted_sum"])
        means = dict(alone.grid)
        assert means[Weights(*routed["kinds"][kind])] == pytest.approx(max(means.values()))


def test_a_kind_of_too_few_questions_gets_what_is_best_for_all():
    sentences = {query: held for query, held in SCORES.items() if held.query.startswith("what")}
    codes = [query for query in SCORES if query not in sentences]
    for count, own in ((MIN_OF_KIND - 1, False), (MIN_OF_KIND, True)):
        scores = sentences | {query: SCORES[query] for query in codes[:count]}
        kinds = fit_router(scores, {query: QRELS[query] for query in scores}, "RR", step=0.1)["kinds"]
        assert set(kinds) == set(KINDS)
        assert (kinds["code"] != kinds["keywords"]) == own
        assert kinds["keywords"] == kinds["foreign"]
    with pytest.raises(InvalidArgumentError, match="a router needs questions"):
        fit_router({}, {})


def test_where_the_kind_of_query_decides_learning_wins_and_is_chosen():
    tuned = tune(*two_kinds(120, noise=0.05), step=0.1, measure="RR", fusions=["weighted_sum"], learners=tuple(LEARNERS))
    assert list(tuned.found) == ["linear", "routed", "logistic", "boosted"]
    for name in LEARNERS:
        assert tuned.learned[name].difference > 0.1
        assert tuned.learned[name].p_value < 0.05
        assert tuned.learned[name].first == pytest.approx(np.mean(list(tuned.found["linear"].held_out.values())))
    assert tuned.chosen == max(LEARNERS, key=lambda name: tuned.learned[name].second)
    assert tuned.best == tuned.found[tuned.chosen].setting
    assert tuned.best.fusion == tuned.chosen
    assert str(tuned.best) == tuned.chosen
    assert tuned.against["default"].second == pytest.approx(tuned.learned[tuned.chosen].second)


def test_where_the_query_says_nothing_the_weighted_sum_stays():
    random = np.random.default_rng(7)
    scores, qrels = {}, {}
    for number in range(80):
        rows = random.random((30, 3))
        answer = int((rows @ [0.5, 0.2, 0.3]).argmax())
        scores[str(number)], qrels[str(number)] = table(rows, f"word {number}"), {f"d{answer:02}": 1}
    tuned = tune(scores, qrels, fusions=["weighted_sum"], learners=tuple(LEARNERS))
    assert tuned.chosen == "linear"
    assert tuned.best.fusion == "weighted_sum"
    assert tuned.learned["routed"].difference == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_a_questions_own_labels_have_no_say_in_the_fold_that_judges_it(name):
    options = {"step": 0.25, "measure": "RR", "fusions": ["weighted_sum"], "learners": (name,), "folds": 2}
    before = tune(SCORES, QRELS, **options).found[name]
    first = next(iter(QRELS))
    fold_of = np.random.default_rng(SEED).permutation(len(QRELS)) % 2
    changed = QRELS | {query: {"d00": 1, "d01": 1} for query, fold in zip(QRELS, fold_of, strict=True) if fold == fold_of[0]}
    after = tune(SCORES, changed, **options).found[name]
    assert before.folds[fold_of[0]] == after.folds[fold_of[0]]
    other = 1 - fold_of[0]
    assert before.folds[other] != after.folds[other], "labels do matter where they may"
    table_of = SettingsTable(SCORES, QRELS, "RR")
    assert before.held_out[first] == table_of.by_query(before.folds[fold_of[0]])[first]


def test_a_learned_setting_s_value_is_that_of_the_run_it_makes():
    for name, parameters in FITTED_PARAMETERS.items():
        values = SettingsTable(SCORES, QRELS, "RR").by_query(Setting(ANY, name, parameters))
        for query, held in list(SCORES.items())[:10]:
            fused = fuse(held, ANY, name, parameters)
            [answer] = QRELS[query]
            ahead = sorted(range(len(held)), key=lambda row: (-fused[row], held.ids[row]))
            assert values[query] == 1 / (1 + ahead.index(held.ids.index(answer)))


def test_an_unknown_learner_is_refused():
    with pytest.raises(InvalidArgumentError, match=r"learners are routed, logistic, boosted; got \['neural'\]"):
        tune(SCORES, QRELS, learners=["neural"])


def test_a_logistic_fusion_with_scores_alone_ranks_as_a_weighted_sum():
    held = SCORES["q000"]
    only = {**PLAIN, "coefficients": {"dense": 2.0, "sparse": 1.0, "colbert": 1.0}}
    by_logit = fuse(held, ANY, "logistic", only).argsort()
    assert by_logit.tolist() == weighted_sum(held, Weights(2, 1, 1)).argsort().tolist()
    assert len(FEATURES) == len(features(""))
