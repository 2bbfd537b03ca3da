"""What an index is made of: the store at a place, the model whose vectors it holds, the profile beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from m3retriever.encoders import DEFAULT_MODEL, as_encoder, recorded_source, source_of
from m3retriever.encoders.engine import Backend, Precision
from m3retriever.errors import InvalidArgumentError, StoreError
from m3retriever.profile import as_profile, check_profile, save_profile
from m3retriever.stores.places import Place, place_of
from m3retriever.types import Encoder, KeptStore, Profile
from m3retriever.watched import WatchedProfile

OWN_PROFILE = "profile.toml"  # in the index's folder


def open_parts(
    path: str | Path | Place,
    *,
    model: str | Encoder | None,
    collection: str | None,
    profile: Profile | str | Path | None,
    read_only: bool,
    precision: Precision | None,
    backend: Backend | None,
) -> tuple[Encoder, KeptStore, Profile | WatchedProfile]:
    """The encoder, the store and the profile of an index; see `M3Index.open`. Whoever asks closes the store."""
    place = place_of(path, collection)
    if model is None and not place.exists():
        model = DEFAULT_MODEL
    encoder = None if model is None else as_encoder(model, precision, backend)  # before a folder is made for it
    if read_only and not place.exists():
        raise StoreError(f"there is no index in {place.given} to be read")
    store = place.open(read_only=read_only)
    try:
        if encoder is None:
            encoder = as_encoder(_source(store.settings()) or DEFAULT_MODEL, precision, backend)
        store.source = source_of(encoder)
        return encoder, store, _profile_of(profile, place.folder, encoder)
    except BaseException:
        store.close()
        raise


def keep_profile(profile: Profile, path: str | Path | Place, collection: str | None = None) -> None:
    """Make a profile the one that every search of an index uses from now on."""
    folder = place_of(path, collection).folder
    folder.mkdir(parents=True, exist_ok=True)
    save_profile(profile, folder / OWN_PROFILE)


def _profile_of(given: Profile | str | Path | None, folder: Path, encoder: Encoder) -> Profile | WatchedProfile:
    """A Profile or a preset as it is; of a file one that is read again when the file changes."""
    named = given is not None and not (isinstance(given, str | Path) and Path(given).is_file())
    if isinstance(given, Profile) or named:
        return as_profile(given)  # type: ignore[arg-type]  # which refuses what is none

    def check(profile: Profile) -> None:
        check_profile(profile, encoder.name, getattr(encoder, "precision", None))

    return WatchedProfile(folder / OWN_PROFILE if given is None else given, check, optional=given is None)


def _source(settings: Mapping[str, str | None]) -> str | None:
    """How to load an index's own model; None where it has none yet."""
    source = settings["source"]
    if source is None and settings["model"] is not None:
        raise InvalidArgumentError(
            f"this index was made with an Encoder object or through a service, {settings['model']!r}, and keeps no name to "
            "load it by: give the model, or the service's address, as model="
        )
    return None if source is None else recorded_source(source)
