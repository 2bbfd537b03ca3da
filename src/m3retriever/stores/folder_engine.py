"""Chroma embedded in this process, on a folder.

Chroma caches one engine per path and process. An engine of ours is shared with no one, so that another one can
take its place; none can be used in a child that was forked from a process that has used it.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import threading
import weakref
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from m3retriever.errors import StoreError
from m3retriever.stores.database import DATABASE
from m3retriever.stores.space import when_closed

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

PANIC = "PanicException"  # of Chroma's core: no Exception, and imported from nowhere

NO_FORK = (
    "embedded Chroma cannot be used in a process that was forked from one that has used it, for its threads do not come along: "
    "start that process by spawn or forkserver (multiprocessing.get_context), or open the index only after forking"
)


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
            pass_on_what_is_not_chromas(error)
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


def pass_on_what_is_not_chromas(error: BaseException) -> None:
    """Raise again what is neither an Exception nor a panic of Chroma's core, such as Ctrl-C."""
    if not isinstance(error, Exception) and type(error).__name__ != PANIC:
        raise error
