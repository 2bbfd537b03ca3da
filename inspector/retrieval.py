"""The open index and what is cached about it: scores are computed once, then weights move for free."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import streamlit as st

from m3retriever import ChromaStore, M3Index, M3Vectors, ModeScores, StoreError
from m3retriever.inspector.source import Source

QUERIES_KEPT = 200
QUERY_CHARACTERS = 2_000  # more is a document; it would also fill the address bar


@st.cache_resource(show_spinner=False)
def open_index(source: Source) -> M3Index:
    """The index, opened once per process.

    Raises
    ------
    StoreError
        There is no such index. Opening it would make an empty one, and load a model for nothing.
    """
    if not ChromaStore.exists(source.path, source.collection):
        raise StoreError(f"there is no index in {source.name}: add documents first, or give another path or collection")
    return M3Index.open(source.path, collection=source.collection, profile=source.profile)


def raw_scores(index: M3Index, source: Source, query: str, *, k: int) -> ModeScores:
    """The candidates of a query in every mode: those that `index.search(query, k)` ranks."""
    return _raw_scores(
        index,
        query,
        depth=max(index.profile.depth, k),
        model=index.encoder.name,
        revision=revision(index),
        key=(source.path, source.collection),
    )


def query_vectors(index: M3Index, query: str) -> M3Vectors:
    """A query's vectors; the model sees each query once."""
    return _query_vectors(index, query, model=index.encoder.name)


def revision(index: M3Index) -> int:
    """A number that grows when the index changes, also from another process."""
    return index.store.revision() if isinstance(index.store, ChromaStore) else 0


@st.cache_data(max_entries=QUERIES_KEPT, show_spinner=False)
def _query_vectors(_index: M3Index, query: str, *, model: str) -> M3Vectors:
    return _index.encoder.encode_queries([query])


@st.cache_data(max_entries=QUERIES_KEPT, show_spinner=False)
def _raw_scores(
    _index: M3Index, query: str, *, depth: int, model: str, revision: int, key: tuple[Path, str | None]
) -> ModeScores:
    return replace(_index.store.search(_query_vectors(_index, query, model=model), depth=depth), query=query)
