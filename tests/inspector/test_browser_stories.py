"""The fifteen stories that the inspector is for, on the demo's index, in a browser.

They are in the order in which an engineer would live them, each in a tab of its own; what one keeps on disk (judgements, runs,
the profile) the later ones find.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from m3retriever import load_profile
from m3retriever.io import read_golden, read_run

pytestmark = [pytest.mark.browser, pytest.mark.model]

QUERY = "split a shell command into its arguments"
HIT = "/?q=" + QUERY.replace(" ", "+")
RANK, ABOVE, TITLE, SCORE, DENSE, SPARSE, COLBERT, RANKS, GRADE = range(1, 10)  # columns; 0 selects
MODES = {"dense": DENSE, "sparse": SPARSE, "colbert": COLBERT}


@pytest.fixture(scope="module")
def folder(demo, tmp_path_factory):
    path = tmp_path_factory.mktemp("stories") / "demo"
    shutil.copytree(demo[0], path)
    return path


@pytest.fixture(scope="module")
def printed(folder):
    """What the command line says with --json, by command; asked before any story changes the folder."""

    def ask(*arguments):
        program = [str(Path(sys.executable).with_name("m3retriever")), *arguments, "--path", str(folder), "--json"]
        done = subprocess.run(program, capture_output=True, text=True, timeout=120, check=True)
        return json.loads(done.stdout)

    golden = ["--golden", str(folder / "golden.jsonl")]
    return {"search": ask("search", QUERY, "-k", "20"), "evaluate": ask("evaluate", *golden)}


@pytest.fixture(scope="module")
def address(folder, printed, serve):
    return serve(folder)


@pytest.fixture
def app(tab, address):
    return tab(address)


def test_1_every_hit_shows_its_score_in_every_mode(app, printed):
    app.open(HIT)
    for row, hit in enumerate(printed["search"]["hits"]):
        assert app.number(SCORE, row) == f"{hit['score']:.3f}"
        assert [app.number(column, row) for column in MODES.values()] == [f"{hit['scores'][mode]:.3f}" for mode in MODES]


def test_2_the_parts_of_the_third_hit_sum_to_its_score(app):
    app.open(HIT)
    app.select(2)
    app.chart("Parts of the score: Dense").locator("svg").wait_for()
    parts = [float(part) for part in app.page.get_by_test_id("m3-part").all_inner_texts()]
    assert app.text("score") == app.number(SCORE, 2)
    assert sum(parts) == pytest.approx(float(app.text("score")), abs=0.0021)  # four numbers rounded to 3 digits


def test_3_every_hit_shows_its_rank_in_each_mode_alone(app, printed):
    app.open(HIT)
    for row, hit in enumerate(printed["search"]["hits"]):
        assert app.cell(RANKS, row) == "·".join(str(hit["ranks"][mode]) for mode in MODES)


def test_4_a_moved_weight_reorders_and_leaves_the_other_sliders_alone(app):
    app.open(HIT)
    before = app.column(TITLE, 20)
    app.move("Sparse", "End")
    assert (app.slider("Dense"), app.slider("Sparse"), app.slider("ColBERT")) == (0.4, 1.0, 0.4)
    assert app.column(TITLE, 20) != before


def test_5_the_threshold_is_a_line_a_mark_a_count_and_a_warning(app):
    app.open(HIT + "&threshold=0.35")
    scores = [float(score) for score in app.column(SCORE, 20)]
    assert app.column(ABOVE, 20) == ["●" if score >= 0.35 else "○" for score in scores]
    assert f"{sum(score >= 0.35 for score in scores)} / 20 above threshold 0.35" in app.text("count")
    app.chart("Score strip").get_by_text("0.35", exact=True).wait_for()
    app.open(HIT + "&threshold=0.9")
    assert f"The nearest miss scores {scores[0]:.3f}, short by {0.9 - scores[0]:.3f}" in app.text("warning")


def test_6_each_query_token_shows_what_it_matched(app):
    app.open(HIT)
    app.tab("Alignment")
    app.page.get_by_test_id("m3-mean").wait_for()
    assert app.number(COLBERT, 0) in app.text("mean")
    app.page.locator("[data-testid=stVegaLiteChart][aria-label*='shell → shell']").locator("svg").wait_for()


def test_7_shared_tokens_show_both_weights_and_their_product(app):
    app.open(HIT)
    app.tab("Lexical")
    app.page.get_by_test_id("m3-products").wait_for()
    assert app.number(SPARSE, 0) in app.text("products")
    products = app.page.get_by_role("tabpanel").filter(visible=True).get_by_test_id("glide-cell-3-0").first
    products.wait_for(state="attached")
    cells = [
        app.page.get_by_role("tabpanel").filter(visible=True).get_by_test_id(f"glide-cell-{at}-0").first for at in (1, 2, 3)
    ]
    query, document, product = (float(cell.inner_text()) for cell in cells)
    assert query * document == pytest.approx(product, rel=1e-4)


def test_8_a_link_shows_the_same_to_somebody_else(app, tab, address):
    app.open("/")
    app.ask(QUERY)
    app.move("ColBERT", "Home")
    app.move("Threshold", "End")
    app.select(4)
    seen = app.column(TITLE, 10), app.column(SCORE, 10), app.text("count"), app.text("title")
    other = tab(address).open(app.page.url.removeprefix(address))
    assert (other.column(TITLE, 10), other.column(SCORE, 10), other.text("count"), other.text("title")) == seen


def test_10_the_table_is_what_the_command_line_prints(app, printed):
    app.open("/evaluate")
    app.page.get_by_test_id("m3-means-hybrid").wait_for(timeout=300_000)  # 90 questions are scored first
    shown = [number for mode in ("hybrid", *MODES) for number in re.findall(r"\d\.\d{3}", app.text(f"means-{mode}"))]
    expected = [
        f"{number:.3f}"
        for mode, values in printed["evaluate"]["measures"].items()
        for name, value in values.items()
        for number in (value, *printed["evaluate"]["intervals"][mode][name])
    ]
    assert shown == expected


def test_11_the_worst_question_comes_first_and_opens_in_search(app):
    app.open("/evaluate")
    question, values = app.cell(2, 0), [float(app.cell(5, row)) for row in range(10)]
    assert values == sorted(values)
    app.select(0)
    app.page.wait_for_url("**/?**")
    app.page.get_by_label("Query", exact=True).wait_for()
    assert app.page.get_by_label("Query", exact=True).input_value() == question
    app.page.reload()
    app.wait()
    assert app.page.get_by_label("Query", exact=True).input_value() == question


def test_12_two_settings_are_compared(app):
    app.open("/compare?first=mode%3Asparse")
    wins, losses, ties = (int(app.text(f"tile-{name}").split()[-2]) for name in ("wins", "losses", "ties"))
    assert wins + losses + ties == 90
    assert wins > losses
    assert "B is better" in app.text("outcome")


def test_13_a_missing_document_says_which_stage_cut_it_and_what_helps(app):
    app.open(HIT + "&missing=zipfile.ZipFile.close&k=5")
    if "No document has this id" in app.page.content():
        app.open(HIT + "&missing=zipfile&k=5")
    app.page.get_by_test_id("m3-missing").wait_for()
    assert re.search(r"It has place \d+, and 5 results are shown|It is not a candidate", app.text("missing"))
    assert re.search(r"\d+ results|a depth of \d+ in the profile|a query with words", app.text("list"))
    assert re.search(r"Hit number 5 scores 0\.\d{3}, this document", app.text("gap"))


def test_14_a_judgement_in_place_is_kept_and_can_be_taken_away(app, folder):
    app.open(HIT)
    with app.rerun():
        app.page.get_by_role("button", name="Relevant").first.click()
    app.shows(GRADE, 0, "★★")
    [held] = [one for one in read_golden(folder / "golden.jsonl") if one.question == QUERY]
    assert list(held.judged.values()) == [2]
    with app.page.expect_download() as download:
        app.page.get_by_role("button", name="Judgements as JSONL").click()
    assert QUERY in {one.question for one in read_golden(download.value.path())}
    app.opened("/evaluate").page.get_by_text("means over 91 questions").wait_for()  # what was judged is evaluated at once


def test_15_a_saved_run_is_compared_later(app, folder):
    app.open("/evaluate?dense=1&sparse=0&colbert=0")
    app.page.get_by_role("button", name="Save run").click()
    with app.rerun():
        app.page.get_by_label("Name of the run", exact=True).fill("only dense")
        app.page.keyboard.press("Enter")
    with app.rerun():
        app.page.get_by_test_id("stPopoverBody").get_by_role("button").first.click()
    assert len(read_run(folder / "runs" / "only dense.run")) == 91
    app.open("/compare?first=run%3Aonly+dense")
    assert "only dense" in app.text("tile-first")
    assert float(app.text("tile-difference").split()[-2]) > 0


def test_9_a_threshold_is_calibrated_from_labels_taken_and_saved(app, folder):
    app.open("/thresholds")
    app.page.get_by_test_id("m3-tile-held_out").wait_for(timeout=300_000)
    found = float(app.text("tile-threshold").split()[-1])
    app.wait()
    with app.rerun():
        app.page.get_by_role("button", name=re.compile("^Use ")).click()
    assert app.slider("Threshold") == pytest.approx(found, abs=0.0051)
    assert app.page.url.endswith(f"threshold={app.slider('Threshold'):g}")
    app.page.get_by_test_id("m3-tile-held_out").wait_for(timeout=300_000)
    app.page.get_by_role("button", name="Save to profile").click()
    app.page.get_by_text("Uncalibrated: none in the profile.").wait_for(state="detached")
    saved = load_profile(folder / "profile.toml")
    assert saved.thresholds["hybrid"] == pytest.approx(found, abs=0.0005)
    assert set(saved.calibration) == {"hybrid", *MODES}
