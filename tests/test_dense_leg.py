"""When the dense leg scans and when it asks HNSW, and that neither changes what is found."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest

from m3retriever import ChromaStore, Document, HashingEncoder, InvalidArgumentError, M3Vectors, MemoryStore, StoreError
from m3retriever.stores import dense
from m3retriever.stores.connection import Connection

DIM, COUNT = 32, 1500


def units(random: np.random.Generator, count: int) -> np.ndarray:
    vectors = random.standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def vectors_of(rows: np.ndarray) -> M3Vectors:
    nothing = np.empty((0, DIM), np.float32)
    return M3Vectors.from_rows(rows, [{}] * len(rows), [nothing] * len(rows))


def filled(store, count: int = COUNT, first: int = 0):
    rows = units(np.random.default_rng(first), count)
    documents = [Document(f"d{first + row}", "x", {"n": row, "even": row % 2 == 0}) for row in range(count)]
    store.add(documents, vectors_of(rows))
    return store


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many ids HNSW was asked for, call by call; every collection is too large to scan."""
    counts, real = [], Connection.nearest

    def nearest(self, vector, count):
        counts.append(count)
        return real(self, vector, count)

    monkeypatch.setattr(Connection, "nearest", nearest)
    monkeypatch.setattr(dense, "EXACT_VALUES", 0)
    return counts


QUERY = vectors_of(units(np.random.default_rng(99), 1))


def test_what_is_not_offered_is_refused(tmp_path):
    with pytest.raises(InvalidArgumentError, match="auto, exact, hnsw; got 'fast'"):
        ChromaStore(tmp_path, dense="fast")


def test_a_small_collection_is_scanned(tmp_path, monkeypatch):
    monkeypatch.setattr(Connection, "nearest", lambda *_: pytest.fail("HNSW may miss some"))
    store = filled(ChromaStore(tmp_path))
    assert set(store.search(QUERY, depth=10).ids) == set(filled(MemoryStore()).search(QUERY, depth=10).ids)


def test_a_large_one_asks_hnsw_after_its_recall_was_measured_and_written_down(tmp_path, asked):
    store = filled(ChromaStore(tmp_path))
    assert asked == [dense.RECALL_AT] * dense.RECALL_SAMPLE, "measured once, by who wrote"
    with store._payload.read() as snapshot:
        documents, recall = snapshot.meta(dense.RECORD).split()
    assert int(documents) == COUNT
    assert float(recall) >= dense.LEAST_RECALL
    store.close()
    asked.clear()
    reader = ChromaStore(tmp_path, read_only=True)
    found = reader.search(QUERY, depth=10)
    assert asked == [15]
    assert set(found.ids) == set(filled(MemoryStore()).search(QUERY, depth=10).ids)
    reader.close()


def test_recall_is_measured_again_when_the_collection_has_grown_by_much(tmp_path, asked):
    store = filled(ChromaStore(tmp_path), 800)
    for first, measured in ((800, False), (900, False), (1000, True)):
        asked.clear()
        filled(store, 100, first)
        assert bool(asked) is measured, f"at {first + 100} documents"
    store.close()


def test_poor_recall_means_a_scan(tmp_path, asked, monkeypatch):
    store, exact = filled(ChromaStore(tmp_path)), filled(MemoryStore())
    store._dense._measured = COUNT, 0.5
    with store._payload.read() as snapshot:
        assert dense._recorded(snapshot)[0] == COUNT
    asked.clear()
    assert set(store.search(QUERY, depth=10).ids) == set(exact.search(QUERY, depth=10).ids)
    assert asked == []
    store.close()
    by_hnsw = ChromaStore(tmp_path, dense="hnsw")
    by_hnsw._dense._measured = COUNT, 0.5
    by_hnsw.search(QUERY, depth=10)
    assert asked == [15], "it can be overridden"
    by_hnsw.close()


def test_recall_tells_a_poor_index_from_a_good_one(tmp_path):
    store = filled(ChromaStore(tmp_path))
    with store._payload.read() as snapshot:
        good = dense.measured_recall(snapshot, store._connection.nearest)
        half = dense.measured_recall(snapshot, lambda vector, count: store._connection.nearest(vector, count)[::2])
        none = dense.measured_recall(snapshot, lambda *_: ["nobody"])
    assert good >= 0.99
    assert half == pytest.approx(0.5, abs=0.02)
    assert none == 0
    store.close()


def test_exact_never_asks_hnsw(tmp_path, asked):
    store = filled(ChromaStore(tmp_path, dense="exact"))
    assert set(store.search(QUERY, depth=10).ids) == set(filled(MemoryStore()).search(QUERY, depth=10).ids)
    assert asked == []
    store.close()


def test_a_filter_that_lets_many_through_asks_hnsw_for_more_and_a_selective_one_scans(tmp_path, asked):
    store, exact = filled(ChromaStore(tmp_path)), filled(MemoryStore())
    asked.clear()
    for where, wanted in (({"even": True}, [30]), ({"n": {"$lt": 15}}, [])):
        found = store.search(QUERY, depth=10, where=where)
        assert set(found.ids) == set(exact.search(QUERY, depth=10, where=where).ids)
        assert asked == wanted
        asked.clear()
    store.close()


def test_a_filter_against_the_query_is_answered_in_full(tmp_path, asked):
    """All that HNSW brings in is filtered away: the rest is scanned."""
    store, exact = filled(ChromaStore(tmp_path)), filled(MemoryStore())
    near = exact.search(QUERY, depth=100).ids
    where = {"n": {"$nin": [int(id[1:]) for id in near]}}
    assert set(store.search(QUERY, depth=10, where=where).ids) == set(exact.search(QUERY, depth=10, where=where).ids)
    store.close()


@pytest.mark.parametrize("values", [0, 1 << 30], ids=["hnsw", "scan"])
def test_eight_threads_get_the_bits_that_one_gets(tmp_path, monkeypatch, values):
    monkeypatch.setattr(dense, "EXACT_VALUES", values)
    random = np.random.default_rng(5)
    encoder = HashingEncoder(DIM)
    texts = [" ".join(f"w{word}" for word in random.integers(0, 300, 12)) for _ in range(COUNT)]
    queries = [encoder.encode_queries([" ".join(f"w{word}" for word in random.integers(0, 300, 5))]) for _ in range(40)]
    with closing(ChromaStore(tmp_path)) as store:
        store.add(
            [Document(f"d{row}", text, {"even": row % 2 == 0}) for row, text in enumerate(texts)],
            encoder.encode_documents(texts),
        )

        def answer(number: int) -> tuple:
            found = store.search(queries[number % 40], depth=30, where=[None, {"even": True}][number % 2])
            return found.ids, found.values.tobytes(), found.found_by

        alone = [answer(number) for number in range(40)]
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(answer, range(400))) == alone * 10


def test_filters_hold_without_the_compiled_loops_too(tmp_path, monkeypatch):
    from m3retriever.kernels import native

    encoder = HashingEncoder(DIM)
    texts = [f"w{row} w{row % 7} fox" for row in range(45)]
    found = {}
    for name in ("compiled", "numpy"):
        if name == "numpy":
            monkeypatch.setattr(native, "LIBRARY", None)
        with closing(ChromaStore(tmp_path / name)) as store:
            documents = [Document(f"d{row}", text, {"even": row % 2 == 0}) for row, text in enumerate(texts)]
            store.add(documents, encoder.encode_documents(texts))
            store.delete(["d44"])
            found[name] = [
                (scores.ids, scores.values.tobytes(), scores.found_by)
                for where in (None, {"even": True}, {"even": False})
                for scores in [store.search(encoder.encode_queries(["w3 w5 fox"]), depth=5, where=where)]
            ]
    assert found["compiled"] == found["numpy"]


def test_what_was_stored_is_stored_though_recall_could_not_be_measured(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(dense, "EXACT_VALUES", 0)

    def broken(*_):
        raise StoreError("Chroma failed to query")

    monkeypatch.setattr(Connection, "nearest", broken)
    with closing(filled(ChromaStore(tmp_path), 100)) as store:
        assert len(store) == 100
    assert "recall of Chroma's vector index could not be measured" in caplog.text


def test_a_collection_made_for_small_depths_is_scanned(tmp_path, asked):
    with closing(filled(ChromaStore(tmp_path))) as store:
        asked.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Connection, "ef_search", property(lambda _: 150))
            store.search(QUERY, depth=5)
        assert asked == []


def test_an_older_measurement_does_not_take_the_place_of_a_newer_one(tmp_path, asked):
    with closing(filled(ChromaStore(tmp_path))) as store:
        store._dense._measured = 3, 0.5  # of this process, when the collection was small
        with store._payload.read() as snapshot:
            assert store._dense.to_record(snapshot, store._hnsw(snapshot), 800) is None
            assert store._dense.recall(snapshot, store._hnsw(snapshot)) >= 0.99
