"""The data that flows through the library: documents, vectors, scores, hits, and the two Protocols.

Modes are always in the order dense, sparse, colbert, which is FlagEmbedding's order of weights.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, get_args, runtime_checkable

import numpy as np

from m3retriever.errors import InvalidArgumentError, shown
from m3retriever.vectors import FloatArray, IntArray, M3Vectors

Mode = Literal["dense", "sparse", "colbert"]
MODES: tuple[Mode, ...] = get_args(Mode)
MAX_DEPTH = 10**9  # candidates: more than any index holds
Where: TypeAlias = Mapping[str, Any]

__all__ = [
    "MODES",
    "Document",
    "Encoder",
    "FloatArray",
    "Hit",
    "IntArray",
    "M3Vectors",
    "Mode",
    "ModeScores",
    "Profile",
    "Store",
    "Token",
    "Tokenizes",
    "Weights",
    "Where",
]


@dataclass(frozen=True)
class Document:
    """A text to be retrieved, under an id that is unique in its store.

    Metadata values are str, int, float, bool or a non-empty list of one of them, as Chroma stores
    them; a key whose value is None counts as absent. A float with more than 15 digits may come back
    from Chroma as one beside it (2e-16 of its size away): ask for such with $gte and $lte, not $eq.
    """

    id: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Weights:
    """How much each mode counts. Only the ratios matter: (1, 1, 1) and (5, 5, 5) rank alike.

    The default is BGE-M3's own 0.4, 0.2, 0.4. Negative, infinite or all-zero weights are refused.
    """

    dense: float = 0.4
    sparse: float = 0.2
    colbert: float = 0.4

    def __post_init__(self) -> None:
        values = tuple(self)
        if not all(isinstance(value, Real) and is_finite(value) for value in values):
            raise InvalidArgumentError(f"weights must be three finite numbers; got {shown(values)}")
        if min(values) < 0 or sum(values) == 0:
            raise InvalidArgumentError(f"weights must be >= 0 and not all 0; got {shown(values)}")

    @classmethod
    def of(cls, value: Weights | Sequence[float] | Mapping[Mode, float]) -> Weights:
        """Weights from weights, from three numbers in the order of `MODES`, or from a dict by mode."""
        if isinstance(value, Weights):
            return value
        if isinstance(value, Mapping):
            if unknown := set(value) - set(MODES):
                raise InvalidArgumentError(f"weights by mode take {', '.join(MODES)}; got {shown(sorted(map(str, unknown)))}")
            return cls(*(value.get(mode, 0.0) for mode in MODES))
        ordered = hasattr(value, "__len__") and hasattr(value, "__getitem__") and not isinstance(value, str | bytes)
        if not ordered or len(value) != len(MODES):
            raise InvalidArgumentError(f"weights must be three numbers (dense, sparse, colbert); got {shown(value)}")
        return cls(*value)

    def __iter__(self) -> Iterator[float]:
        return iter((self.dense, self.sparse, self.colbert))

    def normalized(self) -> Weights:
        """The same ratios, summing to 1."""
        largest = max(self)  # first, so that no sum can overflow
        total = sum(value / largest for value in self)
        return Weights(*(value / largest / total for value in self))


@dataclass(frozen=True, eq=False)
class ModeScores:
    """One query's raw score for each of n candidates in each mode, before any weight.

    Attributes
    ----------
    ids : n document ids
    values : (n, 3) float32, columns in the order of `MODES`; higher is better
    found_by : n frozensets, the modes whose own search brought the candidate in
    query : the text that was asked, where it is known; fusions whose weights depend on it read it
    owners : n ids of the documents that the candidates are passages of; by default the candidates' own
    """

    ids: tuple[str, ...]
    values: FloatArray
    found_by: tuple[frozenset[Mode], ...] = ()
    query: str = ""
    owners: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", tuple(self.ids))
        object.__setattr__(self, "owners", tuple(self.owners) or self.ids)
        object.__setattr__(self, "values", np.asarray(self.values, dtype=np.float32))
        found_by = tuple(self.found_by) or (frozenset[Mode](),) * len(self.ids)
        object.__setattr__(self, "found_by", found_by)
        want = (len(self.ids), len(MODES))
        if self.values.shape != want or not len(found_by) == len(self.owners) == len(self.ids):
            raise InvalidArgumentError(
                f"{len(self.ids)} ids want values of shape {want}, and as many found_by and owners; "
                f"got {self.values.shape}, {len(found_by)} and {len(self.owners)}"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def column(self, mode: Mode) -> FloatArray:
        """All candidates' scores in one mode, (n,)."""
        return self.values[:, MODES.index(mode)]

    def of(self, row: int) -> dict[Mode, float]:
        """One candidate's scores by mode."""
        return dict(zip(MODES, self.values[row].tolist(), strict=True))


@dataclass(frozen=True)
class Hit:
    """A document in a ranking, with the score that ranked it and the three it came from.

    Attributes
    ----------
    score : the fused score, or the mode's own when one mode was asked for
    scores : the raw score in every mode
    ranks : the place (from 1) the candidate has when ranked by that mode alone, ties by id
    found_by : the modes whose own search brought it in
    probability : of being relevant, where the profile holds a calibration of what ranked it
    relevance : in [0, 1]: the probability, or without one a similarity; see `Ranking.relevance`
    """

    document: Document
    score: float
    scores: Mapping[Mode, float]
    ranks: Mapping[Mode, int]
    found_by: frozenset[Mode]
    probability: float | None = None
    relevance: float | None = field(default=None, compare=False)  # follows from the others


@dataclass(frozen=True)
class Profile:
    """Everything tuning and calibration decide, in one small value. Saved as TOML (`profile.py`).

    Attributes
    ----------
    weights : of the three modes
    fusion : a name in `fusion.FUSIONS`
    thresholds : the lowest score that counts, by mode or "hybrid"
    depth : how many candidates the dense and the sparse search each bring in
    calibration : what scores mean, by mode or "hybrid" (`calibration.Calibration`); None until fitted
    model : name of the encoder it was fitted on; None fits any
    precision : of that encoder, such as "fp32"; None fits any
    parameters : what the fusion needs beside weights
    fitted : what it was fitted on, and how good it was on questions it was not fitted on; for people to read
    """

    weights: Weights = field(default_factory=Weights)
    fusion: str = "weighted_sum"
    thresholds: Mapping[str, float] = field(default_factory=dict)
    depth: int = 200
    calibration: Mapping[str, Any] | None = None
    model: str | None = None
    precision: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    fitted: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", Weights.of(self.weights))
        if isinstance(self.depth, bool) or not isinstance(self.depth, int | np.integer) or self.depth < 1:
            raise InvalidArgumentError(f"depth must be an integer >= 1; got {shown(self.depth)}")
        object.__setattr__(self, "depth", operator.index(self.depth))
        if self.depth > MAX_DEPTH:
            raise InvalidArgumentError(f"depth must be at most {MAX_DEPTH}")
        if not all(isinstance(held, str | None) for held in (self.model, self.precision)):
            raise InvalidArgumentError(f"model and precision are names or None; got {self.model!r}, {self.precision!r}")
        if self.calibration is not None and not isinstance(self.calibration, Mapping):
            raise InvalidArgumentError(f"calibration must be a mapping or None; got {self.calibration!r}")
        for name in ("parameters", "fitted"):
            if not isinstance(getattr(self, name), Mapping):
                raise InvalidArgumentError(f"{name} must be a mapping; got {getattr(self, name)!r}")
        if not isinstance(self.thresholds, Mapping) or not all(map(_is_threshold, self.thresholds.values())):
            raise InvalidArgumentError(f"thresholds must be finite numbers by mode; got {shown(self.thresholds)}")
        if unknown := set(self.thresholds) - {*MODES, "hybrid"}:
            raise InvalidArgumentError(
                f"thresholds are for {', '.join(MODES)} or hybrid; got {shown(sorted(map(str, unknown)))}"
            )


def is_finite(number: Any) -> bool:
    """Whether a real number is one that a float can hold: neither NaN nor infinite nor an int of 400 digits."""
    try:
        return math.isfinite(float(number))
    except OverflowError:
        return False


def _is_threshold(value: Any) -> bool:
    return isinstance(value, int | float | np.floating | np.integer) and not isinstance(value, bool) and is_finite(value)


class Token(NamedTuple):
    """A piece of a text as the encoder sees it: its id and the characters text[start:end] it covers."""

    id: int
    start: int
    end: int


class Encoder(Protocol):
    """Turns texts into the three views. `name` goes into the store, so that vectors never mix."""

    @property
    def name(self) -> str: ...
    @property
    def dim(self) -> int: ...
    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> M3Vectors: ...
    def encode_queries(self, texts: Sequence[str]) -> M3Vectors: ...


@runtime_checkable
class Tokenizes(Protocol):
    """An encoder that can also say which characters each ColBERT vector stands for."""

    def tokenize(self, text: str) -> list[Token]: ...


class Store(Protocol):
    """Keeps documents with their vectors, finds candidates and scores them in every mode.

    `add` replaces a document whose id is known. `delete`, `get` and `score` raise
    UnknownDocumentError for an unknown id, before anything is changed. `where` is Chroma's filter
    language, and holds for every candidate whichever mode found it.
    """

    def add(self, documents: Sequence[Document], vectors: M3Vectors) -> None: ...
    def delete(self, ids: Sequence[str]) -> None: ...
    def get(self, ids: Sequence[str]) -> list[Document]: ...
    def search(self, query: M3Vectors, *, depth: int, where: Where | None = None) -> ModeScores: ...
    def score(self, query: M3Vectors, ids: Sequence[str]) -> ModeScores: ...
    def __len__(self) -> int: ...
    def close(self) -> None: ...


@runtime_checkable
class HoldsVectors(Protocol):
    """A store that can give back the vectors it holds (token vectors as precise as it stores them)."""

    def vectors(self, ids: Sequence[str]) -> M3Vectors: ...


@runtime_checkable
class ListsIds(Protocol):
    """A store that can say which documents pass a filter, all of them without one: ids, ascending."""

    def ids(self, where: Where | None = None) -> list[str]: ...


@runtime_checkable
class HoldsWriting(Protocol):
    """A store whose documents nobody else changes inside `with store.writing()`."""

    def writing(self) -> AbstractContextManager[None]: ...


@runtime_checkable
class WritesFromThreads(Protocol):
    """A store whose `add` may be called from any thread, but for the one that holds the right to write."""

    def writing_here(self) -> bool: ...


@runtime_checkable
class Adopts(Protocol):
    """A store whose documents may come from elsewhere and then lack vectors, until it adopts them."""

    def adopt(self, encode: Callable[[Sequence[str]], M3Vectors]) -> int: ...


@runtime_checkable
class BindsModel(Protocol):
    """A store that remembers which model its vectors come from and refuses another's."""

    def bind(self, model: str, dim: int) -> None: ...


@runtime_checkable
class KeptStore(Store, HoldsVectors, ListsIds, BindsModel, Protocol):
    """A store that outlives its process: a folder's or a server's, which `M3Index.open` opens.

    `source` says how to load the model again, and `settings` gives it back with the model's name and the dimension,
    each None until it is known. `revision` is another number after each change that the store can see. `missing` are
    ids whose vectors are not those of their texts, `writer` which other process is writing, in words, and `sizes`
    how many sparse entries and token vectors documents have, (n, 2). `remember` keeps the model that was bound.
    """

    source: str | None

    def settings(self) -> dict[str, str | None]: ...
    def revision(self) -> int: ...
    def missing(self) -> list[str]: ...
    def writer(self) -> str | None: ...
    def sizes(self, ids: Sequence[str]) -> IntArray: ...
    def remember(self) -> None: ...
