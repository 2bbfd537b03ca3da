"""Documents that move from one tenant to another, by whoever changes them, while others search."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import chromadb
from chromadb.config import Settings
from llama_index.core.vector_stores.types import (
    VectorStoreQuery,
)

from m3retriever import (
    ChromaStore,
    Document,
    HashingEncoder,
    M3Index,
)
from m3retriever.langchain import M3VectorStore
from m3retriever.llama_index import M3VectorStore as LlamaStore
from m3retriever.ranking import SEARCH_MODES
from torture.isolation import DIM

TWO = ("a", "b")
QUERY = "red sea"


def tenants(count: int) -> list[Document]:
    """Documents that take turns in belonging to a and to b."""
    return [Document(f"{row:03}", f"red fox {row} sea", {"tenant": TWO[row % 2]}) for row in range(count)]


def moved(document: Document) -> Document:
    """The same document in the other tenant's hands."""
    other = TWO[1 - TWO.index(document.metadata["tenant"])]
    return Document(document.id, document.text, {"tenant": other})


def seen_by(index: M3Index, tenant: str) -> dict[str, set[str]]:
    """The ids that each way to ask shows to a tenant."""
    where, vector = {"tenant": tenant}, index.encoder.encode_queries([QUERY]).dense[0]
    everyone, seen = index.ids(), {"ids": set(index.ids(where)), "find": {one.id for one in index.find(where)}}
    for mode in SEARCH_MODES:
        seen[mode] = {hit.document.id for hit in index.search(QUERY, 1000, mode=mode, where=where)}
    seen["vector"] = {hit.document.id for hit in index.search_by_vector(vector, 1000, where=where)}
    seen["diverse"] = {hit.document.id for hit in index.search_diverse(QUERY, 1000, where=where)}
    seen["scores"] = set(index.score(QUERY, where=where).ids)
    seen["scores of ids"] = set(index.score(QUERY, ids=everyone, where=where).ids)
    seen["langchain"] = {one.id or "" for one in M3VectorStore(index).similarity_search(QUERY, 1000, filter=where)}
    asked = VectorStoreQuery(query_str=QUERY, similarity_top_k=1000)
    seen["llama"] = set(LlamaStore(index).query(asked, where=where).ids or [])
    seen["explained"] = {id for id in everyone[:4] if index.explain(QUERY, id, where=where).stage != "filtered out"}
    seen["explained"] |= seen["ids"] - set(everyone[:4])
    return seen


def check_seen(indexes: list[M3Index], documents: list[Document]) -> int:
    """Each tenant sees its own documents, all of them, in every index and by every way to ask; how many looks that were."""
    looks = 0
    for index in indexes:
        for tenant in TWO:
            own = {one.id for one in documents if one.metadata["tenant"] == tenant}
            seen = seen_by(index, tenant)
            assert seen == dict.fromkeys(seen, own), tenant
            looks += len(seen)
    return looks


def check_moves(folder: Path, order: list[int], *, by: str) -> int:
    """Move documents one by one, by an index, another open store or a plain client of Chroma; nobody sees them any more."""
    documents = tenants(6)
    with ExitStack() as stack:
        indexes = [stack.enter_context(M3Index(HashingEncoder(DIM), ChromaStore(folder))) for _ in range(2)]
        indexes[0].add(documents)
        looks = check_seen(indexes, documents)
        for row in order:
            documents[row] = moved(documents[row])
            if by == "chroma":
                client = chromadb.PersistentClient(f"{folder}/.", settings=Settings(anonymized_telemetry=False))
                collection = client.get_collection("m3retriever", embedding_function=None)
                collection.update(ids=[documents[row].id], metadatas=[dict(documents[row].metadata)])
                client.close()
            else:
                indexes[by == "another store"].add([documents[row]])
            looks += check_seen(indexes, documents)
    return looks


def check_race(folder: Path, rounds: int) -> int:
    """Threads that search while documents move: a search begun after a move has returned no longer shows the document."""
    documents, begun, ended, done = tenants(8), [0] * 8, [0] * 8, threading.Event()
    failures: list[str] = []

    def look(index: M3Index, mode: Any) -> int:
        count = 0
        while not done.is_set():
            for tenant in TWO:
                where, before = {"tenant": tenant}, list(ended)
                hits = index.search(QUERY, 20, mode=mode, where=where)
                found = [*(hit.document.id for hit in hits), *index.ids(where), *index.score(QUERY, where=where).ids]
                at_rest = [row for row in map(int, found) if before[row] == begun[row]]  # no move touched them meanwhile
                failures.extend(f"{tenant} saw {row}" for row in at_rest if TWO[(row + before[row]) % 2] != tenant)
                failures.extend(f"{tenant} was shown {hit}" for hit in hits if hit.document.metadata["tenant"] != tenant)
                count += 1
        return count

    with M3Index(HashingEncoder(DIM), ChromaStore(folder)) as index, ThreadPoolExecutor(len(SEARCH_MODES)) as threads:
        index.add(documents)
        looking = [threads.submit(look, index, mode) for mode in SEARCH_MODES]
        try:
            for row in (turn % len(documents) for turn in range(rounds)):
                documents[row] = moved(documents[row])
                begun[row] += 1
                index.add([documents[row]])
                ended[row] += 1
        finally:
            done.set()
        searches = sum(one.result() for one in looking)
    assert not failures, failures[:3]
    return searches
