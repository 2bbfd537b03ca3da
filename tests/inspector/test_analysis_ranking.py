import numpy as np
import pytest

from m3retriever import Document, ModeScores, Weights
from m3retriever.fusion import weighted_sum
from m3retriever.inspector.analysis import ranking as analysis

HALVES = Weights(0.5, 0.25, 0.25)
SCORES = ModeScores(("a", "b", "c"), np.array([[0.8, 0.0, 0.4], [0.4, 0.8, 0.8], [0.0, 0.4, 0.0]], np.float32))
TITLES = {"a": "Apple", "b": "Beet", "c": "Cress"}


def rows(k=3, threshold=None):
    return analysis.result_rows(SCORES, weighted_sum(SCORES, HALVES), TITLES, k=k, threshold=threshold)


# -- titles ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "title"),
    [
        (Document("1", "text", {"title": " Given "}), "Given"),
        (Document("1", "\n First line \nsecond", {}), "First line"),
        (Document("1", "x" * 200, {}), "x" * 80),
        (Document("1", "|---|:-:|\n***\n| 一 | two |\nthree", {}), "| 一 | two |"),
        (Document("1", "---\n...", {}), "---"),
        (Document("1", "text", {"title": 7}), "text"),
        (Document("1", "text", {"title": "  "}), "text"),
        (Document("1", "  ", {}), "1"),
    ],
)
def test_a_title_is_the_metadata_s_then_the_first_line_then_the_id(document, title):
    assert analysis.title_of(document) == title


# -- the ranking -----------------------------------------------------------------------------------


def test_rows_are_ranked_by_the_fused_score_with_every_mode_s_own_rank():
    first, second, third = rows()
    assert [row.id for row in (first, second, third)] == ["b", "a", "c"]
    assert [row.score for row in (first, second, third)] == pytest.approx([0.6, 0.5, 0.1])
    assert (first.rank, first.title, first.ranks) == (1, "Beet", {"dense": 2, "sparse": 1, "colbert": 1})
    assert second.ranks == {"dense": 1, "sparse": 3, "colbert": 2}
    assert first.scores == pytest.approx({"dense": 0.4, "sparse": 0.8, "colbert": 0.8})


def test_ranks_count_candidates_that_are_not_listed():
    [only] = rows(k=1)
    assert only.ranks["dense"] == 2


def test_a_score_equal_to_the_threshold_is_above_it():
    exact = weighted_sum(SCORES, HALVES)[0]
    assert [row.above for row in rows(threshold=float(exact))] == [True, True, False]
    assert analysis.above_count(rows(threshold=float(exact))) == 2


def test_without_a_threshold_every_row_is_above():
    assert all(row.above for row in rows(threshold=None))


def test_the_nearest_miss_is_the_best_row_where_none_is_above():
    assert analysis.nearest_miss(rows(threshold=0.7)).id == "b"
    assert analysis.nearest_miss(rows(threshold=0.55)) is None
    assert analysis.nearest_miss([]) is None


def test_the_strip_has_every_candidate_but_names_only_those_with_a_title():
    ticks = analysis.strip_ticks(SCORES, weighted_sum(SCORES, HALVES), {"b": "Beet"}, k=1, threshold=0.5)
    assert [(tick.label, tick.above, tick.listed) for tick in ticks] == [
        ("Beet", True, True),
        ("a", True, False),
        ("c", False, False),
    ]


def test_parts_are_score_times_weight_and_sum_to_the_row_s_score():
    for row in rows():
        parts = analysis.parts_of(row, Weights(2, 1, 1))  # only the ratios count
        assert sum(part.value for part in parts) == pytest.approx(row.score, abs=1e-9)
        assert [part.weight for part in parts] == [0.5, 0.25, 0.25]
        assert all(part.value == pytest.approx(part.score * part.weight) for part in parts)
    assert [part.value for part in analysis.parts_of(rows()[0], HALVES)] == pytest.approx([0.2, 0.2, 0.2])
