"""A profile on disk: it comes back as it went, and a file that is none says why."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3retriever.errors import InvalidArgumentError, ProfileError
from m3retriever.profile import MAX_BYTES, PRESETS, as_profile, check_profile, load_profile, save_profile
from m3retriever.types import Profile, Weights

FULL = Profile(
    weights=Weights(0.15, 0.5, 0.35),
    fusion="rrf",
    thresholds={"dense": 0.55, "hybrid": -0.25},
    depth=50,
    calibration={"name": '逻辑 "quoted" \\ and\nlines', "points": [[0.0, 0.1], [1.0, 0.9]], "n": 12, "inner": {"a": True}},
    model="BAAI/bge-m3@狐",
)
finite = st.floats(0, 1e9)


@pytest.mark.parametrize("profile", [Profile(), FULL, Profile(weights=Weights(1, 0, 0), thresholds={"sparse": 0})])
def test_a_saved_profile_comes_back_as_it_went(tmp_path, profile):
    path = tmp_path / "profile.toml"
    save_profile(profile, path)
    assert load_profile(path) == profile
    assert load_profile(str(path)) == profile


@settings(max_examples=40, deadline=None)
@given(
    weights=st.tuples(finite, finite, finite).filter(lambda values: sum(values) > 0),
    thresholds=st.dictionaries(st.sampled_from(["dense", "sparse", "colbert", "hybrid"]), st.floats(-2, 2)),
    depth=st.integers(1, 10**9),
    model=st.none() | st.text(st.characters(exclude_categories=["Cs"])),
)
def test_every_number_comes_back_to_the_last_bit(tmp_path_factory, weights, thresholds, depth, model):
    path = tmp_path_factory.getbasetemp() / "every.toml"
    profile = Profile(Weights(*weights), thresholds=thresholds, depth=depth, model=model)
    save_profile(profile, path)
    assert load_profile(path) == profile


@pytest.mark.parametrize(
    ("fusion", "parameters"),
    [
        ("rrf", {"constant": -1}),
        ("rrf", {"constant": float("nan")}),
        ("rrf", {"constants": 60}),
        ("null_cdf", {"unrelated": {"densee": {"scores": [0.0], "rates": [1.0]}}}),
        ("null_cdf", {"unrelated": {"dense": {"scores": ["0"], "rates": [1.0]}}}),
        ("routed", {"kinds": "x"}),
        ("logistic", {}),
        ("boosted", {"trees": [1]}),
        ("best", {}),
    ],
)
def test_a_fusion_that_could_not_be_searched_by_is_refused_with_the_profile(fusion, parameters):
    with pytest.raises(ProfileError):
        check_profile(Profile(fusion=fusion, parameters=parameters), "any")


def written(tmp_path, content: str | bytes):
    path = tmp_path / "profile.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", Profile()),
        ("depth = 7", Profile(depth=7)),
        ("weights = [1, 2, 3]", Profile(weights=Weights(1, 2, 3))),
        ("[weights]\ncolbert = 2", Profile(weights=Weights(0, 0, 2))),
        ("fusion = 'rrf'\n[thresholds]\nhybrid = 1", Profile(fusion="rrf", thresholds={"hybrid": 1})),
        ("# nur ein Kommentar: 狐\n", Profile()),
    ],
)
def test_what_a_file_leaves_out_is_the_default(tmp_path, content, expected):
    assert load_profile(written(tmp_path, content)) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("weight = [1, 1, 1]", r"unknown keys \['weight'\]; a profile has calibration, depth"),
        ("depth = ", "not a TOML profile"),
        ("depth = 1\ndepth = 2", "not a TOML profile"),
        (b"model = '\xff'", "not a TOML profile"),
        ("model = '狐'".encode("utf-16"), "not a TOML profile"),
        ("fusion = 'best'", "one of weighted_sum, rrf.*; got 'best'"),
        ("fusion = ['rrf']", "profile.toml"),
        ("depth = 0", "depth must be"),
        ("depth = 1.5", "depth must be"),
        ("depth = true", "depth must be"),
        ("weights = [0, 0, 0]", "not all 0"),
        ("weights = [1, 1]", "three numbers"),
        ("weights = [1, nan, 1]", "finite"),
        ("weights = 'abc'", "three numbers"),
        ("weights = 1", "profile.toml"),
        ("[weights]\nsplade = 1", "splade"),
        ("[thresholds]\nsplade = 1", "splade"),
        ("[thresholds]\ndense = 'high'", "finite numbers"),
        ("[thresholds]\ndense = inf", "finite numbers"),
        ("thresholds = ['dense']", "finite numbers"),
        ("thresholds = 5", "profile.toml"),
    ],
)
def test_a_file_that_is_no_profile_is_refused_with_its_name(tmp_path, content, message):
    path = written(tmp_path, content)
    with pytest.raises(ProfileError, match=message) as raised:
        load_profile(path)
    assert str(path) in str(raised.value)


def test_a_file_too_large_is_refused_before_it_is_read(tmp_path):
    padding = "#" * MAX_BYTES
    assert load_profile(written(tmp_path, padding)) == Profile()
    with pytest.raises(ProfileError, match=f"at most {MAX_BYTES} bytes; .* has {MAX_BYTES + 1}"):
        load_profile(written(tmp_path, padding + "#"))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ProfileError, match=r"cannot read the profile .*missing\.toml: No such file"):
        load_profile(tmp_path / "missing.toml")
    with pytest.raises(ProfileError, match="cannot read the profile"):
        load_profile(tmp_path)


def test_saving_replaces_the_file_whole_and_leaves_no_draft(tmp_path):
    path = tmp_path / "profile.toml"
    save_profile(FULL, path)
    reader = path.open("rb")
    before = path.read_bytes()
    save_profile(Profile(), path)
    with reader:  # whoever had the old file open reads the old one to its end
        assert reader.read() == before
    assert load_profile(path) == Profile()
    assert os.listdir(tmp_path) == ["profile.toml"]


def test_a_profile_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "profile.toml"
    save_profile(FULL, path)
    with pytest.raises(TypeError):
        save_profile(Profile(calibration={"points": None}), path)
    assert load_profile(path) == FULL
    assert os.listdir(tmp_path) == ["profile.toml"]


def test_a_profile_comes_as_itself_as_a_file_or_as_a_presets_name(tmp_path, monkeypatch):
    assert as_profile(FULL) is FULL
    save_profile(FULL, tmp_path / "mine.toml")
    assert as_profile(tmp_path / "mine.toml") == as_profile(str(tmp_path / "mine.toml")) == FULL
    for name, weights in PRESETS.items():
        assert as_profile(name) == as_profile(Path(name)) == Profile(weights=weights)
    monkeypatch.chdir(tmp_path)
    save_profile(FULL, "keyword")
    assert as_profile("keyword") == FULL, "a file that is there goes before a preset"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("no such", "cannot read the profile no such"),
        ("", "a profile is a Profile, a TOML file or one of bge-m3, .*; got ''"),
        (None, "a profile is a Profile, a TOML file .*; got None"),
        (3, "got 3"),
        (b"keyword", "got b'keyword'"),
        (["keyword"], r"got \['keyword'\]"),
        ({"depth": 3}, "a profile is a Profile"),
        ("Keyword", "cannot read the profile Keyword"),
        ("no\0file", "not a TOML profile: embedded null"),
        ("\ud800", "not a TOML profile"),
        ("x" * 5000, "cannot read the profile"),
        (Path(), "cannot read the profile"),
    ],
    ids=ascii,
)
def test_what_is_no_profile_is_refused(given, message):
    with pytest.raises(ProfileError, match=message):
        as_profile(given)


def test_a_profile_is_for_the_model_it_was_fitted_on_or_for_any():
    check_profile(Profile(), "bge")
    check_profile(Profile(model="bge"), "bge")
    check_profile(as_profile("keyword"), "whatever")
    with pytest.raises(ProfileError, match="fitted on 'bge', not on 'mini': fit it again"):
        check_profile(Profile(model="bge"), "mini")
    with pytest.raises(InvalidArgumentError, match="fusion must be one of"):
        check_profile(Profile(fusion="best"), "bge")


def test_too_large_a_file_is_said_in_one_sentence(tmp_path):
    with pytest.raises(ProfileError, match="^a profile has at most"):
        load_profile(written(tmp_path, "#" * (MAX_BYTES + 1)))
