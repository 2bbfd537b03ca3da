"""Encoding and MaxSim against FlagEmbedding, in interleaved runs on this machine.

Prints ratios (FlagEmbedding's time over ours; above 1 is faster), n and the machine. Absolute times on a
shared machine mean little; ratios within one run do. Needs the extras of `make test`.
"""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from tests.checkpoints import mini_as_folder

from m3retriever import BGEM3Encoder
from m3retriever.demo.corpus import standard_library_documents
from m3retriever.kernels import maxsim_int8, quantize
from m3retriever.vectors import offsets

ROUNDS = 7
DIM, QUERY_TOKENS, DOCUMENT_TOKENS, CANDIDATES = 1024, 32, 120, 400


def ratio(theirs: Callable[[], object], ours: Callable[[], object], rounds: int = ROUNDS) -> tuple[float, float, float]:
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


def encoding(folder: Path) -> list[tuple[str, tuple[float, float, float]]]:
    """The same checkpoint (MiniLM in BGE-M3's layout, fp32), all three modes, through both."""
    from FlagEmbedding import BGEM3FlagModel

    flag = BGEM3FlagModel(str(folder), use_fp16=False, devices="cpu", pooling_method="mean")
    encoder = BGEM3Encoder(folder, pooling="mean", precision="fp32", max_length=256)
    documents = [document.text for document in standard_library_documents()[:200:4]]

    def theirs(texts: Sequence[str]) -> object:
        return flag.encode(list(texts), max_length=256, return_dense=True, return_sparse=True, return_colbert_vecs=True)

    query = ["join two folder names into one path"]
    return [
        ("encode one query", ratio(lambda: theirs(query), lambda: encoder.encode_queries(query), 21)),
        (
            f"encode {len(documents)} documents",
            ratio(lambda: theirs(documents), lambda: encoder.encode_documents(documents), 3),
        ),
    ]


def maxsim() -> tuple[str, tuple[float, float, float]]:
    """FlagEmbedding's `colbert_score` per document in fp32, against int8 codes with a scale per token."""
    from FlagEmbedding.inference.embedder.encoder_only.m3 import M3Embedder

    random = np.random.default_rng(0)

    def units(count: int) -> np.ndarray:
        vectors = random.standard_normal((count, DIM), dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    query, documents = units(QUERY_TOKENS), [units(DOCUMENT_TOKENS) for _ in range(CANDIDATES)]
    codes, scales = quantize(np.concatenate(documents))
    bounds = offsets([DOCUMENT_TOKENS] * CANDIDATES)
    found = ratio(
        lambda: [M3Embedder.colbert_score(None, query, document) for document in documents],
        lambda: maxsim_int8(query, codes, scales, bounds),
    )
    return f"MaxSim, {CANDIDATES} x {DOCUMENT_TOKENS} tokens, d={DIM}", found


def main() -> None:
    """Run everything and print the table."""
    warnings.simplefilter("ignore")  # of FlagEmbedding and what it imports
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, "
          f"{torch.get_num_threads()} threads, Python {platform.python_version()}")  # fmt: skip
    print(f"FlagEmbedding's time / ours, minimum median maximum of interleaved rounds\n{'':<44}   min  median   max")
    with tempfile.TemporaryDirectory() as folder:
        rows = [*encoding(mini_as_folder(Path(folder) / "model")), maxsim()]
    for name, (low, middle, high) in rows:
        print(f"{name:<44} {low:5.1f}  {middle:5.1f}  {high:5.1f}")


if __name__ == "__main__":
    main()
