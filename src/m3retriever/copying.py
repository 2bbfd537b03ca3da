"""Moving an index from one store to another, vectors and all: nothing is encoded again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from m3retriever.checks import check_k
from m3retriever.errors import InvalidArgumentError, StoreError, UnknownDocumentError
from m3retriever.ingest import same
from m3retriever.opening import OWN_PROFILE, keep_profile
from m3retriever.profile import load_profile
from m3retriever.stores.places import Place, place_of
from m3retriever.types import MODES, Document, KeptStore

BATCH = 256  # documents read and written at a time
BATCH_TOKENS = 32_768  # and their token vectors: 128 MB at d = 1024
SAMPLE = 100  # documents whose scores are compared in the end
EXACT, CODES = 1e-5, 2e-3  # a score may differ by so much: by rounding, and of token vectors by 8-bit codes
TOLERANCE = np.array([EXACT, EXACT, CODES], np.float32)  # in the order of MODES

Step = Callable[[int], object]


@dataclass(frozen=True)
class Copied:
    """What `copy` did.

    Attributes
    ----------
    copied, unchanged : documents that were written, and that were there already
    others : documents of the target that the source does not have; they stay
    compared : pairs of a query and a document whose scores were compared in every mode
    difference : the largest difference found, by mode
    profile : whether the source's profile was copied; one that the target has stays
    """

    copied: int
    unchanged: int
    others: int
    compared: int
    difference: dict[str, float]
    profile: bool


def copy(
    source: str | Path | Place, target: str | Path | Place, *, sample: int = SAMPLE, on_step: Step | None = None
) -> Copied:
    """Copy documents, vectors, the model's name and the profile from one place to another.

    A copy that was interrupted is simply started again: documents that the target holds, text and metadata alike,
    are not sent a second time. In the end the scores of a sample are compared in both. The source is only read.

    Parameters
    ----------
    source, target
        As `stores.places` reads them: "./index", "qdrant://host:6333/notes".
    sample
        How many documents to compare, each as a query to all of them; at least 1.
    on_step
        Called with the number of documents done since its last call.

    Raises
    ------
    StoreError
        There is no index at the source, one of the two does not answer, documents of the source have no vectors yet,
        or scores differ by more than rounding (token vectors: more than 8-bit codes do).
    EncoderMismatchError
        The target holds vectors of another model.
    """
    check_k(sample, "sample")
    source, target = place_of(source), place_of(target)
    if source.same_as == target.same_as:
        raise InvalidArgumentError(f"copy takes two places; got {source.given} twice")
    if not source.exists():
        raise StoreError(f"there is no index in {source.given} to be copied")
    with closing(source.open(read_only=True)) as held:
        if lacking := held.missing():
            raise StoreError(
                f"{len(lacking)} documents in {source.given} have no vectors yet: open the index once with its model, or run "
                f"m3retriever index on it, then copy it"
            )
        with closing(target.open()) as wanted:
            _bind(held, wanted, source)
            ids, copied = list[str](), 0
            for page in _pages(held, held.ids()):
                present, sent = _copied(held, wanted, page, on_step)
                ids += present
                copied += sent
            compared, difference = _compared(held, wanted, ids, sample)
            others = len(wanted) - len(ids)
    return Copied(copied, len(ids) - copied, others, compared, difference, _profile_copied(source, target))


def _bind(held: KeptStore, wanted: KeptStore, source: Place) -> None:
    """Say in the target which model the vectors are of."""
    settings = held.settings()
    if settings["model"] is None or settings["dim"] is None:
        raise StoreError(f"the index in {source.given} does not say which model it is of: open it once with its model")
    wanted.source = settings["source"]
    wanted.bind(settings["model"], int(settings["dim"]))
    wanted.remember()


def _pages(held: KeptStore, ids: Sequence[str]) -> Iterator[list[str]]:
    """Runs of ids, at least one each, within BATCH documents and BATCH_TOKENS token vectors."""
    for start in range(0, len(ids), BATCH):
        page = list(ids[start : start + BATCH])
        tokens = held.sizes(page)[:, 1]
        run: list[str] = []
        total = 0
        for id, count in zip(page, tokens.tolist(), strict=True):
            if run and total + count > BATCH_TOKENS:
                yield run
                run, total = [], 0
            run.append(id)
            total += count
        yield run


def _copied(held: KeptStore, wanted: KeptStore, ids: Sequence[str], on_step: Step | None) -> tuple[list[str], int]:
    """Which of these documents there are, and how many had to be sent.

    A source that is only read does not learn that another client has deleted some: a search leaves them out, and so does this.
    """
    documents, there = _held(held, ids), _held(wanted, ids)
    changed = [document for document in documents.values() if not same(document, there.get(document.id))]
    if changed:
        wanted.add(changed, held.vectors([document.id for document in changed]))
    if on_step is not None:
        on_step(len(ids))
    return list(documents), len(changed)


def _held(store: KeptStore, ids: Sequence[str]) -> dict[str, Document]:
    """Those of the documents that a store has."""
    try:
        return {document.id: document for document in store.get(ids)}
    except UnknownDocumentError as error:
        unknown = set(error.ids)
        known = [id for id in ids if id not in unknown]
        return _held(store, known) if known else {}


def _compared(held: KeptStore, wanted: KeptStore, ids: Sequence[str], sample: int) -> tuple[int, dict[str, float]]:
    """How many pairs were compared, and the largest difference by mode."""
    places = np.linspace(0, max(0, len(ids) - 1), min(sample, len(ids))).astype(int)
    chosen, worst = [ids[place] for place in places.tolist()], np.zeros(len(MODES))
    for start in range(0, len(chosen), BATCH):
        for query in held.vectors(chosen[start : start + BATCH]):
            differences = np.abs(held.score(query, chosen).values - wanted.score(query, chosen).values)
            worst = np.maximum(worst, differences.max(axis=0))
    if (worst > TOLERANCE).any():
        found = ", ".join(f"{mode} {value:.2g}" for mode, value in zip(MODES, worst, strict=True))
        raise StoreError(
            f"scores of {len(chosen)} documents differ between the two by up to {found}: the target does not hold what the "
            "source does; delete it and copy again"
        )
    return len(chosen) ** 2, dict(zip(MODES, worst.tolist(), strict=True))


def _profile_copied(source: Place, target: Place) -> bool:
    own, other = source.folder / OWN_PROFILE, target.folder / OWN_PROFILE
    if not own.is_file() or other.exists():
        return False
    keep_profile(load_profile(own), target)
    return True
