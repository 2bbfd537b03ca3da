"""Vectors as JSON: both forms say the same, to the last bit, and what is neither is refused."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3retriever import HashingEncoder, InvalidVectorsError, M3Vectors
from m3retriever.wire import COLUMNS, from_columns, to_columns, to_rows

VECTORS = HashingEncoder().encode_documents(["the red fox", "", "狐 и лиса"])


def same(ours, theirs):
    return all(np.array_equal(getattr(ours, name), getattr(theirs, name)) for name in COLUMNS)


@given(st.lists(st.text(max_size=30), max_size=5))
def test_columns_come_back_to_the_last_bit(texts):
    vectors = HashingEncoder().encode_documents(texts)
    assert same(from_columns(json.loads(json.dumps(to_columns(vectors)))), vectors)


def test_columns_are_base64_of_little_endian_bytes():
    column = to_columns(M3Vectors.from_rows(np.ones((1, 1)), [{3: 0.5}], [np.ones((1, 1))]))
    assert column["sparse_ids"] == {"dtype": "<i4", "shape": [1], "data": "AwAAAA=="}


def test_rows_read_as_float32_are_the_same_numbers():
    rows = json.loads(json.dumps(to_rows(VECTORS)))
    again = M3Vectors.from_rows(
        [row["dense"] for row in rows],
        [row["sparse"] for row in rows],
        [np.array(row["colbert"], np.float32) for row in rows],
    )
    assert same(again, VECTORS)
    assert list(to_rows(VECTORS, ["sparse"])[0]) == ["sparse"]


def without(name):
    return {key: value for key, value in to_columns(VECTORS).items() if key != name}


@pytest.mark.parametrize(
    "columns",
    [
        None,
        [],
        without("dense"),
        {**to_columns(VECTORS), "more": 1},
        {**to_columns(VECTORS), "dense": "base64"},
        {**to_columns(VECTORS), "dense": {"dtype": "<f8", "shape": [0, 256], "data": ""}},
        {**to_columns(VECTORS), "dense": {"dtype": "<f4", "shape": [3, 255], "data": to_columns(VECTORS)["dense"]["data"]}},
        {**to_columns(VECTORS), "dense": {"dtype": "<f4", "shape": [-1], "data": ""}},
        {**to_columns(VECTORS), "dense": {"dtype": "<f4", "shape": [3, 256], "data": "?"}},
        {**to_columns(VECTORS), "sparse_offsets": to_columns(VECTORS)["colbert_offsets"]},
    ],
)
def test_what_is_no_vectors_is_refused_in_words(columns):
    with pytest.raises(InvalidVectorsError, match=r"column|offsets|sparse"):
        from_columns(columns)
