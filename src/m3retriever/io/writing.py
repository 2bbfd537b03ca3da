"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from m3retriever.errors import StoreError

TO_DO = {errno.ENOSPC: "free some space", errno.EDQUOT: "free some space", errno.EFBIG: "free some space"}


def replace_text(path: str | Path, text: str) -> None:
    """Write a file in one step: a reader sees the old text or the new one. Lone surrogates become "?".

    StoreError where that is not possible, on a full disk for example; the file is as it was then.
    """
    target = Path(path).resolve()  # of a link the file, which keeps its place
    draft = target.with_name(f"{target.name}.{uuid4().hex}.new")  # one of its own for every writer
    try:
        draft.write_bytes(text.encode("utf-8", "replace"))
        draft.replace(target)
    except OSError as error:
        to_do = TO_DO.get(error.errno or 0, "look at the folder and its permissions")
        raise StoreError(f"cannot write {target}: {error.strerror or error}; it is as it was: {to_do}") from error
    finally:
        _remove(draft)


def _remove(draft: Path) -> None:
    with suppress(OSError):  # what could not be made, or a folder that has become read only
        draft.unlink(missing_ok=True)
