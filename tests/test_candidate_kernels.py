"""The loops that find candidates: posting lists term at a time, and a scan of int8 codes with its bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3retriever.kernels import (
    SEGMENT,
    best_postings,
    join_posting,
    native,
    quantize,
    residual_norms,
    rough_products,
    split_posting,
)
from m3retriever.kernels.codes import QueryCodes, dequantize
from m3retriever.kernels.scanning import error_bounds
from m3retriever.stores.snapshot import CHUNK, DenseCodes

seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(params=["compiled", "numpy"])
def loops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "numpy":
        monkeypatch.setattr(native, "LIBRARY", None)
    return request.param


def posting(slots: list[int], weights: list[float]) -> bytes:
    return np.array(slots, "<u2").tobytes() + np.array(weights, "<f4").tobytes()


def found(lists, segments, weights, depth, *, slots, allowed=None) -> dict[int, float]:
    places, scores = best_postings(lists, np.array(segments), np.array(weights), depth, slots=slots, allowed=allowed)
    assert scores.dtype == np.float32
    return dict(zip(places.tolist(), scores.tolist(), strict=True))


def test_sums_by_hand(loops):
    lists = [posting([1, 3], [0.5, 0.25]), posting([3, 2], [1, 2]), posting([0], [4])]
    got = found(lists, [0, 0, 1], [1.0, 0.5, 0.125], 10, slots=SEGMENT + 1)
    assert got == {1: 0.5, 3: 0.75, 2: 1.0, SEGMENT: 0.5}


def test_what_ties_with_the_last_is_among_them_and_what_is_below_need_not_be(loops):
    lists = [posting([5, 6, 7, 8, 9], [3, 2, 2, 2, 1])]
    assert set(found(lists, [0], [1.0], 2, slots=10)) >= {5, 6, 7, 8}
    assert set(found(lists, [0], [1.0], 1, slots=10)) >= {5}


def test_only_allowed_slots_with_a_score_above_zero_count(loops):
    lists = [posting([0, 1, 2], [1, 1, 0])]
    assert set(found(lists, [0], [1.0], 9, slots=3)) == {0, 1}
    assert set(found(lists, [0], [1.0], 9, slots=3, allowed=np.array([False, True, True]))) == {1}
    assert found([], [], [], 9, slots=3) == {}
    assert found(lists, [0], [0.0], 9, slots=3) == {}


def test_lists_grow_at_their_end_and_come_apart_again():
    grown = join_posting(posting([1, 2], [0.5, 1]), np.array([7], "<u2").tobytes(), np.array([3], "<f4").tobytes())
    assert grown == posting([1, 2, 7], [0.5, 1, 3])
    places, weights = split_posting(grown)
    assert (places.tolist(), weights.tolist()) == ([1, 2, 7], [0.5, 1, 3])
    assert [len(part) for part in split_posting(b"")] == [0, 0]


@settings(max_examples=120, deadline=None)
@given(
    seed=seeds, depth=st.integers(1, 300), segments=st.integers(1, 4), share=st.sampled_from([1e-4, 0.01, 0.3, 1.0]),
    levels=st.sampled_from([1, 3, 1000]), filtered=st.booleans(),
)  # fmt: skip
def test_the_best_are_found_with_the_bits_of_a_plain_sum(seed, depth, segments, share, levels, filtered):
    random = np.random.default_rng(seed)
    slots = (segments - 1) * SEGMENT + int(random.integers(1, SEGMENT))
    allowed = random.random(slots) < 0.5 if filtered else None
    lists, owners, weights, total = [], [], [], np.zeros(slots)
    for segment in range(segments):
        size = min(SEGMENT, slots - segment * SEGMENT)
        for _ in range(int(random.integers(1, 5))):
            places = np.flatnonzero(random.random(size) < share)
            random.shuffle(places)
            values = (random.integers(1, levels + 1, len(places)) / levels).astype(np.float32)
            lists.append(places.astype("<u2").tobytes() + values.tobytes())
            owners.append(segment)
            weights.append(float(np.float32(random.random())))
            total[places + segment * SEGMENT] += values.astype(np.float64) * weights[-1]
    expected = total.astype(np.float32)
    counted = np.flatnonzero((expected > 0) & (allowed if filtered else True))
    if filtered:  # a mask may be longer than there are slots, or shorter: what is beyond it does not count
        allowed = np.concatenate([allowed, np.ones(5, bool)])[: slots + 5 - 8 * (depth % 2)]
        counted = counted[counted < len(allowed)]
    got = found(lists, owners, weights, depth, slots=slots, allowed=allowed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "LIBRARY", None)
        everything = found(lists, owners, weights, depth, slots=slots, allowed=allowed)
    assert everything == {slot: float(expected[slot]) for slot in counted.tolist()}
    border = np.sort(expected[counted])[-depth] if len(counted) > depth else 0
    assert set(got) >= {slot for slot in counted.tolist() if expected[slot] >= border}
    assert set(got) <= set(counted.tolist())
    assert all(np.float32(score) == expected[slot] for slot, score in got.items())


def test_a_damaged_list_is_no_crash():
    odd = posting([1, 2], [1, 1])[:-1] + b"\xff\xff\xff"
    for value in (odd, b"\xff" * 60_000, b"x"):
        places, _ = best_postings([value], np.zeros(1, np.int64), np.ones(1), 5, slots=3, allowed=None)
        assert (places < SEGMENT).all()


def chunk_of(vectors: np.ndarray) -> DenseCodes:
    chunk = DenseCodes.empty(vectors.shape[1]).copy()
    chunk.put(np.arange(len(vectors)), vectors)
    return chunk


@settings(max_examples=100, deadline=None)
@given(seed=seeds, dim=st.integers(1, 300), size=st.sampled_from([1e-6, 1.0, 1e6]), spread=st.sampled_from([0.0, 1e-3, 1.0]))
def test_a_rough_product_is_off_by_no_more_than_it_says(seed, dim, size, spread):
    random = np.random.default_rng(seed)
    center = random.standard_normal(dim)
    vectors = ((center + spread * random.standard_normal((2 * CHUNK, dim))) * size).astype(np.float32)
    query = (center + spread * random.standard_normal(dim)).astype(np.float32)
    wanted = [np.sort(random.choice(CHUNK, int(random.integers(1, CHUNK)), replace=False)) for _ in range(2)]
    bounds = np.cumsum([0, *map(len, wanted)])
    chunks = [chunk_of(vectors[:CHUNK]), chunk_of(vectors[CHUNK:])]
    rough, error = rough_products(query, chunks, bounds, np.concatenate(wanted))
    exact = np.concatenate([vectors[:CHUNK][wanted[0]], vectors[CHUNK:][wanted[1]]]).astype(np.float64) @ query.astype(
        np.float64
    )
    assert (np.abs(rough - exact) <= error).all()
    with pytest.MonkeyPatch.context() as patch:
        for level in range(native.LEVEL + 1):
            patch.setattr(native, "LEVEL", level)
            assert rough_products(query, chunks, bounds, np.concatenate(wanted))[0].tobytes() == rough.tobytes()
        patch.setattr(native, "LIBRARY", None)
        assert rough_products(query, chunks, bounds, np.concatenate(wanted))[0].tobytes() == rough.tobytes()


def test_the_bound_is_tight_enough_to_leave_few(loops):
    random = np.random.default_rng(0)
    vectors = random.standard_normal((CHUNK, 1024)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    codes, scales = quantize(vectors)
    residuals = residual_norms(vectors, codes, scales)
    np.testing.assert_allclose(residuals, np.linalg.norm(vectors - dequantize(codes, scales), axis=1), rtol=0.01)
    assert error_bounds(vectors[0], QueryCodes.of(vectors[:1]), scales, residuals).max() < 0.012, "of a cosine in [-1, 1]"


def test_nothing_wanted_is_nothing_scanned(loops):
    rough, error = rough_products(np.ones(4, np.float32), [], np.zeros(1, np.int64), np.empty(0, np.int64))
    assert (len(rough), len(error)) == (0, 0)


def test_the_compiled_scan_refuses_rows_outside_their_chunk():
    chunk, query = chunk_of(np.ones((CHUNK, 4), np.float32)), QueryCodes.of(np.ones((1, 4), np.float32))
    for wanted, bounds in (([CHUNK], [0, 1]), ([-1], [0, 1]), ([0], [0, 2]), ([0], [1, 1]), ([0, 1], [0, 1])):
        out = np.empty(len(wanted), np.float32)
        with pytest.raises(ValueError, match="fit"):
            native.LIBRARY.scan(
                [chunk.codes], [chunk.scales], 4, query.codes, query.coarse, query.fine, out,
                np.array(bounds, np.int64), np.array(wanted, np.int64), 1, 0,
            )  # fmt: skip


@pytest.mark.parametrize(("segments", "depth"), [([1, 0], 1), ([-1, 0], 1), ([0, 0], 0)])
def test_the_compiled_search_refuses_segments_out_of_order_and_no_depth(segments, depth):
    lists = [posting([1], [1]), posting([2], [1])]
    with pytest.raises(ValueError, match="segments must ascend|depth must be"):
        native.LIBRARY.best_postings(lists, np.array(segments, np.int64), np.ones(2), None, depth, 1)


def test_sums_next_to_zero_tie_as_in_numpy(loops):
    assert set(found([posting([0, 1], [4.2e-45, 2.8e-45])], [0], [0.3], 1, slots=2)) == {0, 1}


@pytest.mark.parametrize(
    ("given", "threads"),
    [("3", 3), ("4,2", 4), ("99999999999", native.MOST_THREADS), ("\u00b2", None), ("0", None), ("", None)],
)
def test_threads_are_read_from_the_environment_as_far_as_they_make_sense(monkeypatch, given, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv(native.THREADS, given)
    assert native.threads() == threads or (threads is None and native.threads() >= 1)
