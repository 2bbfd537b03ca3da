"""What the LangChain tests share: a small index over both stores, a slow encoder, a beating heart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from m3retriever import ChromaStore, Document, HashingEncoder, M3Index, M3Vectors, MemoryStore, ModeScores, Profile
from m3retriever.types import Where

PAUSE = 0.4  # seconds a slow step takes
DOCUMENTS = [
    Document("pie", "apple pie", {"lang": "en", "year": 2020}),
    Document("long", "a red car stands before the old red house on the hill with an apple tree", {"lang": "en"}),
    Document("tart", "red apple tart and apple pie for all", {"lang": "de", "tags": ["sweet", "warm"]}),
    Document("red", "red red red", {"lang": "de"}),
    Document("far", "trains leave at noon", {"lang": "en"}),
]


class SlowEncoder(HashingEncoder):
    """Blocks its thread for a while over every text, as a real model does."""

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> M3Vectors:
        time.sleep(PAUSE)
        return super().encode_documents(texts, progress=progress)


class SlowStore(MemoryStore):
    """Blocks its thread for a while over every search, as a large index does."""

    def search(self, query: M3Vectors, *, depth: int, where: Where | None = None) -> ModeScores:
        time.sleep(PAUSE)
        return super().search(query, depth=depth, where=where)


def make_index(store: Any, encoder: HashingEncoder | None = None, profile: Profile | None = None) -> M3Index:
    index = M3Index(encoder or HashingEncoder(), store, profile)
    index.add(DOCUMENTS)
    return index


@pytest.fixture
def documents() -> list[Document]:
    return list(DOCUMENTS)


@pytest.fixture
def filled() -> Callable[..., M3Index]:
    """Makes an index with `documents` over a store."""
    return make_index


@pytest.fixture
def index() -> M3Index:
    return make_index(MemoryStore())


@pytest.fixture(params=["memory", "chroma"])
def any_index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[M3Index]:
    with make_index(MemoryStore() if request.param == "memory" else ChromaStore(tmp_path / "index")) as index:
        yield index


@pytest.fixture
def slow_encoder() -> HashingEncoder:
    return SlowEncoder()


@pytest.fixture(params=["encoding", "scoring"])
def slow_index(request: pytest.FixtureRequest) -> M3Index:
    """An index in which one step of a search takes PAUSE seconds."""
    return make_index(MemoryStore(), SlowEncoder()) if request.param == "encoding" else make_index(SlowStore())


@pytest.fixture
def slow_scoring_index() -> M3Index:
    return make_index(SlowStore())


@pytest.fixture
def beats_during() -> Callable[[Coroutine[Any, Any, Any]], Awaitable[int]]:
    """Counts how often another task had its turn meanwhile; 20 in a PAUSE during which nothing blocks the loop."""

    async def count(work: Coroutine[Any, Any, Any]) -> int:
        beats = 0

        async def heart() -> None:
            nonlocal beats
            while True:
                await asyncio.sleep(PAUSE / 20)
                beats += 1

        task = asyncio.create_task(heart())
        await work
        task.cancel()
        return beats

    return count
