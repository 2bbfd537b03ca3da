"""A ChromaStore's way to Chroma: client, collection, and the folder of the payload.

Embedded Chroma caches one engine per path and process, and an engine never learns what another one
wrote: its vector index stays as it was, and even `get` does not show what a killed process had only
just logged. A connection to a folder therefore has an engine of its own, and `renew` opens another.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import sqlite3
import tempfile
import threading
import weakref
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from m3retriever.errors import InvalidArgumentError, InvalidFilterError, StoreError
from m3retriever.vectors import FloatArray

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

DEFAULT_COLLECTION = "m3retriever"
ALIASES = {None: DEFAULT_COLLECTION, "m3": DEFAULT_COLLECTION}  # "m3" itself is too short for Chroma
COLLECTION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,510}[A-Za-z0-9]")  # Chroma's own rule
DATABASE = "chroma.sqlite3"  # in Chroma's folder
PAYLOAD_FOLDER = "m3"  # inside Chroma's folder
CACHE = Path.home() / ".cache" / "m3retriever"  # payloads of servers: they can be rebuilt from the texts
RETIRED_KEPT = 3  # engines that are kept for calls under way when others take their place
EF_SEARCH = 800  # HNSW's candidate list: at least twice the depth keeps recall up on clustered data


class Connection:
    """One collection of a folder, of a client of the caller's, or of a server.

    Attributes
    ----------
    collection : the Chroma collection; `renew` replaces it
    remote : whether a server answers, whose vector index is never behind
    """

    collection: Collection

    def __init__(
        self,
        name: str | None,
        *,
        path: str | Path | None = None,
        client: ClientAPI | None = None,
        host: str | None = None,
        port: int = 0,
        create: bool = True,
    ) -> None:
        if sum(given is not None for given in (path, client, host)) != 1:
            raise InvalidArgumentError("ChromaStore takes exactly one of path, client and host")
        self._name, self._create = collection_name(name), create
        self._retired: list[FolderEngine] = []
        self._engine = FolderEngine(path) if path is not None else None
        if self._engine is not None:
            self._client = self._engine.client
        else:
            self._client = client if client is not None else _server(str(host), port)
        settings = self._client.get_settings()
        self.remote = "fastapi" in settings.chroma_api_impl.lower()
        self._folder = Path(settings.persist_directory).resolve() if settings.is_persistent and not self.remote else None
        self._open()

    @property
    def renewable(self) -> bool:
        """Whether `renew` makes the vector index fresh; a caller's embedded client stays as it is."""
        return self._engine is not None or self.remote

    def get(self, **arguments: Any) -> Any:
        """The collection's `get`; StoreError where Chroma fails."""
        return self._call("get", arguments)

    def nearest(self, vector: FloatArray, count: int) -> list[str]:
        """Ids of the documents whose dense vectors are nearest, by HNSW: nearly the best ones."""
        found: list[str] = self._call("query", {"query_embeddings": [vector], "n_results": count, "include": []})["ids"][0]
        return found

    @property
    def ef_search(self) -> int:
        """Length of HNSW's candidate list: more than half of it should not be asked for."""
        return int((self.collection.configuration_json.get("hnsw") or {}).get("ef_search") or 0)

    def upsert(self, **arguments: Any) -> None:
        """The collection's `upsert`."""
        self._call("upsert", arguments)

    def update(self, **arguments: Any) -> None:
        """The collection's `update`."""
        self._call("update", arguments)

    def dim(self) -> int | None:
        """Dimension of the dense vectors that Chroma holds; None where it holds none."""
        found = self.get(limit=1, include=["embeddings"])["embeddings"]
        return len(found[0]) if found is not None and len(found) else None

    def delete(self, ids: list[str]) -> None:
        """The collection's `delete`."""
        self._call("delete", {"ids": ids})

    def count(self) -> int:
        """How many documents Chroma holds."""
        quick = None if self._folder is None else _quick_count(self._folder / DATABASE, str(self.collection.id))
        return int(self._call("count", {})) if quick is None else quick

    def _call(self, method: str, arguments: dict[str, Any]) -> Any:
        try:
            return getattr(self.collection, method)(**arguments)
        except Exception as error:  # Chroma's own errors, the network's, and its core's alike
            if "Regex syntax" in str(error):
                raise InvalidFilterError(f"Chroma does not take this regular expression: {error}") from error
            raise StoreError(f"Chroma failed to {method}: {type(error).__name__}: {error}") from error

    def renew(self) -> None:
        """Learn what another process has written; the caller holds the right to write."""
        if self._engine is not None:
            self._retired.append(self._engine)  # other threads may be in the middle of a call to it
            while len(self._retired) > RETIRED_KEPT:
                self._retired.pop(0).close()
            self._engine = FolderEngine(self._engine.folder)
            self._client = self._engine.client
            self._open()
        elif self._folder is not None:  # the caller's engine stays; a fresh one makes Chroma work through its log
            other = FolderEngine(self._folder)
            other.client.get_collection(self._name, embedding_function=None).get(limit=1, include=[])
            other.close()

    def close(self) -> None:
        """Let go of the engine; a client of the caller's stays open."""
        for engine in self._retired:
            engine.close()
        if self._engine is not None:
            self._engine.close()

    def payload_folder(self, given: str | Path | None) -> tuple[Path, bool]:
        """Where the payload lies, and whether it is to be deleted in the end."""
        if given is not None:
            return Path(given) / self._name, False
        if self.remote:
            return CACHE / str(self.collection.id) / self._name, False
        if self._folder is not None:
            return self._folder / PAYLOAD_FOLDER / self._name, False
        return Path(tempfile.mkdtemp(prefix="m3retriever-")) / self._name, True

    def _open(self) -> None:
        configuration = {"hnsw": {"space": "cosine", "ef_search": EF_SEARCH}}
        try:
            if self._create:
                self.collection = self._client.get_or_create_collection(
                    self._name, embedding_function=None, configuration=configuration  # type: ignore[arg-type]  # a TypedDict
                )  # fmt: skip
            else:
                self.collection = self._client.get_collection(self._name, embedding_function=None)
        except Exception as error:
            self.close()
            raise StoreError(f"cannot open the collection {self._name!r}: {error}") from error


class FolderEngine:
    """Chroma embedded in this process, on a folder, shared with no one."""

    _taken: ClassVar[dict[Path, set[int]]] = defaultdict(set)
    _guard = threading.RLock()
    _alive: ClassVar[weakref.WeakSet[FolderEngine]] = weakref.WeakSet()

    def __init__(self, path: str | Path) -> None:
        import chromadb
        from chromadb.config import Settings

        self.folder = Path(path).resolve()
        with self._guard:
            self._number = next(number for number in itertools.count(1) if number not in self._taken[self.folder])
            self._taken[self.folder].add(self._number)
        alias = str(self.folder) + "/." * self._number  # the same folder under a name that has no engine yet
        try:
            self.client: ClientAPI = chromadb.PersistentClient(path=alias, settings=Settings(anonymized_telemetry=False))
        except Exception as error:  # Chroma raises its own types, OSError, ValueError and panics of its core alike
            self._taken[self.folder].discard(self._number)
            raise StoreError(f"cannot open the Chroma folder {path}: {error}") from error
        self._alive.add(self)

    def close(self) -> None:
        """End the engine; closing again does nothing."""
        self.client.close()  # type: ignore[attr-defined]  # Client has it, its interface does not say so
        with self._guard:
            self._taken[self.folder].discard(self._number)


def _keep_parents_engines() -> None:
    """In a forked child: an inherited engine must never be destroyed, for it would wait for its threads, which
    did not come along, and the child would hang at its end. Chroma's own clients have that fault."""
    for engine in FolderEngine._alive:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine.client))
    FolderEngine._guard = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_parents_engines)


def collection_name(given: str | None) -> str:
    """The name in Chroma; the default for None. InvalidArgumentError for one that Chroma would refuse."""
    name = ALIASES.get(given, given)
    if not isinstance(name, str) or not COLLECTION_NAME.fullmatch(name):
        raise InvalidArgumentError(f"a collection name has 3 to 512 characters from [a-zA-Z0-9._-]; got {given!r}")
    return name


def collections_in(path: str | Path) -> list[str]:
    """Names of the Chroma collections in a folder; none where it holds no Chroma. Changes nothing but what a
    killed writer left half done."""
    database = Path(path) / DATABASE
    if not database.is_file():
        return []
    mode = "rw" if Path(f"{database}-journal").is_file() else "ro"  # what a killed writer began must be rolled back first
    try:
        with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode={mode}", uri=True)) as connected:
            return [name for (name,) in connected.execute("select name from collections")]
    except sqlite3.Error as error:
        raise StoreError(f"cannot read {database}: {error}; is it a Chroma database?") from error


def _quick_count(database: Path, collection: str) -> int | None:
    """As Chroma's `count`, which took half a second for 100,000 documents, and this 8 ms.

    None where Chroma's log holds what its tables do not show yet, and where its tables are not as they were in 1.5.
    """
    try:
        with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connected:
            [(segment,)] = connected.execute(
                "select id from segments where scope = 'METADATA' and collection = ?", [collection]
            )
            [(applied,)] = connected.execute("select coalesce(max(seq_id), -1) from max_seq_id where segment_id = ?", [segment])
            waiting = connected.execute(
                "select 1 from embeddings_queue where topic like ? and seq_id > ? limit 1", [f"%{collection}", applied]
            ).fetchone()
            [(count,)] = connected.execute("select count(*) from embeddings where segment_id = ?", [segment])
    except (sqlite3.Error, ValueError):
        return None
    return None if waiting else int(count)


def _server(host: str, port: int) -> ClientAPI:
    import chromadb
    from chromadb.config import Settings

    try:
        return chromadb.HttpClient(host=host, port=port, settings=Settings(anonymized_telemetry=False))
    except Exception as error:
        raise StoreError(f"cannot open the Chroma server at {host}:{port}: {error}") from error
