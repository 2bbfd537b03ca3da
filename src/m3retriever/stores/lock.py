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

LOOK = 0.1  # seconds to wait for whoever takes the lock only to see whether it is free

_held: dict[tuple[int, Path], tuple[filelock.FileLock, int]] = {}  # shared by the stores of one process
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
            lock, users = _held.get(self._key, (None, 0))
            if lock is None:
                lock = self._lock_file()
            _held[self._key] = lock, users + 1
            self._mine = True

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

    def _lock_file(self) -> filelock.FileLock:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.folder / "writer.lock", thread_local=False)
            lock.acquire(timeout=LOOK, poll_interval=LOOK / 4)
        except filelock.Timeout:
            raise StoreLockedError(
                f"{self.folder.parent} is being written to by {self._owner()}; wait until it has finished "
                "or close it there (reading is possible meanwhile)"
            ) from None
        except OSError as error:
            raise StoreError(f"cannot write to {self.folder}: {error}") from error
        try:
            now = time.strftime("%Y-%m-%d %H:%M:%S %z")
            self._owner_file.write_text(json.dumps({"pid": os.getpid(), "since": now}), encoding="utf-8")
        except OSError as error:
            lock.release()
            raise StoreError(f"cannot write to {self.folder}: {error}") from error
        return lock

    def _owner(self) -> str:
        try:
            owner = json.loads(self._owner_file.read_text(encoding="utf-8"))
            return f"process {owner['pid']} since {owner['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"
