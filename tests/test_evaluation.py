"""Measures of quality: a case by hand for each, and the same numbers as ir_measures."""

import math

import ir_measures
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3retriever.errors import InvalidArgumentError
from m3retriever.evaluation import evaluate_run, mean
from m3retriever.measures import MEASURES

NAMES = ["nDCG@10", "nDCG", "R@5", "P@5", "RR@10", "RR", "AP", "AP@10", "Success@3"]
JUDGED = {"a": 1, "b": 3, "c": 0, "d": 2}
RANKING = ["c", "d", "x", "a"]  # b is never found
LOG3, LOG5 = math.log2(3), math.log2(5)
DCG, BEST_DCG = 2 / LOG3 + 1 / LOG5, 3 + 2 / LOG3 + 1 / 2  # places 2 and 4; the best order is b, d, a

BY_HAND = [
    ("nDCG", DCG / BEST_DCG),
    ("nDCG@1", 0),
    ("nDCG@2", (2 / LOG3) / (3 + 2 / LOG3)),  # the best that two places allow, not three
    ("nDCG@10", DCG / BEST_DCG),
    ("R@1", 0),
    ("R@2", 1 / 3),
    ("R@100", 2 / 3),
    ("P@2", 1 / 2),
    ("P@4", 2 / 4),
    ("P@10", 2 / 10),  # places that are not filled count
    ("Success@1", 0),
    ("Success@2", 1),
    ("RR", 1 / 2),
    ("RR@1", 0),
    ("RR@2", 1 / 2),
    ("AP", (1 / 2 + 2 / 4) / 3),  # b, never found, adds 0
    ("AP@3", (1 / 2) / 3),
]


def values(run: dict, qrels: dict, name: str) -> dict[str, float]:
    return evaluate_run(run, qrels, [name])[name]


def run_of(ranking: list[str]) -> dict[str, float]:
    return {id: float(-place) for place, id in enumerate(ranking)}


@pytest.mark.parametrize(("name", "expected"), BY_HAND)
def test_a_measure_by_hand(name, expected):
    assert values({"q": run_of(RANKING)}, {"q": JUDGED}, name)["q"] == pytest.approx(expected, abs=1e-12)


def test_every_measure_has_a_case_by_hand():
    assert {name.split("@")[0] for name, _ in BY_HAND} == set(MEASURES)


def test_the_docstring_s_example_holds():
    assert evaluate_run({"q": {"a": 1.0, "b": 2.0}}, {"q": {"a": 1}}, ["RR"]) == {"RR": {"q": 0.5}}


documents = [f"d{number:02}" for number in range(30)]
grades = st.dictionaries(st.sampled_from(documents), st.integers(0, 3), min_size=1, max_size=15).filter(
    lambda judged: any(judged.values())
)
# scores on a grid of whole numbers: no two alike, and none so near that another's float32 would tie them
rankings = st.lists(st.sampled_from(documents), unique=True, min_size=1, max_size=30).map(run_of)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(grades, rankings), min_size=1, max_size=4))
def test_the_measures_are_ir_measures(pairs):
    qrels = {f"q{number}": judged for number, (judged, _) in enumerate(pairs)}
    run = {f"q{number}": scored for number, (_, scored) in enumerate(pairs)}
    measures = [ir_measures.parse_measure(name) for name in NAMES]
    theirs = {(str(one.measure), one.query_id): one.value for one in ir_measures.iter_calc(measures, qrels, run)}
    ours = evaluate_run(run, qrels, NAMES)
    assert {(name, query): value for name in NAMES for query, value in ours[name].items()} == pytest.approx(theirs, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(grades, rankings)
def test_every_value_lies_between_zero_and_one_and_the_best_ranking_has_one(judged, scored):
    best = {id: float(grade) for id, grade in judged.items()}
    for name in NAMES:
        assert 0 <= values({"q": scored}, {"q": judged}, name)["q"] <= 1 + 1e-12
    for name in ("nDCG@10", "nDCG", "RR@10", "RR", "AP", "Success@3"):
        assert values({"q": best}, {"q": judged}, name)["q"] == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_judged_query_that_the_run_lacks_counts_zero(name):
    result = values({"found": {"a": 1.0}, "never judged": {"a": 1.0}}, {"found": {"a": 1}, "lacking": {"a": 1}}, name)
    assert list(result) == ["found", "lacking"]
    assert result["found"] > 0
    assert result["lacking"] == 0
    theirs = ir_measures.iter_calc([ir_measures.parse_measure(name)], {"lacking": {"a": 1}}, {"found": {"a": 1.0}})
    assert [one.value for one in theirs] == [0]


def test_a_query_without_a_relevant_document_has_no_value():
    qrels = {"some": {"a": 1}, "none": {"a": 0}, "negative": {"a": -1}, "empty": {}}
    assert evaluate_run({"none": {"a": 1.0}}, qrels, ["RR", "P@5"]) == {"RR": {"some": 0}, "P@5": {"some": 0}}


def test_a_negative_grade_is_no_gain():
    run, qrels = {"q": run_of(["bad", "good"])}, {"q": {"good": 1, "bad": -1}}
    assert values(run, qrels, "nDCG")["q"] == pytest.approx(1 / LOG3, abs=1e-12)
    assert values(run, qrels, "P@1")["q"] == 0


def test_ties_are_broken_by_document_id_whatever_their_order():
    for scored in ({"b": 1.0, "a": 1.0, "c": 2.0}, {"a": 1.0, "c": 2.0, "b": 1.0}):
        assert values({"q": scored}, {"q": {"a": 1}}, "RR")["q"] == 1 / 2
        assert values({"q": scored}, {"q": {"b": 1}}, "RR")["q"] == 1 / 3


def test_only_the_order_of_scores_matters():
    assert values({"q": {"a": 1e-9, "b": -5.0}}, {"q": {"b": 1}}, "RR")["q"] == 1 / 2


@pytest.mark.parametrize(
    "name", ["", "ndcg@10", "nDCG@", "nDCG@0", "nDCG@-1", "nDCG@1.5", "nDCG@10 ", "MAP", "R", "P", "Success", "@10", "R@10@5"]
)
def test_a_name_that_is_no_measure_is_refused(name):
    with pytest.raises(InvalidArgumentError, match="a measure is nDCG"):
        evaluate_run({}, {"q": {"a": 1}}, [name])


def test_the_mean_is_over_queries_and_zero_without_any():
    assert mean({"a": 1.0, "b": 0.0, "c": 0.5}) == 0.5
    assert mean({}) == 0
    assert evaluate_run({}, {}, ["RR"]) == {"RR": {}}
