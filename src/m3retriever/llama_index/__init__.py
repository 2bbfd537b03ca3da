"""M3Index for LlamaIndex: classes that only translate, so that an app changes its imports and nothing else."""

from m3retriever.errors import MissingExtraError

try:
    import llama_index.core  # noqa: F401  # said here, once, for all that is imported below
except ImportError as error:
    raise MissingExtraError("llama-index-core", extra="llama-index") from error

from m3retriever.llama_index.retriever import M3NodeWithScore, M3Retriever

__all__ = ["M3NodeWithScore", "M3Retriever"]
