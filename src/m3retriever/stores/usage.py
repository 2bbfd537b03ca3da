"""Closing what others may be using: they finish first, for a memory map that goes under a reader ends the process."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from m3retriever.errors import StoreError

LONGEST_WAIT = 60.0  # seconds that closing waits for a call under way; a longer one closes behind itself


class _User:
    """A call under way."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()


class Usage:
    """Counts who uses a resource, and releases it when it is closed and nobody does."""

    def __init__(self, release: Callable[[], None]) -> None:
        self._release = release
        self._users = weakref.WeakSet[_User]()  # who is interrupted on its way out goes with its frame
        self._closed = False
        self._changed = threading.Condition()  # over a reentrant lock: garbage collection may close in the middle of it

    @contextmanager
    def use(self) -> Iterator[None]:
        """Keep the resource open meanwhile; StoreError where it is closed."""
        user = _User()
        try:
            with self._changed:
                if self._closed:
                    raise StoreError("this store is closed; open it again")
                self._users.add(user)
            yield
        finally:
            with self._changed:
                if user in self._users:
                    self._users.discard(user)
                    if self._closed and not self._users:
                        self._release()
                self._changed.notify_all()

    def used_elsewhere(self) -> bool:
        """Whether another thread is inside; takes no lock, so that a forked child may ask about its parent's."""
        return any(user.thread != threading.get_ident() for user in self._users)

    def close(self) -> None:
        """Admit no one else, wait for those inside and release; closing again does nothing.

        Where the caller itself is inside, or someone stays too long, the last one to leave releases.
        """
        with self._changed:
            if self._closed:
                return
            self._closed = True
            if not self._users:
                self._release()
            elif threading.get_ident() not in {user.thread for user in self._users}:
                self._changed.wait_for(lambda: not self._users, timeout=LONGEST_WAIT)
