"""Adding documents: in which runs, which of them are new, and what it came to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from m3retriever.types import Document

BATCH = 256  # documents encoded and stored at a time: bounds what a crash can cost
BATCH_CHARACTERS = 400_000  # and their texts: about 100,000 tokens, whose vectors take 400 MB at d = 1024


@dataclass(frozen=True)
class Added:
    """What `add` did: how many documents were new, replaced an older one, or were there already."""

    new: int = 0
    replaced: int = 0
    unchanged: int = 0

    def __add__(self, other: Added) -> Added:
        return Added(self.new + other.new, self.replaced + other.replaced, self.unchanged + other.unchanged)


def same(document: Document, held: Document | None) -> bool:
    """Whether a document is held already, text and metadata alike; values of other types are not alike."""
    if held is None or document.text != held.text:
        return False
    stored = {key: value for key, value in document.metadata.items() if value is not None}
    kept = dict(held.metadata)
    return stored == kept and all(_types(stored[key]) == _types(kept[key]) for key in stored)


def _types(value: Any) -> list[type]:
    return [type(one) for one in value] if isinstance(value, list) else [type(value)]


def batches(documents: Sequence[Document]) -> Iterator[Sequence[Document]]:
    """Runs of documents, at least one each, within BATCH documents and BATCH_CHARACTERS characters."""
    start, characters = 0, 0
    for place, document in enumerate(documents):
        characters += len(document.text)
        if place > start and (place - start >= BATCH or characters > BATCH_CHARACTERS):
            yield documents[start:place]
            start, characters = place, len(document.text)
    if documents:
        yield documents[start:]
