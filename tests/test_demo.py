"""The demo: its documents, its golden questions, and the command from end to end."""

import shutil
import socket
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from m3retriever.demo.corpus import standard_library_documents
from m3retriever.demo.run import golden
from m3retriever.io import read_golden

PROGRAM = str(Path(sys.executable).with_name("m3retriever"))


@pytest.fixture(scope="module")
def documents():
    return standard_library_documents()


def test_there_are_about_two_thousand_documents_of_every_kind(documents):
    assert 1500 < len(documents) < 3000
    assert len({document.id for document in documents}) == len(documents)
    assert {document.metadata["kind"] for document in documents} == {"module", "class", "function"}
    [join] = [document for document in documents if document.id == "posixpath.join"]
    assert join.metadata == {"module": "posixpath", "kind": "function", "title": "posixpath.join"}
    assert "Join two or more pathname components" in join.text


def test_documents_are_read_without_running_them(tmp_path):
    (tmp_path / "evil.py").write_text('"""A module that must not run, only be read."""\nraise SystemExit("it ran")\n')
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "_private.py").write_text('"""A private module with a docstring."""\n')
    found = standard_library_documents(tmp_path)
    assert [(document.id, document.metadata["kind"]) for document in found] == [("evil", "module")]


def test_the_golden_set_has_sixty_questions_or_more_that_the_library_can_answer(documents):
    questions = read_golden(Path(str(files("m3retriever.demo") / "golden.jsonl")))
    assert len(questions) >= 60
    assert len({question.question for question in questions}) == len(questions)
    answerable = golden([document.id for document in documents])
    assert len(answerable) >= 0.9 * len(questions), "most answers exist in every Python"
    known = {document.id for document in documents}
    assert all(set(question.relevant) <= known for question in answerable)


def test_the_demo_ends_with_its_tables(demo):
    folder, printed = demo
    rows = {line.split()[0]: line.split()[1:] for line in printed.splitlines() if line}
    assert rows["mode"] == ["nDCG@10", "R@10", "R@100", "RR@10"]
    quality = {mode: float(rows[mode][0]) for mode in ("hybrid", "dense", "sparse", "colbert")}
    assert quality["hybrid"] >= max(quality.values()) - 0.02, "the hybrid is at least about as good as the best mode"
    assert quality["hybrid"] > 0.4
    assert f"the index is in {folder}; try: m3retriever search" in printed


def test_the_demo_a_second_time_adds_nothing_and_keeps_judgements(demo, tmp_path):
    folder, printed = demo
    base = tmp_path / "again"
    shutil.copytree(folder.parent, base)
    golden_file = base / folder.name / "golden.jsonl"
    assert len(read_golden(golden_file)) >= 54
    golden_file.write_text(first := golden_file.read_text(encoding="utf-8").splitlines(keepends=True)[0], encoding="utf-8")
    done = subprocess.run([PROGRAM, "demo", "--no-inspector", "--path", str(base)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("the index is in")[0] == printed.split("the index is in")[0]
    assert golden_file.read_text(encoding="utf-8") == first


def test_a_taken_port_is_said_before_any_work(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [PROGRAM, "demo", "--port", str(port)], capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: port {port} is taken")
    assert list(tmp_path.iterdir()) == []
