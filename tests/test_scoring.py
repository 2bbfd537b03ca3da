"""The three similarities: by hand, as FlagEmbedding computes them, and what must hold for any vectors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3retriever import scoring
from m3retriever.scoring import colbert_score, dense_score, score, sparse_score, sparse_scores
from m3retriever.vectors import M3Vectors

seeds = st.integers(0, 2**32 - 1)
rows = st.dictionaries(st.integers(0, 12), st.floats(0.125, 1, width=32), max_size=6)


@pytest.fixture(scope="module")
def m3_embedder():
    """FlagEmbedding's formulas; they need no model. The import takes seconds, so only tests that compare pay."""
    from FlagEmbedding.inference.embedder.encoder_only.m3 import M3Embedder

    return M3Embedder


def unit(random: np.random.Generator, count: int, dim: int) -> np.ndarray:
    vectors = random.normal(size=(count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def texts(random: np.random.Generator, count: int, dim: int = 24) -> M3Vectors:
    """Random texts; some have no token vectors or no sparse entries."""
    return M3Vectors.from_rows(
        unit(random, count, dim),
        [dict(zip(random.permutation(30)[:size].tolist(), random.random(size), strict=True)) for size in sizes(random, count)],
        [unit(random, size, dim) for size in sizes(random, count)],
    )


def sizes(random: np.random.Generator, count: int) -> list[int]:
    return random.integers(0, 9, count).tolist()


def csr(documents: list[dict[int, float]]) -> M3Vectors:
    return M3Vectors.from_rows(np.zeros((len(documents), 1)), documents, [[]] * len(documents))


def sparse_columns(query: dict[int, float], documents: list[dict[int, float]]) -> list[float]:
    vectors = csr(documents)
    return sparse_scores(csr([query])[0], vectors.sparse_ids, vectors.sparse_weights, vectors.sparse_offsets).tolist()


# dense


def test_the_dense_score_is_the_inner_product():
    query = np.array([0.5, -1.0], np.float32)
    documents = np.array([[1, 0], [0, 1], [-0.5, 1], [2, 1]], np.float32)
    assert dense_score(query, documents).tolist() == [0.5, -1.0, -1.25, 0.0]


def test_one_document_may_come_without_a_row():
    query = np.array([0.5, -1.0], np.float32)
    assert dense_score(query, np.array([2, 0], np.float32)).tolist() == [1.0]


def test_no_documents_have_no_dense_scores():
    result = dense_score(np.ones(4, np.float32), np.empty((0, 4), np.float32))
    assert (result.shape, result.dtype) == ((0,), np.float32)


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from([1, 3, 64, 1024]))
def test_the_dense_score_is_numpy_s_product_in_double_precision(seed, dim):
    random = np.random.default_rng(seed)
    query, documents = unit(random, 1, dim)[0], unit(random, 5, dim)
    expected = documents.astype(np.float64) @ query.astype(np.float64)
    np.testing.assert_allclose(dense_score(query, documents), expected, rtol=0, atol=2**-24)


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from([1, 3, 64, 1024]))
def test_the_cosine_of_a_vector_is_one_with_itself_and_never_more(seed, dim):
    random = np.random.default_rng(seed)
    documents = unit(random, 6, dim)
    scores = dense_score(documents[0], documents)
    assert scores[0] == pytest.approx(1, abs=1e-6)
    assert dense_score(documents[0], -documents)[0] == pytest.approx(-1, abs=1e-6)
    assert np.abs(scores).max() <= 1 + 1e-6


# sparse


def test_the_sparse_score_sums_the_products_of_shared_tokens():
    assert sparse_score({7: 0.5, 8: 1.0}, {7: 0.2}) == pytest.approx(0.1, abs=1e-15)
    assert sparse_score({7: 0.5, 8: 0.25, 9: 1.0}, {8: 0.5, 7: 0.5, 10: 1.0}) == 0.375


@pytest.mark.parametrize(("query", "document"), [({}, {}), ({1: 0.5}, {}), ({}, {1: 0.5}), ({1: 0.5}, {2: 0.5})])
def test_texts_that_share_no_token_score_zero(query, document):
    assert sparse_score(query, document) == 0
    assert sparse_columns(query, [document]) == [0]


def test_a_document_s_tokens_beyond_the_query_s_last_do_not_count():
    # searchsorted places them past the end, where they must not be taken for the query's first token
    assert sparse_columns({5: 0.5, 8: 0.25}, [{9: 1.0}, {1: 1.0}, {5: 1.0, 6: 1.0, 99: 1.0}, {8: 1.0}]) == [0, 0, 0.5, 0.25]


def test_sparse_scores_keep_documents_without_entries_in_their_place():
    assert sparse_columns({3: 0.5}, [{}, {3: 0.5}, {}, {}, {3: 1.0}, {}]) == [0, 0.25, 0, 0, 0.5, 0]


def test_no_documents_have_no_sparse_scores():
    assert sparse_columns({3: 0.5}, []) == []


@settings(max_examples=60, deadline=None)
@given(rows, rows)
def test_the_sparse_score_is_flagembedding_s_lexical_matching_score(m3_embedder, query, document):
    assert sparse_score(query, document) == m3_embedder.compute_lexical_matching_score(None, query, document)


@settings(max_examples=60, deadline=None)
@given(rows, st.lists(rows, max_size=8))
def test_sparse_scores_in_columns_are_the_sparse_scores_of_the_rows(query, documents):
    expected = [sparse_score(query, document) for document in documents]
    np.testing.assert_allclose(sparse_columns(query, documents), expected, rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(rows, rows)
def test_the_sparse_score_is_symmetric_and_never_negative(query, document):
    forth = sparse_score(query, document)
    assert forth == pytest.approx(sparse_score(document, query), rel=1e-12)
    assert 0 <= forth <= sum(query.values()) * max(document.values(), default=0) * (1 + 1e-12)


# colbert


def test_a_token_that_matches_nothing_counts_against():
    query, away = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32), np.array([[-1.0, 0.0]], np.float32)
    assert colbert_score(query, away) == -0.5  # a clamp or a padding row would make it 0


def test_the_colbert_score_is_the_mean_of_the_best_matches_of_the_query_s_tokens():
    query = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.float32)
    document = np.array([[0.5, 0], [0, 0.75]], np.float32)
    assert colbert_score(query, document) == (0.5 + 0.75 + 0 + 0) / 4
    assert colbert_score(document, query) == (0.5 + 0.75) / 2  # by the query's length, not the document's


def test_a_text_without_tokens_has_the_colbert_score_zero():
    none, some = np.empty((0, 2), np.float32), np.ones((3, 2), np.float32)
    assert colbert_score(none, some) == colbert_score(some, none) == colbert_score(none, none) == 0


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from([1, 2, 64, 384]), st.booleans())
def test_the_colbert_score_is_flagembedding_s(m3_embedder, seed, dim, opposed):
    random = np.random.default_rng(seed)
    query, document = unit(random, 1 + seed % 7, dim), unit(random, 1 + seed % 11, dim)
    if opposed:  # every match is negative: what a clamp at 0 would hide
        query, document = np.abs(query), -np.abs(document)
    expected = float(m3_embedder.colbert_score(None, query, document))
    assert colbert_score(query, document) == pytest.approx(expected, abs=1e-6)
    assert not opposed or colbert_score(query, document) < 0


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_the_order_of_tokens_does_not_matter(seed):
    random = np.random.default_rng(seed)
    query, document = unit(random, 7, 16), unit(random, 9, 16)
    shuffled = colbert_score(random.permutation(query), random.permutation(document))
    assert shuffled == pytest.approx(colbert_score(query, document), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_the_colbert_score_stays_within_the_cosine_s_bounds_and_is_one_for_a_text_with_itself(seed):
    random = np.random.default_rng(seed)
    query, document = unit(random, 5, 16), unit(random, 9, 16)
    assert abs(colbert_score(query, document)) <= 1 + 1e-6
    assert colbert_score(query, query.copy()) == pytest.approx(1, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_more_tokens_never_make_a_document_match_worse(seed):
    random = np.random.default_rng(seed)
    query, document = unit(random, 5, 16), unit(random, 9, 16)
    assert colbert_score(query, document) >= colbert_score(query, document[:4]) - 1e-6


def test_a_text_scored_with_itself_has_the_bits_of_its_copy():
    # NumPy computes x @ x.T by another routine than x @ copy.T, and its last bits differ
    random = np.random.default_rng(0)
    for size in range(2, 40):
        tokens = unit(random, size, 64)
        assert colbert_score(tokens, tokens) == colbert_score(tokens, tokens.copy())


def test_long_texts_are_scored_some_tokens_at_a_time(monkeypatch):
    random = np.random.default_rng(5)
    query, document = (random.integers(-4, 5, (count, 6)).astype(np.float32) for count in (31, 90))  # exact products
    whole = colbert_score(query, document)
    for limit in (1, 200, 90 * 31):
        monkeypatch.setattr(scoring, "BLOCK_VALUES", limit)
        assert max(block.size for block in scoring.token_similarities(query, document)) <= max(limit, 90)
        assert colbert_score(query, document) == whole


# all three


def test_score_gives_the_three_modes_in_their_order():
    query = M3Vectors.from_rows([[1, 0]], [{3: 0.5}], [[[1, 0], [0, 1]]])
    documents = M3Vectors.from_rows(
        [[0.25, 1], [-1, 0]],
        [{3: 0.5}, {4: 1.0}],
        [[[-1, 0]], []],
    )
    result = score(query, documents)
    assert result.dtype == np.float32
    assert result.tolist() == [[0.25, 0.25, -0.5], [-1, 0, 0]]


def test_no_documents_have_no_scores():
    assert score(texts(np.random.default_rng(0), 1), M3Vectors.empty(24)).shape == (0, 3)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_score_is_made_of_the_three_formulas(seed):
    random = np.random.default_rng(seed)
    query, documents = texts(random, 1), texts(random, 6)
    expected = [
        (
            float(dense_score(query.dense[0], document.dense)[0]),
            sparse_score(query.sparse_row(0), document.sparse_row(0)),
            colbert_score(query.colbert, document.colbert),
        )
        for document in documents
    ]
    np.testing.assert_allclose(score(query, documents), expected, rtol=1e-6, atol=1e-7)


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from([1, 3, 24, 384]))
def test_a_score_does_not_depend_on_batch_mates_to_the_last_bit(seed, dim):
    random = np.random.default_rng(seed)
    query, documents = texts(random, 1, dim), texts(random, 8, dim)
    together = score(query, documents)
    for row in range(len(documents)):
        assert score(query, documents.take([row])).tobytes() == together[row].tobytes()
    order = random.permutation(8)[: 2 + seed % 7]
    assert score(query, documents.take(order)).tobytes() == together[order].tobytes()


def test_scoring_changes_nothing_it_was_given():
    random = np.random.default_rng(0)
    query, documents = texts(random, 1), texts(random, 5)
    columns = [query.dense, query.sparse_weights, query.colbert, documents.dense, documents.sparse_ids, documents.colbert]
    before = [column.copy() for column in columns]
    score(query, documents)
    for column, copy in zip(columns, before, strict=True):
        np.testing.assert_array_equal(column, copy)
