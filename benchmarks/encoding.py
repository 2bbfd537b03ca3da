"""Encoding at BGE-M3's shape against FlagEmbedding.encode, in interleaved runs: torch and OpenVINO.

The checkpoint is made here, with random weights: what is measured is speed alone. How near int8 comes to fp32 is said by
`m3retriever doctor --fidelity` on a real model.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tests.checkpoints import CORPUS, tiny_xlm_roberta
from transformers import XLMRobertaConfig, XLMRobertaModel

from m3retriever import BGEM3Encoder

LAYERS, QUICK_LAYERS = 24, 4
DIM, VOCABULARY, POSITIONS = 1024, 250_002, 8194  # BGE-M3's
QUERY_TOKENS = 19
DOCUMENT_TOKENS = (20, 30, 40, 50, 60, 70, 80, 90, 110, 130, 160, 203)  # 1,043 in all
QUERY_ROUNDS, DOCUMENT_ROUNDS = 9, 5
HOW: dict[str, dict[str, str]] = {
    "torch fp32": {"precision": "fp32"},
    "torch bf16": {"precision": "bf16"},
    "openvino fp32": {"precision": "fp32", "backend": "openvino"},
    "openvino int8": {"precision": "int8", "backend": "openvino"},
}

Row = tuple[str, tuple[float, float, float]]


def rows(quick: bool = False) -> list[Row]:
    """What was run, and the minimum, median and maximum of FlagEmbedding's time over ours; `quick` takes 4 of 24 layers."""
    from FlagEmbedding import BGEM3FlagModel

    with tempfile.TemporaryDirectory() as place:
        folder = checkpoint(Path(place) / "model", layers=QUICK_LAYERS if quick else LAYERS)
        flag = BGEM3FlagModel(str(folder), use_fp16=False, devices="cpu")

        def theirs(given: Sequence[str]) -> object:
            return flag.encode(list(given), return_dense=True, return_sparse=True, return_colbert_vecs=True)

        found = []
        for name, how in HOW.items():
            encoder = BGEM3Encoder(folder, device="cpu", **how)
            found += _measured(name, encoder, theirs)
            del encoder
    return found


def _measured(name: str, encoder: BGEM3Encoder, theirs: Callable[[Sequence[str]], object]) -> list[Row]:
    query, documents = text(encoder, QUERY_TOKENS), [text(encoder, tokens) for tokens in DOCUMENT_TOKENS]
    encoded = encoder.encode_documents  # queries too: `encode_queries` would look the second one up
    return [
        (f"{name}, a query of {QUERY_TOKENS} tokens", ratio(lambda: theirs([query]), lambda: encoded([query]), QUERY_ROUNDS)),
        (
            f"{name}, {len(documents)} documents of {sum(DOCUMENT_TOKENS):,} tokens",
            ratio(lambda: theirs(documents), lambda: encoded(documents), DOCUMENT_ROUNDS),
        ),
    ]


def ratio(theirs: Callable[[], object], ours: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """Minimum, median and maximum of their time over ours, run in turn so that both meet the same noise."""
    ratios = []
    theirs(), ours()
    for _ in range(rounds):
        start = time.perf_counter()
        theirs()
        middle = time.perf_counter()
        ours()
        ratios.append((middle - start) / (time.perf_counter() - middle))
    return min(ratios), statistics.median(ratios), max(ratios)


def checkpoint(folder: Path, *, layers: int) -> Path:
    """A checkpoint of BGE-M3's shape with random weights, 2.3 GB at 24 layers; its tokenizer is a small one."""
    tiny_xlm_roberta(folder)
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=VOCABULARY, hidden_size=DIM, num_hidden_layers=layers, num_attention_heads=16, intermediate_size=4 * DIM,
        max_position_embeddings=POSITIONS, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2,
        layer_norm_eps=1e-5,
    )  # fmt: skip
    XLMRobertaModel(config).save_pretrained(folder)
    torch.save(torch.nn.Linear(DIM, DIM).state_dict(), folder / "colbert_linear.pt")
    torch.save(torch.nn.Linear(DIM, 1).state_dict(), folder / "sparse_linear.pt")
    return folder


def text(encoder: BGEM3Encoder, tokens: int) -> str:
    """Words of the tokenizer's own corpus, of so many tokens, special ones included."""
    words = " ".join(CORPUS).split()
    made = ""
    for word in words * (1 + tokens // len(words)):
        longer = f"{made} {word}".strip()
        if len(encoder.tokenize(longer)) + 1 > tokens:
            return made
        made = longer
    return made
