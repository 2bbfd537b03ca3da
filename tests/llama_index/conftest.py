"""What the LlamaIndex tests share: stores of both kinds, encoders and stores that can wait, a handler that keeps events."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler

from m3retriever import ChromaStore, HashingEncoder, M3Index, M3Vectors, MemoryStore
from m3retriever.types import ModeScores, Where

BEATS = 5  # turns of the event loop that who waits wants to see
PATIENCE = 10  # seconds until it calls the loop blocked


class CountingEncoder(HashingEncoder):
    """Counts the texts it encodes."""

    def __init__(self) -> None:
        super().__init__()
        self.documents, self.queries = 0, 0

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> M3Vectors:
        self.documents += len(texts)
        return super().encode_documents(texts)

    def encode_queries(self, texts: Sequence[str]) -> M3Vectors:
        self.queries += len(texts)
        return super().encode_documents(texts)


class Waiting:
    """Once armed, does its work only while the event loop beats, and says so where it does not."""

    def __init__(self) -> None:
        super().__init__()
        self.beating = threading.Event()
        self.armed = self.waited = False

    def wait(self) -> None:
        if self.armed:
            self.waited = True
            if not self.beating.wait(PATIENCE):
                raise RuntimeError("the event loop is blocked")

    async def during(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do the work while a heart beats beside it; who waits, waits for the heart."""
        self.armed, self.waited = True, False
        self.beating.clear()

        async def heart() -> None:
            for _ in range(BEATS):
                await asyncio.sleep(0.001)
            self.beating.set()

        done, _ = await asyncio.gather(work, heart())
        assert self.waited, "nothing was waited for"
        return done


class WaitingEncoder(Waiting, HashingEncoder):
    """Waits before it encodes."""

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> M3Vectors:
        self.wait()
        return super().encode_documents(texts)


class WaitingStore(Waiting, MemoryStore):
    """Waits before it scores."""

    def search(self, query: M3Vectors, *, depth: int, where: Where | None = None) -> ModeScores:
        self.wait()
        return super().search(query, depth=depth, where=where)


class Recorder(BaseEventHandler):
    """Keeps the events it is told of."""

    events: list[Any] = []  # noqa: RUF012  # a pydantic field: every instance has its own

    def handle(self, event: Any, **told: Any) -> None:
        self.events.append(event)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def counting() -> CountingEncoder:
    return CountingEncoder()


@pytest.fixture
def waiting() -> WaitingEncoder:
    return WaitingEncoder()


@pytest.fixture
def waiting_store() -> WaitingStore:
    return WaitingStore()


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    handler, dispatcher = Recorder(), get_dispatcher()
    dispatcher.add_event_handler(handler)
    yield handler
    dispatcher.event_handlers.remove(handler)


@pytest.fixture(params=["memory", "chroma"])
def empty_index(request: pytest.FixtureRequest, tmp_path: Path, counting: CountingEncoder) -> Iterator[M3Index]:
    """An index of each kind without documents; its encoder counts."""
    store = MemoryStore() if request.param == "memory" else ChromaStore(tmp_path / "index")
    with M3Index(counting, store) as index:
        yield index


@pytest.fixture
def memory_index(counting: CountingEncoder) -> M3Index:
    return M3Index(counting, MemoryStore())


@pytest.fixture(scope="module")
def module_index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], M3Index]]:
    """Makes an empty index that lives as long as the module: "memory" or "chroma"."""
    made: list[M3Index] = []

    def make(kind: str) -> M3Index:
        store: Any = MemoryStore() if kind == "memory" else ChromaStore(tmp_path_factory.mktemp("index"))
        made.append(M3Index(HashingEncoder(), store))
        return made[-1]

    yield make
    for index in made:
        index.close()
