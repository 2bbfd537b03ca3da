"""BGEM3Encoder: the real model, loaded through FlagEmbedding and run by our own loop."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from m3retriever.encoders.engine import Backend, Engine, Heads, Precision, chosen_precision
from m3retriever.encoders.looped import LoopedEncoder
from m3retriever.errors import InvalidArgumentError, ModelLoadError
from m3retriever.types import MODES, Mode

if TYPE_CHECKING:
    import torch

    from m3retriever.encoders.tokenizing import Tokenizing
    from m3retriever.encoders.torch_engine import TorchEngine

HEADS = ("sparse_linear.pt", "colbert_linear.pt")
TOKENIZERS = ("tokenizer.json", "sentencepiece.bpe.model")
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
NOT_NEEDED = ["onnx/*", "imgs/*", "*.msgpack", "*.ot", "*.h5", "long.jpg"]  # of the hub's repository: half of its bytes
BATCH_TOKENS = {"cpu": 4096, "cuda": 65536, "mps": 8192}  # tokens a forward pass; padding is below 1 % either way
CONFIG_BYTES = 1 << 20  # of config.json: BGE-M3's has 687
SAMPLE = 1 << 20  # bytes read from each end of a weight file for the fingerprint


class BGEM3Encoder(LoopedEncoder):
    """BGE-M3 (Chen et al., 2024), or any checkpoint in its layout.

    Same numbers as `FlagEmbedding.BGEM3FlagModel.encode` (to 1e-5 in fp32), safe under threads.

    Parameters
    ----------
    model
        A hub name, or a folder with the model, its tokenizer, sparse_linear.pt and colbert_linear.pt.
    device
        "auto" (CUDA, else Apple's MPS, else the CPU) or a torch device; OpenVINO runs on the CPU.
    precision
        "fp32", "bf16", "fp16", "int8" (OpenVINO); "auto" is fp16 on CUDA and fp32 elsewhere. Vectors of all
        precisions of a checkpoint can be mixed; thresholds belong to the precision they were fitted on.
    max_length
        Tokens read of a text; longer texts are cut, counted in `truncated` and reported by a
        TruncationWarning. At most what the model's position table holds.
    pooling
        "cls" as BGE-M3, or "mean".
    normalize
        Whether dense and token vectors get norm 1.
    modes
        Views to compute; a view that is left out is empty and scores 0. "dense" must be among them.
    batch_tokens
        Tokens in one forward pass; default by device. Halved when memory runs out.
    backend
        "torch" or "openvino" (extra `fast`; fp32 and int8); "auto" is OpenVINO for int8 and torch for all else. The
        first use of OpenVINO exports the model into a folder beside it, or into the user's cache.

    Raises
    ------
    ModelLoadError
        No such folder, head files missing, or a hub that cannot be reached.
    MissingExtraError
        OpenVINO is asked for and not installed.
    InvalidArgumentError
        A setting or combination without a meaning, such as int8 in torch.
    """

    def __init__(
        self,
        model: str | Path = "BAAI/bge-m3",
        device: str = "auto",
        precision: Precision = "auto",
        max_length: int = 8192,
        pooling: str = "cls",
        normalize: bool = True,
        modes: Sequence[Mode] = MODES,
        batch_tokens: int | None = None,
        backend: Backend = "auto",
    ) -> None:
        from m3retriever.encoders.loop import EncodingLoop

        precision, runner = chosen_precision(precision, backend)
        heads = Heads(pooling, normalize, frozenset(modes))
        folder = _local_folder(str(model))
        _check_files(folder)
        digest = fingerprint(folder)
        engine: Engine
        if runner == "openvino":
            engine, tokenizing = _openvino(folder, digest, heads, device, precision)
            self.precision = precision
        else:
            engine, tokenizing, self.precision = _torch(folder, heads, device, precision)
        self.model, self.device, self.backend = str(model), engine.device, runner
        if batch_tokens is None:
            batch_tokens = BATCH_TOKENS.get(engine.device.split(":")[0], BATCH_TOKENS["cpu"])
        loop = EncodingLoop(engine, tokenizing, max_length=max_length, batch_tokens=batch_tokens)
        super().__init__(loop, f"bge-m3-{digest}-{heads}")
        known = str(Path(model).resolve()) if Path(model).is_dir() else str(model)
        self.source = known if heads.plain else None  # `load_encoder` makes no other


def fingerprint(folder: Path) -> str:
    """12 hex digits that tell checkpoints apart: heads, tokenizer and configuration whole, weights by size and both ends."""
    digest = hashlib.sha256()
    for path in [folder / "config.json", *(folder / head for head in HEADS), *_tokenizers(folder)]:
        digest.update(path.read_bytes())
    for path in _weights(folder):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            digest.update(file.read(SAMPLE))
            file.seek(max(0, size - SAMPLE))
            digest.update(file.read(SAMPLE))
    return digest.hexdigest()[:12]


def _local_folder(model: str) -> Path:
    """The checkpoint's folder, downloaded first where `model` is a hub name."""
    path = Path(model).expanduser()
    if path.exists():
        return path
    if model.count("/") != 1 or model.startswith((".", "/", "~")) or "\\" in model:
        raise ModelLoadError(f"no such folder: {model!r}; want a folder, a hub name such as BAAI/bge-m3, 'mini' or 'hashing'")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, ignore_patterns=NOT_NEEDED))
    except Exception as error:  # the hub's own errors, requests' and OSError: all mean that it is not here
        raise ModelLoadError(
            f"cannot get {model!r} from the model hub ({type(error).__name__}), and it is not in the local cache; "
            f"on a machine with network run: hf download {model} --local-dir bge-m3, "
            "and give that folder as the model; 'mini' is a small English model that needs no network"
        ) from error


def _check_files(folder: Path) -> None:
    if not folder.is_dir():
        raise ModelLoadError(f"{folder} is a file; want the folder of a checkpoint in BGE-M3's layout")
    missing = [name for name in ("config.json", *HEADS) if not (folder / name).is_file()]
    if not _tokenizers(folder):
        missing.append(" or ".join(TOKENIZERS))  # without one, transformers makes an empty tokenizer and says nothing
    if not _weights(folder):
        missing.append("model.safetensors or pytorch_model.bin")
    if missing:
        raise ModelLoadError(
            f"{folder} lacks {', '.join(missing)}; a checkpoint in BGE-M3's layout has them "
            "(without its heads, sparse and ColBERT scores would be random)"
        )
    _check_config(folder)


def _check_config(folder: Path) -> None:
    """Refuse what transformers and peft would follow to a hub: compiled kernels, which are code, and another model."""
    if (folder / "adapter_config.json").exists():
        raise ModelLoadError(f"{folder} holds an adapter of another model: merge the two, and give the merged checkpoint")
    with (folder / "config.json").open("rb") as file:
        raw = file.read(CONFIG_BYTES + 1)
    if len(raw) > CONFIG_BYTES:
        raise ModelLoadError(f"{folder / 'config.json'} has more than {CONFIG_BYTES} bytes; a configuration is a page of text")
    try:
        waiting = [json.loads(raw)]
    except (ValueError, RecursionError):
        return  # transformers, which is asked next, says what is wrong with it
    while waiting:
        held = waiting.pop()
        waiting += held if isinstance(held, list) else held.values() if isinstance(held, dict) else ()
        for key in held if isinstance(held, dict) else ():
            if "implementation" in key and "/" in str(held[key]):
                raise ModelLoadError(
                    f"{folder / 'config.json'} asks for code from a hub, {key} = {str(held[key])[:80]!r}: "
                    "m3retriever loads no code; take the key out"
                )


def _tokenizers(folder: Path) -> list[Path]:
    return [folder / name for name in TOKENIZERS if (folder / name).is_file()]


def _weights(folder: Path) -> list[Path]:
    return [path for pattern in WEIGHTS for path in sorted(folder.glob(pattern))]


def _device(device: str) -> torch.device:
    import torch

    if device != "auto":
        try:
            return torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as error:
            raise InvalidArgumentError(f"device {device!r} cannot be used here: {error}") from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _torch(folder: Path, heads: Heads, device: str, precision: Precision) -> tuple[Engine, Tokenizing, Precision]:
    place = _device(device)
    if precision == "auto":
        precision = "fp16" if place.type == "cuda" else "fp32"
    return *_loaded(folder, heads, place, precision), precision


def _openvino(folder: Path, digest: str, heads: Heads, device: str, precision: Precision) -> tuple[Engine, Tokenizing]:
    from m3retriever.encoders.exporting import openvino_parts
    from m3retriever.encoders.samples import SAMPLE

    if device not in ("auto", "cpu"):
        raise InvalidArgumentError(f"backend 'openvino' runs on device 'cpu'; got {device!r}: take backend='torch' for it")

    def load() -> tuple[TorchEngine, Tokenizing]:
        return _loaded(folder, heads, _device("cpu"), "fp32")

    return openvino_parts(digest, load, heads=heads, int8=precision == "int8", sample=SAMPLE, beside=folder)


def _loaded(folder: Path, heads: Heads, device: torch.device, precision: Precision) -> tuple[TorchEngine, Tokenizing]:
    from m3retriever.encoders.tokenizing import Tokenizing
    from m3retriever.encoders.torch_engine import TorchEngine

    loaded = _load(folder, precision, heads)
    network = loaded.model.eval().to(device)
    engine = TorchEngine(network.model, network.sparse_linear, network.colbert_linear, device, heads)
    return engine, Tokenizing.of(loaded.tokenizer)


def _load(folder: Path, precision: Precision, heads: Heads):  # type: ignore[no-untyped-def]  # untyped package
    """FlagEmbedding's model object, for its weights, heads and tokenizer."""
    from FlagEmbedding import BGEM3FlagModel

    from m3retriever.encoders.torch_engine import quiet_loading

    try:
        with quiet_loading():
            return BGEM3FlagModel(
                str(folder),
                normalize_embeddings=heads.normalize,
                use_fp16=precision == "fp16",
                use_bf16=precision == "bf16",
                devices="cpu",
                pooling_method=heads.pooling,
            )
    except Exception as error:  # whatever FlagEmbedding, transformers or torch raise on a damaged checkpoint
        reason = str(error).strip().splitlines() or [""]
        raise ModelLoadError(
            f"cannot load the checkpoint in {folder}, it is damaged or not what it says: {type(error).__name__}: {reason[0]}; "
            "download it again"
        ) from error
