"""A profile's calibration: a curve by hand, what is refused, and where a hit has a probability."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3retriever import Document, HashingEncoder, M3Index, MemoryStore, Profile, load_profile, rerank, save_profile
from m3retriever.calibration import Calibration, calibration_of
from m3retriever.errors import ProfileError

CURVE = {"scores": [0.2, 0.4, 0.8], "probabilities": [0.1, 0.5, 0.9]}


@pytest.mark.parametrize(("score", "probability"), [(-1, 0.1), (0.2, 0.1), (0.3, 0.3), (0.4, 0.5), (0.6, 0.7), (2, 0.9)])
def test_the_curve_is_straight_between_its_points_and_level_beyond(score, probability):
    assert Calibration((0.2, 0.4, 0.8), (0.1, 0.5, 0.9)).probability(score) == pytest.approx(probability)


points = st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 1)), min_size=1, max_size=8, unique_by=lambda point: point[0])


@given(points, st.floats(-2, 2), st.floats(-2, 2))
def test_a_better_score_is_never_less_probable(drawn, one, other):
    curve = Calibration(tuple(sorted(x for x, _ in drawn)), tuple(sorted(y for _, y in drawn)))
    low, high = (curve.probability(score) for score in sorted((one, other)))
    assert 0 <= low <= high <= 1


@pytest.mark.parametrize(
    "curve",
    [
        {"scores": [0.1], "probabilities": []},
        {"scores": [], "probabilities": []},
        {"scores": [0.2, 0.2], "probabilities": [0.1, 0.2]},
        {"scores": [0.1, 0.2], "probabilities": [0.3, 0.2]},
        {"scores": [0.1, 0.2], "probabilities": [0.3, 1.2]},
        {"scores": [0.1, float("nan")], "probabilities": [0.3, 0.4]},
        {"scores": ["low", "high"], "probabilities": [0.3, 0.4]},
        {"scores": 0.1, "probabilities": 0.3},
        {"scores": [0.1]},
        [0.1, 0.2],
    ],
)
def test_what_is_no_curve_is_refused(curve):
    profile = Profile(calibration={"hybrid": curve})
    with pytest.raises(ProfileError, match="calibration|probabilities"):
        calibration_of(profile, "hybrid")
    with pytest.raises(ProfileError, match="calibration|probabilities"):
        M3Index(HashingEncoder(), MemoryStore(), profile)


def test_a_hit_has_a_probability_where_what_ranked_it_was_calibrated(tmp_path):
    save_profile(Profile(calibration={"hybrid": CURVE, "dense": CURVE}), tmp_path / "profile.toml")
    index = M3Index(HashingEncoder(), MemoryStore(), load_profile(tmp_path / "profile.toml"))
    index.add([Document("a", "the red fox"), Document("b", "a blue whale")])
    curve = calibration_of(index.profile, "hybrid")
    for mode in ("hybrid", "dense"):
        for hit in index.search("red fox", mode=mode):
            assert hit.probability == hit.relevance == curve.probability(hit.score)
    for settings in ({"mode": "colbert"}, {"weights": (1, 1, 1)}):  # none was fitted for these
        for hit in index.search("red fox", **settings):
            assert hit.probability is None
            assert 0 <= hit.relevance <= 1
    [first, _] = rerank(index.encoder, "red fox", ["the red fox", "a blue whale"], profile=index.profile)
    assert first.probability == curve.probability(first.score)
