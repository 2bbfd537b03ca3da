"""How much each benchmark does: by default, with --quick, and in the tests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Numbers of rounds, documents and dimensions; what a field is for says the module that reads it."""

    rounds: int
    dim: int
    candidates: int  # of MaxSim, each with so many
    tokens: int
    sparse_documents: tuple[int, ...]
    dense_documents: tuple[int, ...]
    lexical_sample: int  # documents through FlagEmbedding's lexical loop
    texts: int  # of the demo's docstrings, encoded by the mini model
    together: int  # queries of one search_many
    search_documents: int  # synthetic, with `tokens` token vectors each
    ingest_batches: int
    peak_documents: tuple[int, ...]
    real_encoding: bool = True  # BGE-M3's shape, which takes 2 GB and more


FULL = Size(
    rounds=15, dim=1024, candidates=1000, tokens=120, sparse_documents=(100_000, 1_000_000), dense_documents=(32_768, 100_000),
    lexical_sample=2_000, texts=1_000, together=32, search_documents=2_000, ingest_batches=12,
    peak_documents=(1_000, 10_000),
)  # fmt: skip
QUICK = Size(
    rounds=7, dim=1024, candidates=1000, tokens=120, sparse_documents=(100_000,), dense_documents=(32_768,),
    lexical_sample=1_000, texts=200, together=32, search_documents=500, ingest_batches=4, peak_documents=(1_000,),
)  # fmt: skip
TINY = Size(
    rounds=1, dim=32, candidates=5, tokens=6, sparse_documents=(300,), dense_documents=(300,), lexical_sample=20, texts=12,
    together=3, search_documents=60, ingest_batches=1, peak_documents=(60,), real_encoding=False,
)  # fmt: skip
