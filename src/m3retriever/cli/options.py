"""Options that several commands share, and what their texts mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from m3retriever.errors import InvalidArgumentError, shown

PathOption = Annotated[
    str, typer.Option("--path", help="Folder of the index, or a server: chroma://host:8000, qdrant://host:6333.")
]
CollectionOption = Annotated[Optional[str], typer.Option(help="The collection.")]  # noqa: UP045  # typer reads it at run time
ModelOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="BAAI/bge-m3, mini, hashing, a folder, or a service (http://host:7860); default: the index's own."),
]
PrecisionOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--model-precision", help="fp32, bf16, fp16, or int8 (fast on a CPU; extra `fast`)."),
]
BackendOption = Annotated[Optional[str], typer.Option(help="Who runs the model: torch or openvino (extra `fast`).")]  # noqa: UP045
ProfileOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="TOML file or name of a preset; default: profile.toml in the index's folder."),
]
ModeOption = Annotated[str, typer.Option(help="hybrid, dense, sparse or colbert.")]
WeightsOption = Annotated[Optional[str], typer.Option(help="dense,sparse,colbert, such as .4,.2,.4.")]  # noqa: UP045
WhereOption = Annotated[Optional[str], typer.Option(help='Filter in Chroma\'s language, such as \'{"lang": "en"}\'.')]  # noqa: UP045
WhereDocumentOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help='Filter over the text, such as \'{"$contains": "tax"}\'.'),
]
ThresholdOption = Annotated[
    str | None, typer.Option(help="Lowest score that counts: a number, profile, 'p>=0.7' or 'fpr<=0.01'.")
]
QueriesOption = Annotated[Optional[Path], typer.Option(help="BEIR's queries.jsonl, or lines of id, tab, text.")]  # noqa: UP045
QrelsOption = Annotated[Optional[Path], typer.Option(help="Judgements, BEIR's or TREC's.")]  # noqa: UP045
GoldenOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="Or one JSONL file of question and relevant ids or texts."),
]
UnanswerableOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="Questions that no document answers, as --queries."),
]
ExactOption = Annotated[
    bool,
    typer.Option("--exact", help="Also measure what the fast search and 8-bit vectors cost."),
]
OutOption = Annotated[Optional[Path], typer.Option(help="Write the profile to this TOML file.")]  # noqa: UP045
QUERY_LOG_KEY = "M3RETRIEVER_QUERY_LOG_KEY"  # in the environment, for a command line can be seen by others
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def search_settings(mode: str, weights: str | None, threshold: str | None, **filters: str | None) -> dict[str, Any]:
    """What `search` and `explain` of an index take, from the texts of the options."""
    named = {name: filter_of(f"--{name.replace('_', '-')}", text) for name, text in filters.items()}
    return {"mode": mode, "weights": weights_of(weights), "threshold": threshold_of(threshold), **named}


def weights_of(text: str | None) -> Any:
    """Three numbers by comma as Weights."""
    from m3retriever.types import Weights

    if text is None:
        return None
    try:
        return Weights.of([float(part) for part in text.split(",")])
    except ValueError as error:
        reason = error if isinstance(error, InvalidArgumentError) else "not numbers"
        raise InvalidArgumentError(f"--weights takes three numbers such as .4,.2,.4; got {shown(text)} ({reason})") from error


def filter_of(option: str, text: str | None) -> Any:
    """JSON as a filter."""
    from m3retriever.io.rows import without_doubles

    if text is None:
        return None
    try:
        where = json.loads(text, object_pairs_hook=without_doubles)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f'{option} takes JSON such as \'{{"lang": "en"}}\'; got {shown(text)} ({error})') from error
    if where is None:
        raise InvalidArgumentError(f"{option} takes a filter; got null: leave the option out for none")
    return where


def threshold_of(text: str | None) -> float | str | None:
    """A number, or what the profile explains: "profile", "p>=0.7", "fpr<=0.01"."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def names_of(text: str) -> list[str]:
    """Names by comma, with blanks or without."""
    return [name.strip() for name in text.split(",") if name.strip()]


def check_writable(path: Path | None, option: str = "--out") -> None:
    """Refuse a file that cannot be written, before any work is done for it."""
    if path is not None and (path.is_dir() or not path.resolve().parent.is_dir()):
        raise InvalidArgumentError(f"{option} names a file in a folder that exists; got {path}")
