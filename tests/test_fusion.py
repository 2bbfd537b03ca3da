"""Three scores into one: by hand, against a naive reference, and what must hold for every fusion."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3retriever.errors import InvalidArgumentError
from m3retriever.fusion import (
    FUSIONS,
    SUMMANDS,
    contributions,
    fuse,
    fusion_named,
    min_max,
    mode_ranks,
    null_cdf,
    order,
    rrf,
    top_k,
    weighted_sum,
    z_score,
)
from m3retriever.types import MODES, ModeScores, Weights

names = st.sampled_from(sorted(FUSIONS))
all_weights = st.tuples(*[st.floats(0.0625, 10)] * 3)
some_weights = st.tuples(*[st.just(0.0) | st.floats(0.0625, 10)] * 3).filter(any)
grid = st.integers(-8, 8).map(lambda step: step / 8)  # coarse, so that ties are common
tables = st.lists(st.tuples(grid, grid, grid), min_size=1, max_size=12)


def scores(rows: list, ids: list[str] | None = None) -> ModeScores:
    ids = [f"d{row:02}" for row in range(len(rows))] if ids is None else ids
    return ModeScores(tuple(ids), np.array(rows, np.float32).reshape(-1, 3))


TIED = scores([(0.9, 0, 0.5), (0.8, 0.2, 0.5), (0.8, 0.1, 0.4)], ["a", "b", "c"])


def test_the_weighted_sum_is_a_mean():
    fused = weighted_sum(scores([(1, 0.5, 0), (0, 0.5, -1)]), Weights(2, 1, 1))
    assert fused.tolist() == [0.625, -0.125]
    assert fused.dtype == np.float64


def test_each_weight_goes_with_its_own_mode():
    row = scores([(0.5, 0.25, 0.125)])
    assert [weighted_sum(row, Weights.of({mode: 3}))[0] for mode in MODES] == [0.5, 0.25, 0.125]


def test_a_weight_of_zero_leaves_a_mode_out():
    assert weighted_sum(scores([(1, 0.25, 100)]), Weights(2, 1, 0))[0] == pytest.approx((2 + 0.25) / 3, abs=1e-15)


def test_contributions_are_the_weighted_parts():
    assert contributions(scores([(1, 0.5, -0.5)]), Weights(2, 1, 1)).tolist() == [[0.5, 0.125, -0.125]]


@settings(max_examples=60, deadline=None)
@given(tables, some_weights)
def test_the_weighted_sum_is_the_sum_of_the_contributions_and_numpy_s_average(rows, weights):
    table = scores(rows)
    fused = weighted_sum(table, Weights(*weights))
    np.testing.assert_allclose(fused, contributions(table, Weights(*weights)).sum(axis=1), atol=1e-12)
    np.testing.assert_allclose(fused, np.average(np.array(rows), axis=1, weights=weights), atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(tables, some_weights)
def test_a_weighted_sum_depends_on_its_own_row_alone_to_the_last_bit(rows, weights):
    together = weighted_sum(scores(rows), Weights(*weights))
    alone = [weighted_sum(scores([row]), Weights(*weights))[0] for row in rows]
    assert together.tolist() == alone


def test_rrf_adds_reciprocal_ranks_and_ties_share_the_best_rank():
    expected = [(1 / 61 + 1 / 63 + 1 / 61) / 3, (1 / 62 + 1 / 61 + 1 / 61) / 3, (1 / 62 + 1 / 62 + 1 / 63) / 3]
    np.testing.assert_allclose(rrf(TIED, Weights(1, 1, 1)), expected, rtol=1e-14)


def test_rrf_weighs_the_modes():
    np.testing.assert_allclose(rrf(TIED, Weights(1, 3, 0)), [(1 / 61 + 3 / 63) / 4, (1 / 62 + 3 / 61) / 4, 1 / 62], rtol=1e-14)


def test_rrf_takes_another_constant():
    np.testing.assert_allclose(rrf(TIED, Weights(1, 0, 0), constant=0), [1, 1 / 2, 1 / 2], rtol=1e-14)


@settings(max_examples=60, deadline=None)
@given(tables, some_weights, st.integers(0, 100))
def test_rrf_is_what_counting_the_better_candidates_gives(rows, weights, constant):
    expected = [
        sum(
            weight / (constant + 1 + sum(other[mode] > row[mode] for other in rows))
            for mode, weight in enumerate(np.array(weights) / sum(weights))
        )
        for row in rows
    ]
    np.testing.assert_allclose(rrf(scores(rows), Weights(*weights), constant=constant), expected, rtol=1e-12)


def test_min_max_stretches_each_mode_over_the_candidates():
    table = scores([(0.5, 0.2, 1), (0.75, 0.2, 2), (1.0, 0.2, 5)])
    np.testing.assert_allclose(min_max(table, Weights(2, 1, 1)), [0, 0.5 / 2 + 0.25 / 4, 0.5 + 0.25], atol=1e-7)


def test_z_score_counts_standard_deviations():
    table = scores([(1, 0.2, 0), (2, 0.2, 0), (3, 0.2, 3)])
    deviation = np.std([1, 2, 3])
    np.testing.assert_allclose(z_score(table, Weights(1, 1, 0)), [-1 / deviation / 2, 0, 1 / deviation / 2], atol=1e-7)


@settings(max_examples=60, deadline=None)
@given(tables)
def test_normalised_scores_are_what_scipy_makes_of_them(rows):
    values = np.array(rows, np.float32).astype(np.float64)
    flat = values.std(axis=0) == 0
    with np.errstate(invalid="ignore"):
        expected = np.where(flat, 0, (values - values.mean(axis=0)) / np.where(flat, 1, values.std(axis=0)))
    np.testing.assert_allclose(SUMMANDS["z_score"](scores(rows)), expected, atol=1e-9)
    stretched = SUMMANDS["min_max"](scores(rows))
    assert ((stretched >= 0) & (stretched <= 1)).all()
    assert (stretched.max(axis=0) == np.where(flat, 0, 1)).all()


@settings(max_examples=60, deadline=None)
@given(names, tables, some_weights)
def test_every_fusion_is_the_sum_of_its_contributions(name, rows, weights):
    table = scores(rows)
    fused = FUSIONS[name](table, Weights(*weights))
    np.testing.assert_allclose(fused, contributions(table, Weights(*weights), name).sum(axis=1), atol=1e-12)


def test_null_cdf_counts_the_decades_by_which_a_score_is_rarer_than_among_unrelated_pairs():
    dense = {"scores": [0.0, 0.5, 1.0], "rates": [1.0, 0.1, 0.001]}
    sparse = {"scores": [0.0, 2.0], "rates": [1.0, 0.01]}
    table = scores([(0.5, 2, 7), (0.75, 1, 7), (1.25, -1, 7)])
    fused = null_cdf(table, Weights(1, 1, 0), unrelated={"dense": dense, "sparse": sparse})
    np.testing.assert_allclose(fused, [(1 + 2) / 2, (2 + 1) / 2, (3 + 1 + 0) / 2], atol=1e-9)


def test_without_unrelated_pairs_null_cdf_takes_the_candidates_for_them():
    table = scores([(0.1, 0, 0), (0.2, 0, 0), (0.3, 0, 0), (0.4, 0, 0)])
    expected = -np.log10([1, 0.75, 0.5, 0.25])
    np.testing.assert_allclose(null_cdf(table, Weights(1, 0, 0)), expected, atol=1e-9)


def test_parameters_that_a_fusion_does_not_take_are_refused():
    assert fuse(TIED, Weights(1, 0, 0), "rrf", {"constant": 0}).tolist() == [1, 0.5, 0.5]
    with pytest.raises(InvalidArgumentError, match="parameters that do not fit the fusion 'weighted_sum'"):
        fuse(TIED, Weights(), "weighted_sum", {"constant": 0})
    with pytest.raises(InvalidArgumentError, match="parameters that do not fit the fusion 'null_cdf'"):
        fuse(TIED, Weights(), "null_cdf", {"unrelated": {"dense": {"scores": [1.0]}}})


def test_the_k_best_come_best_first_and_ties_by_id():
    table = scores([(0, 0, 0)] * 5, ["e", "b", "d", "a", "c"])
    fused = np.array([0.5, 0.5, 0.9, 0.5, 0.1])
    assert [table.ids[row] for row in top_k(table, fused, 5)] == ["d", "a", "b", "e", "c"]
    assert [table.ids[row] for row in top_k(table, fused, 3)] == ["d", "a", "b"]
    assert [table.ids[row] for row in top_k(table, fused, 1)] == ["d"]


def test_asking_for_more_than_there_are_gives_all():
    assert top_k(TIED, np.array([0.1, 0.3, 0.2]), 100) == top_k(TIED, np.array([0.1, 0.3, 0.2]), 3) == [1, 2, 0]
    assert top_k(scores([]), np.empty(0), 5) == []


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 45), st.randoms(use_true_random=False))
def test_the_k_best_are_the_head_of_the_full_ranking(values, k, random):
    ids = [f"d{row:02}" for row in range(len(values))]
    random.shuffle(ids)
    table, fused = scores([(0, 0, 0)] * len(values), ids), np.array(values, np.float64)
    expected = [table.ids.index(id) for _, id in sorted((-value, id) for value, id in zip(values, ids, strict=True))]
    assert top_k(table, fused, k) == expected[:k]
    assert order(table.ids, fused) == expected


def test_mode_ranks_are_places_from_one_with_ties_by_id():
    ranks = mode_ranks(scores([(0.5, 0, 1), (0.9, 0, 1), (0.5, 0.1, 2)], ["c", "b", "a"]))
    assert ranks == {"dense": [3, 1, 2], "sparse": [3, 2, 1], "colbert": [3, 2, 1]}


@settings(max_examples=60, deadline=None)
@given(tables)
def test_mode_ranks_are_the_places_in_each_mode_s_full_ranking(rows):
    table = scores(rows)
    ranks = mode_ranks(table)
    assert list(ranks) == list(MODES)
    for mode in MODES:
        assert [ranks[mode][row] for row in top_k(table, table.column(mode), len(rows))] == list(range(1, len(rows) + 1))


@settings(max_examples=80, deadline=None)
@given(names, tables, some_weights, st.data())
def test_a_document_that_wins_every_mode_wins(name, rows, weights, data):
    place = data.draw(st.integers(0, len(rows)))
    table = scores([*rows[:place], (1.25, 1.25, 1.25), *rows[place:]])
    fused = FUSIONS[name](table, Weights(*weights))
    assert fused.shape == (len(rows) + 1,)
    assert top_k(table, fused, 1) == [place]
    assert (np.delete(fused, place) < fused[place]).all()


@settings(max_examples=80, deadline=None)
@given(names, tables, all_weights, st.data())
def test_a_better_score_in_a_mode_never_makes_a_document_worse(name, rows, weights, data):
    row, mode = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.integers(0, 2))
    better = [list(one) for one in rows]
    better[row][mode] += 0.5
    before, after = (FUSIONS[name](scores(table), Weights(*weights)) for table in (rows, better))
    assert after[row] >= before[row]
    if name != "z_score":  # where one rises far, the others come nearer to the mean
        others = np.arange(len(rows)) != row
        assert (after[others] <= before[others]).all()


@settings(max_examples=80, deadline=None)
@given(names, tables, some_weights, st.floats(0.01, 100))
def test_only_the_ratios_of_weights_matter(name, rows, weights, factor):
    table = scores(rows)
    fused = FUSIONS[name](table, Weights(*weights))
    scaled = FUSIONS[name](table, Weights(*(weight * factor for weight in weights)))
    np.testing.assert_allclose(scaled, fused, rtol=1e-12, atol=1e-14)
    doubled = FUSIONS[name](table, Weights(*(weight * 2 for weight in weights)))
    assert doubled.tolist() == fused.tolist()


@settings(max_examples=80, deadline=None)
@given(names, tables, some_weights, st.randoms(use_true_random=False), st.integers(1, 12))
def test_permuting_the_candidates_permutes_the_result(name, rows, weights, random, k):
    table = scores(rows)
    places = list(range(len(rows)))
    random.shuffle(places)
    shuffled = ModeScores(tuple(table.ids[place] for place in places), table.values[places])
    fused, other = (FUSIONS[name](one, Weights(*weights)) for one in (table, shuffled))
    assert other.tolist() == fused[places].tolist()
    assert [shuffled.ids[row] for row in top_k(shuffled, other, k)] == [table.ids[row] for row in top_k(table, fused, k)]


@pytest.mark.parametrize("name", sorted(FUSIONS))
def test_no_candidates_fuse_to_no_scores(name):
    assert FUSIONS[name](scores([]), Weights()).shape == (0,)


def test_a_fusion_is_found_by_its_name():
    assert fusion_named("weighted_sum") is weighted_sum
    assert fusion_named("rrf") is rrf
    assert set(FUSIONS) == set(SUMMANDS)


def test_an_unknown_fusion_is_refused_with_the_names_there_are():
    with pytest.raises(InvalidArgumentError, match=r"weighted_sum, rrf, min_max, z_score, .*; got 'RRF'"):
        fusion_named("RRF")
