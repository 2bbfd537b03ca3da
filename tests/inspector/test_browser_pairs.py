"""The pages Pairs and Index, as far as only a browser shows it: charts, long texts, links, looks."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

QUERY, DOCUMENT = "how do I reset my password", "To reset a password, open the sign-in page."


def enter(app, label, text):
    with app.rerun():
        app.page.get_by_label(label, exact=True).fill(text)
        app.page.keyboard.press("Control+Enter")


def score(app, mode):
    return app.text(f"tile-{mode}").split()[1]


def test_two_texts_are_compared_and_the_link_shows_them_again(app):
    app.open("/pairs")
    enter(app, "Query", QUERY)
    enter(app, "Document", DOCUMENT)
    app.chart("how → ").locator("svg").wait_for()
    app.chart("Similarity of each query token").locator("svg").wait_for()
    seen = [score(app, mode) for mode in ("hybrid", "dense", "sparse", "colbert")]
    app.tab("Lexical")
    app.page.get_by_test_id("m3-products").wait_for()
    assert seen[2] in app.text("products")
    app.page.reload()
    expect(app.page.get_by_label("Query", exact=True)).to_have_value(QUERY, timeout=60_000)
    app.wait()
    assert [score(app, mode) for mode in ("hybrid", "dense", "sparse", "colbert")] == seen


def test_a_moved_weight_changes_the_hybrid_alone(app):
    app.open(f"/pairs?a={QUERY}&b={DOCUMENT}")
    before = [score(app, mode) for mode in ("dense", "sparse", "colbert")]
    assert score(app, "hybrid") not in before
    app.move("Sparse", "Home")
    app.move("ColBERT", "Home")
    assert [score(app, mode) for mode in ("dense", "sparse", "colbert")] == before
    assert score(app, "hybrid") == before[0]
    with app.rerun():
        app.page.get_by_role("button", name="Swap").click()
    assert app.page.get_by_label("Query", exact=True).input_value() == DOCUMENT


def test_texts_outlive_a_visit_to_another_page(app):
    app.open(f"/pairs?a={QUERY}&b={DOCUMENT}")
    with app.rerun():
        app.page.get_by_role("link", name="Search").click()
    with app.rerun():
        app.page.get_by_role("link", name="Pairs").click()
    assert app.page.get_by_label("Query", exact=True).input_value() == QUERY
    app.page.wait_for_url("**b=To+reset**")


def test_two_texts_of_8000_tokens_do_not_freeze_the_page(app):
    app.open("/pairs")
    enter(app, "Query", " ".join(f"ask{number} of" for number in range(4_000)))
    enter(app, "Document", " ".join(f"ask{number} it" for number in range(4_000)))
    assert "The first 40 bars and 24 rows of 8000 query tokens" in app.text("cut")
    assert app.page.locator(".m3-tile").count() == 4
    assert len(app.page.url) < 300
    app.tab("Text")
    app.page.get_by_test_id("m3-excerpt").wait_for()
    assert app.page.locator("[data-testid=m3-text] span").count() < 500
    app.move("Dense", "Home")
    app.page.reload()
    app.wait()
    assert app.page.get_by_label("Query", exact=True).input_value() == ""


def test_lines_are_scored_each_with_each(app):
    app.open("/pairs")
    label = "A text a line, at most 30"
    enter(app, label, "reset my password\n重置密码\n<img src=http://example.invalid/m.png>")
    chart = app.chart("Matrix of 3 texts scored with each other: Hybrid.")
    chart.locator("svg").wait_for()
    assert chart.locator(".mark-text.role-mark text").count() == 9
    with app.rerun():
        app.page.get_by_role("radio", name="Sparse").click()
    app.chart("Matrix of 3 texts scored with each other: Sparse.").locator("svg").wait_for()
    assert "matrix=sparse" in app.page.url
    app.page.reload()
    app.wait()
    app.chart("Matrix of 3 texts scored with each other: Sparse.").locator("svg").wait_for()


def test_the_index_is_counted_and_a_document_read(app):
    app.open("/index")
    assert app.text("tile-documents").split() == ["Documents", "62"]
    app.chart("Tokens of 62 documents").locator("svg").wait_for()
    bars = app.chart("Tokens of 62 documents").locator(".mark-rect path").all()
    assert max(bar.bounding_box()["height"] for bar in bars) > 80, "bars stand on the axis"
    with app.rerun():
        app.page.get_by_label("Id or filter").fill("hostile-title")
        app.page.keyboard.press("Enter")
    app.page.get_by_text("and a second one").wait_for()
    assert app.page.evaluate("window.hacked") is None


def test_hostile_documents_are_shown_as_text_on_the_page_index(app):
    app.open("/index?find=hostile")
    app.page.get_by_text("<script>window.hacked = 1</script>").wait_for()
    app.select(1)
    app.page.get_by_text("and a second one").wait_for()
    assert app.page.evaluate("window.hacked") is None
    assert app.page.locator("img[src*=invalid], a[href^=javascript], form[action*=invalid]").count() == 0


@pytest.mark.parametrize("app", [{"locale": "zh-CN", "color_scheme": "dark"}], indirect=True)
def test_both_pages_speak_chinese_in_the_dark(app):
    app.open("/pairs?a=忘记密码&b=重置密码")
    assert "未标定" in app.text("tile-dense")
    app.chart("忘 → ").locator("svg").wait_for()
    app.open("/index")
    assert app.text("tile-documents").split() == ["文档", "62"]
