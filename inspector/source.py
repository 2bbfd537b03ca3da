"""Which index the inspector shows, and how the launcher tells the app."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """An index on disk.

    Attributes
    ----------
    path : its folder
    collection : the Chroma collection; None for m3retriever's own
    profile : a TOML file; None for the `profile.toml` in the folder, where there is one
    """

    path: Path
    collection: str | None = None
    profile: Path | None = None

    @property
    def name(self) -> str:
        """How the app calls it: the folder, and the collection where one was asked for."""
        return str(self.path) if self.collection is None else f"{self.path}, {self.collection}"

    def arguments(self) -> list[str]:
        """What `from_arguments` reads back; paths are absolute, so they hold in any working folder."""
        named = {
            "--path": str(self.path.expanduser().resolve()),
            "--collection": self.collection,
            "--profile": None if self.profile is None else str(self.profile.expanduser().resolve()),
        }
        return [f"{name}={value}" for name, value in named.items() if value is not None]

    @classmethod
    def from_arguments(cls, arguments: Sequence[str]) -> Source:
        """The source that `arguments` describes."""
        parser = argparse.ArgumentParser(prog="m3retriever inspector", allow_abbrev=False)
        parser.add_argument("--path", type=Path, required=True)
        parser.add_argument("--collection")
        parser.add_argument("--profile", type=Path)
        return cls(**vars(parser.parse_args(arguments)))
