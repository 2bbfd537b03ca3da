"""Opening the index that a command is about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from m3retriever.errors import StoreError

if TYPE_CHECKING:
    from m3retriever.index import M3Index


@contextmanager
def open_index(
    path: Path,
    *,
    model: str | None = None,
    collection: str | None = None,
    profile: str | None = None,
    precision: str | None = None,
    backend: str | None = None,
    create: bool = False,
) -> Iterator[M3Index]:
    """The index in a folder; StoreError where there is none, unless it may be made."""
    from m3retriever.index import M3Index

    if not create:
        existing(path, collection)
    how: dict[str, Any] = {"precision": precision, "backend": backend}  # checked where the model is loaded
    with M3Index.open(path, model=model, collection=collection, profile=profile, **how) as opened:
        yield opened


def existing(path: Path, collection: str | None) -> Path:
    """The folder, if there is an index in it: reading must not create one."""
    from m3retriever.stores.chroma import ChromaStore

    if not ChromaStore.exists(path, collection):
        name = f"collection {collection!r}" if collection else "index"
        raise StoreError(f"no {name} in {path}; make one with: m3retriever index FILES --path {path}")
    return path


def report_cut(opened: M3Index) -> None:
    """Say once, at the end of long work, what a warning per batch would say many times."""
    if cut := getattr(opened.encoder, "truncated", 0):
        limit = opened.encoder.max_length  # type: ignore[attr-defined]  # whoever counts cuts has a limit
        typer.echo(
            f"warning: {cut} texts are longer than {limit} tokens; only their beginning was indexed: "
            "--split cuts such texts into passages",
            err=True,
        )
