"""Files in, values out: documents, questions, judgements and runs."""

from m3retriever.io.documents import read_documents
from m3retriever.io.judgements import (
    GoldenQuestion,
    golden_text,
    read_golden,
    read_qrels,
    read_queries,
    read_run,
    run_text,
    write_golden,
    write_run,
)
from m3retriever.io.writing import replace_text

__all__ = [
    "GoldenQuestion",
    "golden_text",
    "read_documents",
    "read_golden",
    "read_qrels",
    "read_queries",
    "read_run",
    "replace_text",
    "run_text",
    "write_golden",
    "write_run",
]
