"""The demo's documents: what the running Python's standard library says about itself.

The source files are parsed, never imported, so reading them runs no code and has no side effect.
"""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from m3retriever.types import Document

# Not the library proper, or (distutils, tkinter) not in every Python of today.
SKIPPED_FOLDERS = {
    *("site-packages", "dist-packages", "test", "tests", "__pycache__"),
    *("idlelib", "lib2to3", "turtledemo", "pydoc_data", "ensurepip", "distutils", "tkinter"),
}
MIN_CHARACTERS = 20  # shorter docstrings ("See PEP 8.") say too little to be searched for

Definition = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def standard_library_documents(root: Path | None = None) -> list[Document]:
    """One document per public module, class and function that has a docstring, ordered by id.

    Parameters
    ----------
    root
        A folder of Python sources; default: the standard library of the running Python.

    Returns
    -------
    list of Document
        id: the qualified name (`posixpath.join`); text: the name in words, then the docstring;
        metadata: `module`, `kind` (module, class or function) and `title`. Which documents there are
        depends on the Python version: about 2,000.
    """
    root = root or Path(sysconfig.get_paths()["stdlib"])
    documents = {document.id: document for path in _sources(root) for document in _documents(path, _module(root, path))}
    return [documents[id] for id in sorted(documents)]


def _sources(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*.py")):
        folders = path.relative_to(root).parts[:-1]
        if not any(folder in SKIPPED_FOLDERS or folder.startswith(("_", "config-")) for folder in folders):
            yield path


def _module(root: Path, path: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _documents(path: Path, module: str) -> Iterator[Document]:
    if any(part.startswith("_") for part in module.split(".")):
        return
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):  # a template or a file for another Python: not a document
        return
    yield from _document(tree, module, module, "module")
    for node in tree.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            yield from _document(node, f"{module}.{node.name}", module, kind)


def _document(node: ast.AST, id: str, module: str, kind: str) -> Iterator[Document]:
    text = ast.get_docstring(node)  # type: ignore[arg-type]  # callers pass only nodes that can have one
    if text and len(text) >= MIN_CHARACTERS:
        yield Document(id, f"{id}\n{text}", {"module": module, "kind": kind, "title": id})
