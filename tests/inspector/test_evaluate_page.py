"""Evaluate: the numbers of the page, question by question, what can be kept and taken away."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from m3retriever import (
    MODES,
    Document,
    HashingEncoder,
    InvalidArgumentError,
    M3Index,
    MemoryStore,
    Profile,
    Split,
    Weights,
    save_profile,
)
from m3retriever.cli import app as command_line
from m3retriever.evaluation import evaluate, judged_by, run_of, score_all
from m3retriever.exactness import exactness
from m3retriever.inspector import jobs
from m3retriever.inspector.analysis import quality as analysis
from m3retriever.inspector.analysis.quality import Quality
from m3retriever.inspector.markup import Measured, measure_table
from m3retriever.io import read_golden, read_run, run_text
from m3retriever.ranking import Ranking


def page(app):
    """All HTML on the page; the app must not have failed."""
    assert not app.exception
    return "\n".join(element.value for element in app.html)


def table(app):
    return app.dataframe[0].value


def settled(app):
    """The app when no work is under way any more."""
    while any("m3-job" in element.value for element in app.html):
        app.run()
    return app


def cli(*arguments):
    result = CliRunner().invoke(command_line, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def shown_means(app, mode):
    """The figures of a mode's line: mean, and interval."""
    [html] = [element.value for element in app.html if f"m3-means-{mode}" in element.value]
    line = html.split(f"m3-means-{mode}'")[1].split("</tr>")[0]
    cells = line.split("<b>")[1:]
    return [(cell.split("</b>")[0], cell.split("m3-muted'>")[1].split("</span>")[0]) for cell in cells]


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Pages wait for their work to end, however loaded the machine is."""
    monkeypatch.setattr(jobs, "PATIENCE", 25.0)


@pytest.fixture
def small(tmp_path):
    """Makes an index of a few texts by id, with a golden set."""

    def make(texts, questions):
        with M3Index.open(tmp_path / "small", model="hashing") as index:
            index.add([Document(id, text) for id, text in texts.items()])
        lines = "\n".join(json.dumps(question) for question in questions)
        (tmp_path / "small" / "golden.jsonl").write_text(lines + "\n", encoding="utf-8")
        return tmp_path / "small"

    return make


# -- the page --------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_the_command_line(run, project, hard):
    found = cli("evaluate", "--path", project, "--golden", hard)
    app = run(page="evaluate")
    for mode in ("hybrid", *MODES):
        wanted = [
            (f"{found['measures'][mode][name]:.3f}", "–".join(f"{end:.3f}" for end in found["intervals"][mode][name]))
            for name in ("nDCG@10", "R@10", "R@100", "RR@10")
        ]
        assert shown_means(app, mode) == wanted
    assert len({shown_means(app, mode)[0] for mode in ("hybrid", *MODES)}) > 1, "or the test could not tell modes apart"


def test_a_slider_changes_the_hybrid_as_the_profile_would(run, project, hard, tmp_path):
    save_profile(Profile(weights=Weights(0.1, 0.9, 0.0)), tmp_path / "mine.toml")
    options = ["--golden", hard, "--profile", tmp_path / "mine.toml"]
    found = cli("evaluate", "--path", project, *options)
    app = run(page="evaluate")
    before = shown_means(app, "hybrid"), shown_means(app, "dense")
    for mode, value in (("dense", 0.1), ("sparse", 0.9), ("colbert", 0.0)):
        app.slider(key=mode).set_value(value)
    app.run()
    assert shown_means(app, "hybrid")[0][0] == f"{found['measures']['hybrid']['nDCG@10']:.3f}"
    assert shown_means(app, "hybrid") != before[0]
    assert shown_means(app, "dense") == before[1]


def test_other_measures_can_be_named(run, project, hard):
    app = run(page="evaluate")
    app.text_input(key="measures").set_value("AP, Success@1,AP").run()
    found = cli("evaluate", "--path", project, "--golden", hard, "--measures", "AP,Success@1")
    assert [mean for mean, _ in shown_means(app, "sparse")] == [
        f"{value:.3f}" for value in found["measures"]["sparse"].values()
    ]
    assert app.selectbox(key="measure").options == ["AP", "Success@1"]


def test_measures_that_there_are_not_are_an_error_in_words(run):
    app = run(page="evaluate")
    for text in ("nDCG@0", "R", "<b>", "", " , ", "AP@1,AP@2,AP@3,AP@4,AP@5,AP@6,AP@7"):
        app.text_input(key="measures").set_value(text).run()
        assert "These measures cannot be used." in page(app), text
        assert "<b>&#x27;" not in page(app)
        assert not app.dataframe


def test_the_questions_come_worst_first_with_what_was_found(run, project, hard):
    shown = table(run(page="evaluate"))
    with M3Index.open(project) as index:
        queries, qrels = judged_by(index, read_golden(hard))
        values = evaluate(index, queries, qrels).values
        assert list(shown["hybrid"]) == sorted(values["hybrid"]["nDCG@10"].values())
        assert shown["hybrid"].iloc[0] < shown["hybrid"].iloc[-1]
        for row in shown.iloc[[0, 5, -1]].itertuples():
            assert [row.hybrid, row.dense, row.sparse, row.colbert] == [
                values[m]["nDCG@10"][row.id] for m in ("hybrid", *MODES)
            ]
            hits = index.search(queries[row.id], 3)
            assert row.score == pytest.approx(hits[0].score)
            assert row.first == hits[0].document.metadata.get("title", hits[0].document.text[:80])
            assert row.verdict == ("● exact" if row.id[2:] in {hit.document.id for hit in hits} else "○ miss")


def test_measure_and_mode_order_the_questions(run, project, hard):
    app = run(page="evaluate")
    app.selectbox(key="measure").set_value("RR@10").run()
    assert table(app)["hybrid"].is_monotonic_increasing
    app.segmented_control(key="mode_shown").set_value("sparse").run()
    assert table(app)["sparse"].is_monotonic_increasing
    assert not table(app)["hybrid"].is_monotonic_increasing
    assert "worst first by RR@10, Sparse" in page(app)
    assert app.query_params["mode"] == "sparse"


def test_the_top_hits_are_counted_where_all_answers_have_one_grade(run):
    app = run(page="evaluate")
    hits = int((table(app)["verdict"] == "● hit").sum())
    assert f"<b class='m3-value'>{hits}</b>" in page(app)
    assert "Top 3 ● hit" in page(app)
    assert "Top 3 ◐ related" not in page(app)


def test_with_grades_a_hit_is_exact_or_related(run, small):
    texts = {"best": "apple pie with cream", "good": "apple tart", "third": "apple juice", "far": "blue night train"}
    questions = [
        {"id": "exact", "question": "apple pie with cream", "grades": {"best": 2, "good": 1}},
        {"id": "related", "question": "apple", "grades": {"good": 1, "far": 3}},
        {"id": "miss", "question": "apple", "relevant": ["far"]},
    ]
    app = run(small(texts, questions), page="evaluate", sparse="1", dense="0", colbert="0")
    rows = table(app).set_index("id")["verdict"]
    assert dict(rows) == {"exact": "● exact", "related": "◐ related", "miss": "○ miss"}
    assert "Top 3 ◐ related" in page(app)


def test_without_a_golden_set_the_page_says_what_to_do(run, project):
    (project / "golden.jsonl").unlink()
    app = run(page="evaluate")
    assert "There are no questions with known answers yet." in page(app)
    assert not app.dataframe


def test_a_question_that_finds_nothing_has_no_score(run, small):
    path = small({"a": "apple", "b": "pear"}, [{"id": "q", "question": "zzz", "relevant": ["a"]}])
    shown = table(run(path, page="evaluate", mode="sparse"))
    assert shown["score"].isna().all()
    assert list(shown["first"]) == [""]
    assert list(shown["verdict"]) == ["○ miss"]


def test_a_long_set_shows_the_worst_two_hundred(run, small):
    questions = [{"id": f"q{number}", "question": f"apple {number}", "relevant": ["a"]} for number in range(230)]
    app = run(small({"a": "apple", "b": "pear"}, questions), page="evaluate")
    assert len(table(app)) == 200
    assert "The worst 200 of 230 questions." in page(app)


def test_a_run_is_saved_under_a_name_and_can_be_read_again(run, project):
    app = run(page="evaluate")
    name = app.text_input(key="run_name_hybrid 0.40 0.20 0.40")
    assert name.value == "hybrid 0.40 0.20 0.40"
    name.set_value(" before tuning ")
    app.button(key="save_run").click().run()
    assert "Saved, to be compared on the page Compare: before tuning" in page(app)
    with M3Index.open(project) as index:
        queries, _ = judged_by(index, read_golden(project / "golden.jsonl"))
        scores = score_all(index, queries)
        wanted = {query: run_of(one, Ranking.of(index.profile, "hybrid", None, None)) for query, one in scores.items()}
    assert read_run(project / "runs" / "before tuning.run") == wanted
    app.run()
    app.text_input(key="run_name_hybrid 0.40 0.20 0.40").set_value("before tuning").run()
    assert "it will be replaced" in page(app)


def test_a_run_is_not_saved_under_a_name_that_no_file_should_have(run, project):
    app = run(page="evaluate")
    for name in ("../escape", "", "a/b", ".hidden", "<img src=x>"):
        app.text_input(key="run_name_hybrid 0.40 0.20 0.40").set_value(name)
        app.button(key="save_run").click().run()
        assert "That was not done." in page(app), name
        assert "a run&#x27;s name is" in page(app)
        assert "<img src=x>" not in page(app)
    assert not (project / "runs").exists()


def test_a_read_only_inspector_saves_no_run(run):
    assert run(page="evaluate", arguments=["--read-only"]).button(key="save_run").disabled


def test_an_id_that_no_run_can_hold_takes_the_run_away_and_nothing_else(run, small):
    path = small({"a\tb": "apple", "b": "pear"}, [{"id": "q", "question": "apple", "relevant": ["b"]}])
    app = run(path, page="evaluate")
    assert "An id holds a tab or a line break" in page(app)
    assert len(table(app)) == 1
    assert app.button(key="save_run").disabled


def test_the_exact_search_is_the_command_lines(run, small):
    texts = {str(number): f"apple {number} and pear {number % 5} or plum" for number in range(30)}
    questions = [{"id": f"q{number}", "question": f"apple {number}", "relevant": [str(number)]} for number in range(6)]
    path = small(texts, questions)
    save_profile(Profile(depth=3), path / "profile.toml")
    found = cli("evaluate", "--path", path, "--golden", path / "golden.jsonl", "--exact")["exact"]
    assert found["found"]["hybrid"] < 1
    app = run(path, page="evaluate")
    app.button(key="exactness").click().run()
    html = page(app)
    for name, value in {**found["found"], "kept": found["kept"]}.items():
        tile = html.split(f"m3-tile-{name}'")[1].split("m3-tile-")[0]
        assert f"<b class='m3-value'>{value:.3f}</b>" in tile
    assert f"<b class='m3-value'>{found['difference']:.5f}</b>" in html
    assert "6 questions: the share of the exact 10 best" in html


def test_while_the_questions_are_being_scored_the_page_says_how_far_it_is(run, monkeypatch):
    monkeypatch.setattr(jobs, "PATIENCE", 0.0)
    app = run(page="evaluate")
    assert "m3-job" in page(app)
    assert not app.dataframe
    assert len(table(settled(app))) == 60


def test_hostile_questions_and_ids_are_only_text(run, small):
    evil = "<img src=x onerror=alert(1)> ![a](http://x.invalid/x.png)"
    app = run(small({evil: evil, "b": "pear"}, [{"id": evil, "question": evil, "relevant": [evil]}]), page="evaluate")
    assert table(app)["question"][0] == evil
    assert "<img" not in page(app)


# -- the functions behind it -----------------------------------------------------------------------


def test_measures_are_named_once_and_in_order():
    assert analysis.measures_of("R@10 , nDCG@10,R@10") == ["R@10", "nDCG@10"]
    for wrong in ("", "nDCG@10, bogus", "P"):
        with pytest.raises(InvalidArgumentError):
            analysis.measures_of(wrong)


@pytest.mark.parametrize("seed", range(3))
def test_qualities_and_means_are_the_librarys(seed):
    random = np.random.default_rng(seed)
    words = ["red", "blue", "fox", "whale", "wine", "crow"]
    index = M3Index(HashingEncoder(), MemoryStore())
    index.add([Document(f"{a} {b}", f"{a} {b} {a}") for a in words for b in words])
    queries = {str(number): " ".join(random.choice(words, 2)) for number in range(70)}
    qrels = {query: {" ".join(random.choice(words, 2)): int(random.integers(0, 3))} for query in queries}
    wanted, steps = evaluate(index, queries, qrels, ["nDCG@10", "AP"]), []
    scores = score_all(index, queries)
    for mode in ("hybrid", *MODES):
        find = analysis.ranked(scores, Ranking.of(index.profile, mode, None, None))
        found = analysis.quality_of(find, qrels, ["nDCG@10", "AP"], on_step=steps.append)
        assert found.values == wanted.values[mode]
        for one in analysis.means_of(mode, found):
            assert (one.value, one.low, one.high) == (wanted.mean(mode, one.measure), *wanted.interval(mode, one.measure))
        for query, hits in found.first.items():
            lines = [line.split("\t") for line in run_text({query: wanted.runs[mode][query]}).splitlines()]
            assert [id for id, _ in hits] == [cells[2] for cells in lines[:3]]
    assert sum(steps) == 4 * len(wanted.queries)


def test_a_question_without_scores_finds_nothing():
    found = analysis.quality_of(analysis.ranked({}, Ranking.of(Profile(), "dense", None, None)), {"q": {"a": 1}}, ["RR"])
    assert found.values == {"RR": {"q": 0.0}}
    assert found.first == {"q": []}


@pytest.mark.parametrize(
    ("ids", "grades", "wanted"),
    [
        (["a", "b"], {"a": 1}, "exact"),
        (["b", "a"], {"a": 2, "b": 1}, "exact"),
        (["b"], {"a": 2, "b": 1}, "related"),
        (["x", "y", "z", "a"], {"a": 1}, "miss"),
        (["x"], {"a": 1, "x": 0}, "miss"),
        ([], {"a": 1}, "miss"),
    ],
)
def test_the_verdict_is_the_best_grade_among_the_first_three(ids, grades, wanted):
    assert analysis.verdict(ids, grades) == wanted


def test_a_set_has_levels_where_one_question_has_two_grades():
    assert not analysis.has_levels({"q": {"a": 1, "b": 0}, "p": {"a": 2}})
    assert analysis.has_levels({"q": {"a": 1, "b": 2}})


def test_rows_are_worst_first_and_alike_ones_stay_in_order():
    values = {"RR": {"a": 1.0, "b": 0.0, "c": 0.0}}
    other = {"RR": {"a": 0.5, "b": 0.25, "c": 1.0}}
    qualities = {"hybrid": Quality(values, {"a": [("x", 0.9)], "b": [], "c": []}), "dense": Quality(other, {})}
    queries, qrels = {"a": "A", "b": "B", "c": "C"}, {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1}}
    rows = analysis.question_rows(queries, qrels, qualities, mode="hybrid", measure="RR")
    assert [row.id for row in rows] == ["b", "c", "a"]
    assert (rows[2].score, rows[2].first, rows[2].verdict, rows[0].score) == (0.9, "x", "exact", None)
    assert rows[0].values == {"hybrid": 0.0, "dense": 0.25}
    assert analysis.verdict_counts(rows) == {"exact": 1, "related": 0, "miss": 2}
    [_, _, line] = analysis.question_table(rows, qualities, {"x": "=X"})
    wanted = {"id": "a", "question": "A", "top_3": "exact", "score": 0.9, "first": "x", "title": "=X"}
    assert line == {**wanted, "hybrid RR": 1.0, "dense RR": 0.5}


def test_a_document_in_passages_has_its_first_passages_title():
    index = M3Index(HashingEncoder(), MemoryStore())
    text = "one two three four. " * 30
    index.add([Document("book", text, {"title": "The book"}), Document("leaf", "a leaf")], split=Split(size=20))
    assert "book" not in index.ids()
    assert analysis.titles_of(index, ["book", "leaf", "gone", "leaf"]) == {"book": "The book", "leaf": "a leaf", "gone": "gone"}


def test_a_runs_name_says_mode_and_shares():
    assert analysis.run_name("hybrid", Weights(1, 1, 2)) == "hybrid 0.25 0.25 0.50"
    assert analysis.run_name("sparse", Weights(1, 1, 2)) == "sparse"


def test_exactness_says_how_far_it_is_and_ranks_with_the_profile_given():
    index = M3Index(HashingEncoder(), MemoryStore(), Profile(depth=2))
    index.add([Document(str(number), f"word{number} and word{number % 7}") for number in range(40)])
    steps, queries = [], {str(number): f"word{number}" for number in range(5)}
    shallow = exactness(index, queries, on_step=steps.append)
    assert steps == [1] * 5
    deep = exactness(index, queries, profile=Profile(weights=Weights(1, 0, 0), depth=100))
    assert shallow.found["hybrid"] < 1
    assert deep.found["hybrid"] == deep.found["dense"] == 1
    assert deep == exactness(M3Index(index.encoder, index.store, Profile(weights=Weights(1, 0, 0), depth=100)), queries)


def test_the_table_of_means_escapes_and_draws_the_interval():
    html = measure_table(["<b>"], [("dense", "<i>", [Measured(0.5, 0.25, 0.75)])])
    assert "&lt;b&gt;" in html
    assert "&lt;i&gt;" in html
    assert "left:25.00%;width:50.00%" in html
    assert "<b>0.500</b> <span class='m3-muted'>0.250–0.750</span>" in html
