"""Words for a disk that is full and a folder that may not be written to, which LMDB and Chroma call by many names."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

NO_ROOM = ", and no quota and no limit on the size of files may be in its way"
LITTLE = 32 << 20  # bytes: the write of one batch may need as many


def when_full(path: Path, otherwise: str = "") -> str:
    """What to add to the error of a write below a folder that failed: `otherwise`, where its disk has room."""
    try:
        free = shutil.disk_usage(_existing(path)).free
    except OSError:
        return otherwise
    if free >= LITTLE:
        return otherwise
    return f"; the disk is full ({free / 1e6:.1f} MB left): free some space and do it again, what was stored before is kept"


def when_closed(folder: Path, *files: str) -> str:
    """What to add to the error of opening a folder that failed: empty where it and these files in it may be written to."""
    held = [_existing(folder), *(folder / name for name in files if (folder / name).exists())]
    closed = next((path for path in held if not os.access(path, os.W_OK)), None)
    if closed is None:
        return when_full(folder)
    return (
        f"; {closed} may not be written to, and Chroma writes there even where it only reads: "
        "copy the folder to where you may write, and open the copy"
    )


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.exists())
