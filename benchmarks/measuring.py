"""What a row of the benchmarks is, and the one way in which all of them are timed: in turn, as ratios within one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

Step: TypeAlias = Callable[[int], object]  # takes the round's number, so that no two rounds ask the same

PAUSE, AWAKE = 0.02, 0.002  # seconds
MISSING = "not installed: pip install 'm3retriever[bench]'"


class NotEqualError(Exception):
    """What was optimised does not give what the plain computation gives."""


@dataclass(frozen=True)
class Ratio:
    """Minimum, median and maximum over interleaved rounds of a peer's time over ours; above 1 we are faster."""

    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Bound:
    """How far from what the machine allows: our time over that of `of`, and how much of that is wanted at most."""

    of: str
    times: float
    at_most: float | None = None

    def __str__(self) -> str:
        return f"{number(self.times)} times {self.of}"


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes
    ----------
    group : encoding, kernels, search or ingest
    what, peer : what was done, and what else does it
    n : interleaved rounds
    ratio : the peer's cost over ours; None where the peer is not installed
    seconds : median of our time
    at_least, within : the ratio and the seconds that are wanted
    bounds : against what the machine allows
    note : what the peer does not give, what was extrapolated, what was checked
    """

    group: str
    what: str
    peer: str
    n: int
    ratio: Ratio | None
    seconds: float | None = None
    at_least: float | None = None
    within: float | None = None
    bounds: Sequence[Bound] = ()
    note: str = ""

    @classmethod
    def missing(cls, group: str, what: str, peer: str) -> Row:
        """The row of a peer that is not installed."""
        return cls(group, what, peer, 0, None, note=MISSING)

    @classmethod
    def from_dict(cls, held: dict[str, Any]) -> Row:
        """Back from what `to_dict` gave."""
        ratio, bounds = held["ratio"], held["bounds"]
        return cls(**{**held, "ratio": ratio and Ratio(**ratio), "bounds": tuple(Bound(**bound) for bound in bounds)})

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self) | {"bounds": [asdict(bound) for bound in self.bounds]}

    def goals(self) -> list[str]:
        """What is wanted, and whether it was met: `["ratio ≥ 8: met"]`."""
        goals = []
        if self.at_least is not None and self.ratio is not None:
            goals.append(_goal(f"ratio ≥ {number(self.at_least)}", self.ratio.median >= self.at_least))
        if self.within is not None and self.seconds is not None:
            goals.append(_goal(f"≤ {duration(self.within)}", self.seconds <= self.within))
        wanted = [bound for bound in self.bounds if bound.at_most is not None]
        return goals + [_goal(f"≤ {number(one.at_most)} times {one.of}", one.times <= one.at_most) for one in wanted]


@dataclass(frozen=True)
class Timing:
    """What `interleaved` found: the ratio of two steps' times, and the median of each."""

    ratio: Ratio
    theirs: float
    ours: float


def interleaved(theirs: Step, ours: Step, rounds: int, *, factor: float = 1.0) -> Timing:
    """Their time over ours, run in turn so that both meet the same noise; who begins changes with every round.

    Each runs once before, unmeasured, as round 0. `factor` multiplies their time, for a sample of the work.
    """
    theirs(0), ours(0)
    times = []
    for number_ in range(1, rounds + 1):
        if number_ % 2:
            first = seconds(theirs, number_) * factor
            times.append((first, seconds(ours, number_)))
        else:
            second = seconds(ours, number_)
            times.append((seconds(theirs, number_) * factor, second))
    ratios = [first / second for first, second in times]
    found = Ratio(min(ratios), statistics.median(ratios), max(ratios))
    return Timing(found, *(statistics.median(column) for column in zip(*times, strict=True)))


def against_bound(ours: Step, bound: Step, of: str, rounds: int, at_most: float | None = None) -> Bound:
    """How many times as long as the physical bound our step takes, measured in turn."""
    return Bound(of, interleaved(ours, bound, rounds).ratio.median, at_most)


def seconds(step: Step, number_: int) -> float:
    """How long one round takes, after a pause, for threads of OpenMP and BLAS spin for a while after their work, and after
    some idle work, for a core that slept is slow to begin with."""
    _rest()
    start = time.perf_counter()
    step(number_)
    return time.perf_counter() - start


def _rest() -> None:
    time.sleep(PAUSE)
    awake = time.perf_counter() + AWAKE
    while time.perf_counter() < awake:
        pass


def median_seconds(step: Step, rounds: int) -> float:
    """The median time of some rounds, after one unmeasured."""
    step(0)
    return statistics.median(seconds(step, number_) for number_ in range(1, rounds + 1))


def must_equal(what: str, *, ours: object, plain: object) -> None:
    """NotEqualError where they differ; arrays go in as bytes or lists."""
    if ours != plain:
        raise NotEqualError(f"{what} is not what the plain computation gives")


def number(value: float) -> str:
    """Two digits, more where they stand before the point: 0.21, 1.4, 12, 1,650."""
    return f"{value:,.0f}" if value >= 99.5 else f"{value:.2g}"


def duration(value: float) -> str:
    """Seconds in their best unit: `duration(0.0003)` is "0.3 ms"."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size or unit == "ms":
            return f"{value / size:.3g} {unit}" if value / size >= 0.1 else f"{value * 1e6:.2g} µs"
    raise AssertionError


def _goal(wanted: str, met: bool) -> str:
    return f"{wanted}: {'met' if met else 'not met'}"
