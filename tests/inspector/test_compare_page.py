"""Compare: what can be chosen, the numbers, the bars, and two rankings side by side."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from m3retriever import MODES, M3Index, Profile, Weights, save_profile
from m3retriever.cli import app as command_line
from m3retriever.evaluation import Comparison, compare, evaluate, evaluate_run, judged_by
from m3retriever.inspector import jobs
from m3retriever.inspector.analysis import comparing as analysis
from m3retriever.inspector.analysis.comparing import Difference
from m3retriever.inspector.analysis.quality import Mean
from m3retriever.inspector.analysis.ranking import title_of
from m3retriever.inspector.charts.quality import difference_bars, mean_bars
from m3retriever.inspector.i18n import translator
from m3retriever.io import read_golden
from m3retriever.palette import LIGHT
from m3retriever.profile import PRESETS

EVIL = "<img src=x onerror=alert(1)> ![a](http://x.invalid/x.png) **b**"


def page(app):
    """All HTML on the page; the app must not have failed."""
    assert not app.exception
    return "\n".join(element.value for element in app.html)


def choose(app, first=None, second=None):
    """Choose one side or both."""
    for key, option in (("first_en", first), ("second_en", second)):
        if option is not None:
            app.selectbox(key=key).select(option)
    return app.run()


def tile(app, name):
    return page(app).split(f"m3-tile-{name}'")[1].split("m3-value'>")[1].split("</b>")[0]


def numbers(app):
    return {name: tile(app, name) for name in ("first", "second", "difference", "wins", "losses", "ties", "p")}


def as_shown(found):
    """What `m3retriever compare --json` says, as the page shows it."""
    return {
        "first": f"{found['first']:.3f}",
        "second": f"{found['second']:.3f}",
        "difference": f"{found['difference']:+.3f}",
        **{name: str(found[name]) for name in ("wins", "losses", "ties")},
        "p": f"{found['p_value']:.4f}",
    }


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Pages wait for their work to end, however loaded the machine is."""
    monkeypatch.setattr(jobs, "PATIENCE", 25.0)


@pytest.fixture
def cli(project, hard, tmp_path):
    """Runs m3retriever on the project; `run_of` writes the run of a mode under a profile."""

    class Cli:
        def __call__(self, *arguments):
            result = CliRunner().invoke(command_line, [*map(str, arguments), "--json"])
            assert result.exit_code == 0, result.output
            return json.loads(result.stdout)

        def run_of(self, name, *options):
            self("evaluate", "--path", project, "--golden", hard, "--run-out", tmp_path / name, *options)
            return tmp_path / name

        def compare(self, first, second, *options):
            with M3Index.open(project) as index:
                _, qrels = judged_by(index, read_golden(hard))
            lines = [f"{query}\t0\t{id}\t{grade}\n" for query, grades in qrels.items() for id, grade in grades.items()]
            (tmp_path / "qrels").write_text("".join(lines), encoding="utf-8")
            return self("compare", first, second, "--qrels", tmp_path / "qrels", *options)

    return Cli()


# -- the page --------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_the_command_line(run, cli):
    wanted = cli.compare(cli.run_of("dense", "--mode", "dense"), cli.run_of("hybrid"))
    app = run(page="compare")
    assert numbers(app) == as_shown(wanted)
    assert wanted["wins"] > 0 < wanted["losses"]
    assert "B is better by" in page(app)


def test_another_measure_and_presets_give_the_command_lines_numbers_too(run, cli):
    runs = [cli.run_of(name, "--profile", name) for name in ("keyword", "cross-lingual")]
    app = choose(run(page="compare"), "preset:keyword", "preset:cross-lingual")
    app.selectbox(key="measure").set_value("R@10").run()
    wanted = cli.compare(*runs, "--measure", "R@10")
    assert numbers(app) == as_shown(wanted)
    assert "0.30 · 0.60 · 0.10, weighted_sum, depth 200" in page(app)


def test_everything_that_can_be_compared_is_listed(run, project):
    save_profile(Profile(weights=Weights(0, 1, 0)), project / "mine.toml")
    save_profile(Profile(), project / "profile.toml")
    (project / "runs").mkdir()
    (project / "runs" / "monday.run").write_text("q Q0 d 1 1.0 t\n")
    app = run(page="compare")
    wanted = ["Sidebar", "Saved profile", *(f"Mode · {mode}" for mode in ("Dense", "Sparse", "ColBERT")), "Run · monday"]
    wanted += [*(f"Preset · {name}" for name in PRESETS), "File · mine.toml"]
    assert app.selectbox(key="first_en").options == app.selectbox(key="second_en").options == wanted


def test_a_run_that_was_saved_is_compared_with_the_sidebar_after_a_restart(run, cli, project):
    app = run(page="evaluate")
    app.text_input(key="run_name_hybrid 0.40 0.20 0.40").set_value("before")
    app.button(key="save_run").click().run()
    again = choose(run(page="compare"), "run:before")
    assert numbers(again)["ties"] == "60"
    assert "A and B are the same on all 60 questions." in page(again)
    assert "Every question has the same value" in page(again)
    for mode, value in (("dense", 0.0), ("sparse", 1.0), ("colbert", 0.0)):
        again.slider(key=mode).set_value(value)
    again.run()
    save_profile(Profile(weights=Weights(0, 1, 0)), project / "other.toml")
    after = cli.run_of("after", "--profile", project / "other.toml")
    assert numbers(again) == as_shown(cli.compare(project / "runs" / "before.run", after))
    assert int(numbers(again)["losses"]) > 0


def test_questions_that_a_run_lacks_count_nothing_and_those_beyond_are_left_out(run, cli, project):
    text = cli.run_of("whole").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith(("h-account-01\t", "h-account-02\t"))]
    (project / "runs").mkdir()
    short = project / "runs" / "short.run"
    short.write_text("\n".join([*lines, f"{EVIL.replace(' ', '')} Q0 d 1 1.0 t"]) + "\n", encoding="utf-8")
    lacking = len({line.split("\t")[0] for line in text.splitlines()} - {line.split("\t")[0] for line in lines})
    app = choose(run(page="compare"), "sidebar", "run:short")
    html = page(app)
    assert f"B lacks {lacking} of the questions, which count 0 there:" in html
    assert "1 queries of B are not in the golden set and are left out: &lt;img" in html
    assert lacking >= 1
    assert numbers(app)["losses"] == str(lacking)
    assert numbers(app) == as_shown(cli.compare(cli.run_of("whole"), short))


def test_a_run_of_another_set_is_named_as_such(run, project):
    (project / "runs").mkdir()
    (project / "runs" / "else.run").write_text("other Q0 d 1 1.0 t\n")
    assert "A has none of these questions" in page(choose(run(page="compare"), "run:else"))


def test_a_profile_with_another_depth_ranks_among_its_own_candidates(run, cli, project):
    save_profile(Profile(weights=Weights(0, 0, 1), depth=2), project / "shallow.toml")
    shallow = cli.run_of("shallow", "--profile", project / "shallow.toml")
    app = choose(run(page="compare"), "file:shallow.toml", "sidebar")
    assert numbers(app) == as_shown(cli.compare(shallow, cli.run_of("hybrid")))
    assert "depth 2" in page(app)


@pytest.mark.parametrize(
    ("content", "words"),
    [("weight = 3", "unknown keys"), ('model = "other"', "fitted on &#x27;other&#x27;"), ("\xff", "is not a TOML profile")],
)
def test_a_profile_that_cannot_be_used_is_an_error_in_words(run, project, content, words):
    (project / "mine.toml").write_text(content, encoding="latin-1")
    app = choose(run(page="compare"), second="file:mine.toml")
    assert "B cannot be used." in page(app)
    assert words in page(app)
    assert "m3-tile-p" not in page(app)


def test_a_broken_run_is_an_error_in_words(run, project):
    (project / "runs").mkdir()
    (project / "runs" / "half.run").write_text("q Q0 d\n")
    app = choose(run(page="compare"), "run:half")
    assert "A cannot be used." in page(app)
    assert "half.run" in page(app)


def upload(app, name, content):
    app.file_uploader(key="upload_contender").upload(name, content, "text/plain").run()
    return app


def test_uploaded_runs_and_profiles_are_compared(run, cli):
    dense, name = cli.run_of("dense", "--mode", "dense"), f"{EVIL.replace('/', '')}.run"
    app = upload(run(page="compare"), name, dense.read_bytes())
    assert f"Upload · {name}" in app.selectbox(key="first_en").options
    choose(app, f"upload:{name}", "mode:dense")
    assert numbers(app)["ties"] == "60"
    assert "<img" not in page(app)
    upload(app, "dense.toml", b"[weights]\ndense = 1\nsparse = 0\ncolbert = 0\n")
    choose(app, "upload:dense.toml", "mode:dense")
    assert numbers(app)["ties"] == "60"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.run", b"one two", "want 6 columns"),
        ("a.run", b"", "a.run has no line of a run"),
        ("<b>.toml", b"weight = 1", "&lt;b&gt;.toml: unknown keys"),
        ("a.toml", b"\xff\xfe", "a.toml is not a TOML profile"),
    ],
)
def test_an_upload_that_cannot_be_read_is_an_error_in_words(run, name, content, words):
    app = upload(run(page="compare"), name, content)
    assert "The file cannot be used." in page(app)
    assert words in page(app)
    assert not [option for option in app.selectbox(key="first_en").options if option.startswith("Upload")]


def test_a_profile_of_another_model_that_was_uploaded_is_refused_in_words(run):
    app = choose(upload(run(page="compare"), "m.toml", b'model = "BAAI/bge-m3"\n'), "upload:m.toml")
    assert "A cannot be used." in page(app)
    assert "BAAI/bge-m3" in page(app)


def test_a_measure_that_there_is_not_is_an_error_in_words(run):
    app = run(page="compare", measure="<b>nDCG")
    assert "There is no such measure." in page(app)
    assert "<b>nDCG" not in page(app)


def test_the_question_with_the_largest_difference_is_shown_until_another_is_chosen(run, project, hard):
    app = choose(run(page="compare"), "sidebar", "mode:dense")
    with M3Index.open(project) as index:
        queries, qrels = judged_by(index, read_golden(hard))
        runs = evaluate(index, queries, qrels, ["nDCG@10"])
        before, after = (runs.values[mode]["nDCG@10"] for mode in ("hybrid", "dense"))
        largest = max(before, key=lambda query: abs(after[query] - before[query]))
        titles = [title_of(hit.document) for hit in index.search(queries[largest], 10, mode="dense")]
    assert after[largest] < before[largest]
    box = question_box(app)
    assert box.value == largest
    assert list(app.dataframe[0].value["second"]) == titles
    assert "★★" in set(app.dataframe[0].value["first_mark"])
    other = min(before, key=lambda query: abs(after[query] - before[query]))
    box.select(other).run()
    assert app.query_params["question"] == other
    assert f"A {before[other]:.3f}, B {after[other]:.3f}." in page(app)
    app.slider(key="sparse").set_value(0.9).run()
    assert question_box(app).value == other


def question_box(app):
    [box] = [box for box in app.selectbox if box.key and box.key.startswith("question_")]
    return box


def test_without_a_golden_set_the_page_says_what_to_do(run, project):
    (project / "golden.jsonl").unlink()
    assert "There are no questions with known answers yet." in page(run(page="compare"))


# -- the functions behind it -----------------------------------------------------------------------


def test_differences_are_best_first_and_the_largest_are_kept_in_order():
    first = {"a": 0.5, "b": 0.1, "c": 0.9, "d": 0.3}
    second = {"a": 0.5, "b": 0.4, "c": 0.1, "d": 0.4}
    found = analysis.differences(first, second)
    assert [one.query for one in found] == ["b", "d", "a", "c"]
    assert found[0].value == pytest.approx(0.3)
    assert [one.query for one in analysis.largest(found, 2)] == ["b", "c"]
    assert [one.query for one in analysis.largest(found)] == ["b", "d", "c"], "those alike have no bar"


@pytest.mark.parametrize("seed", range(3))
def test_the_differences_are_the_comparisons(seed):
    random = np.random.default_rng(seed)
    qrels = {str(query): {"d1": 1, "d2": 2} for query in range(80)}
    runs = [{query: {f"d{id}": float(random.random()) for id in range(9)} for query in qrels} for _ in range(2)]
    values = [evaluate_run(run, qrels, ["nDCG@3"])["nDCG@3"] for run in runs]
    found, wanted = analysis.differences(*values), compare(*runs, qrels, "nDCG@3")
    assert sum(one.value > 0 for one in found) == wanted.wins
    assert sum(one.value < 0 for one in found) == wanted.losses
    assert np.mean([one.value for one in found]) == pytest.approx(wanted.difference)
    assert len(analysis.largest(found)) == min(60, wanted.wins + wanted.losses)


def test_two_rankings_stand_side_by_side_with_marks_and_moves():
    first = {"a": 0.9, "b": 0.8, "c": 0.7}
    second = {"c": 0.9, "b": 0.8, "new": 0.8, "a": 0.1}
    lines = analysis.side_by_side(first, second, {"c": 2, "b": 1, "a": 0, "new": 5})
    assert [(line.rank, line.first, line.first_mark) for line in lines] == [
        (1, "a", ""),
        (2, "b", "★"),
        (3, "c", "★★"),
        (4, None, ""),
    ]
    assert [(line.second, line.second_mark, line.moved) for line in lines] == [
        ("c", "★★", 2), ("b", "★", 0), ("new", "★★", None), ("a", "", -3),
    ]  # fmt: skip
    assert len(analysis.side_by_side(first, second, {}, 2)) == 2
    assert analysis.side_by_side({}, {}, {}) == []


def test_a_place_that_only_the_first_has_moved_nowhere():
    [_, line] = analysis.side_by_side({"a": 2, "b": 1}, {"a": 1}, {"b": 1})
    assert (line.first, line.first_mark, line.second, line.second_mark, line.moved) == ("b", "★", None, "", None)


@pytest.mark.parametrize(
    ("first", "second", "wins", "losses", "p", "wanted"),
    [
        (0.5, 0.5, 0, 0, 1.0, "same"),
        (0.5, 0.6, 3, 1, 0.2, "chance"),
        (0.5, 0.6, 9, 1, 0.04, "better"),
        (0.6, 0.5, 1, 9, 0.04, "worse"),
        (0.5, 0.6, 9, 1, 0.05, "chance"),
    ],
)
def test_the_outcome_asks_whether_chance_gives_as_much(first, second, wins, losses, p, wanted):
    assert analysis.outcome(Comparison(20, first, second, wins, losses, 20 - wins - losses, p)) == wanted


def test_a_run_and_a_set_are_laid_over_each_other():
    found = analysis.overlap({"a": {}, "c": {"x": 1.0}, "n": {}}, {"a": {"x": 1}, "b": {"x": 1}, "n": {"x": 0}})
    assert found == analysis.Overlap(lacking=("b",), beyond=("c", "n"))


def test_arrows_need_no_colour():
    assert [analysis.arrow(value) for value in (0.1, -0.1, 0)] == ["▲", "▼", "="]


def test_the_bars_say_their_difference_in_figures_and_mark_the_chosen_question():
    found = [Difference("q1", 0.2, 0.7), Difference("q2", 0.7, 0.6)]
    chart = difference_bars(found, {"q1": "apple", "q2": EVIL}, chosen="q2", palette=LIGHT, t=translator("en")).to_dict()
    [rows] = chart["datasets"].values()
    assert [row["sign"] for row in rows] == ["▲ +0.500", "▼ -0.100"]
    assert [row["query"] for row in rows] == ["q1", "q2"]
    assert [row["chosen"] for row in rows] == [False, True]
    assert chart["layer"][0]["encoding"]["opacity"]["condition"]["test"] == "datum.chosen"
    assert LIGHT.hybrid in json.dumps(chart)


def test_the_means_have_the_modes_colours():
    means = [Mean(mode, "RR", 0.5, 0.4, 0.6) for mode in ("hybrid", *MODES)]
    chart = mean_bars(means, palette=LIGHT, t=translator("en")).to_dict()
    assert chart["layer"][0]["encoding"]["color"]["scale"] == {
        "domain": ["Hybrid", "Dense", "Sparse", "ColBERT"],
        "range": [LIGHT.of(mode) for mode in ("hybrid", *MODES)],
    }
