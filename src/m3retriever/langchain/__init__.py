"""M3Index for LangChain: classes that only translate, so that an app changes its imports and nothing else."""

from m3retriever.errors import MissingExtraError

try:
    import langchain_core  # noqa: F401  # said here, once, for all that is imported below
except ImportError as error:
    raise MissingExtraError("langchain-core", extra="langchain") from error

from m3retriever.langchain.retriever import M3Retriever

__all__ = ["M3Retriever"]
