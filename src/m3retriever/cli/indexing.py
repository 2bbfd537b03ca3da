"""The commands that fill an index and say what it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m3retriever.cli.opening import existing, open_index, report_cut
from m3retriever.cli.options import CollectionOption, JsonOption, ModelOption, PathOption
from m3retriever.cli.terminal import progress, say, show
from m3retriever.errors import InvalidArgumentError, InvalidDocumentError

BATCH = 256  # documents a step


def index(
    files: Annotated[list[Path], typer.Argument(help="JSONL (BEIR corpus.jsonl), CSV, .txt, .md files, or folders of them.")],
    path: PathOption,
    model: ModelOption = None,
    collection: CollectionOption = None,
    skip_bad: Annotated[bool, typer.Option(help="Report and leave out lines that are no documents.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Add documents to an index. Unchanged ones are skipped, so a stopped run is simply started again."""
    from m3retriever.ingest import Added
    from m3retriever.io import read_documents

    bad: list[str] = []

    def report(error: InvalidDocumentError) -> None:
        bad.append(str(error))
        say(f"skipped: {error}")

    for file in files:
        if not file.exists():
            raise InvalidArgumentError(f"no such file or folder: {file}")
    with open_index(path, model=model, collection=collection, create=True) as opened, progress("indexing") as advance:
        opened.store.remember()  # type: ignore[attr-defined]  # a ChromaStore; a run stopped before its first document goes on too
        total, batch, seen = Added(), [], set[str]()
        for file in files:
            for document in read_documents(file, on_bad=report if skip_bad else None):
                if document.id in seen:
                    raise InvalidDocumentError(
                        f"{file}: the id {document.id!r} comes a second time in this run; ids must be unique"
                    )
                seen.add(document.id)
                batch.append(document)
                if len(batch) == BATCH:
                    total, batch = total + opened.add(batch), []
                    advance(BATCH)
        total += opened.add(batch)
        advance(len(batch))
        report_cut(opened)
        done = {"new": total.new, "replaced": total.replaced, "unchanged": total.unchanged, "skipped": len(bad)}
        summary = ", ".join(f"{count} {name}" for name, count in done.items() if count or name == "new")
        show({**done, "documents": len(opened)}, f"{summary}; the index holds {len(opened)} documents", as_json=as_json)


def info(path: PathOption, collection: CollectionOption = None, as_json: JsonOption = False) -> None:
    """Show what an index holds, without loading its model."""
    from m3retriever import report

    content = report.index_info(existing(path, collection), collection)
    show(content, "\n".join(f"{name.replace('_', ' '):<20} {value}" for name, value in content.items()), as_json=as_json)
