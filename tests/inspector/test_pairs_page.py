"""The page Pairs: scores of texts that are in no index, without a browser."""

import re
import threading
from typing import ClassVar

import numpy as np
import pytest

from m3retriever import HashingEncoder, M3Index, M3Vectors, Profile, Weights, save_profile
from m3retriever.inspector import texts
from m3retriever.inspector.analysis import pairs as analysis
from m3retriever.inspector.texts import Kept
from m3retriever.reranking import rerank

QUERY, DOCUMENT = "how do I reset my password", "To reset a password, open the sign-in page."
LINES = ["reset my password", "重置密码", "get my money back", "the password page"]
ENCODER = HashingEncoder(32)
PROFILES = [Profile(), Profile(weights=Weights(1, 3, 1)), Profile(fusion="rrf")]


def html(app):
    assert not app.exception
    return "\n".join(element.value for element in app.html)


def tiles(app):
    """{mode: (score, what it means)} as the page shows them."""
    found = re.findall(
        r"data-testid='m3-tile-(\w+)'.*?<b class='m3-value'>(.*?)</b>(?: <span class='m3-detail'>(.*?)</span>)?", html(app)
    )
    return {mode: (score, meaning) for mode, score, meaning in found}


# -- the numbers -----------------------------------------------------------------------------------


def raw(queries, documents):
    asked, held = list(ENCODER.encode_queries(queries)), list(ENCODER.encode_documents(documents))
    return analysis.raw_matrix(asked, held)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: f"{profile.fusion} {profile.weights.sparse}")
def test_a_pair_is_scored_as_reranking_scores_it(profile):
    for one in analysis.pair_scores(raw([QUERY], [DOCUMENT])[0, 0], QUERY, profile):
        [expected] = rerank(ENCODER, QUERY, [DOCUMENT], mode=one.mode, profile=profile)
        assert one.score == expected.score
        assert (one.level, one.probability) == (None, None)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: f"{profile.fusion} {profile.weights.sparse}")
@pytest.mark.parametrize("mode", ["hybrid", "dense", "sparse", "colbert"])
def test_a_row_of_the_matrix_is_what_reranking_gives_its_query(profile, mode):
    scores = analysis.matrix(raw(LINES, LINES), LINES, profile, mode)
    for row, query in enumerate(LINES):
        expected = {one.place: one.score for one in rerank(ENCODER, query, LINES, mode=mode, profile=profile)}
        assert scores[row].tolist() == [expected[place] for place in range(len(LINES))]


def test_a_calibration_says_what_a_score_means():
    held = {"dense": {"scores": [0.0, 1.0], "probabilities": [0.0, 0.5], "levels": {"weak": 0.2, "related": 0.4}}}
    scores = {one.mode: one for one in analysis.pair_scores(np.array([0.25, 0, 0], np.float32), "", Profile(calibration=held))}
    assert (scores["dense"].level, scores["dense"].probability) == ("weak", 0.125)
    assert scores["sparse"].level is None


def test_lines_that_say_nothing_are_left_out():
    assert analysis.lines_of("  a b \n\n \t\nc\r\nd") == ["a b", "c", "d"]
    assert analysis.lines_of("") == []


# -- what is kept ----------------------------------------------------------------------------------


def vectors(tokens):
    return M3Vectors.from_rows(np.eye(1, 2), [{}], [np.ones((tokens, 2))])


def test_vectors_are_kept_by_text_and_role_up_to_a_number_of_tokens(monkeypatch):
    monkeypatch.setattr(texts, "TOKENS_KEPT", 10)
    kept, first = Kept(), vectors(4)
    kept.put("query", "a", first)
    kept.put("query", "a", first)  # by two sessions at once: it counts once
    kept.put("document", "b", vectors(4))
    assert kept.get("query", "a") is first
    assert kept.get("document", "a") is None
    kept.put("query", "c", vectors(4))
    assert kept.get("document", "b") is None, "the one used longest ago goes"
    assert kept.get("query", "a") is first
    kept.put("query", "long", vectors(50))
    assert kept.get("query", "long") is not None, "one is kept however long it is"
    assert kept.get("query", "c") is None


def test_vectors_are_kept_from_several_threads_at_once():
    kept = Kept()

    def work(name):
        for number in range(200):
            kept.put("query", f"{name}{number}", vectors(1))
            assert kept.get("query", f"{name}{number}") is not None

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert all(kept.get("query", f"{name}199") is not None for name in "abcd")


# -- the page --------------------------------------------------------------------------------------


def test_without_texts_the_page_says_what_to_do(run):
    app = run(page="pairs")
    assert "Type a query and a document" in html(app)
    assert not tiles(app)
    app.text_area(key="a").set_value(QUERY).run()
    assert "Type a query and a document" in html(app)


def test_two_texts_are_scored_as_the_library_does(run, project):
    app = run(page="pairs", a=QUERY, b=DOCUMENT, dense="0.3", sparse="0.6", colbert="0.1")
    with M3Index.open(project) as index:
        for mode in ("hybrid", "dense", "sparse", "colbert"):
            weights = (0.3, 0.6, 0.1) if mode == "hybrid" else None
            [expected] = rerank(index.encoder, QUERY, [DOCUMENT], mode=mode, weights=weights)
            assert tiles(app)[mode] == (f"{expected.score:.3f}", "uncalibrated")
    assert f"ColBERT score {tiles(app)['colbert'][0]}" in html(app)
    assert f"Sparse score {tiles(app)['sparse'][0]}" in html(app)
    assert "m3retriever calibrate" in html(app)
    shared = app.dataframe[0].value
    assert set(shared.loc[shared["product"] > 0, "token"]) == {"reset", "password"}
    assert set(app.dataframe[1].value["token"]) == {"To", "reset", "a", "password", "open", "the", "sign", "in", "page"}


def test_a_profile_s_levels_and_probabilities_are_shown(run, project):
    held = {
        "scores": [0.0, 1.0],
        "probabilities": [0.0, 1.0],
        "levels": {"weak": 0.1, "related": 0.15, "nearly identical": 0.2},
    }
    profile = Profile(calibration={"dense": held, "hybrid": {**held, "weights": [0.4, 0.2, 0.4], "fusion": "weighted_sum"}})
    save_profile(profile, project / "profile.toml")
    app = run(page="pairs", a=QUERY, b=DOCUMENT)
    score, meaning = tiles(app)["dense"]
    assert meaning == f"nearly identical · p = {float(score):.2f}"
    score, meaning = tiles(app)["hybrid"]
    assert meaning == f"nearly identical · p = {float(score):.2f}"
    assert tiles(app)["sparse"][1] == "uncalibrated"
    assert "m3retriever calibrate" in html(app), "two modes have none"
    app.slider(key="sparse").set_value(1.0).run()
    assert tiles(app)["hybrid"][1] == "uncalibrated", "it was fitted with other weights"


class CountingEncoder(HashingEncoder):
    """Remembers what it was asked for."""

    asked: ClassVar[list] = []

    def encode_documents(self, texts, *, progress=False):
        self.asked.extend(("document", text) for text in texts)
        return super().encode_documents(texts)

    def encode_queries(self, texts):
        self.asked.extend(("query", text) for text in texts)
        return HashingEncoder.encode_documents(self, texts)

    def tokenize(self, text):
        self.asked.append(("tokens", text))
        return super().tokenize(text)


def test_the_model_sees_each_text_once_and_no_slider_asks_it(run, monkeypatch):
    def encoded():
        return [entry for entry in CountingEncoder.asked if entry[0] != "tokens"]

    monkeypatch.setattr("m3retriever.encoders.hashing.HashingEncoder", CountingEncoder)
    monkeypatch.setattr(CountingEncoder, "asked", [])
    app = run(page="pairs", a=QUERY, b=DOCUMENT, lines="one\ntwo")
    seen = list(CountingEncoder.asked)
    assert sorted(encoded()) == sorted(
        [("query", QUERY), ("document", DOCUMENT), *((role, line) for role in ("query", "document") for line in ("one", "two"))]
    )
    app.slider(key="dense").set_value(0.9).run()
    app.segmented_control(key="matrix_shown").set_value("sparse").run()
    app.button(key="preset_keyword").click().run()
    assert CountingEncoder.asked == seen, "not even the tokenizer"
    app.text_area(key="lines").set_value("one\ntwo\nthree").run()
    app.text_area(key="b").set_value("another document").run()
    assert encoded()[6:] == [("query", "three"), ("document", "three"), ("document", "another document")]
    app.text_area(key="b").set_value(DOCUMENT).run()
    assert len(encoded()) == 9


def test_a_slider_does_not_compare_a_hit_s_tokens_again(run, monkeypatch):
    monkeypatch.setattr("m3retriever.encoders.hashing.HashingEncoder", CountingEncoder)
    monkeypatch.setattr(CountingEncoder, "asked", [])
    app = run(q=QUERY)
    seen = list(CountingEncoder.asked)
    assert ("tokens", QUERY) in seen
    app.slider(key="threshold").set_value(0.5).run()
    app.slider(key="dense").set_value(0.41).run()
    assert CountingEncoder.asked == seen


def test_short_texts_are_in_the_url_and_long_ones_are_not(run):
    app = run(page="pairs")
    app.text_area(key="a").set_value(QUERY).run()
    assert app.query_params["a"] == QUERY
    app.text_area(key="a").set_value("word " * 1_000).run()
    assert "a" not in app.query_params
    assert len(app.text_area(key="a").value) == 5_000
    app.text_area(key="a").set_value("").run()
    assert "a" not in app.query_params


def test_swapping_exchanges_the_texts_and_the_url(run):
    app = run(page="pairs", a=QUERY, b=DOCUMENT)
    before = tiles(app)
    app.button(key="swap").click().run()
    assert (app.text_area(key="a").value, app.text_area(key="b").value) == (DOCUMENT, QUERY)
    assert (app.query_params["a"], app.query_params["b"]) == (DOCUMENT, QUERY)
    assert tiles(app)["dense"] == before["dense"]
    assert tiles(app)["colbert"] != before["colbert"], "ColBERT asks what each token of the query finds"


def test_at_most_thirty_lines_are_compared(run):
    app = run(page="pairs")
    app.text_area(key="lines").set_value("\n".join(f"line number {number}" for number in range(31))).run()
    assert "The first 30 of 31 lines are compared." in html(app)


def test_a_rank_fusion_says_that_a_single_pair_means_nothing(run, project):
    save_profile(Profile(fusion="rrf"), project / "profile.toml")
    assert "its score of a single pair says nothing" in html(run(page="pairs", a=QUERY, b=DOCUMENT))


class ShortEncoder(HashingEncoder):
    """Reads five tokens of a text, of which the first has no vector."""

    max_length = 5

    def tokenize(self, text):
        return super().tokenize(text)[:4]


def test_what_the_model_does_not_read_is_said(run, monkeypatch):
    monkeypatch.setattr("m3retriever.encoders.hashing.HashingEncoder", ShortEncoder)
    text = html(run(page="pairs", a=QUERY, b="reset a password"))
    assert "Query: The model reads the first 4 tokens" in text
    assert "Document: The model reads" not in text


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "![a](http://x.invalid/x.png) **b** :material/home:", "\x00\x01", "🙂" * 3000]
)
def test_texts_of_any_characters_are_only_text(run, text):
    app = run(page="pairs")
    app.text_area(key="a").set_value(text)
    app.text_area(key="b").set_value(text)
    app.text_area(key="lines").set_value(text).run()
    assert "<script>" not in html(app)
    assert not any("invalid" in element.value for element in app.markdown)


def test_the_page_speaks_chinese(run):
    app = run(page="pairs", lang="zh", a="忘记密码", b="重置密码")
    assert tiles(app)["dense"][1] == "未标定"
    assert app.tabs[0].label == "词元对齐"
