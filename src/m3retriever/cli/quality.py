"""The commands about recall quality."""

from __future__ import annotations

import os
from codecs import BOM_UTF8
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from m3retriever.cli.opening import open_index
from m3retriever.cli.options import (
    QUERY_LOG_KEY,
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
    check_writable,
    names_of,
)
from m3retriever.cli.terminal import print_json, progress, say, show
from m3retriever.errors import InvalidArgumentError, InvalidDocumentError, shown

if TYPE_CHECKING:
    from m3retriever.evaluation import Evaluation
    from m3retriever.index import M3Index

BEGINNING = 1 << 12  # bytes of a file that say what it is


def evaluate(
    path: PathOption,
    queries: QueriesOption = None,
    qrels: QrelsOption = None,
    golden: GoldenOption = None,
    measures: Annotated[str, typer.Option(help="Names by comma.")] = "nDCG@10,R@10,R@100,RR@10",
    exact: ExactOption = False,
    log: Annotated[Optional[Path], typer.Option(help="Measure what this query log says was answered in --mode.")] = None,  # noqa: UP045
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
    from m3retriever.passages import parents_of
    from m3retriever.ranking import SEARCH_MODES

    check_writable(run_out, "--run-out")
    if mode not in SEARCH_MODES:
        raise InvalidArgumentError(f"--mode must be one of {', '.join(SEARCH_MODES)}; got {shown(mode)}")
    with open_index(
        path, model=model, collection=collection, profile=profile, precision=model_precision, backend=backend
    ) as opened:
        texts, judged = read_judged(opened, queries, qrels, golden)
        if log is not None:
            found = evaluated_log(log, mode, texts, evaluation.by_owner(judged, parents_of(opened)), names_of(measures))
        else:
            with progress("evaluating", total=len(evaluation.answerable(judged))) as advance:
                found = evaluation.evaluate(opened, texts, judged, names_of(measures), on_step=advance)
        with progress("comparing with exact scores"):
            lost = exactness(opened, {query: texts[query] for query in found.queries}) if exact else None
    if run_out is not None:
        write_run(found.runs[mode], run_out)
    if as_json:
        print_json({**evaluation_json(found), **({} if lost is None else {"exact": asdict(lost)})})
    else:
        report.print_quality(found)
        if lost is not None:
            report.print_exactness(lost)


def compare(
    first: Annotated[Path, typer.Argument(help="A run in TREC's form, as evaluate --run-out writes, or a query log (.jsonl).")],
    second: Annotated[Path, typer.Argument(help="The run or log to compare with it.")],
    qrels: QrelsOption = None,
    queries: QueriesOption = None,
    golden: GoldenOption = None,
    path: Annotated[Optional[str], typer.Option(help="Folder or address of the index, for --golden.")] = None,  # noqa: UP045
    mode: Annotated[Optional[str], typer.Option(help="Of logs only what was asked in this mode.")] = None,  # noqa: UP045
    measure: Annotated[str, typer.Option(help="Its name.")] = "nDCG@10",
    as_json: JsonOption = False,
) -> None:
    """Say whether the second run is better than the first: means, wins and losses by question, and a paired test."""
    from dataclasses import asdict

    from m3retriever import evaluation
    from m3retriever.io import read_run

    texts, judged = judged_without_index(queries, qrels, golden, path, logs=is_log(first) or is_log(second))
    runs: list[evaluation.Run] = []
    for given in (first, second):
        runs.append(logged_run(given, texts, judged, mode) if is_log(given) else read_run(given))
        judged = {query: grades for query, grades in judged.items() if query in runs[-1] or not is_log(given)}
    found = evaluation.compare(runs[0], runs[1], judged, measure)
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


def judged_without_index(
    queries: Path | None, qrels: Path | None, golden: Path | None, path: str | None, *, logs: bool
) -> tuple[Mapping[str, str], Mapping[str, Mapping[str, int]]]:
    """Questions, which only logs need, and judgements; of a golden file with the index that finds its answers."""
    from m3retriever.io import read_qrels, read_queries

    if golden is not None and path is not None and queries is None and qrels is None:
        with open_index(path) as opened:
            return read_judged(opened, None, None, golden)
    if golden is None and qrels is not None and (queries is not None or not logs):
        return {} if queries is None else read_queries(queries), read_qrels(qrels)
    raise InvalidArgumentError("give --qrels, with --queries where a query log is compared, or --golden and --path")


def is_log(path: Path) -> bool:
    """Whether a file is a query log, which begins with a JSON object; a run in TREC's form does not."""
    if not path.is_file():  # told by whoever reads it
        return False
    with path.open("rb") as file:
        return file.read(BEGINNING).removeprefix(BOM_UTF8).lstrip().startswith(b"{")


def logged_run(
    path: Path, texts: Mapping[str, str], judged: Mapping[str, Mapping[str, int]], mode: str | None
) -> dict[str, dict[str, float]]:
    """What a log says was answered to the judged questions; those that were not asked are left out, and counted."""
    from m3retriever.evaluation import answerable
    from m3retriever.observing import read_query_log, run_of_log
    from m3retriever.observing.reading import is_hashed

    broken: list[InvalidDocumentError] = []
    logged = read_query_log(path, on_bad=broken.append)
    if broken:
        more = f" (and {len(broken) - 1} more such line{'s' * (len(broken) > 2)})" if broken[1:] else ""
        say(f"warning: {broken[0]}{more}")
    wanted = {query: texts[query] for query in answerable(judged) if query in texts}
    run = run_of_log(logged, wanted, mode=mode, key=os.environ.get(QUERY_LOG_KEY, ""))
    asked = "asked" if mode is None else f"asked in mode {mode}"
    if not run:
        hint = f"; its queries are hashed: is {QUERY_LOG_KEY} the key it was written with?" if is_hashed(logged) else ""
        raise InvalidArgumentError(f"none of the {len(wanted)} judged questions was {asked} in {path}{hint}")
    if len(run) < len(wanted):
        say(f"{len(run)} of {len(wanted)} judged questions were {asked} in {path}: the others are left out")
    return run


def evaluated_log(
    path: Path, mode: str, texts: Mapping[str, str], judged: Mapping[str, Mapping[str, int]], measures: list[str]
) -> Evaluation:
    """How good the answers in a log were, on the judged questions that were asked."""
    from m3retriever.evaluation import Evaluation, evaluate_run

    run = logged_run(path, texts, judged, mode)
    asked = {query: grades for query, grades in judged.items() if query in run}
    return Evaluation(tuple(asked), {mode: evaluate_run(run, asked, measures)}, {mode: run})


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
