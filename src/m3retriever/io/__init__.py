"""Files in, values out: documents, questions, judgements and runs."""

from m3retriever.io.documents import read_documents
from m3retriever.io.judgements import GoldenQuestion, read_golden, read_qrels, read_queries, read_run, write_run

__all__ = ["GoldenQuestion", "read_documents", "read_golden", "read_qrels", "read_queries", "read_run", "write_run"]
