"""What the commands about recall quality read and print."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from m3retriever.errors import InvalidArgumentError
from m3retriever.evaluation import Evaluation, judged_by
from m3retriever.index import M3Index
from m3retriever.io import read_golden, read_qrels, read_queries


def read_judged(
    index: M3Index, queries: Path | None, qrels: Path | None, golden: Path | None
) -> tuple[Mapping[str, str], Mapping[str, Mapping[str, int]]]:
    """Questions and judgements: of two files (BEIR, TREC), or of one golden file."""
    if golden is not None and queries is None and qrels is None:
        return judged_by(index, read_golden(golden))
    if golden is None and queries is not None and qrels is not None:
        return read_queries(queries), read_qrels(qrels)
    raise InvalidArgumentError("give --queries and --qrels, or --golden")


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    """Number of queries, means and 95 % intervals."""
    names = {mode: list(by_measure) for mode, by_measure in evaluation.values.items()}
    return {
        "queries": len(evaluation.queries),
        "measures": {mode: {name: evaluation.mean(mode, name) for name in of} for mode, of in names.items()},
        "intervals": {mode: {name: list(evaluation.interval(mode, name)) for name in of} for mode, of in names.items()},
    }
