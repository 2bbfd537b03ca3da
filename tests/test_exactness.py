"""What the approximate search and the stored bits cost, where it is known beforehand."""

import numpy as np
import pytest

from m3retriever import ChromaStore, Document, HashingEncoder, M3Index, MemoryStore, Profile
from m3retriever.exactness import exactness

WORDS = ["red", "blue", "fox", "whale", "wine", "crow", "night", "water"]
DOCUMENTS = [Document(f"{a} {b}", f"{a} {b} and {a}") for a in WORDS for b in WORDS]
QUERIES = {"1": "red fox", "2": "blue whale at night", "3": "water"}


def test_an_exact_store_loses_nothing():
    index = M3Index(HashingEncoder(), MemoryStore())
    index.add(DOCUMENTS)
    found = exactness(index, QUERIES)
    assert (found.questions, found.k) == (3, 10)
    assert set(found.found.values()) == {1.0}
    assert (found.kept, found.difference) == (1, pytest.approx(0, abs=1e-6))


def test_a_shallow_search_is_seen_to_lose_what_it_does_not_look_at():
    index = M3Index(HashingEncoder(), MemoryStore(), Profile(depth=2))
    index.add(DOCUMENTS)
    for mode, share in exactness(index, QUERIES).found.items():
        losses = []
        for text in QUERIES.values():
            deep = {hit.document.id for hit in M3Index(index.encoder, index.store).search(text, 10, mode=mode)}
            near = index.score(text)
            losses.append(len(deep & set(near.ids)) / len(deep))
        assert share == pytest.approx(np.mean(losses))
        assert share < 1


def test_eight_bits_cost_a_little_and_that_is_measured(tmp_path):
    index = M3Index(HashingEncoder(), ChromaStore(tmp_path))
    index.add(DOCUMENTS)
    found = exactness(index, QUERIES)
    assert 0 < found.difference < 2e-3
    assert found.kept > 0.8
    index.close()


def test_without_questions_or_documents_nothing_is_lost():
    index = M3Index(HashingEncoder(), MemoryStore())
    assert exactness(index, QUERIES).kept == 1
    assert exactness(index, {}).questions == 0
