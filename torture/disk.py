"""Disks that are full, folders that may not be written to, and files that were cut short."""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from m3retriever import ChromaStore, Document, M3Index, M3RetrieverError, Profile, StoreError, load_profile, save_profile
from m3retriever.io import GoldenQuestion, write_golden, write_run
from torture.crashes import COLLECTION, ENCODER, Place

How = Literal["disk", "limit"]
BATCH = 20  # documents that are added at a time
NOBODY = 65534  # the user who owns nothing
TEXTS = [f"u{number} w{number % 7} w{number % 5}" for number in range(60)]


def documents(first: int) -> list[Document]:
    """A batch of documents that take a few kilobytes each."""
    numbers = range(first, first + BATCH)
    return [Document(f"d{number}", f"u{number} " + " ".join(f"w{number * k % 97}" for k in range(60))) for number in numbers]


def may_mount() -> bool:
    """Whether this process may mount a file system."""
    return (
        os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0
    )


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A file system of its own, in memory."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def read_only_disk(folder: Path) -> Iterator[None]:
    """What lies in a folder, on a file system that cannot be written to."""
    subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, how: How, kilobytes: int) -> dict[str, Any]:
    """Add documents until there is no room, try what changes files, make room, and go on in the same process.

    Gives the errors' messages, what was acknowledged, and what was wrong.
    """
    said, wrong, held = [], [], {}
    spare = folder / "spare"
    _take(spare, how, kilobytes)
    index = M3Index(ENCODER, ChromaStore(folder / "index", collection=COLLECTION))
    with suppress(StoreError):
        save_profile(Profile(depth=7), folder / "profile.toml")
    with suppress(StoreError):
        for first in range(0, 100_000, BATCH):
            index.add(documents(first))
            held |= {document.id: document for document in documents(first)}
    filler = folder / "filler"
    _fill_up(filler, how)
    for call in (lambda: index.add(documents(first)), *_smaller_writes(folder), lambda: index.delete(sorted(held)[:BATCH])):
        try:
            call()
            wrong.append("a write to a full disk was acknowledged")
        except StoreError as error:
            said.append(str(error))
    filler.unlink(missing_ok=True)
    _give_back(spare, how)
    index.add(documents(first))
    held |= {document.id: document for document in documents(first)}
    wrong += _differences(index, held)
    index.close()
    if load_profile(folder / "profile.toml").depth != 7:
        wrong.append("a profile that could not be written took the place of the old one")
    wrong += [f"{path} was left" for path in folder.rglob("*.new")]
    return {"said": said, "wrong": wrong, "held": held}


def _smaller_writes(folder: Path) -> list[Any]:
    large = {"q": {f"d{number}": 1.0 for number in range(10_000)}}
    questions = [GoldenQuestion(str(number), "a question " * 200, ("d1",)) for number in range(100)]
    return [
        lambda: save_profile(Profile(depth=9), folder / "profile.toml"),
        lambda: write_golden(questions, folder / "golden.jsonl"),
        lambda: write_run(large, folder / "first.run"),
    ]


def _take(spare: Path, how: How, kilobytes: int) -> None:
    if how == "disk":
        spare.write_bytes(bytes(kilobytes * 1024))
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, resource.RLIM_INFINITY))


def _fill_up(filler: Path, how: How) -> None:
    if how == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        return
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1024))


def _give_back(spare: Path, how: How) -> None:
    if how == "disk":
        spare.unlink()
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def reopened(folder: Path, held: dict[str, Document]) -> list[str]:
    """What is wrong with the index for a process that opens it afterwards."""
    with M3Index(ENCODER, ChromaStore(folder / "index", collection=COLLECTION)) as index:
        return _differences(index, held)


def _differences(index: M3Index, held: dict[str, Document]) -> list[str]:
    found = {document.id: document for document in index.find()}
    wrong = [f"{id} is {found.get(id)}, not {held.get(id)}" for id in sorted({*found, *held}) if found.get(id) != held.get(id)]
    some = [document for document in held.values() if int(document.id[1:]) % 7 == 0]
    lost = [document.id for document in some if index.search(document.text, 1)[0].document != document]
    return wrong + [f"{id} is not found" for id in lost]


# -- files that are cut short --------------------------------------------------------------------------------


def make(place: Place) -> None:
    """An index of 60 documents."""
    with place.open() as index:
        for first in range(0, len(TEXTS), BATCH):
            index.add([Document(f"d{row}", TEXTS[row], {"row": row}) for row in range(first, first + BATCH)])


def cut_somewhere(folder: Path, chosen: random.Random) -> str:
    """Cut one of an index's files at a random length, and say which."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    large = [path for path in files if path.name in ("data.mdb", "chroma.sqlite3")]
    path = chosen.choice(large if chosen.random() < 0.6 else files)
    size = path.stat().st_size
    length = chosen.choice([0, chosen.randrange(size + 1), 4096 * chosen.randrange(size // 4096 + 1)])
    os.truncate(path, length)
    return f"{path.relative_to(folder)} at {length} of {size} bytes"


def looked_at(folder: Path) -> str:
    """ "right" where the index answers as ever, the message of its own error where it refuses; else what is wrong."""
    try:
        with M3Index(ENCODER, ChromaStore(folder, collection=COLLECTION)) as index:
            truth = {f"d{row}": Document(f"d{row}", text, {"row": row}) for row, text in enumerate(TEXTS)}
            if {document.id: document for document in index.find()} != truth:
                return f"wrong: {len(index)} documents"
            for row in range(0, len(TEXTS), 7):
                for mode, query in (("dense", TEXTS[row]), ("sparse", f"u{row}"), ("colbert", TEXTS[row])):
                    if [hit.document for hit in index.search(query, 1, mode=mode)] != [truth[f"d{row}"]]:
                        return f"wrong: d{row} by {mode}"
            return "right"
    except M3RetrieverError as error:
        return f"refused: {error}"


def copied(whole: Path, folder: Path) -> Path:
    """A fresh copy of an index."""
    shutil.rmtree(folder, ignore_errors=True)
    return shutil.copytree(whole, folder)


def as_nobody(call: Any, *given: Any) -> Any:
    """What a call gives to a user who owns nothing; as it is, where this process is not root."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    return call(*given)
