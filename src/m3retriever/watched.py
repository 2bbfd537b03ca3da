"""A profile file that is read again when it changes, so that a service need not be restarted."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import TypeAlias

from m3retriever.errors import ProfileError
from m3retriever.profile import load_profile
from m3retriever.types import Profile

logger = logging.getLogger(__name__)

Stamp: TypeAlias = tuple[int, int, int] | None


class WatchedProfile:
    """The profile in a file, as the file is now.

    A change that cannot be read or does not fit is logged, and what was read before stays in force: a slip of
    the pen does not stop a service.

    Parameters
    ----------
    path
        A TOML file.
    check
        Raises ProfileError for a profile that does not fit.
    optional
        Whether the file may be missing: the default profile holds until it appears.

    Attributes
    ----------
    problem : why the file as it is now cannot be used; None where it can

    Raises
    ------
    ProfileError
        The file is missing or wrong at the beginning.
    """

    def __init__(self, path: str | Path, check: Callable[[Profile], None], *, optional: bool = False) -> None:
        self._path, self._check, self._lock = Path(path), check, Lock()
        self._stamp, self._profile = _stamp(self._path), Profile()
        self.problem: str | None = None
        if self._stamp is not None or not optional:
            self._profile = self._read()

    def current(self) -> Profile:
        """The profile, read again if the file has changed since."""
        if _stamp(self._path) == self._stamp:
            return self._profile
        with self._lock:
            before, self._stamp = self._stamp, _stamp(self._path)
            if self._stamp is not None and self._stamp != before and self._stamp[1]:  # an empty file is one being written
                self._reread()
        return self._profile

    def _reread(self) -> None:
        try:
            self._profile = self._read()
        except ProfileError as error:
            self.problem = str(error)
            logger.warning("%s; the profile read before stays in force", error)
        else:
            self.problem = None
            logger.info("read the profile %s again", self._path)

    def _read(self) -> Profile:
        profile = load_profile(self._path)
        self._check(profile)
        return profile


def _stamp(path: Path) -> Stamp:
    """What changes when a file is replaced or written; None where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
