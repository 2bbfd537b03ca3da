"""The commands that ask an index."""

from __future__ import annotations

from typing import Annotated

import typer

from m3retriever.cli.opening import open_index
from m3retriever.cli.options import (
    CollectionOption,
    JsonOption,
    ModelOption,
    ModeOption,
    PathOption,
    ProfileOption,
    ThresholdOption,
    WeightsOption,
    WhereDocumentOption,
    WhereOption,
    search_settings,
)
from m3retriever.cli.terminal import print_json


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
    collection: CollectionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search an index; every hit shows its score in every mode."""
    from m3retriever import report

    settings = search_settings(mode, weights, threshold, where=where, where_document=where_document)
    with open_index(path, model=model, collection=collection, profile=profile) as opened:
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
    collection: CollectionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say why a document has the place it has for a query, or why it is missing."""
    from m3retriever import report

    settings = search_settings(mode, weights, threshold, where=where, where_document=where_document)
    with open_index(path, model=model, collection=collection, profile=profile) as opened:
        explanation = opened.explain(query, id, k=k, **settings)
        if as_json:
            print_json(report.explanation_json(explanation))
        else:
            report.print_explanation(explanation)
