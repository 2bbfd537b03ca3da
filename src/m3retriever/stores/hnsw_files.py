"""The files that Chroma's vector index, hnswlib, keeps in a folder: are they whole? They are looked at and never loaded."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np

METADATA, HEADER = "index_metadata.pickle", "header.bin"
LEVEL0, NORMS, LINKS = "data_level0.bin", "length.bin", "link_lists.bin"
SIZES = struct.Struct("<iQQQQ")  # of hnswlib's header: version, offset, room, elements, bytes of an element
LAYOUT = struct.Struct("<iQQQQQQ")  # the same, and where in an element its label and its vector begin
NORM = 4  # bytes of an element's norm
VERSION = 1  # of hnswlib's files; those of another are not judged
STOP = b"."  # the last byte of every pickle, which is looked at and never loaded
AT_ONCE = 500  # elements looked at at a time


def size(folder: Path) -> int:
    """Bytes of the largest file; 0 where there is none."""
    try:
        return (folder / LEVEL0).stat().st_size
    except OSError:
        return 0


def links_lead_nowhere(folder: Path) -> bool:
    """Whether the file of the graph's lowest layer holds links to elements that there are not, or one label twice.

    hnswlib follows them without a look, which ends the process. False where there are no files, or of a version unknown here.
    """
    try:
        header = LAYOUT.unpack((folder / HEADER).read_bytes()[: LAYOUT.size])
        version, start, _, count, size, label, data = header
        if version != VERSION or not count:
            return False
        elements = np.memmap(folder / LEVEL0, np.uint8, "r", shape=(count, size))
        labels = np.ascontiguousarray(elements[:, label : label + 8]).view("<u8")
        return len(np.unique(labels)) < count or any(
            _leads_nowhere(elements[first : first + AT_ONCE, start:data], count) for first in range(0, count, AT_ONCE)
        )
    except (OSError, ValueError, struct.error):  # files that are missing or cut short are `whole`'s business
        return False


def _leads_nowhere(lists: np.ndarray, count: int) -> bool:
    """Of the links of some elements: their number in 2 bytes, 2 bytes of marks, then as many numbers of 4 bytes."""
    numbers = np.ascontiguousarray(lists).view("<u4")
    lengths, links = numbers[:, 0] & 0xFFFF, numbers[:, 1:]
    used = np.arange(links.shape[1]) < lengths[:, None]
    return bool((lengths > links.shape[1]).any() or (links[used] >= count).any())


def whole(folder: Path) -> bool:
    """Whether the files of an index are there, and as long as its header demands."""
    try:
        with (folder / METADATA).open("rb") as file:
            file.seek(-1, os.SEEK_END)
            if file.read() != STOP:
                return False
        version, _, _, count, size = SIZES.unpack((folder / HEADER).read_bytes()[: SIZES.size])
        if version != VERSION:
            return True
        norms, links = (folder / NORMS).stat().st_size, np.fromfile(folder / LINKS, "<u4").tolist()
        return (folder / LEVEL0).stat().st_size >= count * size and norms >= count * NORM and _links_end(links, count)
    except (OSError, struct.error):
        return False


def _links_end(links: list[int], count: int) -> bool:
    """Whether a list of links, its length in bytes first, is there for each element."""
    at = 0
    for _ in range(count):
        if at >= len(links):
            return False
        at += 1 + links[at] // 4
    return at <= len(links)
