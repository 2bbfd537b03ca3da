"""The demo's steps: build the index, compare the modes on one question, measure them on all."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.resources import as_file, files
from pathlib import Path

from m3retriever.demo.corpus import standard_library_documents
from m3retriever.evaluation import Evaluation, evaluate
from m3retriever.index import M3Index
from m3retriever.io import GoldenQuestion, read_golden, write_golden
from m3retriever.ranking import SEARCH_MODES
from m3retriever.types import Document, Hit

QUESTION = "split a shell command into its arguments"
STEP = 64  # documents a call, so that progress moves


def demo_folder(base: str | Path = ".m3-demo") -> Path:
    """Where the demo's index lies: a folder for each Python and each state of the model, so that none is ever stale."""
    from m3retriever.encoders.mini import heads_digest

    return Path(base) / f"python{sys.version_info.major}.{sys.version_info.minor}-{heads_digest()}"


def build(index: M3Index, documents: Sequence[Document], *, on_step: Callable[[int], None] = lambda done: None) -> None:
    """Add the documents; those already there are skipped, so an interrupted build goes on where it stopped."""
    for start in range(0, len(documents), STEP):
        batch = documents[start : start + STEP]
        index.add(batch)
        on_step(len(batch))


def documents() -> list[Document]:
    """The demo's documents."""
    return standard_library_documents()


def golden(known: Sequence[str]) -> list[GoldenQuestion]:
    """The golden questions, with the answers that this Python's library has; those without any are left out."""
    have = set(known)
    with as_file(files("m3retriever.demo") / "golden.jsonl") as path:
        questions = read_golden(path)
    narrowed = [one._replace(relevant=tuple(id for id in one.relevant if id in have)) for one in questions]
    return [one for one in narrowed if one.relevant]


def keep_golden(folder: Path, questions: Sequence[GoldenQuestion]) -> Path:
    """Put the golden questions beside the index, for the inspector and `--golden`; what is there already stays."""
    path = folder / "golden.jsonl"
    if not path.is_file():
        write_golden(questions, path)
    return path


def side_by_side(index: M3Index, question: str, k: int = 5) -> dict[str, list[Hit]]:
    """The first k hits in every mode and in the hybrid."""
    return {mode: index.search(question, k, mode=mode) for mode in SEARCH_MODES}


def quality(
    index: M3Index, questions: Sequence[GoldenQuestion], *, on_step: Callable[[int], None] = lambda done: None
) -> Evaluation:
    """Every mode and the hybrid on the golden questions."""
    queries = {question.id: question.question for question in questions}
    qrels = {question.id: dict.fromkeys(question.relevant, 1) for question in questions}
    return evaluate(index, queries, qrels, on_step=on_step)
