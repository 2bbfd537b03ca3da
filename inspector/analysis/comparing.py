"""Two rankings of the same questions: where they differ, and how documents moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from m3retriever.evaluation import Comparison, Qrels, Run, answerable
from m3retriever.inspector.analysis.quality import ordered

BARS = 60  # questions in the chart
PLACES = 10  # of the two rankings side by side
CHANCE = 0.05  # a difference that chance gives less often than this is called real
STARS = 2  # grades above are marked as this one


@dataclass(frozen=True)
class Difference:
    """A question's values under both rankings."""

    query: str
    first: float
    second: float

    @property
    def value(self) -> float:
        """The second less the first."""
        return self.second - self.first


@dataclass(frozen=True)
class Line:
    """A place in both rankings.

    Attributes
    ----------
    first, second : the documents there; None where a ranking is shorter
    first_mark, second_mark : their grades, as `stars` shows them
    moved : places by which the second's document rose since the first ranking; None where that lacks it
    """

    rank: int
    first: str | None
    first_mark: str
    second: str | None
    second_mark: str
    moved: int | None


@dataclass(frozen=True)
class Overlap:
    """How a run fits the questions of a set.

    Attributes
    ----------
    lacking : questions of the set that the run has not; they count 0
    beyond : queries of the run that the set has not; they are left out
    """

    lacking: tuple[str, ...]
    beyond: tuple[str, ...]


def differences(first: Mapping[str, float], second: Mapping[str, float]) -> list[Difference]:
    """The questions, those that gained most first."""
    found = [Difference(query, value, second[query]) for query, value in first.items()]
    return sorted(found, key=lambda one: -one.value)


def largest(found: Sequence[Difference], count: int = BARS) -> list[Difference]:
    """Those that differ most, whatever the direction, in the order given; none that are alike."""
    differing = [one for one in found if one.value]
    places = sorted(range(len(differing)), key=lambda place: -abs(differing[place].value))[:count]
    return [differing[place] for place in sorted(places)]


def side_by_side(
    first: Mapping[str, float], second: Mapping[str, float], grades: Mapping[str, int], count: int = PLACES
) -> list[Line]:
    """The first places of two runs of one question."""
    before, after = ordered(first), ordered(second)
    places = {id: place for place, id in enumerate(before, start=1)}
    return [
        Line(
            rank=rank,
            first=old,
            first_mark=stars(grades.get(old or "", 0)),
            second=new,
            second_mark=stars(grades.get(new or "", 0)),
            moved=places[new] - rank if new in places else None,
        )
        for rank, (old, new) in enumerate(zip_longest(before[:count], after[:count]), start=1)
    ]


def stars(grade: int) -> str:
    """★ for grade 1, ★★ for 2 and above, nothing for a document that is not relevant."""
    return "★" * min(max(grade, 0), STARS)


def arrow(value: float) -> str:
    """A sign that needs no colour: ▲ above 0, ▼ below, = at 0."""
    return "▲" if value > 0 else "▼" if value < 0 else "="


def outcome(found: Comparison) -> str:
    """What the comparison says: "same", "chance", or that the second is "better" or "worse" beyond chance."""
    if not found.wins and not found.losses:
        return "same"
    if found.p_value >= CHANCE:
        return "chance"
    return "better" if found.difference > 0 else "worse"


def overlap(run: Run, qrels: Qrels) -> Overlap:
    """Which questions a run and a set do not have in common."""
    judged = answerable(qrels)
    return Overlap(tuple(query for query in judged if query not in run), tuple(query for query in run if query not in judged))
