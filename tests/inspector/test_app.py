"""The app's states, without a browser."""

import subprocess
import sys

import chromadb
import pytest

from m3retriever import Document, HashingEncoder, M3Index, ModelLoadError, Profile, Weights, save_profile

QUERY = "how do I reset my password"


@pytest.fixture
def own_index(tmp_path):
    """Makes an index of the given documents in a folder of the test's own."""

    def make(*texts):
        with M3Index.open(tmp_path / "own", model="hashing") as index:
            index.add([Document(str(number), text) for number, text in enumerate(texts)])
        return tmp_path / "own"

    return make


def page(app):
    """All HTML on the page; the app must not have failed."""
    assert not app.exception
    return "\n".join(element.value for element in app.html)


def table(app):
    return app.dataframe[0].value


def weights(app):
    return [app.slider(key=mode).value for mode in ("dense", "sparse", "colbert")]


def test_without_a_query_the_page_says_what_to_do(run):
    app = run()
    assert "Type a query" in page(app)
    assert not app.dataframe


def test_a_query_in_the_url_is_searched(run):
    app = run(q=QUERY)
    assert app.text_input(key="q").value == QUERY
    assert len(table(app)) == 20
    assert table(app)["score"].is_monotonic_decreasing
    assert "Reset a forgotten password" in set(table(app)["title"])
    assert "20 / 20 above threshold 0.00" in page(app)


def test_the_table_is_what_search_returns(run, project):
    shown = table(run(q=QUERY, dense="0.3", sparse="0.6", colbert="0.1", k="10"))
    with M3Index.open(project) as index:
        hits = index.search(QUERY, 10, weights=(0.3, 0.6, 0.1))
    assert list(shown["score"]) == pytest.approx([hit.score for hit in hits], abs=1e-6)
    assert list(shown["dense"]) == pytest.approx([hit.scores["dense"] for hit in hits], abs=1e-6)
    assert list(shown["ranks"]) == ["·".join(str(rank) for rank in hit.ranks.values()) for hit in hits]


def test_a_preset_moves_all_three_sliders_and_the_url(run):
    app = run(q=QUERY)
    app.button(key="preset_keyword").click().run()
    assert weights(app) == [0.3, 0.6, 0.1]
    assert app.query_params["sparse"] == "0.6"
    assert "Dense 0.30, Sparse 0.60, ColBERT 0.10" in page(app)


def test_a_slider_moves_no_other_slider(run):
    app = run(q=QUERY, dense="0.2")
    app.slider(key="sparse").set_value(0.9).run()
    assert weights(app) == [0.2, 0.9, 0.4]


def test_the_threshold_divides_the_rows(run):
    app = run(q=QUERY, threshold="0.3")
    above = table(app)["above"] == "●"
    assert list(table(app)["score"] >= 0.3) == list(above)
    assert f"{above.sum()} / 20 above threshold 0.30" in page(app)
    assert 0 < above.sum() < 20


def test_where_no_document_reaches_the_threshold_the_nearest_miss_is_named(run):
    app = run(q=QUERY, threshold="0.99")
    best = table(app).iloc[0]
    assert set(table(app)["above"]) == {"○"}
    assert f"The nearest miss scores {best['score']:.3f}, short by {0.99 - best['score']:.3f}" in page(app)


def test_k_is_the_number_of_rows(run):
    assert len(table(run(q=QUERY, k="5"))) == 5


@pytest.mark.parametrize("parameters", [{"dense": "abc"}, {"dense": "7"}, {"threshold": "-1"}, {"k": "0"}, {"lang": "xx"}])
def test_a_parameter_that_has_no_meaning_is_left_out(run, parameters):
    app = run(q=QUERY, **parameters)
    assert weights(app) == [0.4, 0.2, 0.4]
    assert len(table(app)) == 20


def test_weights_of_zero_are_refused_in_words(run):
    assert "raise at least one" in page(run(q=QUERY, dense="0", sparse="0", colbert="0"))


def test_chinese_by_the_url_and_by_the_browser(run):
    assert "输入查询" in page(run(lang="zh"))
    assert "输入查询" in page(run(context={"locale": "zh-CN"}))
    assert "Type a query" in page(run(context={"locale": "zh-CN"}, lang="en"))


def test_the_language_switch_writes_the_url(run):
    app = run(q=QUERY)
    app.segmented_control(key="lang").set_value("zh").run()
    assert app.query_params["lang"] == "zh"
    assert app.tabs[0].label == "原文"


def test_dark_colours_follow_the_browser(run):
    assert "#b394f5" in page(run(context={"theme": "dark"}))
    assert "#7b55c7" in page(run(context={"theme": "light"}))


def test_the_sliders_begin_with_the_profile(run, own_index, tmp_path):
    profile = Profile(weights=Weights(3, 5, 2), thresholds={"hybrid": 0.25})
    save_profile(profile, tmp_path / "mine.toml")
    app = run(own_index("apple", "pear"), arguments=[f"--profile={tmp_path / 'mine.toml'}"], q="apple")
    assert weights(app) == [0.3, 0.5, 0.2]
    assert app.slider(key="threshold").value == 0.25
    app.button(key="preset_semantic").click().run()
    app.button(key="preset_profile").click().run()
    assert weights(app) == [0.3, 0.5, 0.2]


def test_a_profile_finer_than_the_sliders_is_used_exactly(run, own_index):
    path = own_index("apple tree", "pear")
    profile = Profile(weights=Weights(0.333, 0.333, 0.334), thresholds={"hybrid": 0.1234})
    save_profile(profile, path / "profile.toml")
    with M3Index.open(path) as index:
        [best] = index.search("apple", 1)
    assert table(run(path, q="apple"))["score"][0] == pytest.approx(best.score, abs=1e-9)


def test_a_rank_fusion_has_no_sum_and_no_threshold(run, own_index):
    path = own_index("apple tree", "pear")
    save_profile(Profile(fusion="rrf"), path / "profile.toml")
    app = run(path, q="apple")
    assert app.slider(key="threshold").disabled
    assert "is not a sum of scores" in page(app)
    assert "2 results" in page(app)


def test_an_index_without_documents_says_so(run, tmp_path):
    with M3Index.open(tmp_path / "own", model="hashing") as index:
        index.add([Document("1", "apple")])
        index.delete(["1"])
    assert "no documents yet" in page(run(tmp_path / "own", q="apple"))


def test_a_missing_index_is_an_error_in_words_and_makes_no_folder(run, tmp_path):
    missing = tmp_path / "<b>missing</b>"
    html = page(run(missing, q=QUERY))
    assert "The index cannot be opened." in html
    assert "&lt;b&gt;missing&lt;/b&gt;" in html
    assert not missing.exists()


def test_a_missing_collection_is_an_error_and_makes_none(run, project):
    html = page(run(arguments=["--collection=other"], q=QUERY))
    assert "The index cannot be opened." in html
    assert [found.name for found in chromadb.PersistentClient(str(project)).list_collections()] == ["m3retriever"]


def test_a_broken_profile_is_an_error_in_words(run, own_index, tmp_path):
    (tmp_path / "mine.toml").write_text("weight = 3")
    assert "unknown keys" in page(run(own_index("a"), arguments=[f"--profile={tmp_path / 'mine.toml'}"]))


class BrokenEncoder(HashingEncoder):
    """A model that fails on every query."""

    def encode_queries(self, texts):
        raise ModelLoadError("the model is <b>gone</b>")


def test_an_error_while_searching_is_shown_in_words(run, own_index, monkeypatch):
    path = own_index("apple")
    monkeypatch.setattr("m3retriever.encoders.hashing.HashingEncoder", BrokenEncoder)
    html = page(run(path, q="apple"))
    assert "This page cannot be shown.<div class='m3-muted'>the model is &lt;b&gt;gone&lt;/b&gt;" in html
    assert "m3-ready" in html


def test_an_index_that_another_process_writes_to_can_be_read_meanwhile(run, own_index):
    path = own_index("apple")
    collection = chromadb.PersistentClient(str(path)).get_collection("m3retriever")
    collection.upsert(ids=["by another client"], documents=["pear"], embeddings=[[1.0] + [0.0] * 255])
    code = (
        "import sys, time; from m3retriever import Document, M3Index\n"
        "from pathlib import Path; from m3retriever.stores.lock import WriterLock\n"
        f"WriterLock(Path({str(path)!r}) / 'm3').acquire(); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "held\n"
        html = page(run(path, q="apple"))
        writer.kill()
    assert "m3-score" in html, "what has vectors is found; what another client added waits until the writer has ended"
    assert "by another client" not in html


@pytest.mark.parametrize(
    "query", ["<script>alert(1)</script>", "![a](http://x.invalid/x.png) **b** :material/home:", "\x00 \t", "🙂" * 3000]
)
def test_a_query_of_any_characters_is_only_text(run, query):
    html = page(run(q=query))
    assert "<script>" not in html
    assert "x.invalid" not in html


class CountingEncoder(HashingEncoder):
    """Counts how often it is asked for queries."""

    calls = 0

    def encode_queries(self, texts):
        type(self).calls += 1
        return super().encode_queries(texts)


def test_a_slider_never_calls_the_model(run, own_index, monkeypatch):
    path = own_index("apple tree", "pear tree", "plum")
    monkeypatch.setattr("m3retriever.encoders.hashing.HashingEncoder", CountingEncoder)
    CountingEncoder.calls = 0
    app = run(path, q="apple")
    assert CountingEncoder.calls == 1
    app.slider(key="dense").set_value(0.9).run()
    app.slider(key="threshold").set_value(0.5).run()
    app.slider(key="k").set_value(100).run()
    app.button(key="preset_keyword").click().run()
    assert CountingEncoder.calls == 1
    app.text_input(key="q").set_value("pear").run()
    assert CountingEncoder.calls == 2
    app.text_input(key="q").set_value("apple").run()
    assert CountingEncoder.calls == 2
    assert not app.exception


def test_a_change_of_the_index_is_seen(run, own_index):
    path = own_index("apple tree")
    app = run(path, q="apple")
    assert len(table(app)) == 1
    with M3Index.open(path) as index:
        index.add([Document("new", "apple pie")])
    assert set(table(app.run())["title"]) == {"apple tree", "apple pie"}


def test_earlier_queries_can_be_asked_again(run):
    app = run(q="invoice")
    app.text_input(key="q").set_value("parcel").run()
    app.run()
    assert app.selectbox(key="picked").options == ["invoice"]
    app.selectbox(key="picked").set_value("invoice").run()
    assert app.text_input(key="q").value == "invoice"
    assert app.selectbox(key="picked").value is None
