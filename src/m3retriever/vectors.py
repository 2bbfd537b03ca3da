"""M3Vectors: the three views of n texts, in columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from m3retriever.errors import InvalidVectorsError, shown

FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
IntArray: TypeAlias = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class M3Vectors:
    """What BGE-M3 gives for n texts.

    Text i has `dense[i]`, the sparse entries `sparse_offsets[i]:sparse_offsets[i + 1]` and the token
    vectors `colbert_offsets[i]:colbert_offsets[i + 1]`.

    Attributes
    ----------
    dense : (n, d) float32, rows of L2 norm 1
    sparse_ids : (s,) int32, token ids, ascending within a text
    sparse_weights : (s,) float32, > 0
    sparse_offsets : (n + 1,) int64, from 0 to s
    colbert : (t, d) float32, rows of L2 norm 1, one per token after CLS
    colbert_offsets : (n + 1,) int64, from 0 to t

    Raises
    ------
    InvalidVectorsError
        The shapes do not fit together.
    """

    dense: FloatArray
    sparse_ids: IntArray
    sparse_weights: FloatArray
    sparse_offsets: IntArray
    colbert: FloatArray
    colbert_offsets: IntArray

    def __post_init__(self) -> None:
        for name, dtype in _DTYPES.items():
            object.__setattr__(self, name, _as_array(name, getattr(self, name), dtype))
        if self.dense.ndim != 2 or self.colbert.ndim != 2 or self.dense.shape[1] != self.colbert.shape[1]:
            raise InvalidVectorsError(f"want dense (n, d) and colbert (t, d); got {self.dense.shape}, {self.colbert.shape}")
        if self.sparse_ids.shape != self.sparse_weights.shape or self.sparse_ids.ndim != 1:
            raise InvalidVectorsError(
                f"want as many sparse ids as weights; got {self.sparse_ids.shape}, {self.sparse_weights.shape}"
            )
        _check_offsets("sparse_offsets", self.sparse_offsets, len(self.dense), len(self.sparse_ids))
        _check_offsets("colbert_offsets", self.colbert_offsets, len(self.dense), len(self.colbert))

    @property
    def dim(self) -> int:
        """d, the length of a dense vector and of a token vector."""
        return int(self.dense.shape[1])

    def __len__(self) -> int:
        return len(self.dense)

    def __getitem__(self, index: int | slice) -> M3Vectors:
        """One text or a run of texts, without copying; again M3Vectors."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                raise InvalidVectorsError(f"slices of M3Vectors take step 1; got {step}: use take()")
            stop = max(start, stop)
        else:
            start = index + len(self) if index < 0 else index
            if not 0 <= start < len(self):
                raise IndexError(f"text {index} of {len(self)}")
            stop = start + 1
        sparse = slice(self.sparse_offsets[start], self.sparse_offsets[stop])
        tokens = slice(self.colbert_offsets[start], self.colbert_offsets[stop])
        return M3Vectors(
            self.dense[start:stop],
            self.sparse_ids[sparse],
            self.sparse_weights[sparse],
            self.sparse_offsets[start : stop + 1] - self.sparse_offsets[start],
            self.colbert[tokens],
            self.colbert_offsets[start : stop + 1] - self.colbert_offsets[start],
        )

    def __iter__(self) -> Iterator[M3Vectors]:
        return (self[row] for row in range(len(self)))

    def sparse_row(self, row: int) -> dict[int, float]:
        """One text's {token id: weight}; row counts from 0."""
        part = slice(self.sparse_offsets[row], self.sparse_offsets[row + 1])
        return dict(zip(self.sparse_ids[part].tolist(), self.sparse_weights[part].tolist(), strict=True))

    def colbert_row(self, row: int) -> FloatArray:
        """One text's token vectors, (t_i, d)."""
        return self.colbert[self.colbert_offsets[row] : self.colbert_offsets[row + 1]]

    def copy(self) -> M3Vectors:
        """The same texts in arrays of their own."""
        return M3Vectors(*(getattr(self, name).copy() for name in _DTYPES))

    def take(self, rows: Sequence[int] | IntArray) -> M3Vectors:
        """The texts at these places, in this order, copied."""
        return M3Vectors.concat([self[int(row)] for row in rows], dim=self.dim).copy()

    @classmethod
    def empty(cls, dim: int) -> M3Vectors:
        """No texts."""
        return cls.from_rows(np.empty((0, dim), np.float32), [], [])

    @classmethod
    def dense_only(cls, vector: Sequence[float] | FloatArray) -> M3Vectors:
        """One text of which only the dense vector is known, (d,); brought to norm 1, without tokens."""
        dense = _as_array("a dense vector", vector, np.float64)
        if dense.ndim != 1 or not np.isfinite(dense).all() or not dense.any():
            raise InvalidVectorsError(f"a dense vector is one row of finite numbers, not all 0; got shape {dense.shape}")
        dense = dense / np.abs(dense).max()  # first, so that no square is too large or too small
        unit = (dense / np.linalg.norm(dense)).astype(np.float32)
        return cls.from_rows(unit[None], [{}], [np.empty((0, len(unit)), np.float32)])

    @classmethod
    def concat(cls, parts: Sequence[M3Vectors], *, dim: int = 0) -> M3Vectors:
        """The texts of all parts, in order; a single part comes back as it is.

        `dim` says the dimension where there are no parts.
        """
        if not parts:
            return cls.empty(dim)
        if len(parts) == 1:
            return parts[0]
        if len({part.dim for part in parts}) > 1:
            raise InvalidVectorsError(f"want parts of one dimension; got {sorted({part.dim for part in parts})}")
        return cls(
            np.concatenate([part.dense for part in parts]),
            np.concatenate([part.sparse_ids for part in parts]),
            np.concatenate([part.sparse_weights for part in parts]),
            _join_offsets([part.sparse_offsets for part in parts]),
            np.concatenate([part.colbert for part in parts]),
            _join_offsets([part.colbert_offsets for part in parts]),
        )

    @classmethod
    def from_rows(
        cls,
        dense: FloatArray | Sequence[Sequence[float]],
        sparse: Sequence[Mapping[Any, float]],
        colbert: Sequence[FloatArray],
    ) -> M3Vectors:
        """From one item a text, as FlagEmbedding gives them.

        Parameters
        ----------
        dense : (n, d)
        sparse : n mappings of token id (an int, or a str of one) to weight; weights <= 0 are left out
        colbert : n arrays (t_i, d)
        """
        dense = _as_array("dense", dense, np.float32)
        if dense.ndim != 2 or not len(dense) == len(sparse) == len(colbert):
            raise InvalidVectorsError(f"want dense (n, d) and n rows of each; got {dense.shape}, {len(sparse)}, {len(colbert)}")
        rows = [_sparse_row(row) for row in sparse]
        tokens = [_token_vectors(_as_array("colbert", row, np.float32), dense.shape[1]) for row in colbert]
        return cls(
            dense,
            np.array([token for row in rows for token, _ in row], np.int64),
            np.array([weight for row in rows for _, weight in row], np.float32),
            offsets([len(row) for row in rows]),
            np.concatenate(tokens) if tokens else np.empty((0, dense.shape[1]), np.float32),
            offsets([len(row) for row in tokens]),
        )


_DTYPES = {
    "dense": np.float32,
    "sparse_ids": np.int32,
    "sparse_weights": np.float32,
    "sparse_offsets": np.int64,
    "colbert": np.float32,
    "colbert_offsets": np.int64,
}


def offsets(lengths: Sequence[int] | IntArray) -> IntArray:
    """Where each of n consecutive pieces begins, and the end: (n + 1,) int64. offsets([2, 3]) is [0, 2, 5]."""
    return np.concatenate([[0], np.cumsum(np.asarray(lengths, np.int64))]).astype(np.int64)


def _as_array(name: str, given: Any, dtype: type) -> npt.NDArray[Any]:
    """Numbers of the wanted kind; InvalidVectorsError for anything else, rather than a number that says another."""
    if isinstance(given, np.ndarray) and given.dtype == dtype:
        return given
    floating = issubclass(dtype, np.floating)
    try:
        array = np.asarray(given)
        if array.size and array.dtype.kind not in ("biuf" if floating else "iu"):
            raise TypeError(f"got {array.dtype}")
        if not floating and array.size and not (np.iinfo(dtype).min <= array.min() <= array.max() <= np.iinfo(dtype).max):
            raise OverflowError(f"got {array.min()} to {array.max()}, which do not fit {np.dtype(dtype)}")
        with np.errstate(over="ignore"):  # what becomes infinite is refused where it is stored or searched with
            return array.astype(dtype)
    except (TypeError, ValueError, OverflowError) as error:
        wanted = "real" if floating else "whole"
        raise InvalidVectorsError(f"{name} must be {wanted} numbers, as many in every row; {error}") from error


def _sparse_row(row: Mapping[Any, float]) -> list[tuple[int, float]]:
    try:
        return sorted((int(token), float(weight)) for token, weight in row.items() if not weight <= 0)
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise InvalidVectorsError(f"want a text's sparse row as {{token id: weight}}; got {shown(row)}") from error


def _token_vectors(row: FloatArray, dim: int) -> FloatArray:
    if row.size and (row.ndim != 2 or row.shape[1] != dim):
        raise InvalidVectorsError(f"want a text's token vectors as (t, {dim}), as long as its dense vector; got {row.shape}")
    return row.reshape(-1, dim) if row.size else np.empty((0, dim), np.float32)


def _join_offsets(parts: Sequence[IntArray]) -> IntArray:
    return offsets(np.concatenate([np.diff(part) for part in parts]))


def _check_offsets(name: str, values: IntArray, n: int, end: int) -> None:
    if values.shape != (n + 1,) or values[0] != 0 or values[-1] != end or (np.diff(values) < 0).any():
        raise InvalidVectorsError(f"{name} must be {n + 1} ascending numbers from 0 to {end}; got shape {values.shape}")
