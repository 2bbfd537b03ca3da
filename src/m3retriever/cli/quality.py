"""The commands about recall quality."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from m3retriever.cli.opening import open_index
from m3retriever.cli.options import (
    BackendOption,
    CollectionOption,
    ExactOption,
    GoldenOption,
    JsonOption,
    ModelOption,
    ModeOption,
    PathOption,
    PrecisionOption,
    ProfileOption,
    QrelsOption,
    QueriesOption,
    names_of,
)
from m3retriever.cli.terminal import print_json, progress, say, show
from m3retriever.errors import InvalidArgumentError

if TYPE_CHECKING:
    from m3retriever.evaluation import Evaluation
    from m3retriever.index import M3Index


def evaluate(
    path: PathOption,
    queries: QueriesOption = None,
    qrels: QrelsOption = None,
    golden: GoldenOption = None,
    measures: Annotated[str, typer.Option(help="Names by comma.")] = "nDCG@10,R@10,R@100,RR@10",
    exact: ExactOption = False,
    run_out: Annotated[Optional[Path], typer.Option(help="Write the run of --mode in TREC's form.")] = None,  # noqa: UP045
    mode: ModeOption = "hybrid",
    profile: ProfileOption = None,
    model: ModelOption = None,
    model_precision: PrecisionOption = None,
    backend: BackendOption = None,
    collection: CollectionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure every mode and the hybrid on questions with known answers."""
    from dataclasses import asdict

    from m3retriever import evaluation, report
    from m3retriever.exactness import exactness
    from m3retriever.io import write_run

    with open_index(
        path, model=model, collection=collection, profile=profile, precision=model_precision, backend=backend
    ) as opened:
        texts, judged = read_judged(opened, queries, qrels, golden)
        with progress("evaluating", total=len(evaluation.answerable(judged))) as advance:
            found = evaluation.evaluate(opened, texts, judged, names_of(measures), on_step=advance)
        with progress("comparing with exact scores"):
            lost = exactness(opened, {query: texts[query] for query in found.queries}) if exact else None
    if run_out is not None:
        if mode not in found.runs:
            raise InvalidArgumentError(f"--mode must be one of {', '.join(found.runs)}; got {mode!r}")
        write_run(found.runs[mode], run_out)
    if as_json:
        print_json({**evaluation_json(found), **({} if lost is None else {"exact": asdict(lost)})})
    else:
        report.print_quality(found)
        if lost is not None:
            report.print_exactness(lost)


def compare(
    first: Annotated[Path, typer.Argument(help="A run in TREC's form, such as evaluate --run-out writes.")],
    second: Annotated[Path, typer.Argument(help="The run to compare with it.")],
    qrels: Annotated[Path, typer.Option(help="Judgements, BEIR's or TREC's.")],
    measure: Annotated[str, typer.Option(help="Its name.")] = "nDCG@10",
    as_json: JsonOption = False,
) -> None:
    """Say whether the second run is better than the first: means, wins and losses by question, and a paired test."""
    from dataclasses import asdict

    from m3retriever import evaluation
    from m3retriever.io import read_qrels, read_run

    found = evaluation.compare(read_run(first), read_run(second), read_qrels(qrels), measure)
    content = {"measure": measure, **asdict(found), "difference": found.difference}
    text = (
        f"{measure} over {found.queries} questions: {found.first:.4f} and {found.second:.4f}, {found.difference:+.4f}\n"
        f"the second is better on {found.wins}, worse on {found.losses}, the same on {found.ties}; p = {found.p_value:.4f}"
    )
    show(content, text, as_json=as_json)


def read_judged(
    index: M3Index, queries: Path | None, qrels: Path | None, golden: Path | None
) -> tuple[Mapping[str, str], Mapping[str, Mapping[str, int]]]:
    """Questions and judgements: of two files (BEIR, TREC), or of one golden file."""
    from m3retriever.evaluation import judged_by
    from m3retriever.io import read_golden, read_qrels, read_queries

    if golden is not None and queries is None and qrels is None:
        return judged_by(index, read_golden(golden))
    if golden is None and queries is not None and qrels is not None:
        judged = read_qrels(qrels)
        say_lacking(index, judged)
        return read_queries(queries), judged
    raise InvalidArgumentError("give --queries and --qrels, or --golden")


def say_lacking(index: M3Index, judged: Mapping[str, Mapping[str, int]]) -> None:
    """Warn of judged documents that the index does not hold: they count as not found."""
    from m3retriever.fitting import held_judgements

    _, lacking = held_judgements(index, judged)
    if lacking:
        say(f"warning: {lacking} of {sum(map(len, judged.values()))} judgements are about documents that are not in the index")


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    """Number of queries, means and 95 % intervals."""
    names = {mode: list(by_measure) for mode, by_measure in evaluation.values.items()}
    return {
        "queries": len(evaluation.queries),
        "measures": {mode: {name: evaluation.mean(mode, name) for name in of} for mode, of in names.items()},
        "intervals": {mode: {name: list(evaluation.interval(mode, name)) for name in of} for mode, of in names.items()},
    }
