"""Pooling token vectors: which are joined, how many are left, and what it costs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3retriever import (
    ChromaStore,
    Document,
    EncoderMismatchError,
    HashingEncoder,
    InvalidArgumentError,
    M3Index,
    MiniEncoder,
    PooledEncoder,
)
from m3retriever.demo.corpus import standard_library_documents
from m3retriever.encoders.fidelity import fidelity
from m3retriever.encoders.pooled import RUN, pooled


def units(random: np.random.Generator, count: int, dim: int) -> np.ndarray:
    vectors = random.standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_vectors_that_are_alike_become_one_by_hand():
    tokens = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], np.float32)
    assert pooled(tokens, 2).tolist() == [[1, 0], [0, 1]]
    near = np.array([[1, 0, 0], [0, 0, 1], [0.8, 0.6, 0]], np.float32)
    np.testing.assert_allclose(pooled(near, 2), [[3 / 10**0.5, 1 / 10**0.5, 0], [0, 0, 1]], atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(0, 40), factor=st.integers(2, 5))
def test_what_is_left_is_unit_vectors_one_in_factor(seed, count, factor):
    tokens = units(np.random.default_rng(seed), count, 8)
    left = pooled(tokens, factor)
    assert (left.shape, left.dtype) == ((-(-count // factor), 8), np.float32)
    np.testing.assert_allclose(np.linalg.norm(left, axis=1), 1, atol=1e-5)


def test_long_texts_are_pooled_in_runs():
    tokens = units(np.random.default_rng(0), RUN + 3, 4)
    left = pooled(tokens, 2)
    assert len(left) == RUN // 2 + 2
    assert left[: RUN // 2].tobytes() == pooled(tokens[:RUN], 2).tobytes()


def test_vectors_that_cancel_out_are_no_division_by_zero():
    assert np.isfinite(pooled(np.array([[1, 0], [-1, 0]], np.float32), 2)).all()


def test_only_the_token_vectors_of_documents_change():
    plain, half = HashingEncoder(32), PooledEncoder(HashingEncoder(32), 2)
    texts = ["the red fox", "a", "one two three four five six"]
    ours, theirs = half.encode_documents(texts), plain.encode_documents(texts)
    for name in ("dense", "sparse_ids", "sparse_weights", "sparse_offsets"):
        assert getattr(ours, name).tobytes() == getattr(theirs, name).tobytes()
    assert np.diff(ours.colbert_offsets).tolist() == [2, 1, 3]
    assert half.encode_queries(texts).colbert.tobytes() == plain.encode_queries(texts).colbert.tobytes()


@pytest.mark.parametrize("factor", [1, 0, 2.0, "2"])
def test_a_factor_that_is_none_is_refused(factor):
    with pytest.raises(InvalidArgumentError, match="factor must be an integer >= 2"):
        PooledEncoder(HashingEncoder(), factor)


def test_an_index_of_another_factor_is_refused(tmp_path):
    half = PooledEncoder(HashingEncoder(16), 2)
    with M3Index(half, ChromaStore(tmp_path)) as index:
        index.add([Document("a", "one two three four")])
        assert index.store.sizes(["a"])[0, 1] == 2
        assert index.search("three")[0].document.id == "a"
    for other in (HashingEncoder(16), PooledEncoder(HashingEncoder(16), 3)):
        store = ChromaStore(tmp_path)
        with pytest.raises(EncoderMismatchError):
            M3Index(other, store)
        store.close()


@pytest.mark.model
def test_its_loss_grows_with_the_factor():
    mini = MiniEncoder()
    texts = [document.text for document in standard_library_documents()[:120:2]]
    queries = ["join two paths", "parse a date", "sort a list by a key", "open a file for writing"]
    taus = [fidelity(mini, PooledEncoder(mini, factor), texts, queries).colbert_tau for factor in (2, 4)]
    assert 0.75 < taus[1] < taus[0] < 1


def test_tokens_that_are_equal_become_fewer_still():
    assert pooled(np.tile(np.array([[1, 0]], np.float32), (4, 1)), 2).tolist() == [[1, 0]]


def test_it_has_the_precision_of_its_encoder():
    encoder = HashingEncoder(16)
    assert PooledEncoder(encoder).precision is None
    encoder.precision = "int8"
    assert PooledEncoder(encoder).precision == "int8"
