"""LangChain's own suite for vector stores, sync and async, as it is, over both stores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import VectorStoreIntegrationTests

from m3retriever import HashingEncoder, M3Index, MemoryStore
from m3retriever.langchain import M3VectorStore


class TestInMemory(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self) -> VectorStore:
        return M3VectorStore(M3Index(HashingEncoder(), MemoryStore()))


class TestOverChroma(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> Iterator[VectorStore]:
        store = M3VectorStore.open(tmp_path, model="hashing")
        yield store
        store.index.close()
