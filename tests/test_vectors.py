"""M3Vectors: columns in, the same texts out, whichever way they are cut or joined."""

from collections import defaultdict
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3retriever.errors import InvalidVectorsError
from m3retriever.vectors import M3Vectors, offsets

COLUMNS = ("dense", "sparse_ids", "sparse_weights", "sparse_offsets", "colbert", "colbert_offsets")
DTYPES = (np.float32, np.int32, np.float32, np.int64, np.float32, np.int64)


def three_texts() -> M3Vectors:
    """A text of two words, one without sparse entries, one without token vectors."""
    return M3Vectors.from_rows(
        [[1, 0], [0, 1], [0.6, 0.8]],
        [{9: 0.5, 3: 0.25}, {}, {4: 1.0}],
        [np.array([[1, 0], [0, 1]]), np.array([[0, -1]]), np.empty((0, 2))],
    )


def assert_same(left: M3Vectors, right: M3Vectors) -> None:
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name, strict=True)


rows = st.lists(
    st.tuples(
        st.tuples(*[st.floats(-1, 1, width=32)] * 3),
        st.dictionaries(st.integers(0, 250_001), st.floats(0.125, 2, width=32), max_size=4),
        st.lists(st.tuples(*[st.floats(-1, 1, width=32)] * 3), max_size=3),
    ),
    max_size=6,
)


def from_list(texts: list) -> M3Vectors:
    return M3Vectors.from_rows(
        np.array([dense for dense, _, _ in texts], np.float32).reshape(-1, 3),
        [sparse for _, sparse, _ in texts],
        [np.array(tokens, np.float32).reshape(-1, 3) for _, _, tokens in texts],
    )


def test_rows_become_columns_with_ascending_token_ids():
    vectors = three_texts()
    assert vectors.sparse_ids.tolist() == [3, 9, 4]
    assert vectors.sparse_weights.tolist() == [0.25, 0.5, 1.0]
    assert vectors.sparse_offsets.tolist() == [0, 2, 2, 3]
    assert vectors.colbert.tolist() == [[1, 0], [0, 1], [0, -1]]
    assert vectors.colbert_offsets.tolist() == [0, 2, 3, 3]
    assert (len(vectors), vectors.dim) == (3, 2)


def test_every_column_has_its_type():
    assert tuple(getattr(three_texts(), name).dtype for name in COLUMNS) == DTYPES


def test_token_ids_written_as_text_sort_as_numbers():
    weights = defaultdict(int, {"10": np.float16(0.5), "9": np.float32(0.25), "100": np.float16(1.0)})  # FlagEmbedding's type
    vectors = M3Vectors.from_rows([[1.0]], [weights], [np.ones((1, 1), np.float16)])
    assert vectors.sparse_ids.tolist() == [9, 10, 100]
    assert vectors.sparse_row(0) == {9: 0.25, 10: 0.5, 100: 1.0}
    assert len(weights) == 3  # reading a missing key of a defaultdict would have inserted it


def test_weights_that_are_not_positive_are_left_out():
    vectors = M3Vectors.from_rows([[1.0]], [{1: 0.0, 2: -0.5, 3: 0.5}], [[[1.0]]])
    assert vectors.sparse_row(0) == {3: 0.5}


@pytest.mark.parametrize(
    ("dense", "sparse", "colbert"),
    [
        ([1.0, 0.0], [{}], [np.ones((1, 2))]),
        ([[1.0, 0.0]], [{}, {}], [np.ones((1, 2))]),
        ([[1.0, 0.0]], [{}], []),
        ([[1.0, 0.0]], [{}], [np.ones((2, 3))]),  # six numbers: a reshape would make three false tokens
        ([[1.0, 0.0]], [{}], [np.ones((1, 3))]),
        ([[1.0, 0.0]], [{}], [np.ones(4)]),
    ],
)
def test_rows_that_do_not_fit_together_are_refused(dense, sparse, colbert):
    with pytest.raises(InvalidVectorsError):
        M3Vectors.from_rows(dense, sparse, colbert)


def test_a_text_without_tokens_may_be_an_empty_list():
    vectors = M3Vectors.from_rows([[1.0, 0.0], [0.0, 1.0]], [{}, {}], [[], [[1.0, 0.0]]])
    assert vectors.colbert_offsets.tolist() == [0, 0, 1]


def fields(**changed: object) -> dict:
    good = {name: getattr(three_texts(), name) for name in COLUMNS}
    return {**good, **changed}


@pytest.mark.parametrize(
    "changed",
    [
        {"dense": np.ones(2)},
        {"colbert": np.ones(3)},
        {"colbert": np.ones((3, 3))},
        {"sparse_weights": np.ones(2)},
        {"sparse_ids": np.ones((3, 1)), "sparse_weights": np.ones((3, 1))},
        {"sparse_offsets": [0, 2, 3]},
        {"sparse_offsets": [1, 2, 2, 3]},
        {"sparse_offsets": [0, 2, 2, 2]},
        {"sparse_offsets": [0, 2, 1, 3]},
        {"sparse_offsets": [0, 2, 2, 4]},
        {"colbert_offsets": [0, 2, 3]},
        {"colbert_offsets": [0, 3, 2, 3]},
        {"colbert_offsets": [0, 2, 3, 4]},
        {"colbert_offsets": [[0, 2, 3, 3]]},
    ],
    ids=str,
)
def test_columns_that_do_not_fit_together_are_refused(changed):
    M3Vectors(**fields())
    with pytest.raises(InvalidVectorsError):
        M3Vectors(**fields(**changed))


def test_an_index_gives_one_text():
    vectors = three_texts()
    assert_same(vectors[0], M3Vectors.from_rows([[1, 0]], [{3: 0.25, 9: 0.5}], [[[1, 0], [0, 1]]]))
    assert_same(vectors[1], M3Vectors.from_rows([[0, 1]], [{}], [[[0, -1]]]))
    assert_same(vectors[2], M3Vectors.from_rows([[0.6, 0.8]], [{4: 1.0}], [[]]))


def test_a_negative_index_counts_from_the_end():
    vectors = three_texts()
    assert_same(vectors[-1], vectors[2])
    assert_same(vectors[-3], vectors[0])


@pytest.mark.parametrize("index", [3, -4, 100])
def test_an_index_outside_is_an_index_error(index):
    with pytest.raises(IndexError, match=str(index)):
        three_texts()[index]


@pytest.mark.parametrize("step", [2, -1])
def test_a_slice_with_a_step_is_refused(step):
    with pytest.raises(InvalidVectorsError, match="take"):
        three_texts()[::step]


@settings(max_examples=60, deadline=None)
@given(rows, st.integers(-7, 7) | st.none(), st.integers(-7, 7) | st.none())
def test_a_slice_holds_what_a_list_of_the_texts_would(texts, start, stop):
    assert_same(from_list(texts)[start:stop], from_list(texts[start:stop]))


@settings(max_examples=60, deadline=None)
@given(rows, rows, rows)
def test_concat_holds_the_texts_of_all_parts_in_order(first, second, third):
    assert_same(M3Vectors.concat([from_list(part) for part in (first, second, third)]), from_list(first + second + third))


@settings(max_examples=60, deadline=None)
@given(rows)
def test_single_texts_joined_again_are_the_whole(texts):
    whole = from_list(texts)
    parts = list(whole)
    assert [len(part) for part in parts] == [1] * len(texts)
    assert_same(M3Vectors.concat(parts, dim=3), whole)


@settings(max_examples=60, deadline=None)
@given(rows, st.data())
def test_take_gives_the_texts_in_the_order_asked_for(texts, data):
    places = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=8) if texts else st.just([]))
    assert_same(from_list(texts).take(places), from_list([texts[place] for place in places]))


def test_take_accepts_an_array_of_places():
    assert_same(three_texts().take(np.array([2, 0, 0])), M3Vectors.concat([three_texts()[place] for place in (2, 0, 0)]))


def test_take_outside_is_an_index_error():
    with pytest.raises(IndexError):
        three_texts().take([3])


def test_a_slice_is_a_view_and_take_a_copy():
    vectors = three_texts()
    for name in ("dense", "sparse_ids", "sparse_weights", "colbert"):
        column = getattr(vectors, name)
        assert np.shares_memory(getattr(vectors[0:2], name), column), name
        assert np.shares_memory(getattr(vectors[0], name), column), name
        assert not np.shares_memory(getattr(vectors.take([0]), name), column), name


def test_columns_of_the_right_type_are_kept_without_a_copy():
    columns = fields()
    assert all(getattr(M3Vectors(**columns), name) is columns[name] for name in COLUMNS)


def test_rows_give_one_text_s_sparse_weights_and_token_vectors():
    vectors = three_texts()
    assert [vectors.sparse_row(row) for row in range(3)] == [{3: 0.25, 9: 0.5}, {}, {4: 1.0}]
    assert [vectors.colbert_row(row).tolist() for row in range(3)] == [[[1, 0], [0, 1]], [[0, -1]], []]


def test_no_texts_still_have_a_dimension():
    for empty in (M3Vectors.empty(5), M3Vectors.concat([], dim=5), M3Vectors.empty(5)[0:3], M3Vectors.empty(5).take([])):
        assert (len(empty), empty.dim, list(empty)) == (0, 5, [])
        assert empty.colbert.shape == (0, 5)


def test_vectors_of_different_dimension_do_not_join():
    with pytest.raises(ValueError):
        M3Vectors.concat([M3Vectors.from_rows([[1.0]], [{}], [[[1.0]]]), three_texts()])


def test_a_field_cannot_be_replaced():
    with pytest.raises(FrozenInstanceError):
        three_texts().dense = np.ones((3, 2))


def test_offsets_are_the_ends_of_consecutive_pieces():
    assert offsets([2, 3]).tolist() == [0, 2, 5]
    assert offsets([]).tolist() == [0]
    assert offsets(np.array([0, 4], np.int32)).tolist() == [0, 0, 4]
    assert offsets([]).dtype == offsets([1]).dtype == np.int64


@given(st.lists(st.integers(0, 2**40)))
def test_differences_of_offsets_are_the_lengths(lengths):
    assert np.diff(offsets(lengths)).tolist() == lengths
