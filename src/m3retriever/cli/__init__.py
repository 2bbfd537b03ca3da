"""The command line: thin over the library. Errors are one line on stderr, never a traceback."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from m3retriever import __version__
from m3retriever.cli.terminal import fail, show_warning
from m3retriever.errors import M3RetrieverError

INTERRUPTED = 130  # the shell's code for a process ended by Ctrl-C

COMMANDS = {  # the module of each, and its docstring's first sentence, so that --help need not load them
    "index": ("indexing", "Add documents to an index."),
    "search": ("searching", "Search an index; every hit shows its score in every mode."),
    "explain": ("searching", "Say why a document has the place it has for a query, or why it is missing."),
    "evaluate": ("quality", "Measure every mode and the hybrid on questions with known answers."),
    "compare": (
        "quality",
        "Say whether the second run is better than the first: means, wins and losses by question, and a paired test.",
    ),
    "tune": ("fitting", "Find the weights that suit your questions, and what to expect of them on others."),
    "calibrate": (
        "fitting",
        "Fit probabilities and thresholds to judged questions, or without any the rates of unrelated pairs.",
    ),
    "report": ("reporting", "Write one HTML page: modes, weights, thresholds, reliability, worst questions."),
    "copy": ("copying", "Copy an index to another folder or server, vectors and all; nothing is encoded again."),
    "info": ("indexing", "Show what an index holds, without loading its model."),
    "verify": ("health", "Read all of an index, and say whether it is what was written; exit code 1 where it is not."),
    "repair": (
        "health",
        "Mend what `verify` finds: vectors are encoded again from the texts, the rest is taken from the whole copy.",
    ),
    "doctor": ("around", "Check versions, device, models, memory and an index, and say what to do."),
    "inspect": ("around", "Open the inspector: why is a document recalled, or not?"),
    "serve": ("serving", "Serve the model, and with --path an index, over HTTP."),
    "demo": ("around", "Index Python's standard library docstrings, compare the modes, and serve the inspector."),
}


class Commands(TyperGroup):
    """Loads a command when it is asked for, so that the others cost nothing."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, None where there is no such."""
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            module = importlib.import_module(f"{__name__}.{COMMANDS[cmd_name][0]}")
            alone = typer.Typer(add_completion=False, rich_markup_mode=None)
            alone.command(cmd_name)(getattr(module, cmd_name))
            self.add_command(typer.main.get_command(alone), cmd_name)
        return self.commands.get(cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """A line or two for each, from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, sentence) for name, (_, sentence) in COMMANDS.items()])


app = typer.Typer(
    name="m3retriever",
    help="Hybrid retrieval with BGE-M3 over Chroma: dense, sparse and ColBERT scores in one ranking, with the reasons shown.",
    cls=Commands,
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Entry point of the commands `m3retriever` and `m3`."""
    logging.basicConfig(level=logging.WARNING, format="warning: %(message)s")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.showwarning = show_warning  # type: ignore[assignment]  # ours ignores the place in the code
    try:
        _configure_logging()
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


def _configure_logging() -> None:
    """JSON lines on stderr, of the level that M3RETRIEVER_LOG names; warnings as plain lines where it is not set."""
    if level := os.environ.get("M3RETRIEVER_LOG"):
        from m3retriever.observing.structured import configure_logging

        configure_logging(level.lower())


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
