"""What every command does with a terminal: print, warn, show progress, fail in one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from m3retriever.errors import TruncationWarning, UnknownTextWarning

_counting: list[str] = []  # long work in progress, after which cut texts are counted together


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Any]:
    """A bar on stderr in a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    if total is not None:
        columns.append(TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as shown:
        task = shown.add_task(what, total=total)
        _counting.append(what)
        try:
            yield lambda count: shown.advance(task, count)
        finally:
            _counting.pop()


def show(content: dict[str, Any], text: str, *, as_json: bool) -> None:
    """One JSON object for programs, a text for people."""
    if as_json:
        print_json(content)
    else:
        typer.echo(_printable(text))


def print_json(content: dict[str, Any]) -> None:
    """One JSON object on stdout."""
    typer.echo(json.dumps(content, ensure_ascii=False))


def _printable(text: str) -> str:
    from m3retriever.report import printable

    return printable(text)


def say(message: str) -> None:
    """A line on stderr."""
    typer.echo(_printable(message), err=True)


def fail(message: str, code: int) -> int:
    """Say the error in one line; the exit code, as given."""
    say("error: " + " ".join(message.split()))
    return code


def show_warning(message: Warning | str, category: type[Warning], *_: Any) -> None:
    """Our warnings as lines on stderr, none of others; `warnings.showwarning` is set to this."""
    if issubclass(category, UnknownTextWarning) or (issubclass(category, TruncationWarning) and not _counting):
        say(f"warning: {message}")
