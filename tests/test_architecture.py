"""Data flows one way, heavy packages stay in one place, and the public names are the documented ones."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import m3retriever

PACKAGE = Path(__file__).parents[1] / "src" / "m3retriever"
PURE = {"errors", "vectors", "types", "checks", "filters"}
MAY_IMPORT = {
    "errors": set(),
    "vectors": {"errors"},
    "types": {"errors", "vectors"},
    "checks": {"errors", "vectors", "types"},
    "hosts": {"errors"},
    "filters": {"errors", "checks", "types"},
    "scoring": {"vectors"},
    "kernels": {"vectors"},
    "rates": {"errors", "vectors"},
    "queries": {"vectors"},
    "fusion": {"errors", "types", "rates", "queries"},
    "measures": {"errors", "types"},
    "evaluation": {"errors", "types", "measures", "ranking", "io", "passages"},
    "tuning": {"errors", "types", "fusion", "measures", "queries", "evaluation"},
    "exactness": {"types", "scoring", "fusion", "ranking", "evaluation"},
    "calibrating": PURE | {"calibration", "rates", "evaluation", "fusion", "passages", "ranking", "scoring"},
    "fitting": PURE | {"calibrating", "evaluation", "fusion", "index", "passages", "profile", "ranking", "rates", "tuning"},
    "io": {"errors", "types", "checks"},
    "profile": {"errors", "types", "checks", "fusion", "calibration", "rates", "io"},
    "calibration": {"errors", "types", "rates"},
    "watched": {"errors", "types", "profile"},
    "observing": PURE | {"passages"},
    "ranking": {"errors", "types", "fusion", "calibration", "observing"},
    "ingest": {"errors", "types"},
    "opening": PURE | {"encoders", "stores", "profile", "watched"},
    "copying": PURE | {"ingest", "opening", "profile", "stores"},
    "twins": set(),
    "palette": set(),
    "diversity": {"errors", "types"},
    "reranking": PURE | {"fusion", "ranking", "profile", "scoring"},
    "extractive": PURE | {"reranking"},
    "explanation": {"types", "fusion", "ranking"},
    "wire": PURE,
    "encoders": PURE | {"hosts", "observing", "wire"},
    "stores": PURE | {"hosts", "scoring", "kernels", "observing"},
    "cleaning": {"errors", "types"},
    "passages": PURE,
    "documents": PURE | {"ingest", "twins", "passages", "observing"},
    "index": PURE
    | {"documents", "ranking", "profile", "explanation", "diversity", "twins", "watched", "passages", "observing"},
    "testing": PURE | {"encoders", "stores"},
    "health": PURE | {"encoders", "stores"},
}
IN_OPEN_ONLY = {"opening"}  # what M3Index.open, and nothing else in index.py, may load
LEAVES = {
    "cli",
    "report",
    "doctor",
    "demo",
    "langchain",
    "llama_index",
    "quality_page",
    "serving",
}  # may import any; no one imports them
LEAF_MAY_IMPORT_LEAF = {
    "cli": {"report", "doctor", "demo", "inspector", "quality_page", "serving"},
    "doctor": {"report"},
    "serving": {"report"},
}
HEAVY = {
    "FlagEmbedding": ("encoders/bge_m3.py",),
    "chromadb": ("stores/folder_engine.py", "stores/chroma_server.py"),
    "openvino": ("encoders/",),
    "optuna": ("tuning/searches.py",),
    "lmdb": ("stores/payload.py", "stores/snapshot.py", "stores/writer.py", "stores/upgrade.py"),
    "langchain_core": ("langchain/",),
    "llama_index": ("llama_index/",),
    "qdrant_client": ("stores/qdrant",),
    "ray": ("encoders/",),
    "fastapi": ("serving/",),
    "uvicorn": ("serving/",),
    "httpx": ("encoders/",),
}


def layer(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path, *, for_types_only=False):
    """(line, module) of what a file imports at run time; with the flag, what it imports for type checkers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if (id(node) in guarded) != for_types_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)


def ours(path):
    for node, name in imports(path):
        if name.startswith("m3retriever.") and name.split(".")[1] != "__version__":
            yield node, name.split(".")[1]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    own = layer(path)
    if own == "__init__":
        return
    for node, imported in ours(path):
        if imported == own:
            continue
        if own in LEAVES:
            allowed = imported not in LEAVES or imported in LEAF_MAY_IMPORT_LEAF.get(own, set())
        elif own == "index" and imported in IN_OPEN_ONLY:
            allowed = node.col_offset > 0
        else:
            allowed = imported in MAY_IMPORT[own]
        assert allowed, f"{path.relative_to(PACKAGE)}, line {node.lineno}: {own} may not import {imported}"


def test_each_heavy_package_is_imported_in_its_own_place_only():
    for path in PACKAGE.rglob("*.py"):
        for node, name in imports(path):
            package = name.split(".")[0]
            place = path.relative_to(PACKAGE).as_posix()
            assert package not in HEAVY or place.startswith(HEAVY[package]), f"{place}, line {node.lineno} imports {package}"


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, m3retriever; print(sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for package in ("torch", "transformers", "typer", "rich", *HEAVY):
        assert repr(package) not in loaded


def test_every_public_name_loads_and_unknown_ones_are_attribute_errors():
    for name in m3retriever.__all__:
        assert getattr(m3retriever, name) is not None
        assert name in dir(m3retriever)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        m3retriever.nothing  # noqa: B018  # the access is what is tested


def test_type_checkers_see_the_same_names():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    seen = {
        alias.asname
        for node in ast.walk(tree)
        if isinstance(node, ast.If)
        for line in node.body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    }
    assert seen - {None} == set(m3retriever.__all__) - {"__version__"}


def test_every_error_is_ours_and_a_builtin():
    from m3retriever import errors

    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, Exception) and name != "M3RetrieverError":
            warning = issubclass(kind, Warning)
            assert warning or issubclass(kind, errors.M3RetrieverError), name
            assert any(base.__module__ == "builtins" and base is not Exception for base in kind.__mro__[:-2]), name


def test_the_library_neither_prints_nor_asserts_nor_evaluates():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not isinstance(node, ast.Assert), f"{path.name}:{node.lineno} asserts"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"print", "eval", "exec"}, f"{path.name}:{node.lineno} calls {node.func.id}"
