"""Vectors, encoders and lines of files that are broken in one way: refused by name, and nothing of them is kept."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from m3retriever import (
    Document,
    HashingEncoder,
    InvalidDocumentError,
    M3Index,
    M3RetrieverError,
    M3Vectors,
)
from m3retriever.io import read_documents
from torture.inputs import DIM, check_said, revision, state


def _with(name: str, value: Callable[[np.ndarray, int], Any]) -> Callable[[M3Vectors, int], M3Vectors]:
    def broken(vectors: M3Vectors, place: int) -> M3Vectors:
        parts = {field: getattr(vectors, field).copy() for field in vectors.__dataclass_fields__}
        parts[name] = value(parts[name], place)
        return M3Vectors(**parts)

    return broken


def _put(number: float) -> Callable[[np.ndarray, int], np.ndarray]:
    def put(values: np.ndarray, place: int) -> np.ndarray:
        values.flat[place % values.size] = number
        return values

    return put


VECTORS: dict[str, Callable[[M3Vectors, int], Any]] = {
    **{f"NaN in {name}": _with(name, _put(math.nan)) for name in ("dense", "sparse_weights", "colbert")},
    **{f"infinity in {name}": _with(name, _put(-math.inf)) for name in ("dense", "sparse_weights", "colbert")},
    "a negative weight": _with("sparse_weights", _put(-0.5)),
    "a negative token": _with("sparse_ids", _put(-1)),
    "tokens that do not ascend": _with("sparse_ids", lambda values, place: values * 0 + 7),
    "offsets that fall": _with("sparse_offsets", lambda values, place: values[::-1]),
    "offsets beyond the end": _with("colbert_offsets", lambda values, place: values + 1),
    "offsets that are no whole numbers": _with("sparse_offsets", lambda values, place: values + 0.5),
    "another dimension": lambda vectors, place: HashingEncoder(DIM + 1).encode_documents(["red"] * len(vectors)),
    "another dimension of tokens": _with("colbert", lambda values, place: values[:, :-1]),
    "texts for numbers": _with("dense", lambda values, place: values.astype(str)),
    "complex numbers": _with("dense", lambda values, place: values * 1j),
    "tokens with fractions": _with("sparse_ids", lambda values, place: values + 0.5),
    "tokens beyond 32 bits": _with("sparse_ids", lambda values, place: values.astype(np.int64) + 2**32),
    "a row less": lambda vectors, place: vectors[:-1],
    "no vectors": lambda vectors, place: None,
    "a list": lambda vectors, place: [[1.0] * DIM],
}


ALONE = ("tokens that do not ascend", "offsets that fall")  # not of one text of one word


def check_vectors(index: M3Index, name: str, texts: list[str], place: int) -> None:
    """Vectors that are broken in one way are refused, and those that are not finite with the document's id."""
    documents = [Document(f"new {row}", f"{text} word{row} other{row}") for row, text in enumerate(texts)]
    vectors = index.encoder.encode_documents([one.text for one in documents])
    before = state(index), revision(index)
    with pytest.raises(M3RetrieverError) as refused:
        index.store.add(documents, VECTORS[name](vectors, place))
    assert isinstance(refused.value, ValueError)
    if name.startswith(("NaN", "infinity", "a negative")):
        part = "dense" if "dense" in name else "colbert" if "colbert" in name else "sparse"
        check_said(refused.value, f"'{documents[row_of(vectors, part, place)].id}'")
    check_said(refused.value)
    assert (state(index), revision(index)) == before


def row_of(vectors: M3Vectors, part: str, place: int) -> int:
    """The text whose number stands at this place of a part."""
    if part == "dense":
        return place % vectors.dense.size // DIM
    lengths = np.diff(vectors.colbert_offsets) * DIM if part == "colbert" else np.diff(vectors.sparse_offsets)
    return int(np.repeat(np.arange(len(vectors)), lengths)[place % lengths.sum()])


class Failing(HashingEncoder):
    """Gives vectors that are broken for texts that say so."""

    def __init__(self, how: str) -> None:
        super().__init__(DIM)
        self.how = how

    def encode_documents(self, texts: Any, *, progress: bool = False) -> Any:
        vectors = super().encode_documents(texts)
        rows = [row for row, text in enumerate(texts) if "broken" in text]
        if not rows:
            return vectors
        if self.how in VECTORS:
            return VECTORS[self.how](vectors, 0)
        dense = vectors.dense.copy()
        dense[rows[0], 3] = math.nan
        return M3Vectors(dense, *(getattr(vectors, name) for name in list(vectors.__dataclass_fields__)[1:]))


def check_encoder(store: Any, how: str, good: int) -> None:
    """A document whose vectors are broken is refused by name; the batches before its own are stored, and nothing else."""
    with M3Index(Failing(how), store) as index:
        documents = [Document(f"d{row:04}", f"red {row}") for row in range(good)]
        bad = Document("the bad one", "broken")
        with pytest.raises(M3RetrieverError) as refused:
            index.add([*documents, bad])
        check_said(refused.value, *(["'the bad one'"] if how == "NaN" else []))
        stored = index.ids()
        assert stored == [one.id for one in documents[: good // 256 * 256]]
        assert len(index.search("red", 10)) == min(10, len(stored))
        if how not in ALONE:
            with pytest.raises(M3RetrieverError):
                index.search("broken")
        assert index.add(documents).unchanged == len(stored)


# -- lines -----------------------------------------------------------------------------------------

GOOD_LINES = [
    b"",
    b"   ",
    '{"_id": "é", "text": "été \\u2028"}'.encode(),
    b'{"id": 12345678901234567890123, "text": "an int as id"}',
    b'{"id": "t", "text": "x", "title": "A title", "metadata": {"n": 1, "none": null}}\r',
    b'{"id": "nul", "text": "a\\u0000b", "metadata": {}}',
    b'{"id": "pair", "text": "\\ud83e\\udd8a"}',
    b'{"id": "more", "text": "x", "unknown": [1, {"deep": []}], "metadata": null}',
]
BAD_LINES = [
    b"{",
    b"nonsense",
    b"[]",
    b'"text"',
    b"null",
    b"{}",
    b'{"id": "x"}',
    b'{"text": "x"}',
    b'{"id": "", "text": "x"}',
    b'{"id": true, "text": "x"}',
    b'{"id": 1.5, "text": "x"}',
    b'{"id": "x", "text": null}',
    b'{"id": "x", "text": "\xff"}',
    b'\xef\xbb\xbf{"id": "x", "text": "a BOM within the file"}',
    b'{"id": "x", "text": "raw \x01 control"}',
    b'{"id": "x", "text": "\\ud800"}',
    b'{"id": "\\udfff", "text": "x"}',
    b'{"id": "x", "text": "x", "metadata": []}',
    b'{"id": "x", "text": "x", "metadata": {"n": NaN}}',
    b'{"id": "x", "text": "x", "metadata": {"n": -Infinity}}',
    b'{"id": "x", "text": "x", "metadata": {"n": 1e400}}',
    b'{"id": "x", "text": "x", "metadata": {"n": 9223372036854775808}}',
    b'{"id": "x", "text": "x", "metadata": {"n": {"deep": 1}}}',
    b'{"id": "x", "text": "x", "metadata": {"n": []}}',
    b'{"id": "x", "text": "x", "metadata": {"n": [1, "x"]}}',
    b'{"id": "x", "text": "x", "metadata": {"": 1}}',
    b'{"id": "x", "text": "x", "metadata": {"$n": 1}}',
    b'{"id": "x", "text": "x", "id": "y"}',
    b'{"id": "x", "text": "x", "metadata": {"n": 1, "n": 2}}',
    b'{"id": "x", "text": "x"} trailing',
    b'{"id": "x", "text": "x", "metadata": {"n": ' + b"9" * 5_000 + b"}}",
    b"[" * 100_000,
    b'{"a":' * 100_000,
]
lines = st.lists(st.sampled_from([(line, True) for line in GOOD_LINES] + [(line, False) for line in BAD_LINES]), max_size=12)


def check_lines(file: Path, drawn: list[tuple[bytes, bool]], *, ending: bytes = b"\n") -> int:
    """The first bad line is named by its number; where they are skipped each is, and every good one is read; how many bad."""
    file.write_bytes(ending.join(line for line, _ in drawn) + ending)
    wrong = [number for number, (line, good) in enumerate(drawn, start=1) if not good and not (number == 1 and b"BOM" in line)]
    wanted = [
        json.loads(line.decode("utf-8-sig"))
        for number, (line, _) in enumerate(drawn, 1)
        if line.strip() and number not in wrong
    ]
    told: list[M3RetrieverError] = []
    read = list(read_documents(file, on_bad=told.append))
    assert [one.id for one in read] == [str(row.get("_id", row.get("id"))) for row in wanted]
    assert [f"line {number}" in str(error) for number, error in zip(wrong, told, strict=True)] == [True] * len(wrong)
    for error in told:
        check_said(error, str(file))
    if wrong:
        with pytest.raises(InvalidDocumentError, match=f"line {wrong[0]}\\b"):
            list(read_documents(file))
    return len(wrong)
