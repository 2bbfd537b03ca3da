"""Weights that go with the kind of the query: by hand, against the plain weighted sum, and through a profile file."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3retriever import Document, InvalidArgumentError, M3Index, Profile
from m3retriever.encoders.hashing import HashingEncoder
from m3retriever.errors import ProfileError
from m3retriever.fusion import FITTED, contributions, fuse, fusion_named, routed, weighted_sum
from m3retriever.profile import load_profile, save_profile
from m3retriever.queries import KINDS, kind_of
from m3retriever.stores.memory import MemoryStore
from m3retriever.types import ModeScores, Weights

QUERIES = ["E1234", "cheap shoes", "what is a monad?", "погода", ""]
weight = st.floats(0.0625, 10)
triples = st.tuples(weight, weight, weight)
tables = st.lists(st.tuples(*[st.floats(-1, 1, width=32)] * 3), max_size=8)


def scores(rows, query):
    return ModeScores(tuple(f"d{row:02}" for row in range(len(rows))), np.array(rows).reshape(-1, 3), query=query)


def test_each_kind_has_its_own_weights_and_the_rest_have_the_profiles():
    kinds = {"code": [0, 1, 0], "sentence": [1, 0, 1], "foreign": {"colbert": 2}}
    row = [(0.5, 0.25, 1.0)]
    got = [routed(scores(row, query), Weights(3, 1, 0), kinds=kinds, script="latin")[0] for query in QUERIES]
    assert got == [0.25, (3 * 0.5 + 0.25) / 4, 0.75, 1.0, (3 * 0.5 + 0.25) / 4]
    assert routed(scores(row, "погода"), Weights(3, 1, 0), kinds=kinds)[0] == got[1]  # foreign to no script


@settings(max_examples=60, deadline=None)
@given(tables, st.sampled_from(QUERIES), triples, st.dictionaries(st.sampled_from(KINDS), triples))
def test_it_is_the_weighted_sum_under_the_kinds_weights_and_the_sum_of_its_parts(rows, query, weights, kinds):
    table = scores(rows, query)
    parameters = {"kinds": kinds, "script": "latin"}
    fused = fuse(table, Weights(*weights), "routed", parameters)
    own = kinds.get(kind_of(query, script="latin"), weights)
    assert fused.tolist() == weighted_sum(table, Weights(*own)).tolist()
    parts = contributions(table, Weights(*weights), "routed", parameters)
    np.testing.assert_allclose(parts.sum(axis=1), fused, atol=1e-12)
    if rows:
        np.testing.assert_allclose(fused, np.average(table.values, axis=1, weights=own), atol=1e-6)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "missing 1 required"),
        ({"kinds": {"poem": [1, 1, 1]}}, r"kinds of queries are code, .*; got \['poem'\]"),
        ({"kinds": [[1, 1, 1]]}, "kinds must be weights by kind"),
        ({"kinds": {}, "script": 3}, "script a name"),
        ({"kinds": {"code": [1, 1]}}, "three numbers"),
        ({"kinds": {"code": [0, 0, 0]}}, "not all 0"),
        ({"kinds": {"code": [1, float("nan"), 0]}}, "finite"),
        ({"kinds": {"code": ["1", 2, 3]}}, "finite numbers"),
        ({"kinds": {"code": 3}}, "three numbers"),
        ({"kinds": {"code": "abc"}}, "three numbers"),
        ({"kinds": {}, "sort": 1}, "unexpected keyword"),
    ],
)
def test_a_table_that_is_none_is_refused_before_any_candidate_comes(parameters, message):
    with pytest.raises(InvalidArgumentError, match=message):
        fuse(scores([], ""), Weights(), "routed", parameters)


def test_no_candidates_have_no_scores():
    assert fuse(scores([], "E1234"), Weights(), "routed", {"kinds": {"code": [1, 0, 0]}}).shape == (0,)
    assert fusion_named("routed") is FITTED["routed"] is routed


def test_a_profile_file_carries_the_table_into_a_search(tmp_path):
    profile = Profile(fusion="routed", parameters={"kinds": {"code": [0.0, 1.0, 0.0]}, "script": "latin"})
    save_profile(profile, tmp_path / "routed.toml")
    index = M3Index(HashingEncoder(), MemoryStore(), load_profile(tmp_path / "routed.toml"))
    index.add([Document("a", "the error E1234 is rare"), Document("b", "what is E1234"), Document("c", "nothing of the kind")])
    [code, sentence] = [index.search(query) for query in ("E1234", "what is E1234?")]
    assert [hit.score for hit in code] == [hit.scores["sparse"] for hit in code]
    assert [hit.score for hit in sentence] == pytest.approx(
        [0.4 * hit.scores["dense"] + 0.2 * hit.scores["sparse"] + 0.4 * hit.scores["colbert"] for hit in sentence]
    )
    (tmp_path / "bad.toml").write_text('fusion = "routed"\n[parameters]\nkinds = {poem = [1, 1, 1]}\n')
    with pytest.raises((ProfileError, InvalidArgumentError), match="poem"):
        M3Index(HashingEncoder(), MemoryStore(), load_profile(tmp_path / "bad.toml"))
