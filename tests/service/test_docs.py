"""docs/service.md is true: every curl line is answered, and every setting and number of the service is named."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from m3retriever import Document, M3Index

PAGE = Path(__file__).parents[2] / "docs" / "service.md"
TEXT = PAGE.read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:7860"
CURL_LINES = [
    line for block in re.findall(r"```bash\n(.*?)```", TEXT, re.S) for line in block.splitlines() if line.startswith("curl ")
]


@pytest.fixture(scope="module")
def documented(start, tmp_path_factory):
    path = tmp_path_factory.mktemp("docs") / "index"
    with M3Index.open(path, model="hashing") as index:
        index.add(
            [Document("lease", "The lease ends on 30 June.", {"tenant": "a"}), Document("cat", "A cat.", {"tenant": "b"})]
        )
    return start("--path", str(path))


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("line", CURL_LINES)
def test_a_curl_line_of_the_page_is_answered(documented, line):
    command = shlex.split(line.replace(ADDRESS, documented.url))
    done = subprocess.run([*command, "-sS", "--fail", "--noproxy", "*"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr + done.stdout
    if not line.endswith("/metrics"):
        assert "error" not in json.loads(done.stdout)
    if "/v1/search" in line:
        assert [hit["id"] for hit in json.loads(done.stdout)["hits"]] == ["lease"]


def test_every_endpoint_has_its_line(documented):
    shown = {re.search(r"7860(/\S+)", line)[1] for line in CURL_LINES}
    assert shown == set(documented.get("/openapi.json").json()["paths"])


def test_every_option_and_number_of_the_service_is_named(documented):
    command = str(Path(sys.executable).with_name("m3retriever"))
    shown = subprocess.run([command, "serve", "--help"], capture_output=True, text=True, timeout=60, check=True).stdout
    options = set(re.findall(r"--[a-z][a-z-]+", shown)) - {"--help"}
    assert len(options) > 15
    assert not {option for option in options if f"`{option}`" not in TEXT}
    own = documented.get("/metrics").text.split("# HELP m3retriever_queries_total")[0]
    assert not {name for name in re.findall(r"# TYPE (\S+)", own) if f"`{name}`" not in TEXT}


def test_the_commands_at_the_top_are_the_commands():
    [first, *_] = re.findall(r"```bash\n(.*?)```", TEXT, re.S)
    assert [shlex.split(line, comments=True)[:2] for line in first.splitlines()] == [["m3retriever", "serve"]] * 2
