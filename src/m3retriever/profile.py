"""A Profile as a TOML file: what tuning writes, and every way to search reads."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from m3retriever.calibration import calibration_of
from m3retriever.checks import INT64
from m3retriever.errors import InvalidArgumentError, ProfileError, shown
from m3retriever.fusion import fuse, fusion_named
from m3retriever.io import replace_text
from m3retriever.types import MODES, ModeScores, Profile, Weights

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PRESETS: dict[str, Weights] = {  # dense, sparse, colbert: starting points, to be tuned on questions of your own
    "bge-m3": Weights(0.4, 0.2, 0.4),  # BGE-M3's own
    "semantic": Weights(0.5, 0.3, 0.2),
    "keyword": Weights(0.3, 0.6, 0.1),
    "keyword-search": Weights(0.3, 0.5, 0.2),
    "high-precision": Weights(0.4, 0.3, 0.3),
    "cross-lingual": Weights(0.6, 0.1, 0.3),
    "long-documents": Weights(0.4, 0.2, 0.4),
    "long-document-qa": Weights(0.3, 0.2, 0.5),
    "mldr": Weights(0.15, 0.5, 0.35),  # the paper's, for long documents (Chen et al., 2024)
    "mkqa": Weights(1.0, 0.3, 1.0),  # the paper's, for questions in other languages than the answers
}
MAX_BYTES = 1_000_000  # a profile is a page of text; more is a mistake or an attack
MOST_PARTS = 32  # of the dotted keys of a line: a.b.c has 3, and tomllib's time and memory grow with their square
PART = re.compile(r"""\.[ \t]*(?:[\w-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')[ \t]*(?=\.)""")  # of a key, with more before and after
MOST_DEPTH = 32  # tables and lists in each other; what is fitted has 4
SHOWN = 500  # characters of what is wrong, which may be as long as the file
KEYS = {field.name for field in fields(Profile)}


def load_profile(path: str | Path) -> Profile:
    """Read a profile; ProfileError says what is wrong with the file."""
    try:
        content = tomllib.loads(_bounded(Path(path)))
        _check_size(path, content)
    except OSError as error:
        raise ProfileError(f"cannot read the profile {path}: {error.strerror}") from error
    except ProfileError:
        raise
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, too deep, or a name that no file can have
        raise ProfileError(f"{path} is not a TOML profile: {error}") from error
    try:
        return _from_mapping(content)
    except (InvalidArgumentError, TypeError, ValueError, OverflowError) as error:
        raise ProfileError(f"{path}: {_short(str(error))}") from error


def _bounded(path: Path) -> str:
    """The file's text; ProfileError for one that would take the parser more than a moment."""
    with path.open("rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise ProfileError(f"a profile has at most {MAX_BYTES} bytes; {path} has {path.stat().st_size}")
    text = raw.decode("utf-8-sig").replace("\r\n", "\n")
    for number, line in enumerate(text.split("\n"), start=1):
        if line.count(".") > MOST_PARTS and len(PART.findall(line)) > MOST_PARTS:
            raise ProfileError(f"the keys of a profile's line have at most {MOST_PARTS} parts; {path}, line {number} has more")
    return text


def _check_size(path: str | Path, content: Mapping[str, Any]) -> None:
    """Refuse what is nested deeper, and numbers longer, than any profile has: nothing that follows has to expect them."""
    waiting: list[tuple[Any, int]] = [(content, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MOST_DEPTH:
            raise ProfileError(f"a profile's tables and lists are at most {MOST_DEPTH} deep; {path} has deeper ones")
        if isinstance(value, dict | list):
            waiting += ((one, depth + 1) for one in (value.values() if isinstance(value, dict) else value))
        elif isinstance(value, int) and value not in INT64:  # what TOML calls an integer; tomllib reads longer ones
            raise ProfileError(f"a profile's whole numbers fit 64 bits; {path} has a longer one")


def _short(words: str) -> str:
    return words if len(words) <= SHOWN else f"{words[:SHOWN]}…"


def as_profile(given: Profile | str | Path) -> Profile:
    """A Profile as it is, a file by its path, or a preset by its name; the weights of a preset fit any model."""
    if isinstance(given, Profile):
        return given
    if isinstance(given, str | Path) and str(given) in PRESETS and not Path(given).is_file():
        return Profile(weights=PRESETS[str(given)])
    if not isinstance(given, str | Path) or not str(given):
        raise ProfileError(f"a profile is a Profile, a TOML file or one of {', '.join(PRESETS)}; got {shown(given)}")
    return load_profile(given)


def check_profile(profile: Profile, model: str, precision: str | None = None) -> None:
    """Refuse a profile that cannot be used, or was fitted on another model or another precision of it."""
    _check_fusion(profile)
    for mode in profile.calibration or {}:
        if mode not in (*MODES, "hybrid"):
            raise ProfileError(f"calibration is for {', '.join(MODES)} or hybrid; got {shown(mode)}")
        calibration_of(profile, mode)
    fitted, in_what = shown(profile.model), _short(str(profile.precision))
    if profile.model not in (None, model):
        raise ProfileError(f"the profile was fitted on {fitted}, not on {model!r}: fit it again for this model")
    if None not in (profile.precision, precision) and profile.precision != precision:
        raise ProfileError(
            f"the profile was fitted on {fitted} in {in_what}, not in {precision}: scores differ; "
            "fit it again, or load the model in that precision"
        )


def _check_fusion(profile: Profile) -> None:
    """Run the fusion on candidates made up for it: what it cannot fuse here it could not in a search."""
    tried = ModeScores(("a", "b"), np.array([[0.5, 0.1, 0.6], [0.4, 0.0, 0.5]], np.float32), query="a trial")
    try:
        with np.errstate(all="ignore"):
            fused = fuse(tried, profile.weights, profile.fusion, profile.parameters)
    except ProfileError:
        raise
    except InvalidArgumentError as error:
        raise ProfileError(_short(str(error))) from error
    if fused.shape != (len(tried),) or not np.isfinite(fused).all():
        got = shown(dict(profile.parameters))
        raise ProfileError(f"the parameters of the fusion {profile.fusion!r} give no finite scores; got {got}")


def save_profile(profile: Profile, path: str | Path) -> None:
    """Write a profile as TOML; the file is replaced in one step, so a reader never sees half; StoreError where it fails."""
    replace_text(path, profile_text(profile))


def profile_text(profile: Profile) -> str:
    """A profile as TOML, which `load_profile` reads back."""
    import tomli_w

    content: dict[str, Any] = {"fusion": profile.fusion, "depth": profile.depth}
    for name in ("model", "precision"):
        if (held := getattr(profile, name)) is not None:
            content[name] = held
    content["weights"] = {mode: float(weight) for mode, weight in zip(MODES, profile.weights, strict=True)}
    content["thresholds"] = {mode: float(value) for mode, value in profile.thresholds.items()}
    for name in ("calibration", "parameters", "fitted"):
        if held := getattr(profile, name):
            content[name] = plain(held)
    return tomli_w.dumps(content)


def _from_mapping(content: Mapping[str, Any]) -> Profile:
    if unknown := sorted(set(content) - KEYS):
        raise ProfileError(f"unknown keys {unknown}; a profile has {', '.join(sorted(KEYS))}")
    fusion_named(content.get("fusion", "weighted_sum"))
    parts = dict(content)
    if "weights" in parts:
        parts["weights"] = Weights.of(parts["weights"])
    return Profile(**parts)


def plain(value: Any) -> Any:
    """Mappings and sequences as the dicts and lists that TOML writes, NumPy's numbers as Python's."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value
