"""What only a browser shows: charts, clicks, links, looks, and that hostile text stays text."""

from __future__ import annotations

import socket

import pytest

pytestmark = pytest.mark.browser

QUERY = "how do I reset my password"
HIT = "/?q=how+do+I+reset+my+password"
RANK, ABOVE, TITLE, SCORE, DENSE, SPARSE, COLBERT, RANKS = range(1, 9)  # columns; 0 selects


def test_the_parts_of_every_hit_sum_to_its_score(app):
    app.open("/")
    assert "Type a query" in app.text("info")
    app.ask(QUERY)
    for row in range(3):
        app.select(row) if row else None
        parts = [float(part) for part in app.page.get_by_test_id("m3-part").all_inner_texts()]
        assert len(parts) == 3
        assert sum(parts) == pytest.approx(float(app.text("score")), abs=0.0021)  # four numbers rounded to 3 digits
        assert app.text("score") == app.number(SCORE, row)
        assert app.text("title") == app.cell(TITLE, row)


def test_the_hits_are_in_the_order_of_the_score_with_charts_beside_them(app):
    app.open(HIT + "&threshold=0.2")
    scores = [float(score) for score in app.column(SCORE, 12)]
    assert scores == sorted(scores, reverse=True)
    assert app.column(ABOVE, 12) == ["●" if score >= 0.2 else "○" for score in scores]
    assert "/ 20 above threshold 0.20" in app.text("count")
    app.chart("Score strip: each of 62 lines").locator("svg").wait_for()
    app.chart("Parts of the score: Dense").locator("svg").wait_for()


def test_a_moved_weight_reorders_and_leaves_the_other_sliders_alone(app):
    app.open(HIT)
    app.select(2)
    before, chosen = app.column(TITLE, 20), app.text("title")
    app.move("Sparse", "Home")
    app.move("ColBERT", "Home")
    assert (app.slider("Dense"), app.slider("Sparse"), app.slider("ColBERT")) == (0.4, 0.0, 0.0)
    assert app.column(SCORE, 5) == app.column(DENSE, 5)
    assert app.column(TITLE, 20) != before
    assert app.text("title") == chosen  # the document stays chosen where it moves
    with app.rerun():
        app.page.get_by_role("button", name="Keyword").click()
    assert (app.slider("Dense"), app.slider("Sparse"), app.slider("ColBERT")) == (0.3, 0.6, 0.1)


def test_a_reload_shows_the_same_view(app):
    app.open("/")
    app.ask("invoice PDF")
    app.move("Sparse", "End")
    app.move("Threshold", "ArrowRight")
    seen = app.column(TITLE, 10), app.column(SCORE, 10), app.text("count"), app.text("score")
    assert "sparse=1" in app.page.url
    app.page.reload()
    app.wait()
    assert app.page.get_by_label("Query", exact=True).input_value() == "invoice PDF"
    assert (app.slider("Sparse"), app.slider("Threshold")) == (1.0, 0.01)
    assert (app.column(TITLE, 10), app.column(SCORE, 10), app.text("count"), app.text("score")) == seen


def test_selecting_a_row_shows_that_document(app):
    app.open(HIT)
    wanted = app.cell(TITLE, 3)
    assert app.text("title") != wanted
    app.select(3)
    assert app.text("title") == wanted
    app.ask("parcel")
    assert app.text("title") == app.cell(TITLE, 0)


def test_alignment_and_lexical_tab_add_up_to_the_scores(app):
    app.open(HIT)
    app.tab("Alignment")
    app.page.get_by_test_id("m3-mean").wait_for()
    assert app.number(COLBERT, 0) in app.text("mean")
    app.chart("how → ").locator("svg").wait_for()
    app.chart("Similarity of each query token").locator("svg").wait_for()
    app.tab("Lexical")
    app.page.get_by_test_id("m3-products").wait_for()
    assert app.number(SPARSE, 0) in app.text("products")
    app.tab("Raw")
    app.page.get_by_test_id("stJson").get_by_text("metadata").wait_for()


def test_a_long_document_is_shown_by_its_best_passages(app):
    app.open("/?q=reset+password+admin+console+agent+handbook")
    assert app.text("title") == "Handbook for support agents"
    assert "best passages" in app.text("excerpt")
    assert "admin console" in app.text("text")
    assert len(app.text("text")) < 4_000


def test_hostile_documents_are_shown_as_text_and_do_nothing(app):
    app.open("/?q=hostile+example+invalid&dense=0&colbert=0&sparse=1")
    for row in range(2):
        app.select(row) if row else None
        assert app.text("id").startswith("hostile")
        for tab in ("Alignment", "Lexical", "Raw", "Text"):
            app.tab(tab)
            app.page.wait_for_timeout(150)
        if app.text("id") == "hostile-title":
            assert app.text("title").startswith("# hostile <b>first line</b> ![i](http://")
        else:
            assert app.text("title").startswith("=HYPERLINK(1) <img src=http://example.invalid/c.png")
            for piece in ("<script>window.hacked = 1</script>", "<style>* { display: none }</style>", "**bold**", "&amp;"):
                assert piece in app.text("text")
    mark = app.chart("Score strip").locator(".layer_0_marks line").first.bounding_box()
    app.page.mouse.move(mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2)
    app.page.locator("#vg-tooltip-element").filter(has_text="http://example.invalid").wait_for()
    assert app.page.evaluate("window.hacked") is None
    assert app.page.locator("img[src*=invalid], a[href^=javascript], form[action*=invalid]").count() == 0


def test_hostile_queries_are_shown_as_text_in_the_history(app):
    evil = (
        "![i](http://example.invalid/q.png) <img src=http://example.invalid/q2.png onerror='window.hacked=7'> :material/home:"
    )
    app.open("/")
    app.ask(evil)
    app.ask("parcel")
    app.page.get_by_label("History").click()
    app.page.get_by_role("option").filter(has_text=evil).wait_for()
    with app.rerun():
        app.page.get_by_role("option").first.click()
    assert app.page.get_by_label("Query", exact=True).input_value() == evil
    assert app.page.evaluate("window.hacked") is None


@pytest.mark.parametrize("app", [{"color_scheme": "dark"}, {"color_scheme": "light"}], indirect=True, ids=["dark", "light"])
def test_the_theme_is_applied_and_follows_the_browser(app):
    app.open(HIT)
    colour = app.page.evaluate("getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor")
    dark = app.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert colour == ("rgb(17, 20, 27)" if dark else "rgb(255, 255, 255)")
    dot = app.page.locator(".m3-dot.m3-colbert").first
    assert dot.evaluate("dot => getComputedStyle(dot).backgroundColor") == (
        "rgb(179, 148, 245)" if dark else "rgb(123, 85, 199)"
    )


@pytest.mark.parametrize("app", [{"locale": "zh-CN"}], indirect=True)
def test_chinese_follows_the_browser_and_can_be_left(app):
    app.open("/?q=忘记密码怎么办")
    assert app.cell(TITLE, 0) == "重置密码"
    app.page.get_by_role("tab", name="词元对齐").wait_for()
    with app.rerun():
        app.page.get_by_text("English", exact=True).click()
    app.page.get_by_role("tab", name="Alignment").wait_for()
    assert "lang=en" in app.page.url
    app.page.reload()
    app.wait()
    app.page.get_by_role("tab", name="Alignment").wait_for()


@pytest.mark.parametrize("host", ["evil.invalid", "127.0.0.1.evil.invalid"])
def test_a_foreign_name_for_this_machine_is_refused(host, server):
    address = server.removeprefix("http://").split(":")
    request = (
        f"GET /_stcore/stream HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    )
    with socket.create_connection((address[0], int(address[1])), timeout=5) as connection:
        connection.sendall(request.encode())
        assert b" 403 " in connection.recv(200).split(b"\r\n")[0] + b" "
