"""A profile file that changes while an index is open."""

import logging
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from m3retriever import Document, HashingEncoder, M3Index, Profile, ProfileError, Weights, load_profile, save_profile
from m3retriever.watched import WatchedProfile


def refuse_rrf(profile):
    if profile.fusion == "rrf":
        raise ProfileError("no rrf here")


def test_the_file_is_read_again_when_it_changes_and_not_otherwise(tmp_path):
    path = tmp_path / "profile.toml"
    save_profile(Profile(depth=5), path)
    watched = WatchedProfile(path, refuse_rrf)
    first = watched.current()
    assert first.depth == 5
    assert watched.current() is first
    save_profile(Profile(depth=6), path)
    assert watched.current().depth == 6
    path.write_text("depth = 7", encoding="utf-8")
    assert watched.current().depth == 7


def test_a_change_that_cannot_be_used_is_logged_once_and_changes_nothing(tmp_path, caplog):
    path = tmp_path / "profile.toml"
    save_profile(Profile(depth=5), path)
    watched = WatchedProfile(path, refuse_rrf)
    for content, message in (("depth = ", "not a TOML profile"), ("fusion = 'rrf'", "no rrf here")):
        caplog.clear()
        path.write_text(content, encoding="utf-8")
        with caplog.at_level(logging.WARNING):
            assert [watched.current().depth, watched.current().depth] == [5, 5]
        [record] = caplog.records
        assert message in record.message
        assert "stays in force" in record.message
    path.unlink()
    assert watched.current().depth == 5
    save_profile(Profile(depth=9), path)
    assert watched.current().depth == 9


def test_at_the_beginning_a_wrong_file_is_an_error_and_a_missing_one_may_be(tmp_path):
    path = tmp_path / "profile.toml"
    with pytest.raises(ProfileError, match="cannot read"):
        WatchedProfile(path, refuse_rrf)
    watched = WatchedProfile(path, refuse_rrf, optional=True)
    assert watched.current() == Profile()
    save_profile(Profile(depth=3), path)
    assert watched.current().depth == 3
    save_profile(Profile(fusion="rrf"), path)
    with pytest.raises(ProfileError, match="no rrf here"):
        WatchedProfile(path, refuse_rrf, optional=True)


def test_an_open_index_searches_by_the_profile_as_it_is_now(tmp_path):
    with M3Index.open(tmp_path, model="hashing") as index:
        index.add([Document("fox", "the red fox"), Document("whale", "a blue whale")])
        [hit, *_] = index.search("red fox")
        assert hit.score == pytest.approx(0.4 * hit.scores["dense"] + 0.2 * hit.scores["sparse"] + 0.4 * hit.scores["colbert"])
        save_profile(Profile(weights=Weights(1, 0, 0), model=index.encoder.name), tmp_path / "profile.toml")
        [hit, *_] = index.search("red fox")
        assert hit.score == pytest.approx(hit.scores["dense"])
        save_profile(Profile(model="another"), tmp_path / "profile.toml")
        assert index.search("red fox")[0].score == pytest.approx(hit.scores["dense"])
    with pytest.raises(ProfileError, match="fitted on 'another'"):
        M3Index.open(tmp_path)


class InHalf(HashingEncoder):
    """An encoder that says in what precision it runs."""

    precision = "fp16"


def test_a_profile_fitted_in_another_precision_is_refused(tmp_path):
    path = tmp_path / "other.toml"
    save_profile(Profile(model=HashingEncoder().name, precision="fp32"), path)
    with pytest.raises(ProfileError, match="fitted on .* in fp32, not in fp16"):
        M3Index.open(tmp_path / "index", model=InHalf(), profile=path)
    save_profile(Profile(model=HashingEncoder().name, precision="fp16"), path)
    with M3Index.open(tmp_path / "index", model=InHalf(), profile=path) as index:
        assert index.profile.precision == "fp16"


def test_a_file_written_within_the_clock_s_grain_is_noticed_by_its_place_on_disk(tmp_path):
    path = tmp_path / "profile.toml"
    save_profile(Profile(depth=5), path)
    watched, stat = WatchedProfile(path, refuse_rrf), path.stat()
    save_profile(Profile(depth=6), path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert watched.current().depth == 6


@pytest.mark.parametrize(
    "broken",
    [
        "fusion = 'routed'\n[parameters]\nkinds = 'x'",
        "fusion = 'rrf'\n[parameters]\nconstant = -1",
        "deep = " + "[" * 10_000,
        "[thresholds]\ndense = 1" + "0" * 400,
        "[calibration.dense]\nscores = ['a']\nprobabilities = [0.5]",
    ],
    ids=lambda broken: broken[:30],
)
def test_no_slip_in_the_file_stops_a_search(tmp_path, broken):
    with M3Index.open(tmp_path, model="hashing") as index:
        index.add([Document("fox", "the red fox")])
        (tmp_path / "profile.toml").write_text(broken, encoding="utf-8")
        assert [len(index.search("red fox")), len(index.search("red fox"))] == [1, 1]
    with pytest.raises(ProfileError):
        M3Index.open(tmp_path)


def test_a_file_caught_empty_changes_nothing(tmp_path):
    path = tmp_path / "profile.toml"
    save_profile(Profile(depth=5), path)
    watched = WatchedProfile(path, refuse_rrf)
    path.write_text("", encoding="utf-8")
    assert watched.current().depth == 5
    path.write_text("depth = 6", encoding="utf-8")
    assert watched.current().depth == 6


def test_writers_and_readers_at_once_never_meet_half_a_file(tmp_path):
    path = tmp_path / "profile.toml"
    save_profile(Profile(depth=5), path)
    watched = WatchedProfile(path, refuse_rrf)

    def save(number):
        for _ in range(30):
            save_profile(Profile(depth=number, fitted={"text": "x" * 5000}), path)

    with ThreadPoolExecutor(6) as pool:
        saving = [pool.submit(save, number) for number in (5, 6, 7)]
        seen = [watched.current().depth for _ in range(2000)]
        for one in saving:
            one.result()
    assert set(seen) <= {5, 6, 7}
    assert [file.name for file in tmp_path.iterdir()] == ["profile.toml"]


def test_a_link_to_a_profile_stays_a_link(tmp_path):
    save_profile(Profile(depth=5), tmp_path / "real.toml")
    (tmp_path / "link.toml").symlink_to(tmp_path / "real.toml")
    save_profile(Profile(depth=6), tmp_path / "link.toml")
    assert (tmp_path / "link.toml").is_symlink()
    assert load_profile(tmp_path / "real.toml").depth == 6
