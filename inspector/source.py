"""Which index the inspector shows, and how the launcher tells the app."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from m3retriever.profile import PRESETS
from m3retriever.stores.places import LOCAL, Place, place_of


@dataclass(frozen=True)
class Source:
    """An index, in a folder or of a server.

    Attributes
    ----------
    path : its folder, or the server's address
    collection : the collection; None for m3retriever's own
    profile : a TOML file, or the name of a preset; None for the `profile.toml` in the folder, where there is one
    read_only : whether nothing may be written
    model : as `M3Index.open` takes it; None for the index's own
    """

    path: Path | str
    collection: str | None = None
    profile: Path | str | None = None
    read_only: bool = False
    model: str | None = None

    @classmethod
    def of(
        cls,
        path: str | Path,
        collection: str | None,
        profile: str | Path | None,
        *,
        read_only: bool = False,
        model: str | None = None,
    ) -> Source:
        """With absolute paths, so that they hold in any working folder."""
        preset = profile is not None and str(profile) in PRESETS and not Path(profile).is_file()
        held = str(profile) if preset else profile and _absolute(profile)
        place = place_of(path if isinstance(path, Path) else str(path), collection)
        return cls(_absolute(path) if place.is_folder else _address(place), collection, held, read_only, _model(model))

    @property
    def place(self) -> Place:
        """Where it is."""
        return place_of(self.path, self.collection)

    @property
    def folder(self) -> Path:
        """Where judgements, runs and the profile are kept: the index's own folder, or one of the user's for a server's."""
        return self.place.folder

    @property
    def name(self) -> str:
        """How the app calls it: the folder, and the collection where one was asked for."""
        return str(self.path) if self.collection is None else f"{self.path}, {self.collection}"

    def arguments(self) -> list[str]:
        """What `from_arguments` reads back."""
        named = {"--path": self.path, "--collection": self.collection, "--profile": self.profile, "--model": self.model}
        given = [f"{name}={value}" for name, value in named.items() if value is not None]
        return [*given, *(["--read-only"] if self.read_only else [])]

    @classmethod
    def from_arguments(cls, arguments: Sequence[str]) -> Source:
        """The source that `arguments` describes."""
        parser = argparse.ArgumentParser(prog="m3retriever inspector", allow_abbrev=False)
        parser.add_argument("--path", required=True)
        parser.add_argument("--collection")
        parser.add_argument("--profile")
        parser.add_argument("--model")
        parser.add_argument("--read-only", action="store_true")
        return cls.of(**vars(parser.parse_args(arguments)))


def _absolute(path: str | Path) -> Path:
    return Path(path).expanduser().resolve()


def _address(place: Place) -> str:
    return place.given if place.local is None else f"{LOCAL}{_absolute(place.local)}"


def _model(named: str | None) -> str | None:
    """A model's name; of a folder its absolute path."""
    return str(_absolute(named)) if named is not None and Path(named).is_dir() else named
