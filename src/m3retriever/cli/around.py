"""The commands around an index: its page, its health, a demonstration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from m3retriever.cli.opening import existing, open_index, report_cut
from m3retriever.cli.options import BackendOption, CollectionOption, JsonOption, ModelOption, PathOption, ProfileOption
from m3retriever.cli.terminal import print_json, progress
from m3retriever.errors import InvalidArgumentError


def inspect(
    path: PathOption,
    profile: ProfileOption = None,
    model: ModelOption = None,
    collection: CollectionOption = None,
    port: Annotated[int, typer.Option(help="Port of the page.")] = 8501,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="Permit an address that other machines reach.")] = False,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Write nothing: no judgement, profile, run or history.")
    ] = False,
) -> None:
    """Open the inspector: why is a document recalled, or not?"""
    from m3retriever.inspector.launch import serve

    existing(path, collection)
    where = {"host": host, "port": port, "allow_remote": allow_remote}
    raise typer.Exit(serve(path, collection=collection, profile=profile, model=model, read_only=read_only, **where))


def doctor(
    path: Annotated[Optional[str], typer.Option("--path", help="An index to look at as well.")] = None,  # noqa: UP045
    collection: CollectionOption = None,
    fidelity: Annotated[bool, typer.Option("--fidelity", help="Compare a precision of a model with fp32 instead.")] = False,
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="With --fidelity: BAAI/bge-m3 (the default), mini or a folder."),
    ] = None,
    precision: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="With --fidelity: int8 (the default), bf16, fp16 or fp32."),
    ] = None,
    backend: BackendOption = None,
    texts: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="With --fidelity: your own texts (JSONL, CSV, .txt, .md); default: a few that come with it."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check versions, device, models, memory and an index, and say what to do."""
    from m3retriever.doctor import diagnose, measure_fidelity, print_checks
    from m3retriever.encoders import DEFAULT_MODEL

    content: dict[str, Any] = {}
    if not fidelity and any(one is not None for one in (model, precision, backend, texts)):
        raise InvalidArgumentError("--model, --precision, --backend and --texts go with --fidelity: add it")
    if fidelity:
        check, found = measure_fidelity(model or DEFAULT_MODEL, precision or "int8", backend, texts)
        checks, content = [check], {"fidelity": found.as_dict()}
    else:
        checks = diagnose(path, collection)
    if as_json:
        print_json({"checks": [check._asdict() for check in checks], **content})
    else:
        print_checks(checks)
    raise typer.Exit(int(any(check.level == "error" for check in checks)))


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
    with open_index(str(folder), model="mini", create=True) as opened:
        documents = run.documents()
        with progress("indexing", total=len(documents)) as advance:
            run.build(opened, documents, on_step=advance)
        report_cut(opened)
        hits = run.side_by_side(opened, run.QUESTION)
        report.print_side_by_side(run.QUESTION, hits, weights=opened.profile.weights, documents=len(opened))
        questions = run.golden([document.id for document in documents])
        with progress("evaluating", total=len(questions)) as advance:
            quality = run.quality(opened, questions, on_step=advance)
        report.print_quality(quality)
        kept = run.keep_golden(folder, questions)
    typer.echo(f"\nthe index is in {folder}; try: m3retriever search 'sort a list' --path {folder}")
    typer.echo(f"the questions are in {kept}; try: m3retriever tune --path {folder} --golden {kept}")
    if inspector:
        typer.echo(f"the inspector is at http://127.0.0.1:{port} (Ctrl-C ends it)")
        raise typer.Exit(serve(folder, port=port))
