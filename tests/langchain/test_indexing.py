"""langchain_core.indexing over M3VectorStore: every cleanup mode, run again and again, sync and async."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, aindex, index

from m3retriever import M3Index
from m3retriever.langchain import M3VectorStore


class Pipeline:
    """A store with a record manager, indexed in one cleanup mode, sync or async."""

    def __init__(self, over: M3Index, cleanup: Any, *, asynchronous: bool) -> None:
        self.store = M3VectorStore(over)
        over.delete(over.ids())
        self.records = InMemoryRecordManager(namespace="test")
        self.records.create_schema()
        self.cleanup, self.asynchronous = cleanup, asynchronous

    async def run(self, documents: list[Document], **settings: Any) -> tuple[int, ...]:
        """(added, updated, skipped, deleted)."""
        given: dict[str, Any] = {"cleanup": self.cleanup, "source_id_key": "source", "key_encoder": "sha256", **settings}
        copies = [document.model_copy(deep=True) for document in documents]
        if self.asynchronous:
            result = await aindex(documents, self.records, self.store, **given)
        else:
            result = index(documents, self.records, self.store, **given)
        assert documents == copies
        return tuple(result[f"num_{what}"] for what in ("added", "updated", "skipped", "deleted"))  # type: ignore[literal-required]

    def texts(self) -> list[str]:
        return sorted(document.text for document in self.store.index.get(self.store.index.ids()))


@pytest.fixture(params=["sync", "async"])
def asynchronous(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "async")


def document(text: str, source: str) -> Document:
    return Document(text, metadata={"source": source})


APPLE, CAR, TRAIN = document("apple pie", "a.md"), document("red car", "a.md"), document("trains leave", "b.md")
NEW_CAR = document("blue car", "a.md")


@pytest.mark.parametrize(
    ("cleanup", "after_change", "after_loss"),
    [
        (None, ["apple pie", "blue car", "red car", "trains leave"], ["apple pie", "blue car", "red car", "trains leave"]),
        ("incremental", ["apple pie", "blue car", "trains leave"], ["apple pie", "blue car", "trains leave"]),
        ("scoped_full", ["apple pie", "blue car", "trains leave"], ["apple pie", "blue car", "trains leave"]),
        ("full", ["apple pie", "blue car", "trains leave"], ["apple pie", "blue car"]),
    ],
)
async def test_each_cleanup_mode_keeps_the_store_in_step(
    any_index: M3Index, cleanup: Any, after_change: list[str], after_loss: list[str], asynchronous: bool
) -> None:
    pipeline = Pipeline(any_index, cleanup, asynchronous=asynchronous)
    first, changed, lost = [APPLE, CAR, TRAIN], [APPLE, NEW_CAR, TRAIN], [APPLE, NEW_CAR]
    assert await pipeline.run(first) == (3, 0, 0, 0)
    for _ in range(2):
        assert await pipeline.run(first) == (0, 0, 3, 0)
    assert await pipeline.run(changed) == (1, 0, 2, 0 if cleanup is None else 1)
    assert pipeline.texts() == after_change
    assert await pipeline.run(changed) == (0, 0, 3, 0)
    assert await pipeline.run(lost) == (0, 0, 2, len(after_change) - len(after_loss))
    assert pipeline.texts() == after_loss
    [best] = pipeline.store.similarity_search("blue car", k=1, filter={"source": "a.md"})
    assert best.page_content == "blue car"


@pytest.mark.parametrize("cleanup", [None, "incremental", "scoped_full", "full"])
async def test_small_batches_and_duplicates_come_to_the_same(any_index: M3Index, cleanup: Any, asynchronous: bool) -> None:
    pipeline = Pipeline(any_index, cleanup, asynchronous=asynchronous)
    documents = [document(f"text {number}", f"{number // 4}.md") for number in range(10)]
    assert await pipeline.run([*documents, *documents[:3]], batch_size=4) == (10, 0, 3, 0)
    assert await pipeline.run(documents, batch_size=100) == (0, 0, 10, 0)
    assert pipeline.texts() == sorted(one.page_content for one in documents)


async def test_a_forced_update_writes_again(any_index: M3Index, asynchronous: bool) -> None:
    pipeline = Pipeline(any_index, "incremental", asynchronous=asynchronous)
    await pipeline.run([APPLE, TRAIN])
    assert await pipeline.run([APPLE, TRAIN], force_update=True) == (0, 2, 0, 0)
    assert pipeline.texts() == ["apple pie", "trains leave"]


async def test_an_emptied_source_empties_the_store_in_full_mode(any_index: M3Index, asynchronous: bool) -> None:
    pipeline = Pipeline(any_index, "full", asynchronous=asynchronous)
    await pipeline.run([APPLE, TRAIN])
    assert await pipeline.run([]) == (0, 0, 0, 2)
    assert pipeline.texts() == []


async def test_documents_deleted_behind_the_record_managers_back_do_no_harm(any_index: M3Index, asynchronous: bool) -> None:
    pipeline = Pipeline(any_index, "full", asynchronous=asynchronous)
    await pipeline.run([APPLE, CAR, TRAIN])
    any_index.delete(any_index.ids(where={"source": "a.md"}))
    assert await pipeline.run([TRAIN]) == (0, 0, 1, 2)
    assert pipeline.texts() == ["trains leave"]
