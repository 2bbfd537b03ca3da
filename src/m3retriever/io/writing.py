"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4


def replace_text(path: str | Path, text: str) -> None:
    """Write a file in one step: a reader sees the old text or the new one. Lone surrogates become "?"."""
    target = Path(path).resolve()  # of a link the file, which keeps its place
    draft = target.with_name(f"{target.name}.{uuid4().hex}.new")  # one of its own for every writer
    try:
        draft.write_bytes(text.encode("utf-8", "replace"))
        draft.replace(target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
