"""The command line: thin over the library. Errors are one line on stderr, never a traceback."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import Annotated

import typer

from m3retriever import __version__
from m3retriever.cli.around import demo, doctor, inspect
from m3retriever.cli.fitting import calibrate, tune
from m3retriever.cli.indexing import index, info
from m3retriever.cli.quality import compare, evaluate
from m3retriever.cli.reporting import report
from m3retriever.cli.searching import explain, search
from m3retriever.cli.terminal import fail, show_warning
from m3retriever.errors import M3RetrieverError

INTERRUPTED = 130  # the shell's code for a process ended by Ctrl-C

app = typer.Typer(
    name="m3retriever",
    help="Hybrid retrieval with BGE-M3 over Chroma: dense, sparse and ColBERT scores in one ranking, with the reasons shown.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (index, search, explain, evaluate, compare, tune, calibrate, report, info, doctor, inspect, demo):
    app.command()(command)


def main() -> None:
    """Entry point of the commands `m3retriever` and `m3`."""
    logging.basicConfig(level=logging.WARNING, format="warning: %(message)s")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.showwarning = show_warning  # type: ignore[assignment]  # ours ignores the place in the code
    try:
        code = app(standalone_mode=False)
    except KeyboardInterrupt:
        sys.exit(fail("interrupted; what was stored is kept", INTERRUPTED))
    except M3RetrieverError as error:
        sys.exit(fail(str(error), 1))
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:  # the last line of defence: a user sees a sentence, not a traceback
        if hasattr(error, "format_message"):  # a wrong option or argument, found by typer
            sys.exit(fail(f"{error.format_message()} (see --help)", 2))
        if type(error).__name__ == "Abort":
            sys.exit(fail("interrupted; what was stored is kept", INTERRUPTED))
        if os.environ.get("M3RETRIEVER_DEBUG"):
            raise
        sys.exit(fail(f"unexpected {type(error).__name__}: {error}; set M3RETRIEVER_DEBUG=1 to see where", 1))
    if code == INTERRUPTED:
        fail("interrupted; what was stored is kept", INTERRUPTED)
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
