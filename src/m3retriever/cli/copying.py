"""The command that moves an index to another store."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Optional

import typer

from m3retriever.cli.options import JsonOption
from m3retriever.cli.terminal import progress, show


def copy(
    source: Annotated[str, typer.Option("--from", help="Folder of the index, or a server: chroma://host:8000/collection.")],
    target: Annotated[str, typer.Option("--to", help="Another, such as qdrant://host:6333/collection.")],
    collection: Annotated[Optional[str], typer.Option(help="The collection at the source.")] = None,  # noqa: UP045
    to_collection: Annotated[Optional[str], typer.Option(help="And at the target; default: the same.")] = None,  # noqa: UP045
    sample: Annotated[int, typer.Option(help="Documents whose scores are compared in the end.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """Copy an index to another folder or server, vectors and all; nothing is encoded again."""
    from m3retriever import copying
    from m3retriever.stores.places import place_of

    here, there = place_of(source, collection), place_of(target, to_collection)
    if there.collection is None:
        there = place_of(target, here.collection)
    with progress("copying") as advance:
        done = copying.copy(here, there, sample=sample, on_step=advance)
    words = f"{done.copied} copied, {done.unchanged} there already"
    if done.others:
        words += f", {done.others} others at {target} were left as they are"
    largest = max(done.difference.values())
    words += f"; {done.compared} scores compared in every mode, none differs by more than {largest:.1g}"
    show(asdict(done), words + ("; the profile was copied" if done.profile else ""), as_json=as_json)
