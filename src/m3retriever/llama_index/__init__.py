"""M3Index for LlamaIndex: classes that only translate, so that an app changes its imports and nothing else."""

from m3retriever.errors import MissingExtraError

try:
    import llama_index.core  # noqa: F401  # said here, once, for all that is imported below
except ImportError as error:
    raise MissingExtraError("llama-index-core", extra="llama-index") from error

from m3retriever.llama_index.embeddings import M3Embedding, M3SparseEmbedding, StoreEmbedding
from m3retriever.llama_index.events import M3RetrievalEndEvent, M3RetrievalStartEvent
from m3retriever.llama_index.filters import as_where
from m3retriever.llama_index.llm import ExtractiveLLM
from m3retriever.llama_index.nodes import M3NodeWithScore, to_document, to_node
from m3retriever.llama_index.rerank import M3Rerank
from m3retriever.llama_index.retriever import M3Retriever
from m3retriever.llama_index.vectorstore import M3VectorStore

__all__ = [
    "ExtractiveLLM",
    "M3Embedding",
    "M3NodeWithScore",
    "M3Rerank",
    "M3RetrievalEndEvent",
    "M3RetrievalStartEvent",
    "M3Retriever",
    "M3SparseEmbedding",
    "M3VectorStore",
    "StoreEmbedding",
    "as_where",
    "to_document",
    "to_node",
]
