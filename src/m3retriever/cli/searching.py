"""The commands that ask an index."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from m3retriever.cli.opening import open_index
from m3retriever.cli.options import (
    QUERY_LOG_KEY,
    BackendOption,
    CollectionOption,
    JsonOption,
    ModelOption,
    ModeOption,
    PathOption,
    PrecisionOption,
    ProfileOption,
    ThresholdOption,
    WeightsOption,
    WhereDocumentOption,
    WhereOption,
    search_settings,
)
from m3retriever.cli.terminal import print_json, show

if TYPE_CHECKING:
    from m3retriever.observing import QueryLog
    from m3retriever.passages import DocumentHit

QueryLogOption = Annotated[
    Optional[Path],  # noqa: UP045  # typer reads it at run time
    typer.Option(envvar="M3RETRIEVER_QUERY_LOG", help="Append the query and what was answered to this file (JSONL)."),
]
RedactOption = Annotated[
    str, typer.Option(envvar="M3RETRIEVER_QUERY_LOG_REDACT", help="none, or hash: keep digests of queries in the log.")
]
SNIPPET = 60  # characters of a passage


def search(
    query: Annotated[str, typer.Argument(help="What to look for.")],
    path: PathOption,
    k: Annotated[int, typer.Option("-k", help="How many hits.")] = 10,
    mode: ModeOption = "hybrid",
    weights: WeightsOption = None,
    where: WhereOption = None,
    where_document: WhereDocumentOption = None,
    threshold: ThresholdOption = None,
    profile: ProfileOption = None,
    model: ModelOption = None,
    model_precision: PrecisionOption = None,
    backend: BackendOption = None,
    collection: CollectionOption = None,
    query_log: QueryLogOption = None,
    redact: RedactOption = "none",
    by_document: Annotated[bool, typer.Option("--by-document", help="One hit a document, for its best passage.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Search an index; every hit shows its score in every mode."""
    from m3retriever import report

    settings = search_settings(mode, weights, threshold, where=where, where_document=where_document)
    log = query_log_of(query_log, redact)
    with open_index(
        path, model=model, collection=collection, profile=profile, precision=model_precision, backend=backend
    ) as opened:
        opened.query_log = log
        if by_document:
            used = report.used_weights(mode, settings["weights"] or opened.profile.weights)
            found = opened.search_documents(query, k, **settings)
            show(_documents_json(query, mode, used, found), _documents_text(query, found), as_json=as_json)
            return
        hits = opened.search(query, k, **settings)
        used = report.used_weights(mode, settings["weights"] or opened.profile.weights)
        if as_json:
            print_json(report.search_json(query, mode, used, hits))
        else:
            report.print_hits(query, mode, used, hits)


def explain(
    query: Annotated[str, typer.Argument(help="The query.")],
    id: Annotated[str, typer.Argument(help="The document's id.")],
    path: PathOption,
    k: Annotated[int, typer.Option("-k", help="How many hits the search would show.")] = 10,
    mode: ModeOption = "hybrid",
    weights: WeightsOption = None,
    where: WhereOption = None,
    where_document: WhereDocumentOption = None,
    threshold: ThresholdOption = None,
    profile: ProfileOption = None,
    model: ModelOption = None,
    model_precision: PrecisionOption = None,
    backend: BackendOption = None,
    collection: CollectionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say why a document has the place it has for a query, or why it is missing."""
    from m3retriever import report

    settings = search_settings(mode, weights, threshold, where=where, where_document=where_document)
    with open_index(
        path, model=model, collection=collection, profile=profile, precision=model_precision, backend=backend
    ) as opened:
        explanation = opened.explain(query, id, k=k, **settings)
        if as_json:
            print_json(report.explanation_json(explanation))
        else:
            report.print_explanation(explanation)


def query_log_of(path: Path | None, redact: str) -> QueryLog | None:
    """The log that the options name; digests are made with the key in M3RETRIEVER_QUERY_LOG_KEY."""
    from m3retriever.observing import QueryLog

    if path is None:
        return None
    return QueryLog(path, redact=redact, key=os.environ.get(QUERY_LOG_KEY, ""))  # type: ignore[arg-type]  # it checks


def _documents_json(query: str, mode: str, weights: dict[str, float], found: Sequence[DocumentHit]) -> dict[str, Any]:
    """As `search --json`, of the best passages; with the documents' ids and scores, and the place of the passage."""
    from m3retriever import report

    content = report.search_json(query, mode, weights, [document.best for document in found])
    for hit, document in zip(content["hits"], found, strict=True):
        hit["passage"] = {"id": hit["id"], "start": document.start, "end": document.end}
        hit["id"], hit["score"] = document.id, document.score
    return content


def _documents_text(query: str, found: Sequence[DocumentHit]) -> str:
    """A line a document: its place, score and id, then its best passage, the characters that it is, and its beginning."""
    lines = []
    for rank, hit in enumerate(found, start=1):
        passage = hit.best.document
        shown = " ".join(passage.text[: 4 * SNIPPET].split())[:SNIPPET]
        line = f"{rank:>2}  {hit.score:.3f}  {hit.id}  {passage.id}, characters {hit.start} to {hit.end}: {shown}"
        lines.append(" ".join(line.split("\n")))
    return "\n".join(lines) or f"no document for {query!r}"
