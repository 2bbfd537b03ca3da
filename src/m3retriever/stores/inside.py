"""An index's folder is a world of its own: one that came from elsewhere must not lead out of itself."""

from __future__ import annotations

import re
from pathlib import Path

from m3retriever.errors import StoreError

# What m3retriever and Chroma read and write in an index's folder. What else lies there is nobody's business.
OWN = re.compile(
    r"chroma\.sqlite3(-.*)?|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|m3|.*\.toml|golden.*\.jsonl|history.*\.jsonl"
    r"|runs(-.*)?|\.inspector\.lock|writer\.(lock|json)"
)


def check_inside(folder: str | Path) -> None:
    """Refuse an index's folder in which a link leads out of it, or that holds what is neither a file nor a folder.

    The folder itself may be a link, and links that stay inside are followed. To be called before anything in it is
    read or written: whoever made the folder would choose what is read, shown and overwritten elsewhere.

    Raises
    ------
    StoreError
        Names the link and where it leads.
    """
    root = Path(folder).resolve()
    waiting, seen = [path for path in _entries(root) if OWN.fullmatch(path.name)], {root}
    while waiting:
        path = waiting.pop()
        real = _target(root, path) if path.is_symlink() else path
        if real.is_dir() and real not in seen:
            seen.add(real)
            waiting += _entries(real)
        elif real.exists() and not (real.is_file() or real.is_dir()):
            raise StoreError(f"{path} is neither a file nor a folder, as all in an index is: remove it")


def inside(folder: Path, path: Path) -> Path:
    """A path in an index's folder, as it is; StoreError where a link on its way leads out of the folder."""
    _target(folder.resolve(), path)
    return path


def _target(root: Path, path: Path) -> Path:
    try:
        real = path.resolve()
    except (OSError, RuntimeError) as error:  # Python before 3.13 has its own error for links that go in a circle
        raise StoreError(f"{path} is a link that leads nowhere: {error}; remove it") from error
    if not real.is_relative_to(root):
        raise StoreError(
            f"{path} is a link that leads out of the index's folder, to {real}: put the file itself there, or remove the link"
        )
    return real


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder; nothing where it is not there, or no longer: another process may be writing."""
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StoreError(f"cannot look into {folder}: {error.strerror}") from error
