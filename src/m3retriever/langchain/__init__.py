"""M3Index for LangChain: classes that only translate, so that an app changes its imports and nothing else."""

from m3retriever.errors import MissingExtraError

try:
    import langchain_core  # noqa: F401  # said here, once, for all that is imported below
except ImportError as error:
    raise MissingExtraError("langchain-core", extra="langchain") from error

from m3retriever.langchain.chat import ExtractiveChatModel
from m3retriever.langchain.embeddings import M3Embeddings, M3SparseEmbeddings, SparseVector
from m3retriever.langchain.reranker import M3Reranker
from m3retriever.langchain.retriever import M3Retriever, M3VectorStoreRetriever
from m3retriever.langchain.vectorstore import M3VectorStore

__all__ = [
    "ExtractiveChatModel",
    "M3Embeddings",
    "M3Reranker",
    "M3Retriever",
    "M3SparseEmbeddings",
    "M3VectorStore",
    "M3VectorStoreRetriever",
    "SparseVector",
]
