"""From index to profile on the command line: tune, calibrate, report, and searching by what they wrote."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from m3retriever import load_profile

PROGRAM = str(Path(sys.executable).with_name("m3retriever"))
COLOURS, ANIMALS = ["red", "blue", "green", "grey"], ["fox", "whale", "crow", "mole", "hare"]
NAMES = [f"{colour} {animal}" for colour in COLOURS for animal in ANIMALS]


def run(*arguments, code=0):
    done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return done


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with documents, questions in both forms, questions without an answer, and an index."""
    folder = tmp_path_factory.mktemp("made")
    write_jsonl(folder / "corpus.jsonl", [{"_id": name, "text": f"The {name} lives here and there."} for name in NAMES])
    write_jsonl(folder / "queries.jsonl", [{"_id": f"q {name}", "text": f"where does the {name} live"} for name in NAMES])
    lines = "".join(f"q {name}\t{name}\t1\n" for name in NAMES)
    (folder / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + lines, encoding="utf-8")
    write_jsonl(folder / "golden.jsonl", [{"question": f"where does the {name} live", "relevant": [name]} for name in NAMES])
    write_jsonl(folder / "wrong.jsonl", [{"_id": str(row), "text": f"opening hours of shop {row}"} for row in range(12)])
    run("index", folder / "corpus.jsonl", "--path", folder / "index", "--model", "hashing")
    return folder


def judged(made):
    return ["--path", made / "index", "--queries", made / "queries.jsonl", "--qrels", made / "test.tsv"]


def test_tuning_then_calibrating_then_searching_by_the_profile(made, tmp_path):
    profile = tmp_path / "profile.toml"
    tuned = json.loads(run("tune", *judged(made), "--step", "0.25", "--out", profile, "--json").stdout)
    assert (tuned["queries"], tuned["measure"], tuned["profile"]) == (20, "nDCG@10", str(profile))
    assert set(tuned["against"]) >= {"default", "dense", "sparse", "colbert", "keyword", "mkqa"}
    assert all(tuned["held_out"] >= tuned["against"][mode]["first"] - 1e-9 for mode in ("dense", "sparse", "colbert"))
    written = load_profile(profile)
    assert written.fitted["tuning"]["held_out"] == tuned["held_out"]
    assert written.model is not None

    wrong = ["--unanswerable", made / "wrong.jsonl"]
    arguments = [*judged(made), *wrong, "--fpr", "0.1", "--profile", profile, "--out", profile, "--json"]
    fitted = json.loads(run("calibrate", *arguments).stdout)
    assert (fitted["questions"], fitted["unanswerable"], fitted["wanted"]) == (20, 12, "fpr <= 0.1")
    assert set(fitted["modes"]) == {"hybrid", "dense", "sparse", "colbert"}
    assert fitted["modes"]["hybrid"]["fpr"] <= 0.1
    again = load_profile(profile)
    assert again.weights == written.weights
    assert again.fitted["tuning"] == written.fitted["tuning"]
    assert again.thresholds["hybrid"] == fitted["modes"]["hybrid"]["threshold"]

    search = ["--path", made / "index", "--profile", profile, "--json", "--threshold", "profile"]
    [first, *_] = json.loads(run("search", "where does the red fox live", *search).stdout)["hits"]
    assert first["id"] == "red fox"
    assert first["score"] >= again.thresholds["hybrid"]
    assert 0 <= first["probability"] <= 1
    assert json.loads(run("search", "opening hours of shop 99", *search).stdout)["hits"] == []
    assert "probability" in run("search", "red fox", "--path", made / "index", "--profile", profile).stdout
    by_condition = json.loads(run("search", "where does the red fox live", *search[:-1], "p>=0.01").stdout)["hits"]
    assert all(hit["probability"] >= 0.01 - 1e-9 for hit in by_condition)


def test_learned_and_routed_fusions_are_reported_beside_the_linear_ones(made):
    tuned = json.loads(run("tune", *judged(made), "--step", "0.5", "--fusion", "weighted_sum,learned,routed", "--json").stdout)
    assert set(tuned["found"]) == {"linear", "logistic", "boosted", "routed"}
    assert set(tuned["learned"]) == {"logistic", "boosted", "routed"}
    assert tuned["profile"] is None


def test_without_labels_the_rates_of_unrelated_pairs_are_fitted(made, tmp_path):
    profile, path = tmp_path / "p.toml", ["--path", made / "index"]
    fitted = json.loads(run("calibrate", *path, "--fpr", "0.05", "--out", profile, "--json").stdout)
    assert (fitted["questions"], fitted["modes"]["dense"]["brier"]) == (0, None)
    assert fitted["modes"]["dense"]["fpr"] <= 0.05
    found = run("search", "red fox", *path, "--profile", profile, "--threshold", "fpr<=0.05", "--json")
    assert all(hit["score"] >= fitted["modes"]["hybrid"]["threshold"] - 0.2 for hit in json.loads(found.stdout)["hits"])
    fails = run("search", "x", *path, "--profile", profile, "--threshold", "p>=0.5", code=1)
    assert "needs a profile fitted on labels" in fails.stderr


def test_people_get_tables(made):
    shown = run("calibrate", "--path", made / "index", "--golden", made / "golden.jsonl", "--precision", "0.5").stdout
    for word in ("thresholds for precision >= 0.5", "held out", "nearly identical", "colbert"):
        assert word in shown
    tuned = run("tune", "--path", made / "index", "--golden", made / "golden.jsonl", "--step", "0.5")
    for word in ("linear *", "default", "keyword-search"):
        assert word in tuned.stdout
    assert "nothing was written: --out FILE saves the profile" in tuned.stderr


def test_what_speed_costs_is_measured_on_request(made):
    found = json.loads(run("evaluate", *judged(made), "--exact", "--json").stdout)
    assert found["exact"]["found"] == {"hybrid": 1.0, "dense": 1.0, "sparse": 1.0, "colbert": 1.0}
    assert 0 <= found["exact"]["difference"] < 2e-3
    assert "exact" not in json.loads(run("evaluate", *judged(made), "--json").stdout)


def test_the_report_is_one_page_with_everything_on_it(made, tmp_path):
    out = tmp_path / "report.html"
    done = run("report", *judged(made), "--unanswerable", made / "wrong.jsonl", "--exact", "--out", out, "--json")
    assert json.loads(done.stdout)["report"] == str(out)
    page = out.read_text(encoding="utf-8")
    assert page.lower().startswith("<!doctype html>")
    assert all(part in page for part in ("Worst questions", "Thresholds", "Reliability", "nDCG@10"))
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


def test_an_index_made_with_a_profile_is_searched_by_it(made, tmp_path):
    run("index", made / "corpus.jsonl", "--path", tmp_path / "x", "--model", "hashing", "--profile", "keyword")
    assert tuple(load_profile(tmp_path / "x" / "profile.toml").weights) == (0.3, 0.6, 0.1)
    used = json.loads(run("search", "red fox", "--path", tmp_path / "x", "--json").stdout)["weights"]
    assert used["sparse"] == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["calibrate", "--precision", "0.9", "--recall", "0.9"], "give one of --precision, --recall"),
        (["calibrate", "--confidence", "0.9"], "--confidence goes with --recall"),
        (["calibrate", "--precision", "0.9"], "needs questions with known answers"),
        (["tune"], "give --queries and --qrels, or --golden"),
        (["tune", "--golden", "golden.jsonl", "--fusion", "best"], "fusion must be one of"),
        (["tune", "--golden", "golden.jsonl", "--search", "random"], "search must be grid or optuna"),
        (["tune", "--golden", "golden.jsonl", "--step", "0.3"], "step must divide 1"),
        (["report", "--out", "x.html"], "give --queries and --qrels, or --golden"),
    ],
)
def test_wrong_calls_are_one_line(made, arguments, message):
    given = [made / one if one == "golden.jsonl" else one for one in arguments]
    error = run(*given, "--path", made / "index", code=1).stderr
    assert message in error
    assert len(error.strip().splitlines()) == 1
