"""Opening the index that a command is about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from m3retriever.errors import StoreError

if TYPE_CHECKING:
    from m3retriever.index import M3Index
    from m3retriever.stores.places import Place


@contextmanager
def open_index(
    path: str,
    *,
    model: str | None = None,
    collection: str | None = None,
    profile: str | None = None,
    precision: str | None = None,
    backend: str | None = None,
    create: bool = False,
) -> Iterator[M3Index]:
    """The index in a folder or of a server; StoreError where there is none, unless it may be made."""
    from m3retriever.index import M3Index

    if not create:
        existing(path, collection)
    how: dict[str, Any] = {"precision": precision, "backend": backend}  # checked where the model is loaded
    with M3Index.open(path, model=model, collection=collection, profile=profile, **how) as opened:
        yield opened


def existing(path: str, collection: str | None) -> Place:
    """The place, if there is an index in it: reading must not create one."""
    from m3retriever.stores.places import place_of

    place = place_of(path, collection)
    if not place.exists():
        name = f"collection {collection!r}" if collection else "index"
        raise StoreError(f"no {name} in {path}; make one with: m3retriever index FILES --path {path}")
    return place


def report_cut(opened: M3Index) -> None:
    """Say once, at the end of long work, what a warning per batch would say many times."""
    if cut := getattr(opened.encoder, "truncated", 0):
        limit = opened.encoder.max_length  # type: ignore[attr-defined]  # whoever counts cuts has a limit
        typer.echo(
            f"warning: {cut} texts are longer than {limit} tokens; only their beginning was indexed: "
            "--split cuts such texts into passages",
            err=True,
        )
