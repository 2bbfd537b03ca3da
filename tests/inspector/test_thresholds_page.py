"""The page Thresholds without a browser, and what it shows as plain functions."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from m3retriever import Document, HashingEncoder, M3Index, ModeScores, Profile, Weights, load_profile, save_profile
from m3retriever.calibrating import Calibrated, Wanted
from m3retriever.calibrating.reliability import Bin
from m3retriever.calibrating.thresholds import MIN_RETURNED, Measured, Pairs
from m3retriever.calibration import LEVELS, Calibration
from m3retriever.evaluation import judged_by, score_all
from m3retriever.fitting import calibrate_index
from m3retriever.inspector.analysis import thresholds as analysis
from m3retriever.inspector.analysis.thresholds import Band
from m3retriever.io import read_golden

PROGRAM = str(Path(sys.executable).with_name("m3retriever"))
TRIES = 40  # looks at a page until its jobs have ended


def pairs_of(relevant, other):
    scores = np.array([*relevant, *other], np.float64)
    return Pairs(
        scores, np.arange(len(scores)) < len(relevant), np.zeros(len(scores), np.int64), np.array([max(1, len(relevant))])
    )


numbers = st.lists(st.integers(-4, 12).map(lambda value: value / 8), min_size=1, max_size=30)  # coarse, so that ties are common


# -- plain functions -------------------------------------------------------------------------------


def test_the_area_under_the_curve_is_how_often_a_relevant_candidate_comes_first():
    assert analysis.roc_auc(pairs_of([0.9, 0.4], [0.5, 0.1])) == 0.75
    assert analysis.roc_auc(pairs_of([0.5], [0.5])) == 0.5
    assert analysis.roc_auc(pairs_of([0.5], [])) is None
    assert analysis.roc_auc(pairs_of([], [0.5])) is None
    assert analysis.roc_auc(pairs_of([], [])) is None


@settings(deadline=None)
@given(numbers, numbers)
def test_the_area_under_the_curve_is_scikit_learns(relevant, other):
    expected = roc_auc_score([True] * len(relevant) + [False] * len(other), [*relevant, *other])
    assert analysis.roc_auc(pairs_of(relevant, other)) == pytest.approx(expected)


def test_pairs_are_those_that_calibrating_sees():
    scores = {"q": ModeScores(("a", "b", "c"), np.array([[0.8, 0.0, 0.4], [0.4, 0.8, 0.8], [0.1, 0.4, 0.0]], np.float32))}
    qrels = {"q": {"a": 1, "c": 0, "gone": 2}}
    hybrid = analysis.pairs_of(scores, qrels, Profile(weights=(1, 0, 1)), "hybrid")
    assert hybrid.scores.tolist() == pytest.approx([0.6, 0.6, 0.05])
    assert (hybrid.relevant.tolist(), hybrid.wanted.tolist()) == ([True, False, False], [2])
    sparse = analysis.pairs_of(scores, qrels, Profile(), "sparse")
    assert sparse.scores.tolist() == pytest.approx([0.8, 0.4]), "what shares no token is no answer of the sparse mode"


@given(numbers, st.floats(-1, 2))
def test_everything_that_is_drawn_lies_on_the_axis(scores, cut):
    low, high = analysis.axis_of(np.array(scores), cut, None, float("inf"))
    assert low <= min(0, cut, *scores) + 1e-9
    assert high >= max(0, cut, *scores) - 1e-9
    assert high > low
    assert high - max(0, cut, *scores) < 0.051


def test_the_axis_stands_still_while_a_threshold_moves_on_it():
    scores = np.array([-0.02, 0.61])
    assert {analysis.axis_of(scores, cut) for cut in (0.0, 0.3, 0.61)} == {(-0.05, 0.65)}
    assert analysis.axis_of(np.array([0.0081, 0.0163])) == (0.0, 0.02)  # a rank fusion's
    assert analysis.axis_of(np.array([])) < (0.0, 1.0)


@settings(max_examples=50, deadline=None)
@given(numbers, numbers)
def test_bars_share_out_each_side_above_and_below(relevant, other):
    pairs = pairs_of(relevant, other)
    bars = analysis.bars(pairs, *analysis.axis_of(pairs.scores))
    assert sum(bar.share for bar in bars if bar.relevant) == pytest.approx(1)
    assert sum(bar.share for bar in bars if not bar.relevant) == pytest.approx(-1)
    assert sum(bar.pairs for bar in bars if bar.relevant) == len(relevant)
    for bar in bars:
        inside = [score for score in (relevant if bar.relevant else other) if bar.start - 1e-9 <= score <= bar.end + 1e-9]
        assert bar.pairs <= len(inside)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=6, max_size=40), st.lists(st.floats(0, 1), min_size=6, max_size=40))
def test_samples_are_what_measuring_at_each_threshold_gives(relevant, other):
    pairs = pairs_of(relevant, other)
    for one in analysis.samples(pairs, 0.0, 1.0):
        measured = pairs.measured(one.threshold)
        assert (one.precision, one.recall, one.f1) == pytest.approx((measured.precision, measured.recall, measured.f()))
        assert one.returned == measured.returned >= MIN_RETURNED


def test_points_have_areas_by_their_pairs():
    bins = [Bin(0.0, 0.1, 9000, 0.01, 0.0), Bin(0.5, 0.6, 100, 0.55, 0.6), Bin(0.9, 1.0, 25, 0.95, 1.0)]
    huge, second, third = analysis.reliability_points(bins)
    assert (second.said, second.true, second.pairs) == (0.55, 0.6, 100)
    assert second.radius == 2 * third.radius
    assert huge.radius < 2 * second.radius, "nearly all pairs are surely not relevant: their point is cut"
    assert analysis.reliability_points([]) == []


def test_what_a_threshold_gives_of_a_wish():
    measured = Measured(returned=10, right=4, relevant=8, answered=3, questions=5, mean_recall=0.6)
    assert analysis.given(measured, Wanted("precision", 0.5)) == 0.4
    assert analysis.given(measured, Wanted("recall", 0.5)) == 0.5
    assert analysis.given(measured, Wanted("recall", 0.5, 0.9)) == 0.6
    assert analysis.given(measured, Wanted("f", 2.0)) == measured.f(2.0)
    assert analysis.given(measured, Wanted("fpr", 0.1)) is None


def test_levels_are_the_fits_else_the_profiles():
    profile = Profile(calibration={"dense": {"levels": {"weak": 0.2}}})
    fitted = Calibrated(Calibration(levels={"weak": 0.3}))
    assert analysis.levels_of(profile, "dense", None) == {"weak": 0.2}
    assert analysis.levels_of(profile, "dense", fitted) == {"weak": 0.3}
    assert analysis.levels_of(profile, "sparse", None) == {}


def test_levels_must_rise():
    assert analysis.out_of_order({"weak": 0.2, "related": 0.2, "nearly identical": 0.9}) is None
    assert analysis.out_of_order({"weak": 0.3, "related": 0.2}) == ("weak", "related")
    assert analysis.out_of_order({"weak": 0.3, "nearly identical": 0.2}) == ("weak", "nearly identical")


@given(st.lists(st.floats(-1, 2), min_size=1, max_size=3))
def test_bands_cover_the_axis_and_are_the_levels(bounds):
    levels = dict(zip(LEVELS[1:], sorted(bounds), strict=False))
    bands = analysis.bands(levels, 0.0, 1.0)
    assert (bands[0].start, bands[-1].end) == (0.0, 1.0)
    assert all(one.end == other.start for one, other in pairwise(bands))
    for band in bands:
        assert Calibration(levels=levels).level((band.start + band.end) / 2) == band.level


def test_there_are_no_bands_without_levels_or_where_they_fall():
    assert analysis.bands({}, 0, 1) == []
    assert analysis.bands({"weak": 0.3, "related": 0.2}, 0, 1) == []
    assert analysis.bands({"weak": 0.5}, 0, 1) == [Band("unrelated", 0, 0.5), Band("weak", 0.5, 1)]


def test_edited_levels_replace_the_fitted_ones_alone():
    profile = Profile(calibration={"dense": {"scores": [0.1], "probabilities": [0.2], "levels": {"weak": 0.1}}})
    changed = analysis.with_levels(profile, {"dense": {"weak": 0.3}, "sparse": {"related": 0.4}})
    assert changed.calibration["dense"] == {"scores": [0.1], "probabilities": [0.2], "levels": {"weak": 0.3}}
    assert changed.calibration["sparse"] == {"levels": {"related": 0.4}}
    assert analysis.with_levels(profile, {"dense": {}}).calibration["dense"] == {"scores": [0.1], "probabilities": [0.2]}
    assert profile.calibration["dense"]["levels"] == {"weak": 0.1}
    assert analysis.with_levels(Profile(), {}).calibration is None


# -- the page --------------------------------------------------------------------------------------


def html(app):
    """All HTML on the page; the app must not have failed."""
    assert not app.exception
    return "\n".join(element.value for element in app.html)


def settled(app):
    """The app when its jobs have ended."""
    for _ in range(TRIES):
        if "data-testid='m3-job'" not in html(app):
            return app
        app.run()
    pytest.fail("a job did not end")


def tile(app, name):
    """A tile's number, and what stands beside it."""
    found = re.search(rf"m3-tile-{name}'.*?<b class='m3-value'>(.*?)</b>(?: <span class='m3-detail'>(.*?)</span>)?", html(app))
    return (found[1], found[2] or "")


def command(*arguments):
    done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def page(run):
    """Opens the page with URL parameters and waits for its jobs."""
    return lambda *path, **parameters: settled(run(*path, page="thresholds", **parameters))


@pytest.mark.parametrize(
    ("parameters", "options"),
    [
        ({}, ["--f-beta", "1"]),
        ({"for": "f", "beta": "2"}, ["--f-beta", "2"]),
        ({"for": "precision", "precision": "0.6"}, ["--precision", "0.6"]),
        ({"for": "recall", "recall": "0.7", "confidence": "0.8"}, ["--recall", "0.7", "--confidence", "0.8"]),
        ({"for": "fpr", "fpr": "0.05"}, ["--fpr", "0.05"]),
    ],
)
def test_the_numbers_and_the_saved_profile_are_the_command_s(page, project, tmp_path, parameters, options):
    out = tmp_path / "by-command.toml"
    told = command(
        "calibrate", "--path", project, "--golden", project / "golden.jsonl", *options, "--json", "--out", out
    )["modes"]  # fmt: skip
    for mode in ("hybrid", "sparse"):
        app, wanted = page(mode=mode, **parameters), told[mode]
        assert tile(app, "threshold")[0] == f"{wanted['threshold']:.3f}"
        deviation = f"± {wanted['held_out']['deviation']:.3f}"
        assert tile(app, "held_out") == (f"{wanted['held_out']['mean']:.3f}", deviation)
        assert tile(app, "fpr")[0] == f"{wanted['fpr']:.2%}"
        error = f"Brier {wanted['brier']:.4f} · calibration error {wanted['calibration_error']:.4f} · {wanted['method']}"
        assert error in html(app)
        levels = {name: app.number_input(key=f"level_{mode}_{name}").value for name in LEVELS[1:]}
        assert levels == pytest.approx(wanted["levels"], abs=0.0005)
    settled(app.button(key="save_profile").click().run())
    assert (project / "profile.toml").read_text() == out.read_text()


def test_the_tiles_are_what_the_library_measures_at_the_sliders_threshold(page, project):
    with M3Index.open(project) as index:
        queries, qrels = judged_by(index, read_golden(project / "golden.jsonl"))
        pairs = analysis.pairs_of(score_all(index, queries, qrels), qrels, index.profile, "hybrid")
    app, measured = page(threshold="0.3"), pairs.measured(0.3)
    shown = [tile(app, name)[0] for name in ("precision", "recall", "f1", "answers", "answered", "auc")]
    counts = [f"{measured.returned:,}", str(measured.answered)]
    area = f"{analysis.roc_auc(pairs):.3f}"
    assert shown == [f"{one:.3f}" for one in (measured.precision, measured.recall, measured.f())] + [*counts, area]
    assert tile(app, "answered")[1] == "of 60"
    assert "Precision at 0.300" in html(app)


def test_a_mode_has_a_threshold_of_its_own(page):
    app = page(mode="dense", cut_dense="0.25", threshold="0.6")
    assert app.slider(key="cut_dense").value == 0.25
    assert "Precision at 0.250" in html(app)
    settled(app.button(key="use_threshold").click().run())
    assert f"{app.slider(key='cut_dense').value:.3f}" == tile(app, "threshold")[0]
    assert app.slider(key="threshold").value == 0.6


def test_the_hybrid_s_threshold_moves_the_sidebar(page):
    app = page()
    settled(app.button(key="use_threshold").click().run())
    assert app.slider(key="threshold").value == pytest.approx(float(tile(app, "threshold")[0]), abs=0.005)
    assert tile(app, "f1")[0] != "0.000"


def test_saving_lets_the_sliders_follow_and_keeps_the_sidebar_s_weights(page, project):
    app = page(dense="0.2", sparse="0.6", colbert="0.2")
    threshold = float(tile(app, "threshold")[0])
    settled(app.button(key="save_profile").click().run())
    saved = load_profile(project / "profile.toml")
    assert tuple(saved.weights) == (0.2, 0.6, 0.2)
    assert saved.thresholds["hybrid"] == pytest.approx(threshold, abs=0.0005)
    assert app.slider(key="threshold").value == round(saved.thresholds["hybrid"], 2)
    assert "Uncalibrated" not in html(app)
    with M3Index.open(project, read_only=True) as index:
        assert index.profile == saved


def test_a_broken_save_is_told(page, project):
    app = page()
    (project / "profile.toml").mkdir()
    assert "That was not done." in html(app.button(key="save_profile").click().run())


def test_read_only_nothing_can_be_saved(page, project):
    app = page(arguments=["--read-only"])
    assert app.button(key="save_profile").disabled
    assert not app.button(key="use_threshold").disabled


def test_levels_are_edited_checked_saved_and_taken_back(page, project):
    app = page(mode="dense")
    fitted = [app.number_input(key=f"level_dense_{name}").value for name in LEVELS[1:]]
    settled(app.number_input(key="level_dense_weak").set_value(fitted[1] + 0.1).run())
    assert "The bounds must rise: weak begins above related." in html(app)
    assert app.button(key="save_profile").disabled
    settled(app.number_input(key="level_dense_weak").set_value(0.123).run())
    assert "The bounds must rise" not in html(app)
    settled(app.button(key="save_profile").click().run())
    saved = load_profile(project / "profile.toml").calibration["dense"]["levels"]
    assert saved["weak"] == 0.123
    assert saved["related"] == pytest.approx(fitted[1], abs=0.0005)
    assert app.number_input(key="level_dense_weak").value == 0.123
    settled(app.button(key="reset_levels").click().run())
    assert app.number_input(key="level_dense_weak").value == fitted[0]


def test_a_wish_that_cannot_be_had_is_told_with_its_reason(page, project):
    app = page(**{"for": "recall", "recall": "0.99", "confidence": "0.95"})
    assert "There is no such threshold for Hybrid." in html(app)
    assert "recall 0.99 cannot be promised with confidence 0.95: there are 60 questions" in html(app)
    assert app.button(key="use_threshold").disabled


def shortened(project, count):
    path = project / "golden.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:count]) + "\n")
    return path


def test_few_questions_have_a_histogram_but_no_fit(page, project):
    shortened(project, 9)
    app = page(threshold="0.2")
    assert "9 questions have a relevant document in this index; fitting needs 10." in html(app)
    assert tile(app, "answered")[1] == "of 9"
    assert len(app.get("vega_lite_chart")) == 2
    assert "Uncalibrated" in html(app)
    assert not [button for button in app.button if button.key == "use_threshold"]


def test_a_question_judged_to_have_no_answer_counts_as_the_command_counts_it(page, project):
    path = shortened(project, 20)
    wrong = {"id": "none", "question": "reset the printer", "relevant": [], "grades": {"hostile-title": 0}}
    path.write_text(path.read_text() + json.dumps(wrong) + "\n")
    told = command("calibrate", "--path", project, "--golden", path, "--f-beta", "1", "--json")["modes"]["hybrid"]
    app = page()
    assert tile(app, "answered")[1] == "of 21"
    assert tile(app, "held_out")[0] == f"{told['held_out']['mean']:.3f}"


def test_without_labels_the_rates_of_unrelated_pairs_are_offered(page, project, tmp_path):
    (project / "golden.jsonl").unlink()
    app = page()
    assert "There are no questions with known answers yet." in html(app)
    assert "m3-tile-" not in html(app)
    out = tmp_path / "by-command.toml"
    told = command("calibrate", "--path", project, "--fpr", "0.01", "--json", "--out", out)["modes"]["hybrid"]
    settled(app.button(key="unrelated").click().run())
    assert tile(app, "threshold")[0] == f"{told['threshold']:.3f}"
    assert tile(app, "fpr")[0] == f"{told['fpr']:.2%}"
    assert len(app.get("vega_lite_chart")) == 1
    settled(app.button(key="save_profile").click().run())
    assert (project / "profile.toml").read_text() == out.read_text()


def test_one_document_has_no_unrelated_pairs_and_that_is_told(page, tmp_path):
    with M3Index.open(tmp_path / "own", model="hashing") as index:
        index.add([Document("1", "apple")])
    app = page(tmp_path / "own")
    assert "at least 2 documents" in html(settled(app.button(key="unrelated").click().run()))


def test_an_index_without_documents_says_so(page, tmp_path):
    with M3Index.open(tmp_path / "own", model="hashing") as index:
        index.add([Document("1", "apple")])
        index.delete(["1"])
    assert "no documents yet" in html(page(tmp_path / "own"))


def test_a_rank_fusion_has_no_threshold_for_the_sidebar_but_numbers(page, project):
    save_profile(Profile(fusion="rrf"), project / "profile.toml")
    app = page()
    assert "come from ranks and have no threshold" in html(app)
    assert "holds for this depth only" in html(app)
    assert app.button(key="use_threshold").disabled
    assert "m3-tile-precision" not in html(app)
    assert 0 < float(tile(app, "auc")[0]) <= 1


def test_chinese_and_choices_by_the_url(page):
    app = page(lang="zh", mode="colbert", **{"for": "precision"})
    assert "阈值目标" in html(app)
    assert app.segmented_control(key="mode_shown").value == "colbert"
    assert "留出：精确率" in html(app)
    app = page(mode="nonsense", precision="7", **{"for": "nonsense"})
    assert (app.segmented_control(key="mode_shown").value, app.selectbox(key="for_shown").value) == ("hybrid", "f")


class CountingEncoder(HashingEncoder):
    """Counts how often it is asked for anything."""

    calls = 0

    def encode_queries(self, texts):
        type(self).calls += 1
        return super().encode_queries(texts)

    def encode_documents(self, texts, *, progress=False):
        type(self).calls += 1
        return super().encode_documents(texts, progress=progress)


def test_a_moved_slider_and_another_wish_never_call_the_model(page, monkeypatch):
    monkeypatch.setattr("m3retriever.encoders.hashing.HashingEncoder", CountingEncoder)
    CountingEncoder.calls = 0
    app = page()
    before, seen = CountingEncoder.calls, html(app)
    assert before > 0
    settled(app.slider(key="threshold").set_value(0.4).run())
    settled(app.slider(key="dense").set_value(0.9).run())
    assert html(app) != seen
    settled(app.selectbox(key="for_shown").set_value("precision").run())
    settled(app.number_input(key="precision").set_value(0.7).run())
    settled(app.segmented_control(key="mode_shown").set_value("sparse").run())
    settled(app.slider(key="cut_sparse").set_value(0.2).run())
    settled(app.button(key="save_profile").click().run())
    assert CountingEncoder.calls == before


def test_another_wish_and_other_weights_are_fitted_anew(page, project):
    with M3Index.open(project) as index:
        questions = judged_by(index, read_golden(project / "golden.jsonl"))
        profile = replace(index.profile, weights=Weights(0.9, 0.2, 0.4))
        first, _ = calibrate_index(index, *questions, Wanted("f", 1.0))
        moved, _ = calibrate_index(index, *questions, Wanted("f", 1.0), profile=profile)
        other, _ = calibrate_index(index, *questions, Wanted("recall", 0.5), profile=profile)
    app = page()
    seen = [tile(app, "threshold")[0]]
    settled(app.slider(key="dense").set_value(0.9).run())
    seen.append(tile(app, "threshold")[0])
    settled(app.selectbox(key="for_shown").set_value("recall").run())
    settled(app.number_input(key="recall").set_value(0.5).run())
    seen.append(tile(app, "threshold")[0])
    assert seen == [f"{one['hybrid'].threshold:.3f}" for one in (first, moved, other)]
    assert len(set(seen)) == 3
