"""The command line: thin over the library. Errors are one line on stderr, never a traceback."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from m3retriever import __version__
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
)
from m3retriever.errors import (
    InvalidArgumentError,
    InvalidDocumentError,
    M3RetrieverError,
    StoreError,
    TruncationWarning,
    UnknownTextWarning,
)

if TYPE_CHECKING:
    from m3retriever.index import M3Index

app = typer.Typer(
    name="m3retriever",
    help="Hybrid retrieval with BGE-M3 over Chroma: dense, sparse and ColBERT scores in one ranking, with the reasons shown.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

INTERRUPTED = 130  # the shell's code for a process ended by Ctrl-C
BATCH = 256  # documents a step when indexing


def main() -> None:
    """Entry point of the commands `m3retriever` and `m3`."""
    logging.basicConfig(level=logging.WARNING, format="warning: %(message)s")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.showwarning = _show_warning  # type: ignore[assignment]  # ours ignores the place in the code
    try:
        code = app(standalone_mode=False)
    except KeyboardInterrupt:
        sys.exit(_fail("interrupted; what was stored is kept", INTERRUPTED))
    except M3RetrieverError as error:
        sys.exit(_fail(str(error), 1))
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:  # the last line of defence: a user sees a sentence, not a traceback
        if hasattr(error, "format_message"):  # a wrong option or argument, found by typer
            sys.exit(_fail(f"{error.format_message()} (see --help)", 2))
        if type(error).__name__ == "Abort":
            sys.exit(_fail("interrupted; what was stored is kept", INTERRUPTED))
        if os.environ.get("M3RETRIEVER_DEBUG"):
            raise
        sys.exit(_fail(f"unexpected {type(error).__name__}: {error}; set M3RETRIEVER_DEBUG=1 to see where", 1))
    if code == INTERRUPTED:
        _fail("interrupted; what was stored is kept", INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"m3retriever {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Hybrid retrieval with BGE-M3 over Chroma: dense, sparse and ColBERT scores in one ranking, with the reasons shown."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
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
        _say(f"skipped: {error}")

    for file in files:
        if not file.exists():
            raise InvalidArgumentError(f"no such file or folder: {file}")
    with _opened(path, model=model, collection=collection, create=True) as opened, _progress("indexing") as advance:
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
        _report_cut(opened)
        done = {"new": total.new, "replaced": total.replaced, "unchanged": total.unchanged, "skipped": len(bad)}
        summary = ", ".join(f"{count} {name}" for name, count in done.items() if count or name == "new")
        _show({**done, "documents": len(opened)}, f"{summary}; the index holds {len(opened)} documents", as_json)


@app.command()
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

    settings = _settings(mode, weights, threshold, where=where, where_document=where_document)
    with _opened(path, model=model, collection=collection, profile=profile) as opened:
        hits = opened.search(query, k, **settings)
        used = report.used_weights(mode, settings["weights"] or opened.profile.weights)
        if as_json:
            _print_json(report.search_json(query, mode, used, hits))
        else:
            report.print_hits(query, mode, used, hits)


@app.command()
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

    settings = _settings(mode, weights, threshold, where=where, where_document=where_document)
    with _opened(path, model=model, collection=collection, profile=profile) as opened:
        explanation = opened.explain(query, id, k=k, **settings)
        if as_json:
            _print_json(report.explanation_json(explanation))
        else:
            report.print_explanation(explanation)


@app.command()
def evaluate(
    path: PathOption,
    queries: Annotated[Optional[Path], typer.Option(help="BEIR's queries.jsonl, or lines of id, tab, text.")] = None,  # noqa: UP045
    qrels: Annotated[Optional[Path], typer.Option(help="Judgements, BEIR's or TREC's.")] = None,  # noqa: UP045
    golden: Annotated[Optional[Path], typer.Option(help="Or one JSONL file of question and relevant ids or texts.")] = None,  # noqa: UP045
    measures: Annotated[str, typer.Option(help="Names by comma.")] = "nDCG@10,R@10,R@100,RR@10",
    run_out: Annotated[Optional[Path], typer.Option(help="Write the run of --mode in TREC's form.")] = None,  # noqa: UP045
    mode: ModeOption = "hybrid",
    profile: ProfileOption = None,
    model: ModelOption = None,
    collection: CollectionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure every mode and the hybrid on questions with known answers."""
    from m3retriever import evaluation, report
    from m3retriever.cli.quality import evaluation_json, read_judged
    from m3retriever.io import write_run

    with _opened(path, model=model, collection=collection, profile=profile) as opened:
        texts, judged = read_judged(opened, queries, qrels, golden)
        with _progress("evaluating", total=len(evaluation.answerable(judged))) as advance:
            found = evaluation.evaluate(opened, texts, judged, measures.split(","), on_step=advance)
    if run_out is not None:
        if mode not in found.runs:
            raise InvalidArgumentError(f"--mode must be one of {', '.join(found.runs)}; got {mode!r}")
        write_run(found.runs[mode], run_out)
    if as_json:
        _print_json(evaluation_json(found))
    else:
        report.print_quality(found)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A run in TREC's form, such as evaluate --run-out writes.")],
    second: Annotated[Path, typer.Argument(help="The run to compare with it.")],
    qrels: Annotated[Path, typer.Option(help="Judgements, BEIR's or TREC's.")],
    measure: Annotated[str, typer.Option(help="Its name.")] = "nDCG@10",
    as_json: JsonOption = False,
) -> None:
    """Say whether the second run is better than the first: means, wins and losses by question, and a paired test."""
    from dataclasses import asdict

    from m3retriever import evaluation
    from m3retriever.io import read_qrels, read_run

    found = evaluation.compare(read_run(first), read_run(second), read_qrels(qrels), measure)
    content = {"measure": measure, **asdict(found), "difference": found.difference}
    text = (
        f"{measure} over {found.queries} questions: {found.first:.4f} and {found.second:.4f}, {found.difference:+.4f}\n"
        f"the second is better on {found.wins}, worse on {found.losses}, the same on {found.ties}; p = {found.p_value:.4f}"
    )
    _show(content, text, as_json)


@app.command()
def info(path: PathOption, collection: CollectionOption = None, as_json: JsonOption = False) -> None:
    """Show what an index holds, without loading its model."""
    from m3retriever import report

    content = report.index_info(_existing(path, collection), collection)
    _show(content, "\n".join(f"{name.replace('_', ' '):<20} {value}" for name, value in content.items()), as_json)


@app.command()
def doctor(
    path: Annotated[Optional[Path], typer.Option("--path", help="An index to look at as well.")] = None,  # noqa: UP045
    collection: CollectionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check versions, device, models, memory and an index, and say what to do."""
    from m3retriever.doctor import diagnose, print_checks

    checks = diagnose(path, collection)
    if as_json:
        _print_json({"checks": [check._asdict() for check in checks]})
    else:
        print_checks(checks)
    raise typer.Exit(int(any(check.level == "error" for check in checks)))


@app.command()
def inspect(
    path: PathOption,
    profile: ProfileOption = None,
    collection: CollectionOption = None,
    port: Annotated[int, typer.Option(help="Port of the page.")] = 8501,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    allow_remote: Annotated[bool, typer.Option(help="Permit an address that other machines reach.")] = False,
) -> None:
    """Open the inspector: why is a document recalled, or not?"""
    from m3retriever.inspector.launch import serve

    _existing(path, collection)
    raise typer.Exit(serve(path, collection=collection, profile=profile, host=host, port=port, allow_remote=allow_remote))


@app.command()
def demo(
    inspector: Annotated[bool, typer.Option(help="Serve the inspector at the end.")] = True,
    port: Annotated[int, typer.Option(help="Port of the inspector.")] = 8501,
    path: Annotated[Path, typer.Option("--path", help="Folder for the demo's index.")] = Path(".m3-demo"),
) -> None:
    """Index Python's standard library docstrings, compare the modes, and serve the inspector."""
    from m3retriever import report
    from m3retriever.demo import run

    if inspector:
        from m3retriever.inspector.launch import check, serve

        check("127.0.0.1", port)
    folder = run.demo_folder(path)
    with _opened(folder, model="mini", create=True) as opened:
        documents = run.documents()
        with _progress("indexing", total=len(documents)) as advance:
            run.build(opened, documents, on_step=advance)
        _report_cut(opened)
        hits = run.side_by_side(opened, run.QUESTION)
        report.print_side_by_side(run.QUESTION, hits, weights=opened.profile.weights, documents=len(opened))
        questions = run.golden([document.id for document in documents])
        with _progress("evaluating", total=len(questions)) as advance:
            quality = run.quality(opened, questions, on_step=advance)
        report.print_quality(quality)
    typer.echo(f"\nthe index is in {folder}; try: m3retriever search 'sort a list' --path {folder}")
    if inspector:
        typer.echo(f"the inspector is at http://127.0.0.1:{port} (Ctrl-C ends it)")
        raise typer.Exit(serve(folder, port=port))


def _report_cut(opened: M3Index) -> None:
    """Say once, at the end of long work, what a warning per batch would say many times."""
    if cut := getattr(opened.encoder, "truncated", 0):
        limit = opened.encoder.max_length  # type: ignore[attr-defined]  # whoever counts cuts has a limit
        typer.echo(f"warning: {cut} texts are longer than {limit} tokens; only their beginning was indexed", err=True)


@contextmanager
def _opened(
    path: Path,
    *,
    model: str | None = None,
    collection: str | None = None,
    profile: str | None = None,
    create: bool = False,
) -> Iterator[M3Index]:
    from m3retriever.index import M3Index

    if not create:
        _existing(path, collection)
    with M3Index.open(path, model=model, collection=collection, profile=profile) as opened:
        yield opened


def _existing(path: Path, collection: str | None) -> Path:
    """The folder, if there is an index in it: reading must not create one."""
    from m3retriever.stores.chroma import ChromaStore

    if not ChromaStore.exists(path, collection):
        name = f"collection {collection!r}" if collection else "index"
        raise StoreError(f"no {name} in {path}; make one with: m3retriever index FILES --path {path}")
    return path


def _settings(mode: str, weights: str | None, threshold: str | None, **filters: str | None) -> dict[str, Any]:
    named = {name: _filter(f"--{name.replace('_', '-')}", text) for name, text in filters.items()}
    return {"mode": mode, "weights": _weights(weights), "threshold": _threshold(threshold), **named}


def _weights(text: str | None) -> Any:
    from m3retriever.types import Weights

    if text is None:
        return None
    try:
        return Weights.of([float(part) for part in text.split(",")])
    except ValueError as error:
        reason = error if isinstance(error, InvalidArgumentError) else "not numbers"
        raise InvalidArgumentError(f"--weights takes three numbers such as .4,.2,.4; got {text!r} ({reason})") from error


def _filter(option: str, text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidArgumentError(f'{option} takes JSON such as \'{{"lang": "en"}}\'; got {text!r} ({error})') from error


def _threshold(text: str | None) -> float | str | None:
    if text is None or text == "profile":
        return text
    try:
        return float(text)
    except ValueError as error:
        raise InvalidArgumentError(f"--threshold takes a number or 'profile'; got {text!r}") from error


_counting: list[str] = []  # long work in progress, after which cut texts are counted together


@contextmanager
def _progress(what: str, total: int | None = None) -> Iterator[Any]:
    """A bar on stderr in a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    if total is not None:
        columns.append(TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(what, total=total)
        _counting.append(what)
        try:
            yield lambda count: progress.advance(task, count)
        finally:
            _counting.pop()


def _show(content: dict[str, Any], text: str, as_json: bool) -> None:
    if as_json:
        _print_json(content)
    else:
        typer.echo(_printable(text))


def _print_json(content: dict[str, Any]) -> None:
    typer.echo(json.dumps(content, ensure_ascii=False))


def _say(message: str) -> None:
    typer.echo(_printable(message), err=True)


def _printable(text: str) -> str:
    from m3retriever.report import printable

    return printable(text)


def _fail(message: str, code: int) -> int:
    _say("error: " + " ".join(message.split()))
    return code


def _show_warning(message: Warning | str, category: type[Warning], *_: Any) -> None:
    if issubclass(category, UnknownTextWarning) or (issubclass(category, TruncationWarning) and not _counting):
        _say(f"warning: {message}")
