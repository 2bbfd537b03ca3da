"""`search_by_vector`: what a text's vector finds is what the text finds in dense mode."""

import numpy as np
import pytest

from m3retriever import ChromaStore, Document, EncoderMismatchError, HashingEncoder, InvalidArgumentError, M3Index, MemoryStore
from m3retriever.stores import dense

DOCUMENTS = [
    Document("fox", "the red fox jumps", {"tenant": "a"}),
    Document("whale", "a blue whale sings", {"tenant": "b"}),
    Document("wine", "red red wine", {"tenant": "a"}),
    Document("empty", "", {"tenant": "b"}),
]


@pytest.fixture(params=["memory", "chroma"])
def index(request, tmp_path):
    store = MemoryStore() if request.param == "memory" else ChromaStore(tmp_path)
    with M3Index(HashingEncoder(), store) as opened:
        opened.add(DOCUMENTS)
        yield opened


def ids(hits):
    return [hit.document.id for hit in hits]


def test_a_vector_finds_what_its_text_finds_in_dense_mode(index):
    vector = index.encoder.encode_queries(["red fox"]).dense[0]
    dense = index.search("red fox", 3, mode="dense")
    for same_direction in (
        vector,
        vector.tolist(),
        vector * 1e30,
        vector.astype(np.float64) * 1e-200,
        7 * vector.astype(np.float64),
    ):
        hits = index.search_by_vector(same_direction, 3)
        assert ids(hits) == ids(dense)
        np.testing.assert_allclose([hit.score for hit in hits], [hit.score for hit in dense], atol=1e-6)
    for place, hit in enumerate(hits, start=1):
        assert (hit.scores, hit.ranks, hit.found_by) == ({"dense": hit.score}, {"dense": place}, {"dense"})
    assert index.search_by_vector(vector, 3, threshold=dense[0].score - 1e-5) == index.search_by_vector(vector, 1)
    assert len(index.search_by_vector(vector, 1000)) == len(DOCUMENTS)
    assert ids(index.search_by_vector(-vector))[-1] == ids(dense)[0]


def test_a_vector_with_a_large_k_is_scanned_and_with_hnsw_the_filters_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(dense, "EXACT_VALUES", 0)  # as if the collection were too large to scan
    words = np.random.default_rng(1).integers(0, 40, (300, 6))
    documents = [Document(f"{row:03}", " ".join(f"w{word}" for word in line), {"n": row % 3}) for row, line in enumerate(words)]
    with M3Index(HashingEncoder(), ChromaStore(tmp_path)) as index, M3Index(HashingEncoder(), MemoryStore()) as exact:
        for each in (index, exact):
            each.add(documents)
        vector = exact.encoder.encode_queries(["w1 w2 w3"]).dense[0]
        near, truth = index.search_by_vector(vector, 20), exact.search_by_vector(vector, 20)
        assert len(near) == 20
        assert len(set(ids(near)) & set(ids(truth))) >= 18
        for k, filters in ((20, {"where": {"n": 1}}), (20, {"where_document": {"$contains": "w7"}}), (1000, {})):
            theirs = exact.search_by_vector(vector, k, **filters)
            ours = index.search_by_vector(vector, k, **filters)
            assert ids(ours) == ids(theirs)
            np.testing.assert_allclose([hit.score for hit in ours], [hit.score for hit in theirs], atol=1e-6)


def test_a_vector_finds_nothing_in_an_empty_index(tmp_path):
    for store in (MemoryStore(), ChromaStore(tmp_path)):
        with M3Index(HashingEncoder(), store) as index:
            assert index.search_by_vector([1.0] * 256) == []
            assert index.search_diverse("red") == index.search("red") == []
            assert index.ids(where_document={"$contains": "red"}) == []
            with pytest.raises(EncoderMismatchError):
                index.search_by_vector([1.0] * 255)


NO_VECTORS = ["abc", b"abc", None, 3, [], {"dense": 1}, [1, "x"], [[1.0], [1.0, 2.0]], [[1.0] * 256]]
NO_VECTORS += [[value] * 256 for value in (0.0, float("nan"), None, 1j)] + [[1.0] * 255 + [float("inf")]]


@pytest.mark.parametrize("vector", NO_VECTORS, ids=lambda vector: ascii(vector)[:20])
def test_what_is_no_vector_is_refused(index, vector):
    with pytest.raises(InvalidArgumentError, match="a dense vector (is one row of finite|must be real) numbers"):
        index.search_by_vector(vector)


def test_a_vector_of_another_length_or_a_number_that_is_none_is_refused(index):
    with pytest.raises(EncoderMismatchError, match="dimension 256; the query has 255"):
        index.search_by_vector([1.0] * 255)
    for k in (0, True, "3", None, 2.0):
        with pytest.raises(InvalidArgumentError, match="k must be an integer >= 1"):
            index.search_by_vector([1.0] * 256, k)
    with pytest.raises(InvalidArgumentError, match="threshold must be"):
        index.search_by_vector([1.0] * 256, threshold=float("nan"))
