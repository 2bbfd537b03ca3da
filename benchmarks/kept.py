"""What was measured, kept in docs/benchmarks.json: a run replaces the groups and the sizes it measured, and no others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.growth import Growth
from benchmarks.measuring import Row

FILE = "benchmarks.json"


@dataclass(frozen=True)
class Group:
    """The rows of one group, with the day and the machine, in words, they were measured on."""

    date: str
    machine: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class Kept:
    """Groups by name, in the order of their first run, and growth by number of documents."""

    groups: Mapping[str, Group] = field(default_factory=dict)
    growth: Mapping[int, Growth] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Kept:
        """What a folder holds; nothing where it holds none."""
        path = folder / FILE
        if not path.is_file():
            return cls()
        held = json.loads(path.read_text(encoding="utf-8"))
        groups = {
            name: Group(group["date"], group["machine"], [Row.from_dict(row) for row in group["rows"]])
            for name, group in held["groups"].items()
        }
        return cls(groups, {one["documents"]: Growth(**one) for one in held["growth"]})

    def write(self, folder: Path) -> None:
        """Into a folder, so that `read` gives the same again."""
        groups = {
            name: {"date": group.date, "machine": group.machine, "rows": [row.to_dict() for row in group.rows]}
            for name, group in self.groups.items()
        }
        held = {"groups": groups, "growth": [self.growth[size].to_dict() for size in sorted(self.growth)]}
        (folder / FILE).write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")

    def with_group(self, name: str, group: Group) -> Kept:
        """With a group in the place of an earlier one of its name."""
        return replace(self, groups={**self.groups, name: group})

    def with_growth(self, grown: Growth) -> Kept:
        """With one size in the place of an earlier measurement of it."""
        return replace(self, growth={**self.growth, grown.documents: grown})
