"""The pages about the frameworks are true: their code runs, in order, and shows each public class."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from m3retriever import langchain, llama_index

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


@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_every_public_class(name):
    public = {one for one in PAGES[name].__all__ if isinstance(getattr(PAGES[name], one), type)}
    missing = {one for one in public - GIVEN if not re.search(rf"\b{one}[(.]|, {one}\)", code(name))}
    assert not missing
