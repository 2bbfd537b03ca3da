"""What README, docs and CHANGELOG say is true: their code runs, their commands work, their links lead somewhere."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from torture.table import KEPT, LINES, kept, placed, table
from torture.table import PAGES as PAGES_OF

import m3retriever

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"## (\w+)\n\n```python\n(.*?)```", README, re.S)
CHINESE = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("README*.md"), ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])


def test_the_three_snippets_are_there_and_about_twelve_lines_each():
    assert [name for name, _ in SNIPPETS] == ["Python", "LangChain", "LlamaIndex"]
    for name, code in SNIPPETS:
        assert len([line for line in code.splitlines() if line.strip()]) <= 12, name


@pytest.mark.parametrize(("name", "code"), SNIPPETS, ids=[name for name, _ in SNIPPETS])
def test_a_snippet_runs_as_it_stands(tmp_path, name, code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()[0]
    assert first.startswith({"Python": "whale", "LangChain": "['a', 'b']", "LlamaIndex": "a 0."}[name])
    assert all(mode in done.stdout for mode in ("dense", "sparse", "colbert"))


def test_the_commands_work_in_the_order_given(tmp_path):
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    block = README.split("## Command line")[1].split("```bash\n")[1].split("```")[0]
    commands = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert [command[1] for command in commands] == ["index", "search", "explain", "info", "doctor"]
    for command in commands:
        program = str(Path(sys.executable).with_name(command[0]))
        done = subprocess.run([program, *command[1:]], capture_output=True, text=True, cwd=tmp_path, timeout=300)
        assert done.returncode == 0, (command, done.stderr)


def test_the_commands_of_the_inspector_are_taken(tmp_path):
    block = README.split("## The inspector")[1].split("```bash\n")[1].split("```")[0]
    for line in block.splitlines():
        arguments = shlex.split(line, comments=True)
        assert arguments[:4] == ["m3retriever", "inspect", "--path", "./index"]
        program = str(Path(sys.executable).with_name(arguments[0]))
        done = subprocess.run([program, *arguments[1:]], capture_output=True, text=True, cwd=tmp_path, timeout=120)
        assert (done.returncode, done.stderr.split(";")[0]) == (1, "error: no index in ./index"), "every option is known"


def test_the_commands_for_more_than_one_machine_are_taken():
    from typer.main import get_command

    from m3retriever.cli import app

    block = README.split("## When one machine is not enough")[1].split("```bash\n")[1].split("```")[0]
    lines = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert [line[1] for line in lines] == ["serve", "index", "copy", "search", "index"]
    for _, name, *arguments in lines:
        command = get_command(app).get_command(None, name)
        command.make_context(name, arguments)  # raises for what it does not know


def shape(text):
    """What both languages share: levels of headings, code without its comments, targets of links, rows of tables."""
    code = [re.sub(r"\s*#.*", "", block) for block in re.findall(r"```\w+\n.*?```", text, re.S)]
    prose = re.sub(r"```\w+\n.*?```", "", text, flags=re.S)
    return {
        "headings": [line.split()[0] for line in prose.splitlines() if line.startswith("#")],
        "code": code,
        "links": [target for target in re.findall(r"\]\(([^)]+)\)", prose) if not target.startswith("README")],
        "names": sorted(set(re.findall(r"`([^`]+)`", prose))),
        "tables": [line.count("|") for line in prose.splitlines() if line.startswith("|")],
        "points": sum(line.startswith("- ") for line in prose.splitlines()),
    }


def test_the_chinese_readme_has_the_same_sections_commands_and_code():
    english, chinese = shape(README), shape(CHINESE)
    for part, content in english.items():
        assert chinese[part] == content, part
    assert "(README.zh-CN.md)" in README
    assert "(README.md)" in CHINESE
    for block in re.findall(r"```python\n.*?```", README, re.S):
        assert block in CHINESE


@pytest.mark.parametrize("language", PAGES_OF)
def test_the_reliability_table_is_what_the_last_long_run_counted(language):
    page = PAGES_OF[language].read_text(encoding="utf-8")
    lines = json.loads(KEPT.read_text(encoding="utf-8"))
    assert placed(page, table(lines, language)) == page
    faults = [row.split("|")[-2].strip() for row in table(lines, language).splitlines()[2:]]
    assert set(faults) == {"0"}


def test_the_table_adds_up_what_was_counted_and_needs_every_count():
    lines = [{"name": line.start, "counts": dict.fromkeys(re.findall(r"{(\w+)}", line.en[1]), 600)} for line in LINES]
    lines += [{"name": f"{LINES[0].start}, again", "counts": {"kills": 500, "problems": 2}}]
    rows = table(kept(map(json.dumps, lines)), "en").splitlines()
    assert rows[2].endswith("| 1,100 kills, 600 within a change | 2 |")
    assert rows[3].endswith("files mended 600 times | 0 |")
    with pytest.raises(KeyError):
        table(lines[1:], "en")


def test_the_make_targets_named_are_there():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"^make (\w+)", README, re.M)) == {"demo", "test"} <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_named_exist(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target
    for name in re.findall(r"`((?:stores|inspector|encoders|tests|src)/[\w./]*)`", text):
        assert (ROOT / name).exists() or (ROOT / "src" / "m3retriever" / name).exists(), name


def test_the_changelog_speaks_of_this_version():
    assert f"## {m3retriever.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
