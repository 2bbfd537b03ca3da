"""One writer per folder: two would corrupt Chroma's vector index without a word."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from m3retriever.errors import StoreError, StoreLockedError
from m3retriever.stores.inside import inside

LOOK = 0.1  # seconds to wait for whoever takes the lock only to see whether it is free
OWNER_BYTES = 1_000  # of writer.json: what we write has 60
SINCE = 40  # characters of a time

_held: dict[tuple[int, Path], tuple[filelock.BaseFileLock, int]] = {}  # shared by the stores of one process
_guard = threading.RLock()  # taken again where a garbage collection ends a store meanwhile


class WriterLock:
    """The right to write to a folder; the system takes it back when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mine = False

    @property
    def held(self) -> bool:
        """Whether this object has acquired the lock."""
        return self._mine

    def acquire(self) -> None:
        """Take the lock, or raise StoreLockedError that names the process which has it."""
        with _guard:
            if self._mine:
                return
            fresh = filelock.FileLock(self.folder / "writer.lock", thread_local=False)
            lock, users = _held.get(self._key, (fresh, 0))
            try:
                if not users:
                    self._take(lock)
                _held[self._key] = lock, users + 1
                self._mine = True
            except BaseException:  # an interruption too: nobody would give back what it left taken
                self._mine = False
                if users:
                    _held[self._key] = lock, users
                else:
                    _held.pop(self._key, None)
                    lock.release(force=True)
                raise

    def release(self) -> None:
        """Give the lock back, if this object has it."""
        with _guard:
            if not self._mine:
                return
            lock, users = _held.get(self._key, (None, 0))
            self._mine = False
            if lock is None:
                return  # a forked child: the lock is its parent's
            if users > 1:
                _held[self._key] = lock, users - 1
            else:
                del _held[self._key]
                lock.release()

    @contextmanager
    def for_a_moment(self) -> Iterator[None]:
        """Hold the lock inside the block; it stays with this object where it was held before."""
        mine = self._mine
        self.acquire()
        try:
            yield
        finally:
            if not mine:
                self.release()

    def other(self) -> str | None:
        """Which other process has the lock, in words; None where none has. Takes it for a moment to see."""
        with _guard:
            if self._key in _held or not (self.folder / "writer.lock").is_file():
                return None
            lock = filelock.FileLock(self.folder / "writer.lock", thread_local=False)
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                return self._owner()
            except OSError:
                return None  # a folder that may only be read: who writes elsewhere cannot be seen
            lock.release()
            return None

    @property
    def _key(self) -> tuple[int, Path]:
        return os.getpid(), self.folder.resolve()

    @property
    def _owner_file(self) -> Path:
        return self.folder / "writer.json"

    def _take(self, lock: filelock.BaseFileLock) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in (self.folder / "writer.lock", self._owner_file):
                inside(self.folder, path)
            lock.acquire(timeout=LOOK, poll_interval=LOOK / 4)
            now = time.strftime("%Y-%m-%d %H:%M:%S %z")
            self._owner_file.write_text(json.dumps({"pid": os.getpid(), "since": now}), encoding="utf-8")
        except filelock.Timeout:
            raise StoreLockedError(
                f"{self.folder.parent} is being written to by {self._owner()}; wait until it has finished "
                "or close it there (reading is possible meanwhile)"
            ) from None
        except StoreError:
            raise
        except OSError as error:
            raise StoreError(f"cannot write to {self.folder}: {error}") from error

    def _owner(self) -> str:
        try:
            with inside(self.folder, self._owner_file).open("rb") as file:
                owner = json.loads(file.read(OWNER_BYTES))
            pid, since = int(owner["pid"]), str(owner["since"])[:SINCE]
            return f"process {pid} since {since}" if since.isprintable() else "another process"
        except (OSError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
            return "another process"


def _forget_parents_locks() -> None:
    """In a forked child: another thread of the parent may have had the guard, and the locks are the parent's."""
    global _guard
    _guard = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parents_locks)
