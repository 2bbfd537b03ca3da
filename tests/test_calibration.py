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


RATES = {"scores": [0.0, 0.5, 0.9], "rates": [1.0, 0.1, 0.01]}
FULL = {**CURVE, "unrelated": RATES, "levels": {"weak": 0.2, "related": 0.5, "nearly identical": 0.9}}


def test_a_condition_becomes_the_lowest_score_that_fulfils_it():
    calibration = calibration_of(Profile(calibration={"hybrid": FULL}), "hybrid")
    assert calibration.threshold("p>=0.5") == pytest.approx(0.4)
    assert calibration.threshold(" p >= .7 ") == pytest.approx(0.6)
    assert calibration.threshold("p>=0.95") == float("inf")
    assert calibration.threshold("p>=0.05") == calibration.threshold("p>=0") == float("-inf")
    assert calibration.threshold("fpr<=0.1") == 0.5
    assert calibration.threshold("fpr <= 0.05") == 0.9
    with pytest.raises(ProfileError, match=r"rates down to 0.01; got 0.001"):
        calibration.threshold("fpr<=0.001")


def test_rates_of_unanswerable_questions_come_before_those_of_unrelated_pairs():
    both = {**FULL, "unanswerable": {"scores": [0.3, 0.7], "rates": [1.0, 0.05]}}
    assert calibration_of(Profile(calibration={"hybrid": both}), "hybrid").threshold("fpr<=0.05") == 0.7


@given(points, st.floats(0, 1))
def test_a_threshold_parts_what_is_as_probable_from_what_is_not(drawn, wanted):
    calibration = Calibration(tuple(sorted(x for x, _ in drawn)), tuple(sorted(y for _, y in drawn)))
    threshold = calibration.threshold(f"p>={wanted:.6f}")
    if threshold not in (float("inf"), float("-inf")):
        assert calibration.probability(threshold) >= wanted - 1e-5
        assert calibration.probability(threshold - 1e-3) <= wanted + 1e-5


@pytest.mark.parametrize(
    "condition", ["", "p", "p>0.5", "p<=0.5", "fpr>=0.1", "p>=1.5", "p>=-1", "recall>=0.9", "p>=nan", "P>=.5"]
)
def test_another_text_is_no_threshold(condition):
    with pytest.raises(ProfileError, match=r"threshold must be a number, 'profile', 'p>=P' or 'fpr<=F'"):
        Calibration((0, 1), (0, 1)).threshold(condition)


def test_a_score_has_a_level_where_the_bounds_are_known():
    calibration = calibration_of(Profile(calibration={"hybrid": FULL}), "hybrid")
    assert [calibration.level(score) for score in (0.1, 0.2, 0.6, 0.95)] == ["unrelated", "weak", "related", "nearly identical"]
    assert Calibration((0, 1), (0, 1)).level(0.5) is None
    for levels in ({"weak": 0.5, "related": 0.2}, {"strong": 1}, {"weak": float("nan")}):
        with pytest.raises(ProfileError, match="levels are|finite"):
            Calibration(levels=levels)


def test_what_a_calibration_holds_comes_back_from_a_profile(tmp_path):
    calibration = calibration_of(Profile(calibration={"hybrid": FULL}), "hybrid")
    save_profile(Profile(calibration={"hybrid": calibration.content()}), tmp_path / "profile.toml")
    assert calibration_of(load_profile(tmp_path / "profile.toml"), "hybrid") == calibration
    bare = Calibration(unrelated=calibration.unrelated)
    assert calibration_of(Profile(calibration={"dense": bare.content()}), "dense") == bare
    assert bare.probability(0.5) is None


def test_searches_take_conditions():
    index = M3Index(HashingEncoder(), MemoryStore(), Profile(calibration={"hybrid": FULL, "dense": FULL}))
    index.add([Document("a", "the red fox"), Document("b", "a blue whale")])
    everything = index.search("red fox")
    assert [hit.document.id for hit in index.search("red fox", threshold="p>=0")] == ["a", "b"]
    wanted = everything[0].probability - 0.001
    assert [hit.document.id for hit in index.search("red fox", threshold=f"p>={wanted:.6f}")] == ["a"]
    assert index.search("red fox", threshold="p>=0.95") == []
    assert all(hit.score >= 0.5 for hit in index.search("red fox", mode="dense", threshold="fpr<=0.1"))
    explained = index.explain("red fox", "a", threshold="p>=0.95")
    assert (explained.stage, explained.threshold) == ("below threshold", float("inf"))
    with pytest.raises(ProfileError, match="goes with the profile's weights"):
        index.search("red fox", threshold="p>=0.5", weights=(1, 1, 1))
    with pytest.raises(ProfileError, match="needs a profile fitted on labels"):
        index.search("red fox", mode="sparse", threshold="p>=0.5")
    with pytest.raises(ProfileError, match="needs a profile with false-positive rates"):
        index.search("red fox", mode="sparse", threshold="fpr<=0.5")
