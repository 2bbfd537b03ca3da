"""Thresholds and Tune in a browser: charts on one axis, the map, clicks, links, downloads."""

from __future__ import annotations

import shutil

import pytest

from m3retriever import MODES, load_profile

pytestmark = pytest.mark.browser

CELLS = ".mark-shape.role-mark path"


@pytest.fixture(scope="module")
def folder(index_path, write_hard_set, tmp_path_factory):
    """An index with a hard golden set."""
    folder = tmp_path_factory.mktemp("fitting") / "index"
    shutil.copytree(index_path, folder)
    write_hard_set(folder)
    return folder


@pytest.fixture(scope="module")
def address(folder, serve):
    return serve(folder)


@pytest.fixture
def app(tab, address, request):
    return tab(address, **getattr(request, "param", {}))


def press(app, name):
    with app.rerun():
        app.page.get_by_role("button", name=name).click()
    app.settle()


def tile(app, name):
    return app.page.get_by_test_id(f"m3-tile-{name}").locator(".m3-value").inner_text()


def lines_of(app, words):
    """Where the threshold's lines stand in a chart, in pixels of the page."""
    script = """chart => [...chart.querySelectorAll('line, path')].filter(
        one => (one.getAttribute('stroke') || '').toLowerCase() === '#c8413b' && one.getBoundingClientRect().height > 100
    ).map(one => { const box = one.getBoundingClientRect(); return box.x + box.width / 2 })"""
    chart = app.chart(words)
    chart.locator("svg").wait_for()
    return chart.evaluate(script)


def test_the_threshold_is_taken_and_stands_at_the_same_place_in_both_charts(app):
    app.opened("/thresholds?golden=golden-hard.jsonl&threshold=0.5")
    [before] = lines_of(app, "Histogram of the scores")
    assert lines_of(app, "Precision, recall and F1") == pytest.approx([before], abs=1)
    found = float(tile(app, "threshold"))
    press(app, f"Use {found:.3f}")
    assert app.slider("Threshold") == pytest.approx(found, abs=0.005)
    assert f"at {app.slider('Threshold'):.3f}" in app.page.get_by_test_id("m3-tile-f1").inner_text()
    [after] = lines_of(app, "Histogram of the scores")
    assert (after > before) == (found > 0.5)
    assert lines_of(app, "Precision, recall and F1") == pytest.approx([after], abs=1)
    assert "threshold=" in app.page.url
    app.chart("Reliability: said").locator("svg").wait_for()


def test_pointing_at_the_curves_shows_a_threshold_s_numbers(app):
    app.opened("/thresholds?golden=golden-hard.jsonl&mode=dense")
    box = app.chart("Precision, recall and F1").locator("svg").bounding_box()
    app.page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.5)
    shown = app.page.locator("#vg-tooltip-element").filter(has_text="Precision")
    shown.wait_for()
    assert {"Threshold", "Recall", "F1", "Answers"} <= set(shown.inner_text().replace("\t", "\n").split("\n"))


def test_a_typed_level_moves_its_band_and_a_wrong_one_is_told(app):
    app.opened("/thresholds?golden=golden-hard.jsonl&mode=colbert")
    weak = app.page.get_by_label("weak, from")
    for value in ("0.111", "0.123"):  # the second is typed into what the first left
        weak.fill(value)
        with app.rerun():
            weak.press("Enter")
        app.settle()
        assert weak.input_value() == value
        app.page.locator(f"[aria-label*='unrelated'][aria-label*='{value}']").first.wait_for(state="attached")
    weak.fill("1.5")
    with app.rerun():
        weak.press("Enter")
    app.settle()
    assert "The bounds must rise" in app.text("error")
    assert app.page.get_by_role("button", name="Save to profile").is_disabled()
    press(app, "Reset")
    assert app.page.get_by_test_id("m3-error").count() == 0


def test_a_link_shows_the_same_view(app):
    app.opened("/thresholds?golden=golden-hard.jsonl&mode=dense&cut_dense=0.2&for=recall&recall=0.6&confidence=0.8")
    seen = [tile(app, name) for name in ("precision", "recall", "answers", "threshold", "held_out")]
    assert app.page.get_by_label("Promised with a confidence of", exact=True).input_value() == "0.80"
    assert "at 0.200" in app.page.get_by_test_id("m3-tile-precision").inner_text()
    link = app.page.url
    app.opened(link.removeprefix(app.server))
    assert [tile(app, name) for name in ("precision", "recall", "answers", "threshold", "held_out")] == seen
    app.page.get_by_text("Hybrid", exact=True).first.click()
    app.page.wait_for_url("**mode=hybrid**")


@pytest.mark.parametrize("app", [{"color_scheme": "dark"}, {"locale": "zh-CN"}], indirect=True, ids=["dark", "zh"])
def test_the_map_has_every_weighting_and_its_marks(app):
    app.opened("/tune?golden=golden-hard.jsonl&fusions=weighted_sum&dense=0.5&sparse=0.5&colbert=0")
    app.page.get_by_test_id("stMainBlockContainer").get_by_test_id("stBaseButton-primary").click()
    app.settle()
    app.page.get_by_test_id("m3-tile-held_out").wait_for()
    chart = app.page.locator("[data-testid=stVegaLiteChart]").first
    chart.locator(CELLS).first.wait_for(state="attached")
    assert chart.locator(CELLS).count() == 231
    boxes = [cell.bounding_box() for cell in (chart.locator(CELLS).first, chart.locator(CELLS).last)]
    assert all(box["width"] > 8 for box in boxes)
    assert chart.locator(".role-mark text").count() == len(MODES)
    box = boxes[0]
    app.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    app.page.locator("#vg-tooltip-element").filter(has_text="nDCG@10").wait_for()


def test_the_sliders_mark_moves_on_the_map(app):
    app.opened("/tune?golden=golden-hard.jsonl&fusions=weighted_sum&dense=1&sparse=0&colbert=0")
    press(app, "Tune")
    before = square(app)
    app.move("Dense", "Home")
    app.move("ColBERT", "End")
    after = square(app)
    assert after["x"] > before["x"] + 100
    assert after["y"] == pytest.approx(before["y"], abs=2)


def square(app):
    """The sliders' mark."""
    chart = app.chart("Map of mean nDCG@10")
    chart.locator("svg").wait_for()
    return chart.locator(".mark-symbol path[aria-label*='sliders']").last.bounding_box()


def test_weights_are_taken_downloaded_and_saved(app, folder, tmp_path):
    app.opened("/tune?golden=golden-hard.jsonl&fusions=weighted_sum&dense=1&sparse=0&colbert=0")
    press(app, "Tune")
    with app.page.expect_download() as download:
        app.page.get_by_role("button", name="Profile (TOML)").click()
    download.value.save_as(tmp_path / "taken.toml")
    taken = load_profile(tmp_path / "taken.toml")
    press(app, "Use these weights")
    shares = [round(share, 2) for share in taken.weights.normalized()]
    assert [app.slider(name) for name in ("Dense", "Sparse", "ColBERT")] == shares
    press(app, "Save to profile")
    assert load_profile(folder / "profile.toml") == taken
    app.page.get_by_test_id("m3-tile-held_out").wait_for()
    (folder / "profile.toml").unlink()


def test_tuning_can_be_stopped_or_ends_and_pages_can_be_left_meanwhile(app):
    app.opened("/tune?golden=golden-hard.jsonl&learned=true&routed=true&measure=RR@10")
    app.page.get_by_role("button", name="Tune", exact=True).click()
    held_out = app.page.get_by_test_id("m3-tile-held_out").filter(has_text="RR@10, held out")
    app.page.get_by_test_id("m3-job").or_(held_out).wait_for()  # Streamlit drops a click where the page is left at once
    app.page.get_by_role("link", name="Thresholds").click()
    app.settle()
    app.chart("Histogram of the scores").locator("svg").wait_for()
    app.page.get_by_role("link", name="Tune").click()
    app.page.wait_for_url("**/tune?**")
    held_out.wait_for(timeout=120_000)
