"""Recall quality on collections in BEIR's layout: BM25, each mode, the hybrid, tuned weights, and thresholds held out.

    python -m benchmarks.quality FOLDER... [--model mini] [--indexes DIR]

A folder holds corpus.jsonl, queries.jsonl and qrels/test.tsv, and where there are any queries_unanswerable.jsonl.
Prints the tables of docs/quality.md. BM25 runs on the word pieces of the model's own tokenizer, so that both see the
same words.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from m3retriever import Document, M3Index, Profile
from m3retriever.calibrating import Calibrated, Wanted, calibrate
from m3retriever.evaluation import Run, evaluate_run, evaluate_scores, mean, score_all
from m3retriever.fitting import calibrate_index, evidence_of
from m3retriever.io import read_documents, read_qrels, read_queries
from m3retriever.ranking import SEARCH_MODES
from m3retriever.tuning import Tuning, tune
from m3retriever.types import Encoder, ModeScores, Tokenizes

MEASURE = "nDCG@10"
K1, B = 1.2, 0.75  # Lucene's
RRF = 60
WANTED = (Wanted("precision", 0.9), Wanted("recall", 0.9))
UNANSWERABLE = Wanted("fpr", 0.05)


@dataclass(frozen=True, eq=False)
class Collection:
    """One folder, indexed and scored."""

    name: str
    documents: int
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]
    unanswerable: Sequence[str]
    scores: Mapping[str, ModeScores]
    bm25: Run


def main() -> None:
    """Index, measure, tune and calibrate every folder; print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--indexes", type=Path, help="where indexes are kept for the next run; default: nowhere")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # texts that are cut, or in another script: the tables say what comes of it
    quality, tuned, thresholds = [], [], []
    with tempfile.TemporaryDirectory() as temporary:
        for folder in options.folders:
            with M3Index.open(Path(options.indexes or temporary) / folder.name, model=options.model) as index:
                start = time.perf_counter()
                collection = collected(index, folder)
                tuning = tune(collection.scores, collection.qrels, measure=MEASURE)
                quality.append(quality_row(collection, tuning))
                tuned.append(tuned_row(collection, tuning))
                thresholds += threshold_rows(index, collection)
                print(f"{folder.name}: {time.perf_counter() - start:.0f} s", flush=True)
    head = [
        "collection",
        "documents",
        "questions",
        "BM25",
        "BM25 + dense, RRF",
        "dense",
        "sparse",
        "ColBERT",
        "hybrid",
        "tuned",
    ]
    table(head, quality)
    table(["collection", "setting", "tuned", "default", "p", "best single mode", "p"], tuned)
    table(["collection", "wanted", "threshold", "held out", "depth"], thresholds)


def collected(index: M3Index, folder: Path) -> Collection:
    """A folder's documents in the index, and its questions scored."""
    documents = list(read_documents(folder / "corpus.jsonl"))
    index.add(documents)
    queries, qrels = read_queries(folder / "queries.jsonl"), read_qrels(folder / "qrels" / "test.tsv")
    wrong = folder / "queries_unanswerable.jsonl"
    return Collection(
        folder.name,
        len(documents),
        queries,
        qrels,
        list(read_queries(wrong).values()) if wrong.is_file() else [],
        score_all(index, queries, qrels),
        bm25(index.encoder, documents, {query: queries[query] for query in qrels}),
    )


def bm25(encoder: Encoder, documents: Sequence[Document], queries: Mapping[str, str]) -> Run:
    """The 1,000 best documents of each question by BM25 (Robertson & Zaragoza, 2009) on the encoder's tokens."""
    pieces = [Counter(tokens(encoder, document.text)) for document in documents]
    lengths = np.array([sum(counts.values()) for counts in pieces])
    frequency = Counter(token for counts in pieces for token in counts)
    norms = K1 * (1 - B + B * lengths / max(lengths.mean(), 1))
    postings: dict[int, list[tuple[int, float]]] = {}
    for row, counts in enumerate(pieces):
        for token, count in counts.items():
            idf = np.log1p((len(documents) - frequency[token] + 0.5) / (frequency[token] + 0.5))
            postings.setdefault(token, []).append((row, idf * count * (K1 + 1) / (count + norms[row])))
    run = {}
    for query, text in queries.items():
        scores = np.zeros(len(documents))
        for token in tokens(encoder, text):
            for row, weight in postings.get(token, ()):
                scores[row] += weight
        best = np.argsort(-scores, kind="stable")[:1000]
        run[query] = {documents[row].id: float(scores[row]) for row in best if scores[row] > 0}
    return run


def tokens(encoder: Encoder, text: str) -> list[int]:
    """The tokens the model reads of a text, without the mark of its end."""
    return [token.id for token in encoder.tokenize(text)][:-1] if isinstance(encoder, Tokenizes) else []


def with_rrf(first: Run, second: Run) -> Run:
    """Two runs by reciprocal rank fusion (Cormack et al., 2009)."""
    fused: dict[str, dict[str, float]] = {}
    for run in (first, second):
        for query, scored in run.items():
            for rank, id in enumerate(sorted(scored, key=lambda id: (-scored[id], id)), start=1):
                held = fused.setdefault(query, {})
                held[id] = held.get(id, 0) + 1 / (RRF + rank)
    return fused


def quality_row(collection: Collection, tuning: Tuning) -> list[str]:
    """One line of the first table."""
    found = evaluate_scores(collection.scores, collection.qrels, [MEASURE], profile=Profile())
    runs = [collection.bm25, with_rrf(collection.bm25, found.runs["dense"])]
    numbers = [mean(evaluate_run(run, collection.qrels, [MEASURE])[MEASURE]) for run in runs]
    numbers += [found.mean(mode, MEASURE) for mode in (*SEARCH_MODES[1:], "hybrid")]
    counts = [str(collection.documents), str(len(found.queries))]
    return [collection.name, *counts, *(f"{number:.3f}" for number in numbers), f"{mean(tuning.held_out):.3f}"]


def tuned_row(collection: Collection, tuning: Tuning) -> list[str]:
    """One line of the second table."""
    default = tuning.against["default"]
    name = max(SEARCH_MODES[1:], key=lambda mode: tuning.against[mode].first)
    single = tuning.against[name]
    return [
        collection.name,
        str(tuning.best),
        f"{default.second:.4f}",
        f"{default.first:.4f}",
        f"{default.p_value:.4f}",
        f"{name} {single.first:.4f}",
        f"{single.p_value:.4f}",
    ]


def threshold_rows(index: M3Index, collection: Collection) -> list[list[str]]:
    """Lines of the third table: the hybrid's threshold for each wish; at a larger depth where it cannot be had else."""
    asked, wrong = {query: collection.queries[query] for query in collection.qrels}, collection.unanswerable
    evidence = evidence_of(index, asked, collection.qrels, collection.scores, unanswerable=wrong)
    rows = []
    for wanted in [*WANTED, *([UNANSWERABLE] if wrong else [])]:
        found, depth = calibrate(evidence, index.profile, wanted, modes=("hybrid",))["hybrid"], index.profile.depth
        if found.problem:
            every, profile = calibrate_index(index, asked, collection.qrels, wanted, unanswerable=wrong)
            found, depth = every["hybrid"], profile.depth
        rows.append([collection.name, str(wanted), *threshold_cells(found), str(depth)])
    return rows


def threshold_cells(one: Calibrated) -> list[str]:
    """The threshold, and what it gave on halves of the questions that it was not fitted on."""
    if one.threshold is None or one.held_out is None:
        return ["none: " + str(one.problem), ""]
    return [f"{one.threshold:.3f}", f"{one.held_out.mean:.3f} ± {one.held_out.deviation:.3f}"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table."""
    print()
    for row in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
