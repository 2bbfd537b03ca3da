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
import shutil
import tempfile
import threading
import time
import weakref
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from m3retriever.errors import InvalidArgumentError, InvalidFilterError, StoreError
from m3retriever.stores import database
from m3retriever.stores.database import DATABASE, DEFAULT_COLLECTION, payload_folder
from m3retriever.stores.inside import check_inside
from m3retriever.stores.space import when_closed, when_full
from m3retriever.stores.tables import Tables
from m3retriever.vectors import FloatArray

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

ALIASES = {None: DEFAULT_COLLECTION, "m3": DEFAULT_COLLECTION}  # "m3" itself is too short for Chroma
COLLECTION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,510}[A-Za-z0-9]")  # Chroma's own rule
CACHE = Path.home() / ".cache" / "m3retriever"  # payloads of servers: they can be rebuilt from the texts
CORE_ERROR = "InternalError"  # Chroma's name for what goes wrong in its core
PANIC = "PanicException"  # of its core: no Exception, and imported from nowhere
RETIRED_KEPT = 3  # engines that are kept for calls under way when others take their place
NO_FORK = (
    "embedded Chroma cannot be used in a process that was forked from one that has used it, for its threads do not come along: "
    "start that process by spawn or forkserver (multiprocessing.get_context), or open the index only after forking"
)
FILES = (DATABASE, f"{DATABASE}-wal")  # the second where someone has set the database to keep a log
NOBODY = "m3retriever: no document"  # an id that nothing has
JUST_NOW = 50_000_000  # nanoseconds: file times go by ticks of up to 10 ms
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
        self._failed: FolderEngine | None = None
        self._replacing = threading.Lock()
        self._to_close: ClientAPI | None = None  # a server's client of our own
        if path is not None:
            FolderEngine.refuse_in_child(path)  # before SQLite is used: the parent's threads may have held its locks
            check_inside(path)
            database.check_not_lost(Path(path))
            database.check_whole(Path(path))
            database.check_links(Path(path), self._name)
        self._engine = FolderEngine(path) if path is not None else None
        if self._engine is not None:
            self._client = self._engine.client
        else:
            self._client = client if client is not None else _server(str(host), port)
            self._to_close = None if client is not None else self._client
        settings = self._client.get_settings()
        self.remote = "fastapi" in settings.chroma_api_impl.lower()
        self._folder = Path(settings.persist_directory).resolve() if settings.is_persistent and not self.remote else None
        try:
            self.collection = self._collection_of(self._client)
        except BaseException:
            self.close()
            raise

    @property
    def renewable(self) -> bool:
        """Whether `renew` makes the vector index fresh; a caller's embedded client stays as it is."""
        return self._engine is not None or self.remote

    @property
    def in_a_child(self) -> str:
        """What to do in a child of the process that opened it."""
        return "open it again in the child" if self.remote else NO_FORK

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

    def work_through_log(self) -> None:
        """Make a server show what it has logged. What a client had sent that has died since stays unseen until the next write,
        whoever makes it: this is one, which changes nothing."""
        if self.remote:
            self._call("update", {"ids": [NOBODY], "metadatas": [{"nothing": 0}]})

    def dim(self) -> int | None:
        """Dimension of the dense vectors that Chroma holds; None where it holds none."""
        found = self.get(limit=1, include=["embeddings"])["embeddings"]
        return len(found[0]) if found is not None and len(found) else None

    def delete(self, ids: list[str]) -> None:
        """The collection's `delete`."""
        self._call("delete", {"ids": ids})

    def count(self) -> int:
        """How many documents Chroma holds."""
        quick = None if self.tables is None else self.tables.count()
        return int(self._call("count", {})) if quick is None else quick

    def position(self) -> int | None:
        """The number of Chroma's last change, whoever made it; None where it cannot be told."""
        return None if self.tables is None else self.tables.position()

    @property
    def tables(self) -> Tables | None:
        """Chroma's tables, where they lie on this machine."""
        return None if self._folder is None else Tables(self._folder / DATABASE, str(self.collection.id))

    def changed(self) -> tuple[int, ...] | None:
        """When Chroma's documents were last changed by anyone, other clients included; None where that is too new to tell.

        Of a folder the times and sizes of Chroma's database and its log, of which a second change within JUST_NOW may leave no
        trace. A server, and a client in memory, do not say: of them the second it is.
        """
        if self._folder is None:
            return (int(time.monotonic()),)
        held = [os.stat(path) for name in FILES if (path := self._folder / name).exists()]
        if any(abs(time.time_ns() - one.st_mtime_ns) < JUST_NOW for one in held):
            return None
        return tuple(number for one in held for number in (one.st_mtime_ns, one.st_size))

    def _call(self, method: str, arguments: dict[str, Any]) -> Any:
        if self._failed is not None:
            self._replace_failed()
        engine = self._engine
        try:
            return getattr(self.collection, method)(**arguments)
        except BaseException as error:  # Chroma's own errors, the network's, and its core's alike
            _pass_on_what_is_not_chromas(error)
            if "Regex syntax" in str(error):
                raise InvalidFilterError(f"Chroma does not take this regular expression: {error}") from error
            if type(error).__name__ in (CORE_ERROR, PANIC):
                self._failed = engine
            full = when_full(self._folder) if self._folder is not None else ""
            raise StoreError(f"Chroma failed to {method}: {type(error).__name__}: {error}{full}") from error

    def _replace_failed(self) -> None:
        """After an error of its core, such as a full disk, Chroma may wait for ever for a lock that itself has kept: a fresh
        engine does not."""
        with self._replacing:
            failed = self._failed
            if failed is not None and failed is self._engine:
                failed.close()
                self._take(FolderEngine(failed.folder))
            self._failed = None

    def renew(self) -> None:
        """Learn what another process has written; the caller holds the right to write."""
        if self._engine is not None:
            retired = self._engine
            self._take(FolderEngine(retired.folder))
            self._retired.append(retired)  # other threads may be in the middle of a call to it
            while len(self._retired) > RETIRED_KEPT:
                self._retired.pop(0).close()
        elif self._folder is not None:  # the caller's engine stays; a fresh one makes Chroma work through its log
            other = FolderEngine(self._folder)
            other.client.get_collection(self._name, embedding_function=None).get(limit=1, include=[])
            other.close()

    def vector_folder(self) -> tuple[Path, bool] | None:
        """Where Chroma keeps the collection's vector index, and whether it says that it has written it; None for a
        server's, and where its tables are not as they were in 1.5."""
        found = None if self.tables is None else self.tables.vector_segment()
        return None if found is None or self._folder is None else (self._folder / found[0], found[1])

    def full_text_fits(self) -> bool | None:
        """Whether the index of Chroma's full-text search fits its texts; None where its database is not in reach."""
        return None if self._folder is None else database.full_text_fits(self._folder)

    def make_full_text_anew(self) -> None:
        """Make that index anew of its texts; the caller holds the right to write."""
        if self._folder is not None:
            database.make_full_text_anew(self._folder)

    @property
    def owns_engine(self) -> bool:
        """Whether the engine is ours, so that its files may be dropped and made anew."""
        return self._engine is not None

    def drop_vector_index(self) -> None:
        """Remove the files of the vector index, so that Chroma begins an empty one; the caller holds the right to write."""
        found = self.vector_folder()
        if found is None or self._engine is None:
            raise StoreError(
                f"Chroma's vector index of {self.collection.name!r} is damaged, and only its owner can mend it: "
                "close your client and open the folder once with ChromaStore(path)"
            )
        shutil.rmtree(found[0], ignore_errors=True)
        self.renew()

    def close(self) -> None:
        """Let go of the engine; a client of the caller's stays open."""
        for engine in self._retired:
            engine.close()
        if self._engine is not None:
            self._engine.close()
        client, self._to_close = self._to_close, None
        if client is not None:
            _close_served(client)

    def payload_folder(self, given: str | Path | None) -> tuple[Path, bool]:
        """Where the payload lies, and whether it is to be deleted in the end."""
        if given is not None:
            return Path(given) / self._name, False
        if self.remote:
            return CACHE / str(self.collection.id) / self._name, False
        if self._folder is not None:
            return payload_folder(self._folder, self._name), False
        return Path(tempfile.mkdtemp(prefix="m3retriever-")) / self._name, True

    def _take(self, engine: FolderEngine) -> None:
        """Put an engine in the place of ours, or leave all as it is where it is of no use."""
        try:
            collection = self._collection_of(engine.client)
        except BaseException:
            engine.close()
            raise
        self._engine, self._client, self.collection = engine, engine.client, collection

    def _collection_of(self, client: ClientAPI) -> Collection:
        configuration = {"hnsw": {"space": "cosine", "ef_search": EF_SEARCH}}
        try:
            if self._create:
                collection = client.get_or_create_collection(
                    self._name, embedding_function=None, configuration=configuration  # type: ignore[arg-type]  # a TypedDict
                )  # fmt: skip
            else:
                collection = client.get_collection(self._name, embedding_function=None)
        except BaseException as error:
            _pass_on_what_is_not_chromas(error)
            raise StoreError(f"cannot open the collection {self._name!r}: {error}") from error
        collection.__class__ = _inert(type(collection))
        return collection


def _pass_on_what_is_not_chromas(error: BaseException) -> None:
    if not isinstance(error, Exception) and type(error).__name__ != PANIC:
        raise error


def _inert(kind: type[Collection]) -> type[Collection]:
    """Collections that make nothing of the embedding functions named in what is stored of them.

    On every write Chroma would load those, and some of them run code that a model's folder brings: whoever
    made the collection would choose it. Vectors come from our encoder, so none of them is needed.
    """
    return type(kind.__name__, (kind,), {"schema": None})


class FolderEngine:
    """Chroma embedded in this process, on a folder, shared with no one."""

    _taken: ClassVar[dict[Path, set[int]]] = defaultdict(set)
    _used_by_parent: ClassVar[bool] = False
    _guard = threading.RLock()
    _alive: ClassVar[weakref.WeakSet[FolderEngine]] = weakref.WeakSet()

    def __init__(self, path: str | Path) -> None:
        import chromadb
        from chromadb.config import Settings

        self.refuse_in_child(path)
        self.folder, self._closed = Path(path).resolve(), False
        with self._guard:
            self._number = next(number for number in itertools.count(1) if number not in self._taken[self.folder])
            self._taken[self.folder].add(self._number)
        alias = str(self.folder) + "/." * self._number  # the same folder under a name that has no engine yet
        try:
            self.client: ClientAPI = chromadb.PersistentClient(path=alias, settings=Settings(anonymized_telemetry=False))
        except BaseException as error:  # Chroma raises its own types, OSError, ValueError and panics of its core alike
            _pass_on_what_is_not_chromas(error)
            # its number stays taken: Chroma keeps what it made halfway under that name
            raise StoreError(f"cannot open the Chroma folder {path}: {error}{when_closed(self.folder, DATABASE)}") from error
        self._alive.add(self)

    @classmethod
    def refuse_in_child(cls, path: str | Path) -> None:
        """StoreError where the parent of this process has used Chroma, which would wait for ever here."""
        if cls._used_by_parent:
            raise StoreError(f"cannot open the Chroma folder {path}: {NO_FORK}")

    def close(self) -> None:
        """End the engine; closing again does nothing."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
        self.client.close()  # type: ignore[attr-defined]  # Client has it, its interface does not say so
        with self._guard:
            self._taken[self.folder].discard(self._number)


def _keep_parents_engines() -> None:
    """In a forked child: an inherited engine must never be destroyed, for it would wait for its threads, which
    did not come along, and the child would hang at its end. Chroma's own clients have that fault."""
    for engine in FolderEngine._alive:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine.client))
    FolderEngine._guard = threading.RLock()
    FolderEngine._used_by_parent = FolderEngine._used_by_parent or bool(FolderEngine._taken)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_parents_engines)


def collection_name(given: str | None) -> str:
    """The name in Chroma; the default for None. InvalidArgumentError for one that Chroma would refuse."""
    name = ALIASES.get(given, given)
    if not isinstance(name, str) or not COLLECTION_NAME.fullmatch(name):
        raise InvalidArgumentError(f"a collection name has 3 to 512 characters from [a-zA-Z0-9._-]; got {given!r}")
    return name


def _close_served(client: ClientAPI) -> None:
    """Close a server's client, and the connections that Chroma leaves open: its own, and those of its other half."""
    client.close()  # type: ignore[attr-defined]  # Client has it, its interface does not say so
    for half in (client, getattr(client, "_admin_client", None)):
        session = getattr(getattr(half, "_server", None), "_session", None)
        if session is not None:
            session.close()


def _server(host: str, port: int) -> ClientAPI:
    import chromadb
    from chromadb.config import Settings

    try:
        return chromadb.HttpClient(host=host, port=port, settings=Settings(anonymized_telemetry=False))
    except Exception as error:
        raise StoreError(f"cannot open the Chroma server at {host}:{port}: {error}") from error
