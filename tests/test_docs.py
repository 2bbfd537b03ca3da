"""The pages are true: their code and commands run, in order, and they show each public class, preset and fusion."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from m3retriever import FUSIONS, PRESETS, Document, M3Index, Weights, langchain, llama_index, load_profile
from m3retriever.calibrating.reliability import FITS
from m3retriever.observing.counters import COUNTERS, STEPS
from m3retriever.stores.verify import SAID

DOCS = Path(__file__).parents[1] / "docs"
PAGES = {"langchain": langchain, "llama-index": llama_index}
GIVEN = {"M3NodeWithScore", "M3RetrievalStartEvent", "StoreEmbedding", "SparseVector", "M3VectorStoreRetriever"}  # by others


def code(name):
    return "\n".join(re.findall(r"```python\n(.*?)```", (DOCS / f"{name}.md").read_text(encoding="utf-8"), re.S))


@pytest.mark.model
@pytest.mark.parametrize("name", PAGES)
def test_a_page_s_code_runs_from_top_to_bottom(tmp_path, name):
    done = subprocess.run([sys.executable, "-c", code(name)], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert all(mode in done.stdout for mode in ("dense", "sparse", "colbert"))
    assert "cat sleeps" not in done.stdout  # another tenant's
    answer = next(line for line in done.stdout.splitlines() if line.startswith("Rent is due on the third"))
    assert name == "llama-index" or "[1]" in answer


@pytest.mark.model
def test_the_page_on_speed_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code("speed")], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.stdout.split() == ["int8"], done.stderr
    [command] = commands(DOCS / "speed.md", "How near int8", model="mini")
    assert "MaxSim tau" in run(command, tmp_path)


def test_the_page_on_reliability_names_every_problem_and_its_commands_work(tmp_path):
    with M3Index.open(tmp_path / "index", model="hashing") as index:
        index.add([Document("fox", "the red fox")])
    for command in commands(DOCS / "reliability.md", "Is it whole"):
        assert "whole: 1 documents" in run(command, tmp_path)
    named = re.findall(r"^\| ([a-z ]+) \|", (DOCS / "reliability.md").read_text(encoding="utf-8"), re.M)
    assert sorted(named) == sorted(["found", *SAID])


def test_the_page_on_observing_runs(tmp_path):
    done = subprocess.run([sys.executable, "-c", code("observing")], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    first, *_, ids, answer = done.stdout.splitlines()
    assert (first, ids) == ("1 2", "('fox', 'whale')")
    assert answer.startswith("{'q1': {'fox': 0.")
    assert {json.loads(line)["logger"] for line in done.stderr.splitlines()} == {"m3retriever.spans"}
    write_jsonl(tmp_path / "golden.jsonl", [{"question": "red fox", "relevant": ["fox"]}])
    for command in commands(DOCS / "observing.md", "A log says"):
        run(command, tmp_path)
    assert {f"m3retriever_{name}_total" for name in COUNTERS} <= set(re.findall(r"m3retriever_\w+_total", done.stdout))
    page = (DOCS / "observing.md").read_text(encoding="utf-8")
    assert not {name for name in (*COUNTERS, *STEPS) if f"`{name}`" not in page}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_every_public_class(name):
    public = {one for one in PAGES[name].__all__ if isinstance(getattr(PAGES[name], one), type)}
    missing = {one for one in public - GIVEN if not re.search(rf"\b{one}[(.]|, {one}\)", code(name))}
    assert not missing


COLOURS, ANIMALS = ["red", "blue", "green", "grey"], ["fox", "whale", "crow"]
NAMES = [f"{colour} {animal}" for colour in COLOURS for animal in ANIMALS]


def commands(page, heading, model="hashing"):
    """The commands of a page's first block below a heading, by default with the model that needs no time."""
    text = page.read_text(encoding="utf-8").split(heading, 1)[1]
    lines = re.findall(r"```bash\n(.*?)```", text, re.S)[0].replace("--model mini", f"--model {model}").splitlines()
    return [shlex.split(line, comments=True) for line in lines]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run(command, folder):
    program = str(Path(sys.executable).with_name(command[0]))
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, cwd=folder, timeout=300)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def test_the_way_from_index_to_profile_is_as_the_page_says(tmp_path):
    write_jsonl(tmp_path / "corpus.jsonl", [{"_id": name, "text": f"The {name} lives here and there."} for name in NAMES])
    write_jsonl(tmp_path / "queries.jsonl", [{"_id": name, "text": f"where is the {name}"} for name in NAMES])
    (tmp_path / "test.tsv").write_text("".join(f"{name}\t{name}\t1\n" for name in NAMES), encoding="utf-8")
    given = commands(DOCS / "quality.md", "# ")
    assert [command[1] for command in given] == ["index", "evaluate", "tune", "calibrate", "search", "report"]
    for command in given:
        run(command, tmp_path)
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert load_profile(tmp_path / "profile.toml").fitted.keys() == {"tuning", "calibration"}


def test_the_readme_s_way_to_a_threshold_works(tmp_path):
    (tmp_path / "docs").symlink_to(DOCS)
    questions = [
        {"question": line, "relevant": [f"docs/{page.name}"]}
        for page in sorted(DOCS.glob("*.md"))
        if page.stem not in ("benchmarks", "scale")  # tables that hold much the same
        for line in sorted(page.read_text(encoding="utf-8").splitlines(), key=len)[-5:]
    ]
    write_jsonl(tmp_path / "questions.jsonl", questions)
    run(["m3retriever", "index", "docs", "--path", "./index", "--model", "hashing"], tmp_path)
    given = commands(DOCS.parent / "README.md", "## Which weights")
    assert [command[1] for command in given] == ["evaluate", "tune", "calibrate", "search", "report"]
    for command in given:
        run(command, tmp_path)


def test_every_preset_is_explained_with_its_weights():
    page = (DOCS / "quality.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| (\S+) \| (\S+) \| (\S+) \| .{10,} \|$", page, re.M)
    assert {name: Weights(*map(float, weights)) for name, *weights in rows} == PRESETS


def test_every_fusion_and_way_to_fit_is_named():
    page = (DOCS / "quality.md").read_text(encoding="utf-8")
    for name in (*FUSIONS, "routed", "learned", "optuna", *FITS):
        assert name in page, name
