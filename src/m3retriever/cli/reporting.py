"""The command that puts everything about recall quality on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m3retriever.cli.fitting import unanswerable_of, wanted_of
from m3retriever.cli.opening import open_index
from m3retriever.cli.options import (
    BackendOption,
    CollectionOption,
    ExactOption,
    GoldenOption,
    JsonOption,
    ModelOption,
    PathOption,
    PrecisionOption,
    ProfileOption,
    QrelsOption,
    QueriesOption,
    UnanswerableOption,
    check_writable,
    names_of,
)
from m3retriever.cli.quality import evaluation_json, read_judged
from m3retriever.cli.terminal import progress, show


def report(
    path: PathOption,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")],
    queries: QueriesOption = None,
    qrels: QrelsOption = None,
    golden: GoldenOption = None,
    unanswerable: UnanswerableOption = None,
    measures: Annotated[
        str, typer.Option(help="Names by comma; the first is tuned and sorted by.")
    ] = "nDCG@10,R@10,R@100,RR@10",
    precision: Annotated[float | None, typer.Option(help="Thresholds for this precision; default: the best F1.")] = None,
    exact: ExactOption = False,
    profile: ProfileOption = None,
    model: ModelOption = None,
    model_precision: PrecisionOption = None,
    backend: BackendOption = None,
    collection: CollectionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write one HTML page: modes, weights, thresholds, reliability, worst questions. It needs no network."""
    from m3retriever import evaluation
    from m3retriever.calibrating import MIN_QUESTIONS, calibrate
    from m3retriever.calibrating.thresholds import Pairs
    from m3retriever.exactness import exactness
    from m3retriever.fitting import evidence_of, held_judgements
    from m3retriever.passages import parents_of
    from m3retriever.quality_page import quality_page
    from m3retriever.stores.places import place_of
    from m3retriever.tuning import tune

    named = names_of(measures)
    check_writable(out)
    wrong = unanswerable_of(unanswerable)
    with open_index(
        path, model=model, collection=collection, profile=profile, precision=model_precision, backend=backend
    ) as opened:
        used = opened.profile
        texts, given = read_judged(opened, queries, qrels, golden)
        judged = evaluation.by_owner(given, parents_of(opened))
        with progress("scoring", total=len(judged) + len(wrong)) as advance:
            scores = evaluation.score_all(opened, texts, judged, on_step=advance)
            held, _ = held_judgements(opened, judged)
            evidence = evidence_of(opened, texts, held, scores, unanswerable=wrong, on_step=advance)
        found = evaluation.evaluate_scores(scores, judged, named, profile=used)
        with progress("comparing with exact scores"):
            lost = exactness(opened, {query: texts[query] for query in found.queries}) if exact else None
    enough = len(found.queries) >= MIN_QUESTIONS
    wanted = wanted_of({"precision": precision, "f": 1.0 if precision is None else None}, None)
    page = quality_page(
        place_of(path, collection).name,
        found,
        profile=used,
        queries=texts,
        qrels=judged,
        wanted=wanted,
        tuning=tune(scores, judged, measure=named[0], fusions=["weighted_sum"]) if enough else None,
        calibrated=calibrate(evidence, used, wanted) if enough else None,
        pairs={mode: Pairs.of(run, judged) for mode, run in found.runs.items()},
        exactness=lost,
    )
    out.write_text(page, encoding="utf-8")
    show({**evaluation_json(found), "report": str(out)}, f"the report is in {out}", as_json=as_json)
