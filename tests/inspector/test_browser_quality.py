"""Evaluate and Compare in a browser: charts, clicks, links, downloads, and that hostile names stay text."""

from __future__ import annotations

import csv
import json
import shutil

import pytest
from typer.testing import CliRunner

from m3retriever.cli import app as command_line
from m3retriever.io import read_golden

pytestmark = pytest.mark.browser

EVIL = "<img src=http://example.invalid/q.png onerror='window.hacked=1'> ![i](http://example.invalid/r.png) :material/home:"
BARS = "[data-testid=stVegaLiteChart] .mark-rect.role-mark path"
ID, QUESTION, TOP, SCORE, HYBRID, DENSE, SPARSE, COLBERT, FIRST = range(1, 10)  # columns; 0 selects


@pytest.fixture(scope="module")
def folder(index_path, write_hard_set, tmp_path_factory):
    """An index with a hard golden set, one of hostile questions, and a run that is not of them."""
    folder = tmp_path_factory.mktemp("quality") / "index"
    shutil.copytree(index_path, folder)
    write_hard_set(folder)
    evil = [{"id": f"{EVIL}{number}", "question": f"{EVIL} password {number}", "relevant": ["account-01"]} for number in (1, 2)]
    (folder / "golden-evil.jsonl").write_text("".join(json.dumps(one) + "\n" for one in evil), encoding="utf-8")
    (folder / "runs").mkdir()
    line = f"{EVIL}1\tQ0\thostile-title\t1\t1.0\tx\n{EVIL}3\tQ0\tgone {EVIL}\t1\t1.0\tx\n"
    (folder / "runs" / "evil.run").write_text(line, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def address(folder, serve):
    return serve(folder)


@pytest.fixture
def app(tab, address, request):
    return tab(address, **getattr(request, "param", {}))


def in_search(app):
    app.page.get_by_label("Query", exact=True).wait_for()
    app.wait()


def pick(app, label, option):
    """Choose an option of a select box."""
    app.page.get_by_label(label, exact=True).first.click()
    with app.rerun():
        app.page.get_by_role("option", name=option, exact=True).click()
    app.settle()


def test_a_selected_question_opens_in_search_and_its_url_shows_it_again(app):
    app.opened("/evaluate?golden=golden-hard.jsonl&sparse=0.7")
    app.chart("Quality").locator("svg").wait_for()
    question, found = app.cell(QUESTION, 2), app.cell(FIRST, 2)
    app.select(2)
    for _ in range(2):
        in_search(app)
        assert app.page.get_by_label("Query", exact=True).input_value() == question
        assert app.slider("Sparse") == 0.7
        assert app.cell(3, 0) == found
        app.page.reload()


def test_the_set_stays_chosen_and_nothing_selected_after_a_look_at_search(app):
    app.opened("/evaluate?golden=golden-hard.jsonl")
    for row in (2, 4):
        question = app.cell(QUESTION, row)
        app.select(row)
        in_search(app)
        assert app.page.get_by_label("Query", exact=True).input_value() == question
        with app.rerun():
            app.page.get_by_role("link", name="Evaluate").click()
        app.settle()
        assert app.page.get_by_label("Golden set", exact=True).first.input_value() == "golden-hard.jsonl"
        assert app.cell(QUESTION, row) == question


def test_a_link_shows_the_same_measures_mode_and_order(app):
    app.opened("/evaluate?golden=golden-hard.jsonl")
    with app.rerun():
        app.page.get_by_label("Measures", exact=True).fill("RR, P@3")
        app.page.keyboard.press("Enter")
    app.settle()
    with app.rerun():
        app.page.get_by_test_id("stButtonGroup").get_by_text("Sparse", exact=True).click()
    app.settle()
    pick(app, "Order by", "P@3")
    seen = app.text("means-sparse"), app.column(ID, 5), app.text("tile-exact")
    app.page.reload()
    app.settle()
    assert (app.text("means-sparse"), app.column(ID, 5), app.text("tile-exact")) == seen
    assert "RR, P@3" in app.page.get_by_label("Measures", exact=True).input_value()


def downloaded(app, name, folder):
    with app.page.expect_download() as started:
        app.page.get_by_role("button", name=name).click()
    started.value.save_as(folder / "file")
    return started.value.suggested_filename, folder / "file"


def test_downloads_are_what_the_command_line_writes(app, folder, tmp_path):
    app.opened("/evaluate?golden=golden-hard.jsonl&dense=1&sparse=0&colbert=0")
    arguments = ["evaluate", "--path", folder, "--golden", folder / "golden-hard.jsonl", "--run-out", tmp_path / "wanted"]
    (tmp_path / "p.toml").write_text("[weights]\ndense = 1\nsparse = 0\ncolbert = 0\n")
    result = CliRunner().invoke(command_line, [str(one) for one in [*arguments, "--profile", tmp_path / "p.toml", "--json"]])
    found = json.loads(result.stdout)
    app.page.get_by_role("button", name="Download", exact=True).click()
    name, path = downloaded(app, "Run of Hybrid", tmp_path)
    assert name == "hybrid.run"
    assert path.read_bytes() == (tmp_path / "wanted").read_bytes()
    _, path = downloaded(app, "Means", tmp_path)
    rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    assert {(row["mode"], row["measure"]): float(row["mean"]) for row in rows} == {
        (mode, measure): value for mode, values in found["measures"].items() for measure, value in values.items()
    }
    _, path = downloaded(app, "All questions", tmp_path)
    rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    assert len(rows) == found["queries"] == 60
    mean = sum(float(row["sparse nDCG@10"]) for row in rows) / 60
    assert mean == pytest.approx(found["measures"]["sparse"]["nDCG@10"])
    _, path = downloaded(app, "Golden set, JSONL", tmp_path)
    assert read_golden(path) == read_golden(folder / "golden-hard.jsonl")


def test_a_clicked_bar_chooses_its_question_and_the_link_keeps_all_choices(app):
    app.opened("/compare?golden=golden-hard.jsonl")
    pick(app, "A", "Mode · ColBERT")
    pick(app, "B", "Preset · keyword")
    bars = app.page.locator(BARS)
    bars.nth(5).wait_for()
    before = app.page.get_by_label("Question", exact=True).input_value()
    with app.rerun():
        bars.nth(2).click()
    app.settle()
    chosen = app.page.get_by_label("Question", exact=True).input_value()
    assert chosen != before
    assert "first=mode" in app.page.url
    assert "second=preset" in app.page.url
    assert "question=h-" in app.page.url
    seen = app.text("tile-first"), app.text("tile-second"), app.text("values"), app.column(3, 5)
    app.page.reload()
    app.settle()
    assert app.page.get_by_label("Question", exact=True).input_value() == chosen
    assert (app.text("tile-first"), app.text("tile-second"), app.text("values"), app.column(3, 5)) == seen
    with app.rerun():
        app.page.get_by_text("中文", exact=True).click()
    app.settle()
    assert app.page.get_by_label("A", exact=True).first.input_value() == "模式 · ColBERT"
    assert app.text("tile-second").startswith("B · nDCG@10")
    assert app.text("values").split("。")[0][2:].split("，B ") == seen[2].split(". ")[0][2:].split(", B ")


def test_the_compared_question_opens_in_search(app):
    app.opened("/compare?golden=golden-hard.jsonl")
    question = app.page.get_by_label("Question", exact=True).input_value().partition(" · ")[2]
    best = app.cell(4, 0)
    app.page.get_by_role("button", name="Open in Search").click()
    in_search(app)
    assert app.page.get_by_label("Query", exact=True).input_value() == question
    assert app.cell(3, 0) == best
    app.page.reload()
    in_search(app)
    assert app.page.get_by_label("Query", exact=True).input_value() == question


def test_what_is_compared_stays_while_other_pages_are_looked_at(app):
    app.opened("/compare?golden=golden-hard.jsonl")
    pick(app, "A", "Preset · semantic")
    for page in ("Evaluate", "Compare"):
        with app.rerun():
            app.page.get_by_role("link", name=page).click()
        app.settle()
    assert app.page.get_by_label("A", exact=True).first.input_value() == "Preset · semantic"


def test_a_saved_run_is_compared_with_other_weights_after_a_restart(app, folder, serve, tab):
    app.opened("/evaluate?golden=golden-hard.jsonl")
    app.page.get_by_role("button", name="Save run").click()
    app.page.get_by_label("Name of the run").fill("monday")
    with app.rerun():
        app.page.get_by_role("button", name="Save", exact=True).click()
    app.settle()
    assert "monday" in app.text("saved")
    before = app.text("means-hybrid").split()[1]
    again = tab(serve(folder)).opened("/compare?golden=golden-hard.jsonl&first=run:monday&sparse=0&colbert=0")
    assert before in again.text("tile-first")
    assert "Run · monday" in again.text("tile-first")
    assert "1.00 · 0.00 · 0.00" in again.text("about-B")
    lost = again.text("tile-losses")
    assert "B worse" in lost
    again.move("Sparse", "End")
    again.settle()
    assert "0.29 · 0.71 · 0.00" in again.text("about-B")
    assert again.text("tile-losses") != lost


def test_hostile_questions_runs_and_file_names_are_only_text(app, folder):
    app.opened("/evaluate?golden=golden-evil.jsonl")
    assert app.cell(QUESTION, 0).startswith("<img src=http://example.invalid")
    app.opened("/compare?golden=golden-evil.jsonl&first=run:evil&second=mode:sparse")
    assert "lacks 1 of the questions" in app.text("warning")
    assert "<img" in app.text("warning")
    assert "<img" in app.text("beyond-A")
    mark = app.page.locator(BARS).first
    mark.hover()
    app.page.locator("#vg-tooltip-element").filter(has_text="http://example.invalid").wait_for()
    app.page.get_by_role("button", name="Upload").last.click()
    with app.rerun():
        app.page.locator("[data-testid=stFileUploader] input[type=file]").last.set_input_files(
            {"name": f"{EVIL.replace('/', '')}.run", "mimeType": "text/plain", "buffer": b"one two"}
        )
    app.settle()
    assert "<img" in app.page.get_by_test_id("m3-error").inner_text()
    assert app.page.evaluate("window.hacked") is None
    assert app.page.locator("img[src*=invalid]").count() == 0
