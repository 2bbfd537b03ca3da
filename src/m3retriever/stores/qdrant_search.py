"""Candidates from Qdrant, and their exact scores in every mode: two round trips, a third where documents tie.

The first asks for the dense and the sparse leg in one request, the second for every candidate's three scores in another,
by their points' ids, from the original vectors. One request could nest the legs in the scoring, three times over: the
legs would be searched five times, and which of them found a document, and ties, would still be left to a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from m3retriever.errors import InvalidArgumentError, shown
from m3retriever.observing.spans import span
from m3retriever.scoring import dense_score, sparse_scores
from m3retriever.stores.candidates import best, union
from m3retriever.stores.qdrant_connection import Connection
from m3retriever.stores.qdrant_filter import among
from m3retriever.stores.qdrant_points import COLBERT, DENSE, OUR_ID, SIZES, SPARSE, id_of, query_of, sizes_of, vectors_of
from m3retriever.types import MODES, Mode, ModeScores
from m3retriever.vectors import FloatArray, M3Vectors

if TYPE_CHECKING:
    from qdrant_client import models

DenseSearch: TypeAlias = Literal["hnsw", "exact"]
BoolArray: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
ROUNDING = 1e-6  # what float32 sums of 1,024 products are off by at most, relative to the vectors' lengths: 2e-7 was seen
BEYOND = 8  # results asked for beyond the depth, so that a tie at its end is seen
MOST_TIED = 2_000  # results beyond the depth among which a tie is decided; what ties with more is cut where Qdrant cuts it
READ_AT_ONCE = 256  # points whose vectors are read to decide a tie
SCORED_AT_ONCE = 2_000  # points
MOST_ATTEMPTS = 3  # at points that change while they are scored
EF_DEPTHS = 16  # HNSW's candidate list, in depths: `benchmarks/qdrant.py` finds .997 of the best 100 of 20,000 so, .87 with 2
LEAST_EF, MOST_EF = 128, 10_000
OVERSAMPLING = 2.0  # of what int8 codes find, how much more is scored by the originals


@dataclass(frozen=True)
class Found:
    """A leg's results, best first."""

    ids: list[str]
    points: list[str]
    scores: FloatArray

    def __len__(self) -> int:
        return len(self.ids)


def check_dense_search(dense: str) -> None:
    """InvalidArgumentError for a way to search that is none."""
    if dense not in ("hnsw", "exact"):
        raise InvalidArgumentError(f"dense is hnsw or exact; got {shown(dense)}")


def search(connection: Connection, query: M3Vectors, depth: int, allowed: models.Filter | None, how: DenseSearch) -> ModeScores:
    """The best `depth` of the dense and of the sparse leg among the allowed points, scored in every mode."""
    with span("dense", depth=depth):  # both legs: they are one request
        legs = _legs(connection, query, depth, allowed, how)
        kept = {mode: _best(connection, query, mode, found, depth) for mode, found in legs.items()}
    points = {id: point for found in legs.values() for id, point in zip(found.ids, found.points, strict=True)}
    ids = sorted(set(kept[DENSE]) | set(kept[SPARSE]))
    place = {id: row for row, id in enumerate(ids)}
    _, found_by = union(*(np.array([place[id] for id in kept[mode]], np.int64) for mode in (DENSE, SPARSE)))
    values, there = score(connection, query, [points[id] for id in ids])
    rows = np.flatnonzero(there).tolist()  # the others were deleted meanwhile
    return ModeScores(tuple(ids[row] for row in rows), values[rows], tuple(found_by[row] for row in rows))


def score(connection: Connection, query: M3Vectors, points: Sequence[str]) -> tuple[FloatArray, BoolArray]:
    """Points' scores in every mode, (n, 3) float32 in the order of MODES, and which of them are there, (n,) bool.

    The modes are asked for in one request, but a server answers them one after the other: a point that is deleted or
    replaced meanwhile may have answered in some only. Such a point is asked for again.
    """
    values, there, whole = _asked_for(connection, query, points)
    for _ in range(MOST_ATTEMPTS):
        torn = np.flatnonzero(there & ~whole).tolist()
        if not torn:
            break
        held = _token_counts(connection, [points[row] for row in torn])
        there[[row for row in torn if points[row] not in held]] = False
        whole[[row for row in torn if not held.get(points[row])]] = True  # without tokens there is nothing to answer with
        if again := [row for row in torn if held.get(points[row])]:
            values[again], there[again], whole[again] = _asked_for(connection, query, [points[row] for row in again])
    return values, there


def _asked_for(connection: Connection, query: M3Vectors, points: Sequence[str]) -> tuple[FloatArray, BoolArray, BoolArray]:
    """The scores, which points have answered for dense, and which in every part of the query's tokens as well."""
    values, there = np.zeros((len(points), len(MODES)), np.float32), np.zeros(len(points), bool)
    parts = np.zeros(len(points), np.int64)
    asked = [(column, part) for column, mode in enumerate(MODES) for part in query_of(query, mode)]
    with span("score", candidates=len(points)):
        for start in range(0, len(points), SCORED_AT_ONCE):
            page = points[start : start + SCORED_AT_ONCE]
            requests = [_request(MODES[column], part, among(page), len(page), _EXACT) for column, part in asked]
            sums = np.zeros((len(page), len(MODES)))
            place = {point: row for row, point in enumerate(page)}
            for (column, _), answer in zip(asked, _answers(connection, requests), strict=True):
                rows = [place[str(hit.id)] for hit in answer]
                sums[rows, column] += [hit.score for hit in answer]
                there[[start + row for row in rows]] |= MODES[column] == DENSE
                parts[[start + row for row in rows]] += MODES[column] == COLBERT
            sums[:, MODES.index(COLBERT)] /= max(1, len(query.colbert))  # Qdrant adds up the tokens' best; ours is their mean
            values[start : start + len(page)] = sums
    return values, there, parts == sum(MODES[column] == COLBERT for column, _ in asked)


def _token_counts(connection: Connection, points: Sequence[str]) -> dict[str, int]:
    """How many token vectors each of these points has; none of those that are gone."""
    records = connection.call("retrieve", ids=list(points), with_payload=[OUR_ID, SIZES], with_vectors=False)
    return {str(record.id): sizes_of(record.payload)[1] for record in records}


def _legs(
    connection: Connection, query: M3Vectors, depth: int, allowed: models.Filter | None, how: DenseSearch
) -> dict[Mode, Found]:
    """Both legs' results down to where no tie is open, in one request; what ties is asked for again, with more beyond."""
    parts = {mode: query_of(query, mode) for mode in (DENSE, SPARSE)}
    found: dict[Mode, Found] = {mode: Found([], [], np.empty(0, np.float32)) for mode in parts}
    open_modes, beyond = [mode for mode in parts if parts[mode]], BEYOND
    while open_modes:
        limit = _limit(connection, depth + beyond)
        params = {mode: _EXACT if mode == SPARSE or how == "exact" else _by_hnsw(limit) for mode in open_modes}
        requests = [_request(mode, parts[mode][0], allowed, limit, params[mode], [OUR_ID]) for mode in open_modes]
        for mode, answer in zip(list(open_modes), _answers(connection, requests), strict=True):
            found[mode] = _found(answer, positive=mode == SPARSE)
            tied = len(answer) == limit and len(found[mode]) > depth and _ties(found[mode], depth, query, mode)
            if not tied or beyond >= MOST_TIED:
                open_modes.remove(mode)
        beyond = min(8 * beyond, MOST_TIED)
    return found


def _ties(found: Found, depth: int, query: M3Vectors, mode: Mode) -> bool:
    """Whether what was not asked for might be as good as the last that counts."""
    return bool(found.scores[-1] >= found.scores[depth - 1] - _margin(found.scores[depth - 1], query, mode))


def _margin(border: float, query: M3Vectors, mode: Mode) -> float:
    """What two scores near this one may differ by and be the same in truth: documents' vectors have length 1."""
    return float(2 * ROUNDING * (abs(border) if mode == SPARSE else np.linalg.norm(query.dense[0])))


def _best(connection: Connection, query: M3Vectors, mode: Mode, found: Found, depth: int) -> list[str]:
    """The best `depth` ids of a leg, equals by id: those around the border are scored here, from their vectors."""
    if len(found) <= depth:
        return found.ids
    border = found.scores[depth - 1]
    margin = _margin(border, query, mode)
    sure = int((found.scores > border + margin).sum())
    around = np.flatnonzero(np.abs(found.scores - border) <= margin)
    if sure + len(around) == depth:
        return found.ids[:depth]
    points = [found.points[row] for row in around]
    values = _scores_here(connection, query, mode, points)
    chosen = best(values, around, depth - sure, lambda rows: [found.ids[row] for row in rows])
    return found.ids[:sure] + [found.ids[row] for row in chosen]


def _scores_here(connection: Connection, query: M3Vectors, mode: Mode, points: Sequence[str]) -> FloatArray:
    """Points' scores in one mode as MemoryStore has them; 0 for one that was deleted meanwhile."""
    values = np.zeros(len(points), np.float32)
    place = {point: row for row, point in enumerate(points)}
    for start in range(0, len(points), READ_AT_ONCE):
        page = list(points[start : start + READ_AT_ONCE])
        records = connection.call("retrieve", ids=page, with_payload=False, with_vectors=[mode])
        held = vectors_of([record.vector for record in records], query.dim)
        values[[place[str(record.id)] for record in records]] = (
            dense_score(query.dense[0], held.dense)
            if mode == DENSE
            else sparse_scores(query, held.sparse_ids, held.sparse_weights, held.sparse_offsets)
        )
    return values


def _found(answer: Sequence[Any], *, positive: bool) -> Found:
    """Results as columns; of the sparse leg only those above 0."""
    kept = [hit for hit in answer if hit.score > 0 or not positive]
    kept.sort(key=lambda hit: -hit.score)
    return Found([id_of(hit.payload) for hit in kept], [str(hit.id) for hit in kept], np.array([hit.score for hit in kept]))


def _limit(connection: Connection, wanted: int) -> int:
    """How many results are asked for: never many more than there are points, for a server makes room for them."""
    return wanted if wanted <= SCORED_AT_ONCE else max(1, min(wanted, int(connection.call("count", exact=True).count)))


_EXACT: Mapping[str, Any] = {"exact": True, "quantization": {"ignore": True}}


def _by_hnsw(limit: int) -> Mapping[str, Any]:
    codes = {"ignore": False, "rescore": True, "oversampling": OVERSAMPLING}
    return {"hnsw_ef": max(LEAST_EF, min(EF_DEPTHS * limit, MOST_EF), limit), "quantization": codes}


def _request(
    mode: Mode,
    query: Any,
    allowed: models.Filter | None,
    limit: int,
    params: Mapping[str, Any],
    payload: list[str] | None = None,
) -> models.QueryRequest:
    from qdrant_client import models

    return models.QueryRequest(
        query=query,
        using=mode,
        filter=allowed,
        limit=limit,
        params=models.SearchParams(**params),
        with_payload=payload or False,
        with_vector=False,
    )


def _answers(connection: Connection, requests: Sequence[models.QueryRequest]) -> list[list[Any]]:
    """The results of several queries, in one round trip."""
    if not requests:
        return []
    if connection.local:  # which is always exact, and warns of params
        requests = [request.model_copy(update={"params": None}) for request in requests]
    return [answer.points for answer in connection.call("query_batch_points", requests=list(requests))]
