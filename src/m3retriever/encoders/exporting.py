"""A checkpoint exported to OpenVINO: made once, kept in a folder beside the model, or in the user's cache.

An export is a folder with the graph (model.xml, model.bin), the tokenizer, settings.json and, once it was compared with
fp32, fidelity.json. Its name says of which checkpoint, how, and by which version of OpenVINO it was made: another one of
these is another folder. It is written under another name and renamed, under a lock: a folder with its name is whole.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from tqdm import tqdm

from m3retriever.encoders.fidelity import Fidelity, Sample, fidelity
from m3retriever.encoders.loop import EncodingLoop
from m3retriever.encoders.looped import LoopedEncoder
from m3retriever.encoders.openvino_engine import GRAPH_FILE, SETTINGS_FILE, OpenVINOEngine, imported
from m3retriever.encoders.openvino_graph import GRAPH, Checkpoint, graph
from m3retriever.encoders.tokenizing import Tokenizing
from m3retriever.errors import ModelLoadError

if TYPE_CHECKING:
    from m3retriever.encoders.engine import Engine, Heads
    from m3retriever.encoders.torch_engine import TorchEngine

logger = logging.getLogger(__name__)

FOLDER = "m3retriever-openvino"
FIDELITY_FILE = "fidelity.json"
FIDELITY_BYTES = 10_000  # read of it: ours has 200
STEPS = 3  # load, write, compare
SAMPLE_LENGTH = 512  # tokens of a text of the comparison


def openvino_parts(
    name: str,
    load: Callable[[], tuple[TorchEngine, Tokenizing]],
    *,
    heads: Heads,
    int8: bool,
    sample: Sample,
    beside: Path | None = None,
) -> tuple[OpenVINOEngine, Tokenizing]:
    """An engine and its tokenizer, from an export that is made first where there is none.

    Parameters
    ----------
    name
        Tells checkpoints apart.
    load
        Gives the checkpoint in fp32; called only when an export is made.
    sample
        Texts and queries on which a new export is compared with fp32.
    beside
        The checkpoint's folder; None keeps the export in the user's cache, as does a folder that cannot be written.

    Raises
    ------
    MissingExtraError
        OpenVINO is not installed.
    ModelLoadError
        The export cannot be made or read, or the network is of a kind that OpenVINO is not given here.
    """
    imported()
    import openvino

    version = openvino.__version__.split("-")[0]
    full = f"{name}-{'int8' if int8 else 'fp32'}-{heads}-{version}-{GRAPH}"
    roots = [*([] if beside is None else [beside / FOLDER]), _cache()]
    for root in roots:
        if (root / full).is_dir():
            return _opened(root / full)
    for root in roots:
        if (lock := _lock(root, full)) is not None:
            with lock:
                if not (root / full).is_dir():  # another process may have made it meanwhile
                    _export(root / full, load, heads=heads, int8=int8, sample=sample)
            return _opened(root / full)
    raise ModelLoadError(f"cannot write an export: neither {' nor '.join(map(str, roots))} can be written to")


def stored_fidelity(folder: Path) -> Fidelity | None:
    """What an export's comparison with fp32 gave; None where it was not made."""
    try:
        with (folder / FIDELITY_FILE).open("rb") as file:
            held: dict[str, Any] = json.loads(file.read(FIDELITY_BYTES))
        numbers: dict[str, Any] = {name: value if isinstance(value, float) else int(value) for name, value in held.items()}
        return Fidelity(**numbers)
    except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _opened(folder: Path) -> tuple[OpenVINOEngine, Tokenizing]:
    engine = OpenVINOEngine(folder)
    try:
        return engine, Tokenizing.load(folder)
    except Exception as error:  # tokenizers raises bare Exceptions
        raise ModelLoadError(
            f"cannot load the tokenizer of {folder}: {error}; delete that folder, and it is made again"
        ) from error


def _cache() -> Path:
    """In the user's cache folder, as the XDG Base Directory Specification names it."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "m3retriever" / "openvino"


def _lock(root: Path, name: str) -> FileLock | None:
    """The lock under which an export is made there; None where nothing can be written."""
    lock = FileLock(root / f"{name}.lock")
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe = root / f"{name}.{os.getpid()}.probe"
        probe.touch()
        probe.unlink()
    except OSError:
        return None
    return lock


def _export(
    folder: Path, load: Callable[[], tuple[TorchEngine, Tokenizing]], *, heads: Heads, int8: bool, sample: Sample
) -> None:
    partial = folder.with_name(f"{folder.name}.partial")
    if partial.exists():  # of a process that was killed: the lock is ours
        shutil.rmtree(partial)
    with tqdm(total=STEPS, desc="exporting to OpenVINO: loading", unit="step") as bar:
        reference, tokenizing = load()
        bar.set_description(f"exporting to OpenVINO: writing {folder}")
        bar.update()
        _write(partial, reference, tokenizing, heads=heads, int8=int8)
        partial.rename(folder)
        bar.set_description("exported to OpenVINO: comparing with fp32")
        bar.update()
        try:
            found: object = _compared(reference, tokenizing, folder, sample)
        except (RuntimeError, MemoryError, OSError, ModelLoadError) as error:  # the export itself is whole
            found = f"not compared with fp32, {type(error).__name__}: {error}"
            logger.warning("%s: %s", folder, found)
        bar.set_description(f"exported to {folder.parent}: {found}")
        bar.update()


def _write(folder: Path, reference: TorchEngine, tokenizing: Tokenizing, *, heads: Heads, int8: bool) -> None:
    import openvino

    try:
        made = graph(_checkpoint(reference), heads, int8=int8)
        folder.mkdir()
        openvino.save_model(made, folder / GRAPH_FILE, compress_to_fp16=False)
        tokenizing.save(folder)
        settings = {"dim": reference.dim, "positions": reference.positions, "modes": sorted(heads.modes), "int8": int8}
        (folder / SETTINGS_FILE).write_text(json.dumps(settings), encoding="utf-8")
    except (OSError, RuntimeError, KeyError) as error:  # a full disk, OpenVINO's own, weights of other names
        shutil.rmtree(folder, ignore_errors=True)
        raise ModelLoadError(f"cannot write the export {folder}: {type(error).__name__}: {error}") from error


def _checkpoint(reference: TorchEngine) -> Checkpoint:
    def parts(head: Any) -> Any:
        return tuple(part.detach().float().numpy() for part in (head.weight, head.bias))

    weights = {name: value.float().numpy() for name, value in reference.model.state_dict().items()}
    return Checkpoint(reference.model.config, weights, parts(reference.sparse), parts(reference.colbert))


def _compared(reference: TorchEngine, tokenizing: Tokenizing, folder: Path, sample: Sample) -> Fidelity:
    """Compare an export with fp32; what is found is logged and kept beside it."""

    def encoder(engine: Engine, tokenizing: Tokenizing) -> LoopedEncoder:
        return LoopedEncoder(EncodingLoop(engine, tokenizing, max_length=SAMPLE_LENGTH, batch_tokens=4096), folder.name)

    found = fidelity(encoder(reference, tokenizing), encoder(*_opened(folder)), sample.texts, sample.queries)
    (folder / FIDELITY_FILE).write_text(json.dumps(found.as_dict()), encoding="utf-8")
    logger.log(logging.INFO if found.good else logging.WARNING, "%s: %s", folder, found)
    return found
