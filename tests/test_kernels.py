"""int8 codes and MaxSim over them: how near to the exact score, and independent of how the work is cut."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from m3retriever.kernels import codes as codes_of_vectors
from m3retriever.kernels import dequantize, matching, maxsim, maxsim_int8, native, quantize
from m3retriever.kernels.codes import QueryCodes, int8_product
from m3retriever.scoring import colbert_score
from m3retriever.vectors import offsets

seeds = st.integers(0, 2**32 - 1)
needs_torch_product = pytest.mark.skipif(
    not codes_of_vectors._torch_is_exact(), reason="torch's int8 product is missing or wrong on this processor"
)
COMPILED = [pytest.param(name, id=name.replace(" ", "-")) for name in native.ENGINES[: native.LEVEL + 1] if native.LIBRARY]
DOCUMENT_SIZES = [3, 0, 17, 1, 0, 0, 40, 8, 128, 2, 0]
FILLED = [row for row, size in enumerate(DOCUMENT_SIZES) if size]


def unit(random: np.random.Generator, count: int, dim: int) -> np.ndarray:
    vectors = random.normal(size=(count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Corpus:
    """Random documents, some without tokens, and their codes."""

    def __init__(self, dim: int, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.documents = [unit(random, size, dim) for size in DOCUMENT_SIZES]
        self.codes, self.scales = quantize(np.concatenate(self.documents))
        self.offsets = offsets(DOCUMENT_SIZES)

    def scores(self, query: np.ndarray) -> np.ndarray:
        return maxsim_int8(query, self.codes, self.scales, self.offsets)

    def alone(self, query: np.ndarray, row: int) -> np.ndarray:
        part = slice(self.offsets[row], self.offsets[row + 1])
        return maxsim_int8(query, self.codes[part], self.scales[part], offsets([DOCUMENT_SIZES[row]]))


def use(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the loops run by one of the ways that this processor has."""
    if engine in native.ENGINES:
        monkeypatch.setattr(native, "LEVEL", native.ENGINES.index(engine))
        return
    monkeypatch.setattr(native, "LIBRARY", None)
    if engine == "numpy":
        monkeypatch.setattr(codes_of_vectors, "_torch_is_exact", lambda: False)


@pytest.fixture(params=[*COMPILED, pytest.param("torch", marks=needs_torch_product), "numpy"])
def product(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the ways to multiply codes, where this processor has it."""
    use(request.param, monkeypatch)
    return request.param


def test_the_compiled_loops_were_built_here():
    assert native.LIBRARY is not None, "without them nothing below compares them; is there a C compiler?"
    assert native.engine() in native.ENGINES


def test_codes_and_scale_by_hand():
    codes, scales = quantize(np.array([[1.27, -0.64, 0.004, 0], [0, -2.54, 0.02, 1.27]], np.float32))
    assert codes.tolist() == [[127, -64, 0, 0], [0, -127, 1, 64]]  # 63.5 goes to the even neighbour
    assert (codes.dtype, scales.dtype) == (np.int8, np.float32)
    np.testing.assert_allclose(scales, [0.01, 0.02], rtol=1e-6)
    np.testing.assert_allclose(dequantize(codes, scales), [[1.27, -0.64, 0, 0], [0, -2.54, 0.02, 1.28]], rtol=1e-6)


def test_a_row_of_zeros_has_scale_zero_and_stays_zero():
    codes, scales = quantize(np.array([[0, 0], [0, 1]], np.float32))
    assert codes[0].tolist() == [0, 0]
    assert scales[0] == 0
    assert dequantize(codes, scales).tolist() == [[0, 0], [0, 1]]


def test_no_rows_have_no_codes():
    codes, scales = quantize(np.empty((0, 8), np.float32))
    assert (codes.shape, scales.shape, dequantize(codes, scales).shape) == ((0, 8), (0,), (0, 8))


@settings(max_examples=100, deadline=None)
@given(seeds, st.integers(1, 70), st.floats(1e-20, 1e20))
def test_every_value_comes_back_within_half_a_step(seed, dim, size):
    random = np.random.default_rng(seed)
    vectors = (random.normal(size=(5, dim)) * size).astype(np.float32)
    codes, scales = quantize(vectors)
    np.testing.assert_allclose(scales, np.abs(vectors).max(axis=1) / 127, rtol=1e-6)
    half_a_step = scales[:, None] / 2 * (1 + 1e-5)  # float32 rounds the quotient and the product
    assert (np.abs(dequantize(codes, scales) - vectors) <= half_a_step).all()
    assert np.abs(codes.astype(int)).max(axis=1).tolist() == [127] * 5  # -128 would have no counterpart


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_codes_are_negated_with_their_vector(seed):
    vectors = unit(np.random.default_rng(seed), 4, 32)
    assert quantize(-vectors)[0].tolist() == (-quantize(vectors)[0]).tolist()


@pytest.mark.parametrize(("dim", "tolerance"), [(1024, 5e-4), (64, 2e-3)])
@pytest.mark.parametrize("tokens", [1, 8, 200])
def test_maxsim_over_codes_is_near_the_exact_score(product, dim, tolerance, tokens):
    corpus, query = Corpus(dim), unit(np.random.default_rng(1), tokens, dim)
    exact = [colbert_score(query, document) for document in corpus.documents]
    scores = corpus.scores(query)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, exact, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dim", [64, 1024])
def test_the_documents_codes_are_the_only_loss(product, dim):
    corpus, query = Corpus(dim), unit(np.random.default_rng(1), 9, dim)
    held = [dequantize(*quantize(document)) for document in corpus.documents]
    exact = [colbert_score(query, document) for document in held]
    np.testing.assert_allclose(corpus.scores(query), exact, rtol=0, atol=2e-5)  # the query keeps about 15 bits


def test_a_match_by_hand_may_be_negative(product):
    codes, scales = quantize(np.array([[-1, 0], [0, -1], [1, 0], [0, 0.5]], np.float32))
    scores = maxsim_int8(np.array([[1, 0], [0, 1]], np.float32), codes, scales, offsets([1, 1, 2]))
    np.testing.assert_allclose(scores, [-0.5, -0.5, 0.75], atol=1e-6)  # a clamp or padding would make the first two 0


def test_empty_documents_score_zero(product):
    corpus, query = Corpus(64), -np.ones((3, 64), np.float32) / 8
    scores = corpus.scores(query)
    assert [scores[row] for row, size in enumerate(DOCUMENT_SIZES) if not size] == [0] * 4
    assert (scores[FILLED] != 0).all()


def test_without_tokens_or_documents_there_is_nothing_to_score():
    corpus = Corpus(64)
    assert corpus.scores(np.empty((0, 64), np.float32)).tolist() == [0] * len(DOCUMENT_SIZES)
    empty = np.empty((0, 64), np.int8), np.empty(0, np.float32)
    assert maxsim_int8(np.ones((2, 64), np.float32), *empty, offsets([0, 0])).tolist() == [0, 0]
    assert maxsim_int8(np.ones((2, 64), np.float32), *empty, offsets([])).shape == (0,)


@pytest.mark.parametrize("dim", [5, 64, 384, 1041])
@pytest.mark.parametrize("tokens", [1, 9, 150])
def test_a_score_does_not_depend_on_the_other_documents_to_the_last_bit(product, dim, tokens):
    corpus, query = Corpus(dim), unit(np.random.default_rng(1), tokens, dim)
    together = corpus.scores(query)
    for row in range(len(DOCUMENT_SIZES)):
        assert corpus.alone(query, row).tobytes() == together[row].tobytes()


@pytest.mark.parametrize("elements", [1, 50, 500, 5000, 1 << 30])
def test_the_size_of_blocks_does_not_change_a_bit(product, monkeypatch, elements):
    corpus, query = Corpus(64), unit(np.random.default_rng(1), 9, 64)
    before = corpus.scores(query)
    monkeypatch.setattr(matching, "BLOCK_ELEMENTS", elements)
    assert corpus.scores(query).tobytes() == before.tobytes()


@pytest.mark.parametrize("tokens", [1, 7, 149, 1000])
def test_the_number_of_query_tokens_at_a_time_does_not_change_a_bit(product, monkeypatch, tokens):
    corpus, query = Corpus(64), unit(np.random.default_rng(1), 150, 64)
    before = corpus.scores(query)
    monkeypatch.setattr(matching, "QUERY_BLOCK", tokens)
    assert corpus.scores(query).tobytes() == before.tobytes()


@pytest.mark.parametrize("tokens", [1, 4, 16, 30, 1000])
def test_blocks_cover_every_document_once_and_never_none(tokens):
    starts = offsets(DOCUMENT_SIZES)[FILLED]
    blocks = list(matching._blocks(starts, tokens))
    assert [row for block in blocks for row in range(block.start, block.stop)] == list(range(len(starts)))
    assert all(starts[block.stop - 1] - starts[block.start] < tokens for block in blocks)


@needs_torch_product
@pytest.mark.parametrize("dim", [64, 1024, 1040, 1041, 2048])
def test_numpy_s_and_torch_s_products_are_the_same_whole_numbers(monkeypatch, dim):
    random = np.random.default_rng(dim)
    left = random.integers(-127, 128, (19, dim)).astype(np.int8)
    right = random.integers(-127, 128, (7, dim)).astype(np.int8)
    left[0], left[1], right[0], right[1] = 127, -127, 127, -127  # the largest sums there are
    left[2], left[2, 0] = 127, 126  # and one next to them, which a rounding to even would lose
    expected = left.astype(np.int64) @ right.astype(np.int64).T
    by_torch = int8_product(left, right)
    monkeypatch.setattr(codes_of_vectors, "_torch_is_exact", lambda: False)
    by_numpy = int8_product(left, right)
    assert by_numpy.tolist() == expected.tolist()
    assert by_numpy.dtype == by_torch.dtype
    assert by_numpy.tobytes() == by_torch.tobytes()


@pytest.mark.parametrize("dim", [1, 5, 31, 64, 100, 384, 1024, 1040, 2048])
@pytest.mark.parametrize("tokens", [1, 7, 8, 17, 33, 130])
def test_every_way_gives_the_same_score_to_the_last_bit(product, monkeypatch, dim, tokens):
    corpus, query = Corpus(dim), unit(np.random.default_rng(1), tokens, dim)
    scores = corpus.scores(query)
    use("numpy", monkeypatch)
    assert corpus.scores(query).tobytes() == scores.tobytes()


@settings(max_examples=150, deadline=None)
@given(seed=seeds, dim=st.integers(1, 200), tokens=st.integers(1, 70), spread=st.sampled_from([0.0, 1e-4, 1e-2, 1.0, 1e3]))
def test_rows_that_are_hard_to_tell_apart_are_matched_alike_by_the_compiled_loops(seed, dim, tokens, spread):
    """Only rows near the best are looked at in full: how near is decided here, by rows that differ by little or nothing."""
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 130, 4)
    center = random.standard_normal(dim)
    documents = [quantize((center + spread * random.standard_normal((size, dim))).astype(np.float32)) for size in sizes]
    scales = 10.0 ** random.integers(-20, 10, (tokens, 1))
    query = QueryCodes.of(((center + spread * random.standard_normal((tokens, dim))) * scales).astype(np.float32))
    expected = matching.best_matches_in_numpy(query, documents)
    for level in range(native.LEVEL + 1):
        best = np.empty_like(expected)
        codes, steps = zip(*documents, strict=True)
        native.LIBRARY.best_matches(codes, steps, dim, query.codes, query.coarse, query.fine, best, 2, level)
        assert best.tobytes() == expected.tobytes()


@settings(max_examples=150, deadline=None)
@given(seed=seeds, dim=st.integers(1, 150), size=st.sampled_from([0.0, 1e-45, 1e-40, 1e-30, 1.0, 1e30]))
def test_compiled_codes_are_those_of_numpy(seed, dim, size):
    random = np.random.default_rng(seed)
    vectors = (random.standard_normal((6, dim)) * size).astype(np.float32)
    vectors[1] = np.round(vectors[1])  # many ties
    vectors[2, 0] = vectors[2].max() * 2
    compiled = quantize(vectors)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "LIBRARY", None)
        for ours, theirs in zip(compiled, quantize(vectors), strict=True):
            assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("threads", ["1", "2", "7", "64"])
def test_the_number_of_threads_does_not_change_a_bit(monkeypatch, threads):
    random = np.random.default_rng(3)
    documents = [quantize(unit(random, size, 256)) for size in random.integers(1, 90, 300)]
    query = unit(random, 20, 256)
    monkeypatch.setenv(native.THREADS, "3")
    before = maxsim(query, documents)
    monkeypatch.setenv(native.THREADS, threads)
    assert native.threads() == int(threads)
    assert maxsim(query, documents).tobytes() == before.tobytes()


def test_codes_at_odd_addresses_are_read_right(product):
    random = np.random.default_rng(4)
    codes, scales = quantize(unit(random, 9, 64))
    raw = np.frombuffer(b"xyz" + scales.tobytes() + codes.tobytes(), np.uint8)
    moved = np.frombuffer(raw, np.int8, 9 * 64, 3 + 4 * 9).reshape(9, 64), np.frombuffer(raw, "<f4", 9, 3)
    query = unit(random, 5, 64)
    assert maxsim(query, [moved]).tobytes() == maxsim(query, [(codes, scales)]).tobytes()


@pytest.mark.parametrize(
    "change",
    [
        {"dim": 0},
        {"dim": 7},
        {"scales": [np.ones(1, np.float32)]},
        {"scales": []},
        {"out": np.empty((1, 3), np.float32)},
        {"level": 9},
        {"fine": np.ones(1, np.float32)},
    ],
)
def test_the_compiled_loops_refuse_sizes_that_do_not_fit(change):
    given = {
        "codes": [np.ones((2, 8), np.int8)], "scales": [np.ones(2, np.float32)], "dim": 8, "query": np.ones((4, 8), np.int8),
        "coarse": np.ones(2, np.float32), "fine": np.ones(2, np.float32), "out": np.empty((1, 2), np.float32), "threads": 1,
        "level": 0,
    }  # fmt: skip
    native.LIBRARY.best_matches(*given.values())
    with pytest.raises(ValueError, match="must|fit"):
        native.LIBRARY.best_matches(*(given | change).values())


def test_codes_read_in_place_are_scored_without_a_warning(product):
    corpus, query = Corpus(64), unit(np.random.default_rng(1), 9, 64)
    before = corpus.scores(query)
    corpus.codes = np.frombuffer(corpus.codes.tobytes(), np.int8).reshape(corpus.codes.shape)
    torch.set_warn_always(True)  # it would warn once in a process, perhaps in an earlier test
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert corpus.scores(query).tobytes() == before.tobytes()
    finally:
        torch.set_warn_always(False)
