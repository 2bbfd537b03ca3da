"""What a LlamaIndex event handler hears of a retrieval, beside LlamaIndex's own two events.

LlamaIndex's RetrievalEndEvent names its nodes as plain NodeWithScore, so that a dump of it loses the
scores of the modes. These keep them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import llama_index.core.instrumentation as instrument
from llama_index.core.instrumentation.events import BaseEvent

from m3retriever.llama_index.nodes import M3NodeWithScore

dispatcher = instrument.get_dispatcher(__name__)  # type: ignore[attr-defined]  # public, but not re-exported by name


class M3RetrievalStartEvent(BaseEvent):
    """A search begins.

    Attributes
    ----------
    query : the text that is asked
    settings : what the search was told, such as k, mode and where
    """

    query: str
    settings: dict[str, Any]

    @classmethod
    def class_name(cls) -> str:
        return "M3RetrievalStartEvent"


class M3RetrievalEndEvent(BaseEvent):
    """A search has ended.

    Attributes
    ----------
    query : the text that was asked
    nodes : what it found, best first, with the scores and ranks of every mode; a later change of a score,
        as in LlamaIndex's fusion, does not reach them
    """

    query: str
    nodes: list[M3NodeWithScore]

    @classmethod
    def class_name(cls) -> str:
        return "M3RetrievalEndEvent"


def tell_start(query: str, settings: Mapping[str, Any]) -> None:
    """Send M3RetrievalStartEvent to all handlers; what is not a text the index refuses, not the event."""
    dispatcher.event(M3RetrievalStartEvent(query=str(query), settings=dict(settings)))


def tell_end(query: str, nodes: Sequence[M3NodeWithScore]) -> None:
    """Send M3RetrievalEndEvent to all handlers."""
    dispatcher.event(M3RetrievalEndEvent(query=query, nodes=[node.model_copy() for node in nodes]))
