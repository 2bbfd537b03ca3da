"""Which model and which index are served, and opening them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3retriever.encoders import DEFAULT_MODEL, load_encoder, source_of
from m3retriever.index import M3Index
from m3retriever.profile import as_profile, check_profile
from m3retriever.serving.asked import AskedBefore
from m3retriever.types import Encoder, Profile
from m3retriever.watched import WatchedProfile


@dataclass(frozen=True)
class Source:
    """What `m3retriever serve` was told to serve; with the path of an index None, a model alone."""

    path: str | None = None
    model: str | None = None
    precision: str | None = None
    backend: str | None = None
    collection: str | None = None
    profile: str | None = None
    read_only: bool = True

    def open(self) -> Served:
        """Load the model and open the index; takes what time that takes, and raises what that raises."""
        how: dict[str, Any] = {"precision": self.precision, "backend": self.backend}  # checked where the model is loaded
        if self.path is None:
            encoder = load_encoder(self.model or DEFAULT_MODEL, **how)
            return Served(encoder, None, _profile_for(encoder, self.profile))
        given: dict[str, Any] = {"model": self.model, "collection": self.collection, "profile": self.profile}
        index = M3Index.open(self.path, read_only=self.read_only, **given, **how)
        encoder, index.encoder = index.encoder, AskedBefore(index.encoder)
        return Served(encoder, index, None)


@dataclass(frozen=True)
class Served:
    """A model, and the index in front of it where there is one. The index asks for no vectors by itself: see `AskedBefore`."""

    encoder: Encoder
    index: M3Index | None
    own_profile: Profile | WatchedProfile | None

    @property
    def profile(self) -> Profile:
        """What scores mean: the index's, or that of the service; of one in a file, as the file is now."""
        if self.index is not None:
            return self.index.profile
        own = self.own_profile
        return own.current() if isinstance(own, WatchedProfile) else own or Profile()

    @property
    def precision(self) -> str | None:
        """How the model computes, such as "fp32"; None where it does not say."""
        return getattr(self.encoder, "precision", None)

    def is_called(self, name: str | None) -> bool:
        """Whether a request that names a model means this one: by its full name, or by what it was loaded with."""
        return name in (None, self.encoder.name, source_of(self.encoder))

    def close(self) -> None:
        """Close the index."""
        if self.index is not None:
            self.index.close()


def _profile_for(encoder: Encoder, given: str | None) -> Profile | WatchedProfile | None:
    def check(profile: Profile) -> None:
        check_profile(profile, encoder.name, getattr(encoder, "precision", None))

    if given is not None and Path(given).is_file():
        return WatchedProfile(given, check)
    if given is None:
        return None
    profile = as_profile(given)
    check(profile)
    return profile
