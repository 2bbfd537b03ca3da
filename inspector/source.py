"""Which index the inspector shows, and how the launcher tells the app."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from m3retriever.profile import PRESETS


@dataclass(frozen=True)
class Source:
    """An index on disk.

    Attributes
    ----------
    path : its folder
    collection : the Chroma collection; None for m3retriever's own
    profile : a TOML file, or the name of a preset; None for the `profile.toml` in the folder, where there is one
    read_only : whether nothing may be written
    """

    path: Path
    collection: str | None = None
    profile: Path | str | None = None
    read_only: bool = False

    @classmethod
    def of(cls, path: str | Path, collection: str | None, profile: str | Path | None, *, read_only: bool = False) -> Source:
        """With absolute paths, so that they hold in any working folder."""
        preset = profile is not None and str(profile) in PRESETS and not Path(profile).is_file()
        held = str(profile) if preset else profile and _absolute(profile)
        return cls(_absolute(path), collection, held, read_only)

    @property
    def name(self) -> str:
        """How the app calls it: the folder, and the collection where one was asked for."""
        return str(self.path) if self.collection is None else f"{self.path}, {self.collection}"

    def arguments(self) -> list[str]:
        """What `from_arguments` reads back."""
        named = {"--path": self.path, "--collection": self.collection, "--profile": self.profile}
        given = [f"{name}={value}" for name, value in named.items() if value is not None]
        return [*given, *(["--read-only"] if self.read_only else [])]

    @classmethod
    def from_arguments(cls, arguments: Sequence[str]) -> Source:
        """The source that `arguments` describes."""
        parser = argparse.ArgumentParser(prog="m3retriever inspector", allow_abbrev=False)
        parser.add_argument("--path", type=Path, required=True)
        parser.add_argument("--collection")
        parser.add_argument("--profile")
        parser.add_argument("--read-only", action="store_true")
        return cls.of(**vars(parser.parse_args(arguments)))


def _absolute(path: str | Path) -> Path:
    return Path(path).expanduser().resolve()
