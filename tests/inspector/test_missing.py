"""Why a document is missing: the stage, the gap, and remedies that do bring it in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3retriever import Document, HashingEncoder, M3Index, MemoryStore, Profile, Weights
from m3retriever.inspector.analysis import missing

WORDS = [f"w{number}" for number in range(25)]


def index_of(seed, depth=200, size=60):
    random = np.random.default_rng(seed)
    index = M3Index(HashingEncoder(), MemoryStore(), Profile(depth=depth))
    index.add([Document(str(number), " ".join(random.choice(WORDS, 5)), {"even": number % 2 == 0}) for number in range(size)])
    return index, " ".join(random.choice(WORDS, 3))


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from([1, 2, 5, 60]),
    st.integers(1, 12),
    st.sampled_from([0.0, 0.2, 0.4]),
    st.integers(0, 59),
)
def test_following_every_remedy_brings_the_document_in(seed, depth, k, threshold, chosen):
    index, query = index_of(seed, depth)
    settings = {"k": k, "threshold": threshold}
    for _ in range(2 if depth == 60 else 60):  # a larger k may bring in more candidates, where the depth is less
        found = index.explain(query, str(chosen), **settings)
        remedies = dict(missing.remedies(found, settings["k"]))
        if found.stage == "hit":
            assert not remedies
            break
        assert remedies
        if "missing.do_depth" in remedies:
            index.profile = Profile(depth=remedies["missing.do_depth"]["depth"])
        if "missing.do_threshold" in remedies:
            settings["threshold"] = float(remedies["missing.do_threshold"]["threshold"])
        for key in {"missing.do_k", "missing.do_more"} & remedies.keys():
            settings["k"] = remedies[key]["k"]
    else:
        pytest.fail(f"still {found.stage}")
    assert str(chosen) in [hit.document.id for hit in index.search(query, **settings)]


def test_more_weight_is_advised_on_a_mode_that_would_bring_it_in():
    index, query = index_of(3)
    advised = 0
    for chosen in range(60):
        found = index.explain(query, str(chosen), k=3)
        remedies = dict(missing.remedies(found, 3))
        if "missing.do_weight" in remedies:
            advised += 1
            mode, rank = remedies["missing.do_weight"]["mode"], remedies["missing.do_weight"]["rank"]
            hits = index.search(query, 3, weights=Weights.of({mode: 1.0}))
            assert hits[rank - 1].document.id == str(chosen)
    assert advised


def test_places_and_gap_are_those_of_the_explanation():
    index, query = index_of(5)
    hits = index.search(query, 10)
    found = index.explain(query, hits[7].document.id, k=5)
    assert missing.verdict(found, 5) == ("missing.below_k", {"rank": 8, "k": 5, "score": f"{hits[7].score:.3f}"})
    assert missing.gap(found) == pytest.approx(hits[4].score - hits[7].score)
    assert {place.mode: (place.score, place.rank) for place in missing.places(found)} == {
        mode: (hits[7].scores[mode], hits[7].ranks[mode]) for mode in hits[7].scores
    }


def test_a_filtered_document_is_said_to_be_filtered():
    index, query = index_of(5)
    found = index.explain(query, "1", where={"even": True})
    assert missing.verdict(found, 10)[0] == "missing.filtered"
    assert missing.remedies(found, 10)[0][0] == "missing.do_filter"


@pytest.mark.parametrize(("score", "shown"), [(0.4567, 0.45), (0.45, 0.45), (0.29, 0.29), (0.999, 0.99), (-0.204, -0.21)])
def test_a_threshold_is_cut_so_that_the_score_reaches_it(score, shown):
    assert missing.floored(score) == shown
    assert missing.floored(score) <= score
