"""Vectors of texts that are in no index, such as those typed on the page Pairs; the model sees each once in each role."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import streamlit as st

from m3retriever import M3Index, M3Vectors
from m3retriever.inspector import retrieval
from m3retriever.inspector.source import Source

TOKENS_KEPT = 65_536  # token vectors: 256 MB at BGE-M3's dimension

Role = Literal["query", "document"]


class Kept:
    """Vectors of one text each, the latest used, of TOKENS_KEPT tokens at most; safe to use from several threads."""

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[Role, str], M3Vectors] = OrderedDict()
        self._tokens = 0
        self._lock = threading.Lock()

    def get(self, role: Role, text: str) -> M3Vectors | None:
        """What is kept of a text."""
        with self._lock:
            if (role, text) in self._held:
                self._held.move_to_end((role, text))
            return self._held.get((role, text))

    def put(self, role: Role, text: str, vectors: M3Vectors) -> None:
        """Keep a text's vectors, and let the oldest go."""
        with self._lock:
            if (role, text) not in self._held:
                self._held[role, text] = vectors
                self._tokens += len(vectors.colbert)
            while self._tokens > TOKENS_KEPT and len(self._held) > 1:
                _, oldest = self._held.popitem(last=False)
                self._tokens -= len(oldest.colbert)


@st.cache_resource(show_spinner=False, max_entries=retrieval.STATES_KEPT)
def _kept(model: str, precision: str | None) -> Kept:
    return Kept()


def vectors(index: M3Index, source: Source, role: Role, texts: Sequence[str]) -> list[M3Vectors]:
    """One text's vectors each, encoded as queries or as documents; those that are not kept together in one call."""
    state = retrieval.state_of(index, source)
    kept = _kept(state.model, state.precision)
    found = {text: kept.get(role, text) for text in texts}
    lacking = [text for text, held in found.items() if held is None]
    if lacking:
        encode = index.encoder.encode_queries if role == "query" else index.encoder.encode_documents
        for text, row in zip(lacking, encode(lacking), strict=True):
            found[text] = row.copy()
            kept.put(role, text, row.copy())
    return [held for text in texts if (held := found[text]) is not None]
