"""What an import and a --help load, counted in modules: seconds depend on the machine."""

import importlib
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from m3retriever.cli import COMMANDS, app

HELP = "import sys\nsys.argv = ['m3retriever', '--help']\nfrom m3retriever.cli import app\napp(standalone_mode=False)"


def loaded(code: str) -> set[str]:
    code += "\nimport sys\nprint('|'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split("|"))


def test_the_package_loads_fewer_modules_than_numpy():
    bare = loaded("pass")
    ours, numpys = loaded("import m3retriever") - bare, loaded("import numpy") - bare
    assert len(ours) <= len(numpys) / 10
    assert {name for name in ours if name.startswith("m3retriever")} == {"m3retriever"}


def test_help_loads_hardly_more_than_the_library_that_writes_it():
    more = loaded(HELP) - loaded("import typer")
    assert {name for name in more if name.startswith("m3retriever")} == {
        "m3retriever", "m3retriever.cli", "m3retriever.cli.terminal", "m3retriever.errors",
    }  # fmt: skip
    assert len(more) <= 60, sorted(more)  # of typer's own, and of the standard library
    assert not more & {"numpy", "torch", "chromadb", "rich", "transformers", "m3retriever.index"}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_says_of_a_command_what_its_docstring_says_first(name):
    module, sentence = COMMANDS[name]
    docstring = " ".join(getattr(importlib.import_module(f"m3retriever.cli.{module}"), name).__doc__.split())
    assert docstring.startswith(sentence)
    assert sentence[-1] in ".?"


def test_every_command_can_be_loaded_and_no_other():
    for name in COMMANDS:
        assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0
    assert CliRunner().invoke(app, ["serch"]).exit_code == 2
