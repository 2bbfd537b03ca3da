"""Adding documents whose vectors are known: our store against Chroma alone. To add a row, add a function to MEASURES."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks import adding
from benchmarks.measuring import Ratio, Row, interleaved, must_equal
from benchmarks.sizes import Size
from m3retriever import ChromaStore

GROUP = "ingest"
SHARE = 0.6  # of Chroma's own speed, the target


def rows(size: Size) -> Iterator[Row]:
    """All rows of this group."""
    for measure in MEASURES:
        yield from measure(size)


def speed(size: Size) -> Iterator[Row]:
    """A batch into Chroma, a batch into our store, and so on, each on disk when the call returns."""
    batches = adding.Batches(size.dim, size.tokens)
    what = f"add {adding.BATCH} documents, d = {size.dim}, {size.tokens} token vectors each"
    with tempfile.TemporaryDirectory() as folder:
        plain = adding.plain_chroma(Path(folder) / "plain")
        store = ChromaStore(Path(folder) / "ours")
        try:
            timing = interleaved(
                lambda number: adding.to_chroma(plain, batches[number]),
                lambda number: store.add(*batches[number]),
                size.ingest_batches,
            )
            must_equal(what, ours=store.ids(), plain=sorted(plain.get(include=[])["ids"]))
            held = store.vectors([batches[0][0][0].id])
            must_equal(what, ours=held.dense.tobytes(), plain=np.ascontiguousarray(batches[0][1].dense[:1]).tobytes())
        finally:
            store.close()
    note = (
        "Chroma keeps text, metadata and the dense vector; ours keeps these in Chroma too, and sparse weights, token vectors, "
        "the inverted index and exact dense vectors beside them"
    )
    yield Row(
        GROUP, what, "Chroma upsert", size.ingest_batches, timing.ratio, timing.ours, at_least=SHARE, note=note
    )  # fmt: skip


def memory(size: Size) -> Iterator[Row]:
    """How far memory grows while documents are added, each in a process of its own."""
    for count in size.peak_documents:
        theirs, ours = (adding.peak(into, count, size.dim, size.tokens) for into in ("chroma", "ours"))
        note = (
            f"Chroma's process grew by {theirs / 1e6:,.0f} MB, ours by {ours / 1e6:,.0f} MB, pages of mapped files not counted"
        )
        ratio = theirs / max(ours, 1)
        what = f"peak memory, adding {count:,} documents in batches of {adding.BATCH}"
        yield Row(GROUP, what, "Chroma upsert", 1, Ratio(ratio, ratio, ratio), note=note)


MEASURES = (speed, memory)
