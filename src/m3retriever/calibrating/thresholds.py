"""The lowest score that should count, for what is wanted of the answers: precision, recall, few false positives.

Everything works on runs ({question: {document: score}}): what a search would return without a threshold.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from m3retriever.errors import InvalidArgumentError
from m3retriever.vectors import FloatArray, IntArray

ROUNDING = 1e-9  # of a share times a count
MIN_RETURNED = 5  # answers on which a precision is judged: fewer say nothing


@dataclass(frozen=True, eq=False)
class Pairs:
    """Questions with the documents found for them, each pair with its score and whether it is right.

    Attributes
    ----------
    scores, relevant : (n,) float64 and bool
    question : (n,) int, numbers of the questions, from 0
    wanted : (q,) int, how many documents are relevant to each question, found or not
    """

    scores: FloatArray
    relevant: np.ndarray
    question: IntArray
    wanted: IntArray

    @classmethod
    def of(cls, run: Mapping[str, Mapping[str, float]], qrels: Mapping[str, Mapping[str, int]]) -> Pairs:
        """The pairs of the judged questions; a document that is not judged is not relevant."""
        found = [run.get(question, {}) for question in qrels]
        grades = list(qrels.values())
        return cls(
            np.array([score for scored in found for score in scored.values()], np.float64),
            np.array([judged.get(id, 0) > 0 for scored, judged in zip(found, grades, strict=True) for id in scored], bool),
            np.repeat(np.arange(len(found)), [len(scored) for scored in found]),
            np.array([sum(grade > 0 for grade in judged.values()) for judged in grades], np.int64),
        )

    def only(self, questions: np.ndarray) -> Pairs:
        """Those of some questions, (q,) bool."""
        kept = questions[self.question]
        renumbered = np.cumsum(questions) - 1
        return Pairs(self.scores[kept], self.relevant[kept], renumbered[self.question[kept]], self.wanted[questions])

    def measured(self, threshold: float) -> Measured:
        """What a threshold makes of these questions."""
        returned = self.scores >= threshold
        right = int((returned & self.relevant).sum())
        answered = np.zeros(len(self.wanted), bool)
        answered[self.question[returned]] = True
        shares = np.bincount(self.question[returned & self.relevant], minlength=len(self.wanted)) / np.maximum(self.wanted, 1)
        kept = float(shares[self.wanted > 0].mean()) if (self.wanted > 0).any() else 1.0
        return Measured(int(returned.sum()), right, int(self.wanted.sum()), int(answered.sum()), len(self.wanted), kept)


@dataclass(frozen=True)
class Measured:
    """What a threshold makes of questions, all their answers counted together.

    Attributes
    ----------
    returned, right : answers at or above the threshold, and how many of them are relevant
    relevant : documents that are relevant, found or not
    answered, questions : questions with an answer, and all
    mean_recall : the mean over questions of the share of their relevant documents that are answers
    """

    returned: int
    right: int
    relevant: int
    answered: int
    questions: int
    mean_recall: float

    @property
    def precision(self) -> float:
        """Share of the answers that are relevant; 1 where there is none, which is no wrong one."""
        return self.right / self.returned if self.returned else 1.0

    @property
    def recall(self) -> float:
        """Share of the relevant documents that are answers."""
        return self.right / self.relevant if self.relevant else 1.0

    def f(self, beta: float = 1.0) -> float:
        """The weighted harmonic mean of both (van Rijsbergen, 1979); beta > 1 favours recall."""
        total = self.precision + self.recall
        return 0.0 if not total else (1 + beta**2) * self.precision * self.recall / (beta**2 * self.precision + self.recall)


@dataclass(frozen=True, eq=False)
class Cuts:
    """Every threshold that makes a difference, highest first, with what each returns: (m,) arrays."""

    thresholds: FloatArray
    returned: IntArray
    right: IntArray
    relevant: int

    @classmethod
    def of(cls, pairs: Pairs) -> Cuts:
        """One for each distinct score."""
        order = np.argsort(-pairs.scores, kind="stable")
        scores = pairs.scores[order]
        last = np.append(scores[1:] != scores[:-1], True)[: len(scores)]
        right = np.cumsum(pairs.relevant[order])
        return cls(scores[last], np.arange(1, len(scores) + 1)[last], right[last], int(pairs.wanted.sum()))

    @property
    def precision(self) -> FloatArray:
        """(m,)"""
        values: FloatArray = self.right / self.returned
        return values

    @property
    def recall(self) -> FloatArray:
        """(m,)"""
        values: FloatArray = self.right / max(self.relevant, 1)
        return values

    def between(self, row: int) -> float:
        """A threshold that returns what row `row` does: midway to the next lower score, so that it does not hang on
        one pair's last digits."""
        lower = self.thresholds[min(row + 1, len(self.thresholds) - 1)]
        return float((self.thresholds[row] + lower) / 2)


def for_precision(pairs: Pairs, wanted: float) -> float:
    """The lowest threshold above which this share of the answers is relevant."""
    _check_share(wanted, "precision")
    cuts = Cuts.of(pairs)
    enough = cuts.returned >= MIN_RETURNED
    reached = np.flatnonzero(enough & (cuts.precision >= wanted))
    if not len(reached):
        best = float(cuts.precision[enough].max()) if enough.any() else 0.0
        raise InvalidArgumentError(f"precision {wanted:g} is not reached: at best {best:.3f} on {MIN_RETURNED} answers or more")
    return cuts.between(int(reached[-1]))


def for_recall(pairs: Pairs, wanted: float) -> float:
    """The highest threshold at which this share of the relevant documents is returned."""
    _check_share(wanted, "recall")
    cuts = Cuts.of(pairs)
    reached = np.flatnonzero(cuts.recall >= wanted)
    if not len(reached):
        best = float(cuts.recall.max(initial=0))
        raise InvalidArgumentError(f"recall {wanted:g} is not reached: {best:.3f} of the relevant documents are candidates")
    return cuts.between(int(reached[0]))


def for_f(pairs: Pairs, beta: float = 1.0) -> float:
    """The threshold of the best F-beta."""
    if not (math.isfinite(beta) and beta > 0):
        raise InvalidArgumentError(f"beta must be a number above 0; got {beta!r}")
    cuts = Cuts.of(pairs)
    if not len(cuts.thresholds) or not cuts.right[-1]:
        raise InvalidArgumentError("a threshold needs questions with relevant documents that were found; got none")
    total = beta**2 * cuts.relevant + cuts.returned
    return cuts.between(int(np.argmax((1 + beta**2) * cuts.right / total)))


def for_rate(sample: FloatArray, wanted: float) -> float:
    """The lowest score of a sample that no more than this share of it reaches, as `Rates.score_at`.

    `sample` (n,) holds what should not be returned, such as the best scores of questions that have no answer;
    -inf where nothing was found, which reaches no threshold.
    """
    if not 0 <= wanted <= 1:
        raise InvalidArgumentError(f"a false-positive rate is between 0 and 1; got {wanted!r}")
    falling = np.sort(np.asarray(sample, np.float64))[::-1]
    if not len(falling):
        raise InvalidArgumentError("a false-positive rate needs scores of what should not be returned; got none")
    allowed = math.floor((wanted + ROUNDING) * len(falling))
    if not allowed and wanted > 0:
        raise InvalidArgumentError(
            f"{len(falling)} scores tell rates down to {1 / len(falling):.2g}; got {wanted:g}: give more"
        )
    known = falling[np.isfinite(falling)]
    if allowed >= len(known):
        return float(known[-1]) if len(known) else 0.0
    above = known[:allowed][known[:allowed] > known[allowed]]
    return float(above[-1]) if len(above) else float(np.nextafter(known[allowed], np.inf))


def for_certain_recall(pairs: Pairs, wanted: float, *, confidence: float = 0.95) -> float:
    """The highest threshold that keeps the mean recall of questions like these at `wanted`, with this confidence.

    Conformal risk control with a bound that holds for any distribution: the questions are a sample of those
    to come, the loss of a question is the share of its relevant documents that is cut, and thresholds are
    tested from the lowest up with the Hoeffding-Bentkus bound (Bates et al., 2021). Questions without a
    relevant document say nothing here and are left out. It is about all documents that reach the threshold, so
    a search must not cut them by k, and about candidates of one depth, chosen beforehand.
    """
    _check_share(wanted, "recall")
    if not 0 < confidence < 1:
        raise InvalidArgumentError(f"confidence must be between 0 and 1; got {confidence!r}")
    answerable = pairs.only(pairs.wanted > 0)
    count, cuts = len(answerable.wanted), Cuts.of(answerable)
    kept = _mean_recall(answerable, cuts)
    row = bisect.bisect_left(kept, True, key=lambda one: hoeffding_bentkus(1 - one, count, 1 - wanted) <= 1 - confidence)
    if row == len(kept):
        raise InvalidArgumentError(
            f"recall {wanted:g} cannot be promised with confidence {confidence:g}: there are {count} questions, and "
            f"{kept[-1] if kept else 0:.3f} of their relevant documents are candidates; give more questions or a larger depth"
        )
    return float(cuts.thresholds[row])


def hoeffding_bentkus(loss: float, count: int, level: float) -> float:
    """How likely at most a mean loss in [0, 1] of `count` questions is so small, were the true one `level`, in (0, 1)."""
    from scipy.stats import binom

    if loss >= level:
        return 1.0
    distance = (loss * math.log(loss / level) if loss > 0 else 0) + (1 - loss) * math.log((1 - loss) / (1 - level))
    bentkus = math.e * float(binom.cdf(math.ceil(count * loss - ROUNDING), count, level))
    return min(math.exp(-count * distance), bentkus, 1.0)


def _mean_recall(pairs: Pairs, cuts: Cuts) -> list[float]:
    """At each cut, the mean over questions of the share of their relevant documents that is returned."""
    order = np.argsort(-pairs.scores, kind="stable")
    shares = np.where(pairs.relevant, 1 / np.maximum(pairs.wanted[pairs.question], 1), 0)[order]
    means = np.cumsum(shares)[cuts.returned - 1] / max(len(pairs.wanted), 1)
    return [float(mean) for mean in np.minimum(means, 1)]


def _check_share(wanted: float, name: str) -> None:
    if not 0 < wanted <= 1:
        raise InvalidArgumentError(f"{name} must be above 0 and at most 1; got {wanted!r}")
