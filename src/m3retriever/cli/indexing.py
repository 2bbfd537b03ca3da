"""The commands that fill an index and say what it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from m3retriever.cli.opening import existing, open_index, report_cut
from m3retriever.cli.options import (
    BackendOption,
    CollectionOption,
    JsonOption,
    ModelOption,
    PathOption,
    PrecisionOption,
    names_of,
)
from m3retriever.cli.terminal import progress, say, show
from m3retriever.errors import InvalidArgumentError, InvalidDocumentError, shown

if TYPE_CHECKING:
    from m3retriever.ingest import Added
    from m3retriever.passages import Split
    from m3retriever.types import Document, Encoder

ENGINES = ("local", "ray")
WORKERS = 2


def index(
    files: Annotated[list[Path], typer.Argument(help="JSONL (BEIR corpus.jsonl), CSV, .txt, .md files, or folders of them.")],
    path: PathOption,
    model: ModelOption = None,
    model_precision: PrecisionOption = None,
    backend: BackendOption = None,
    collection: CollectionOption = None,
    split: Annotated[bool, typer.Option("--split/--no-split", help="Cut longer texts into passages that overlap.")] = False,
    size: Annotated[Optional[int], typer.Option(help="Tokens of a passage; default: as many as the model reads.")] = None,  # noqa: UP045
    overlap: Annotated[Optional[int], typer.Option(help="Tokens that passages share at least; default: 32.")] = None,  # noqa: UP045
    clean: Annotated[bool, typer.Option(help="Tidy Unicode, control characters and blanks of texts and titles.")] = False,
    profile: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="TOML file or name of a preset that every search of this index uses from now on."),
    ] = None,
    engine: Annotated[str, typer.Option(help="Who encodes: local, this process; or ray (extra `ray`).")] = "local",
    workers: Annotated[Optional[int], typer.Option(min=1, help="Of Ray, each with the model loaded; default: 2.")] = None,  # noqa: UP045
    gpus_per_worker: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0, help="That Ray reserves, also a part of one; default: 0, the CPU."),
    ] = None,
    devices: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Encode on several in this process, such as cuda:0,cuda:1."),
    ] = None,
    skip_bad: Annotated[bool, typer.Option(help="Report and leave out lines that are no documents.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Add documents to an index. Unchanged ones are skipped, so a stopped run is simply started again."""
    from m3retriever.ingest import Added
    from m3retriever.opening import keep_profile
    from m3retriever.passages import parents_of

    bad: list[str] = []

    def report(error: InvalidDocumentError) -> None:
        bad.append(str(error))
        say(f"skipped: {error}")

    how = _split(split, size, overlap)
    spread = _spreading(
        engine, workers, gpus_per_worker=gpus_per_worker, devices=devices, precision=model_precision, backend=backend
    )
    for file in files:
        if not file.exists():
            raise InvalidArgumentError(f"no such file or folder: {file}")
    how_opened = {
        "model": model,
        "collection": collection,
        "profile": profile,
        "precision": model_precision,
        "backend": backend,
    }
    with open_index(path, **how_opened, create=True) as opened, progress("indexing") as advance:
        if profile is not None:
            keep_profile(opened.profile, path, collection)
        opened.store.remember()  # type: ignore[attr-defined]  # a KeptStore; a run stopped before its first document goes on too
        if not split and parents_of(opened):
            say("warning: this index holds passages; without --split, passages of documents that are indexed again stay")
        total = Added()

        def stored(added: Added) -> None:
            nonlocal total
            total += added
            advance(added.new + added.replaced + added.unchanged)

        with _saying_what_was_stored(lambda: total), spread(opened.encoder) as encoder:
            opened.encoder = encoder
            opened.add(_documents(files, report if skip_bad else None, clean=clean), split=how, progress=stored)
        report_cut(opened)
        done = {"new": total.new, "replaced": total.replaced, "unchanged": total.unchanged, "skipped": len(bad)}
        summary = ", ".join(f"{count} {name}" for name, count in done.items() if count or name == "new")
        held = f"{len(opened)} documents{' and passages' if split else ''}"
        show({**done, "documents": len(opened)}, f"{summary}; the index holds {held}", as_json=as_json)


def _split(split: bool, size: int | None, overlap: int | None) -> Split | bool:
    from m3retriever.passages import Split

    if not split and (size is not None or overlap is not None):
        raise InvalidArgumentError("--size and --overlap go with --split")
    return split and Split(size, overlap)


def _spreading(
    engine: str, workers: int | None, *, gpus_per_worker: float | None, devices: str | None, **how: Any
) -> Callable[[Encoder], AbstractContextManager[Encoder]]:
    """What makes of the index's encoder the one that indexes; bad combinations are refused before any model is loaded."""
    if engine not in ENGINES:
        raise InvalidArgumentError(f"--engine is one of {', '.join(ENGINES)}; got {shown(engine)}")
    if engine == "ray":
        if devices is not None:
            raise InvalidArgumentError("--devices is for this process; Ray's workers get theirs with --gpus-per-worker")
        from m3retriever.encoders.ray_data import RayEncoder

        return partial(RayEncoder, workers=workers or WORKERS, gpus_per_worker=gpus_per_worker or 0, **how)
    if workers is not None or gpus_per_worker is not None:
        raise InvalidArgumentError("--workers and --gpus-per-worker go with --engine ray; in this process take --devices")
    if devices is None:
        return nullcontext
    from m3retriever.encoders.devices import DevicesEncoder

    return lambda encoder: nullcontext(DevicesEncoder(encoder, names_of(devices), **how))


def _documents(
    files: Sequence[Path], on_bad: Callable[[InvalidDocumentError], None] | None, *, clean: bool
) -> Iterator[Document]:
    """The documents of all files, cleaned where that is wanted; an id that comes twice is an error, as a bad line is."""
    from m3retriever.cleaning import clean_document
    from m3retriever.io.documents import placed_documents

    seen = set[str]()
    for file in files:
        for place, document in placed_documents(file, on_bad=on_bad):
            if document.id not in seen:
                seen.add(document.id)
                yield clean_document(document) if clean else document
                continue
            twice = InvalidDocumentError(
                f"{place}: the id {shown(document.id)} comes a second time in this run; ids must be unique"
            )
            if on_bad is None:
                raise twice
            on_bad(twice)


@contextmanager
def _saying_what_was_stored(added: Callable[[], Added]) -> Iterator[None]:
    """A document that is refused ends a run in whose course others were stored already: the error then says so."""
    try:
        yield
    except InvalidDocumentError as error:
        done = added()
        stored = done.new + done.replaced + done.unchanged
        if not stored:
            raise
        raise InvalidDocumentError(
            f"{error}; the {stored} documents before it are stored: mend the file and start again, or leave such lines out "
            "with --skip-bad"
        ) from error


def info(path: PathOption, collection: CollectionOption = None, as_json: JsonOption = False) -> None:
    """Show what an index holds, without loading its model."""
    from m3retriever import report

    content = report.index_info(existing(path, collection))
    show(content, "\n".join(f"{name.replace('_', ' '):<20} {value}" for name, value in content.items()), as_json=as_json)
