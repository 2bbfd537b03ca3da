"""The page Tune without a browser, and what it shows as plain functions."""

import dataclasses
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from m3retriever import HashingEncoder, M3Index, ModeScores, Profile, Weights, load_profile, save_profile
from m3retriever.evaluation import Comparison, compare_values, mean
from m3retriever.inspector.analysis import weights as analysis
from m3retriever.palette import STEPS
from m3retriever.quality_page.ternary import COLBERT, DENSE, SPARSE
from m3retriever.tuning import Found, Setting, simplex, tune

PROGRAM = str(Path(sys.executable).with_name("m3retriever"))
HELPDESK = Path(__file__).with_name("helpdesk.jsonl")
TRIES = 60  # looks at a page until its jobs have ended
GRID = tuple((weights, weights.sparse) for weights in simplex(0.1))
SAME = Comparison(2, 0.5, 0.5, 0, 0, 2, 1.0)


# -- plain functions -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tuning():
    random = np.random.default_rng(0)
    scores = {f"q{row}": ModeScores(("a", "b", "c"), random.random((3, 3)).astype(np.float32)) for row in range(12)}
    return tune(scores, {query: {"a": 1} for query in scores}, step=0.1, fusions=["weighted_sum"], measure="RR")


def test_every_weighting_has_a_cell_at_its_place_in_its_colour():
    cells = analysis.cells(GRID)
    assert len(cells) == 66
    corners = {cell.shares: cell.place for cell in cells if max(cell.shares) == 1}
    assert corners == {(1, 0, 0): DENSE, (0, 1, 0): SPARSE, (0, 0, 1): pytest.approx(COLBERT)}
    assert {cell.step for cell in cells if cell.value == 1} == {STEPS - 1}
    assert {cell.step for cell in cells if cell.value == 0} == {0}
    for cell in cells:
        assert len(cell.corners) == 6
        assert np.mean(cell.corners, axis=0) == pytest.approx(cell.place)


def test_cells_touch_their_neighbours():
    by_shares = {tuple(round(share, 3) for share in cell.shares): cell for cell in analysis.cells(GRID)}
    one, other = by_shares[0.4, 0.2, 0.4], by_shares[0.5, 0.1, 0.4]
    apart = math.dist(one.place, other.place)
    reach = max(math.dist(one.place, corner) for corner in one.corners)
    assert apart < 2 * reach < 1.25 * apart


def test_spots_are_the_best_and_the_sliders(tuning):
    best, current = analysis.spots(tuning, Weights(2, 1, 2))
    assert (best.name, best.shares) == ("best", tuple(tuning.best.weights.normalized()))
    assert best.value == tuning.fitted
    assert (current.name, current.shares) == ("current", (0.4, 0.2, 0.4))
    assert current.value == dict(tuning.grid)[Weights(0.4, 0.2, 0.4)]


def test_a_value_is_known_where_a_cell_lies():
    assert analysis.value_at(GRID, Weights(1, 1, 2)) is None
    assert analysis.value_at(GRID, Weights(3, 5, 2)) == 0.5


def test_how_many_weightings_are_as_good():
    assert analysis.near(GRID) == 1
    assert analysis.near([(Weights(), 0.5), (Weights(), 0.495), (Weights(), 0.48)]) == 2


def test_folds_have_ranges_of_shares_and_fusions_by_number():
    folds = [Setting(Weights(0.4, 0.2, 0.4)), Setting(Weights(0.5, 0.3, 0.2)), Setting(Weights(), "logistic")]
    ranges = analysis.fold_ranges(folds)
    expected = {"dense": (0.4, 0.5), "sparse": (0.2, 0.3), "colbert": (0.2, 0.4)}
    assert {mode: pytest.approx(both) for mode, both in ranges.items()} == expected
    assert analysis.fold_fusions(folds) == [("weighted_sum", 2), ("logistic", 1)]
    assert analysis.fold_ranges([Setting(Weights(), "logistic")]) == {}


@pytest.mark.parametrize(
    ("chosen", "setting", "kind", "name"),
    [
        ("linear", Setting(Weights()), "kept", "weighted_sum"),
        ("linear", Setting(Weights(0.5, 0.1, 0.4)), "moved", "weighted_sum"),
        ("linear", Setting(Weights(), "null_cdf"), "fusion", "null_cdf"),
        ("relative", Setting(Weights(), "rrf"), "better", "rrf"),
        ("boosted", Setting(Weights(), "boosted"), "better", "boosted"),
        ("default", Setting(Weights()), "usual", "default"),
        ("colbert", Setting(Weights(0, 0, 1)), "alone", "colbert"),
    ],
)
def test_the_reason_is_how_the_setting_came_to_be_chosen(tuning, chosen, setting, kind, name):
    held = Found(setting, 0.5, {"q": 0.5}, (setting,))
    learned = {chosen: dataclasses.replace(SAME, p_value=0.01)}
    found = analysis.reason(dataclasses.replace(tuning, found={chosen: held}, chosen=chosen, learned=learned))
    assert (found.kind, found.name) == (kind, name)
    assert found.p_value == (0.01 if kind == "better" else None)


def test_rows_are_the_comparisons():
    compared = compare_values({"a": 0.0, "b": 1.0, "c": 0.5}, {"a": 1.0, "b": 1.0, "c": 0.25})
    [row] = analysis.rows({"default": compared})
    assert row["name"] == "default"
    assert (row["first"], row["second"], row["difference"]) == pytest.approx((0.5, 0.75, 0.25))
    assert (row["wins"], row["losses"], row["ties"], row["p"]) == (1, 1, 1, compared.p_value)


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
    return re.search(rf"m3-tile-{name}'.*?<b class='m3-value'>(.*?)</b>", html(app))[1]


def command(*arguments):
    done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def divided(index_path, tmp_path_factory):
    """A golden set that the dense mode answers for the most part, and ColBERT else: other weights than the usual do better."""
    index_copy = shutil.copytree(index_path, tmp_path_factory.mktemp("divided") / "index")
    ids, lines = [json.loads(line)["id"] for line in HELPDESK.read_text(encoding="utf-8").splitlines()], []
    with M3Index.open(index_copy) as index:
        for number, document in enumerate(index.get(ids)):
            words = document.text.split()
            question = " ".join([words[1], words[-2]]) if len(words) > 9 else document.text[3:7]
            hits = index.search(question, 3, weights=(1, 0, 0) if number % 3 else (0, 0.2, 0.8))
            relevant = [hit.document.id for hit in hits[1:]]
            lines.append(json.dumps({"id": document.id, "question": question, "relevant": relevant}))
    return "\n".join(lines) + "\n"


@pytest.fixture
def project(project, divided):
    (project / "golden.jsonl").write_text(divided, encoding="utf-8")
    return project


@pytest.fixture
def tuned(run):
    """Opens the page with URL parameters, presses its button and waits for its jobs."""

    def tuned(**parameters):
        return settled(run(page="tune", **parameters).button(key="tune").click().run())

    return tuned


@pytest.mark.parametrize(
    ("parameters", "options"),
    [
        ({}, []),
        ({"measure": "RR@10", "fusions": ["weighted_sum"]}, ["--measure", "RR@10", "--fusion", "weighted_sum"]),
        (
            {"fusions": ["null_cdf", "weighted_sum"], "learned": "true", "routed": "true"},
            ["--fusion", "weighted_sum,null_cdf,learned,routed"],
        ),
    ],
)
def test_the_numbers_and_the_saved_profile_are_the_command_s(tuned, project, tmp_path, parameters, options):
    out = tmp_path / "by-command.toml"
    told = command("tune", "--path", project, "--golden", project / "golden.jsonl", *options, "--json", "--out", out)
    app = tuned(**parameters)
    measure = told["measure"]
    if not options:
        assert told["held_out"] < told["fitted"], "else one could stand for the other"
    assert f"{measure}, held out" in html(app)
    assert (tile(app, "held_out"), tile(app, "fitted")) == (f"{told['held_out']:.3f}", f"{told['fitted']:.3f}")
    assert (tile(app, "fusion"), tile(app, "questions")) == (told["best"]["fusion"], str(told["queries"]))
    against = app.dataframe[0].value
    assert list(against["name"]) == list(told["against"])
    for column in ("first", "second", "difference"):
        assert list(against[column]) == [one[column] for one in told["against"].values()]
    assert list(against["p"]) == [one["p_value"] for one in told["against"].values()]
    counts = [f"{one['wins']} / {one['losses']} / {one['ties']}" for one in told["against"].values()]
    assert list(against["counts"]) == counts
    if told["learned"]:
        assert list(app.dataframe[1].value["name"]) == list(told["learned"])
        assert list(app.dataframe[1].value["second"]) == [one["second"] for one in told["learned"].values()]
    app.button(key="save_profile").click().run()
    assert not app.exception
    assert (project / "profile.toml").read_text() == out.read_text()


def test_nothing_is_tuned_before_the_button_is_pressed(run):
    app = run(page="tune")
    assert "60 questions to tune on." in html(app)
    assert "m3-tile-" not in html(app)


def test_weights_are_taken_by_the_sliders(tuned):
    app = tuned(fusions=["weighted_sum"], dense="0.9", sparse="0", colbert="0.1")
    best = re.search(r"Chosen <span class='m3-muted'>([\d./]+)</span>", html(app))[1]
    app.button(key="use_weights").click().run()
    shown = [app.slider(key=mode).value for mode in ("dense", "sparse", "colbert")]
    assert shown == pytest.approx([float(share) for share in best.split("/")], abs=0.0051)
    assert "m3-tile-held_out" in html(app), "what was found stays"


def test_saving_lets_the_sliders_follow_and_what_was_found_stays(tuned, project):
    app = tuned(fusions=["weighted_sum"], measure="RR@10", dense="0.9", sparse="0", colbert="0.1")
    held_out = tile(app, "held_out")
    app.button(key="save_profile").click().run()
    saved = load_profile(project / "profile.toml")
    assert [app.slider(key=mode).value for mode in ("dense", "sparse", "colbert")] == [
        round(share, 2) for share in saved.weights.normalized()
    ]
    assert saved.fitted["tuning"]["measure"] == "RR@10"
    assert f"{saved.fitted['tuning']['held_out']:.3f}" == tile(app, "held_out") == held_out
    with M3Index.open(project, read_only=True) as index:
        assert index.profile == saved


def test_a_profile_that_was_calibrated_meanwhile_keeps_it(tuned, project):
    app = tuned(fusions=["weighted_sum"])
    save_profile(Profile(thresholds={"dense": 0.3}), project / "profile.toml")
    app.run()
    app.button(key="save_profile").click().run()
    assert load_profile(project / "profile.toml").thresholds == {"dense": 0.3}


def test_weights_of_another_fusion_are_not_for_the_sliders(tuned):
    app = tuned(fusions=["rrf"])
    button = app.button(key="use_weights")
    assert (tile(app, "fusion") == "rrf") == button.disabled
    assert not app.button(key="save_profile").disabled


def test_another_measure_waits_for_the_button_and_the_first_is_still_there(tuned):
    app = tuned(fusions=["weighted_sum"])
    before = tile(app, "held_out")
    app.selectbox(key="measure").set_value("RR@10").run()
    assert "60 questions to tune on." in html(app)
    app.selectbox(key="measure").set_value("nDCG@10").run()
    assert tile(app, "held_out") == before


def test_no_fusion_is_refused_in_words(run):
    app = run(page="tune")
    app.multiselect(key="fusions").set_value([]).run()
    assert "Choose at least one fusion." in html(app)
    assert app.button(key="tune").disabled


def test_few_questions_are_too_few(run, project):
    path = project / "golden.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:9]) + "\n")
    assert "9 questions have a relevant document in this index; tuning needs 10." in html(run(page="tune"))


def test_without_questions_the_page_says_how_to_get_some(run, project):
    (project / "golden.jsonl").unlink()
    assert "There are no questions with known answers yet." in html(run(page="tune"))


def test_read_only_nothing_can_be_saved(tuned):
    app = tuned(fusions=["weighted_sum"], arguments=["--read-only"])
    assert app.button(key="save_profile").disabled
    assert not app.button(key="use_weights").disabled


def test_the_map_has_its_numbers_as_words(tuned, project):
    app = tuned(fusions=["weighted_sum"], lang="zh")
    assert "权重图" in html(app)
    assert len(app.get("vega_lite_chart")) == 2
    assert re.search(r"231 种权重中有 \d+ 种", html(app))
    assert re.search(r"滑块 0\.4 / 0\.2 / 0\.4 → 0\.\d{3}", html(app))


class CountingEncoder(HashingEncoder):
    """Counts how often it is asked for queries."""

    calls = 0

    def encode_queries(self, texts):
        type(self).calls += 1
        return super().encode_queries(texts)


def test_a_moved_slider_never_calls_the_model(tuned, monkeypatch):
    monkeypatch.setattr("m3retriever.encoders.hashing.HashingEncoder", CountingEncoder)
    CountingEncoder.calls = 0
    app = tuned(fusions=["weighted_sum"])
    before = CountingEncoder.calls
    assert before > 0
    seen = html(app)
    app.slider(key="dense").set_value(0.9).run()
    assert html(app) != seen, "the sliders' place on the map moves"
    app.selectbox(key="measure").set_value("RR@10").run()
    settled(app.button(key="tune").click().run())
    assert CountingEncoder.calls == before


def test_the_held_out_mean_is_over_questions(tuning):
    assert analysis.held_out(tuning) == mean(tuning.held_out)
