"""The one module that owns what a session and its URL remember.

Widgets whose key is a URL parameter are bound to it; the language is handled by hand. Callbacks go
one way: a button writes sliders, a slider writes nothing (a late echo from the browser would undo it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from m3retriever import MODES, Profile, Weights
from m3retriever.inspector.i18n import LANGUAGES, language_of
from m3retriever.inspector.retrieval import QUERY_CHARACTERS
from m3retriever.palette import DARK, LIGHT, Palette

QUERY, THRESHOLD, K, LANGUAGE = "q", "threshold", "k", "lang"  # URL parameters, beside the three modes
HISTORY, PICKED, SELECTED, RUN = "history", "picked", "selected", "run"  # of the session alone

PRESETS = {
    "balanced": Weights(0.4, 0.2, 0.4),
    "semantic": Weights(0.5, 0.3, 0.2),
    "keyword": Weights(0.3, 0.6, 0.1),
    "crosslingual": Weights(0.6, 0.1, 0.3),
}
K_MIN, K_MAX, K_STEP, K_DEFAULT = 5, 100, 5, 20
STEP = 0.01  # of weights and threshold
HISTORY_KEPT = 20


@dataclass(frozen=True)
class Settings:
    """How to rank: `weights` is None where all three are 0, `threshold` where the fusion has none."""

    weights: Weights | None
    threshold: float | None
    k: int


def defaults(profile: Profile) -> Settings:
    """The profile's settings as the sliders can show them."""
    shares = profile.weights.normalized()
    weights = Weights(*(round(share, 2) for share in shares))
    threshold = round(min(1.0, max(0.0, profile.thresholds.get("hybrid", 0.0))), 2)
    return Settings(weights, threshold, K_DEFAULT)


def settings(profile: Profile) -> Settings:
    """What the sliders say; the profile's exact numbers where they were not moved."""
    shown = defaults(profile)
    threshold = float(st.session_state.get(THRESHOLD, shown.threshold))
    if threshold == shown.threshold:
        threshold = profile.thresholds.get("hybrid", 0.0)
    return Settings(
        weights=_weights(profile, shown.weights),
        threshold=threshold if thresholds_apply(profile) else None,
        k=int(st.session_state.get(K, shown.k)),
    )


def thresholds_apply(profile: Profile) -> bool:
    """Whether the fusion's scores can be called good enough: a rank fusion's cannot."""
    return profile.fusion == "weighted_sum"


def _weights(profile: Profile, shown: Weights | None) -> Weights | None:
    values = [float(st.session_state.get(mode, getattr(shown, mode))) for mode in MODES]
    if not any(values):
        return None
    return profile.weights if Weights(*values) == shown else Weights(*values)


def use_weights(weights: Weights) -> None:
    """Callback of a preset: set the three sliders."""
    for mode in MODES:
        st.session_state[mode] = getattr(weights, mode)


# -- query and history -----------------------------------------------------------------------------


def query() -> str:
    """The query, without the spaces around it; cut where the URL brought a longer one."""
    return str(st.session_state.get(QUERY, "")).strip()[:QUERY_CHARACTERS]


def history() -> list[str]:
    """This session's queries, newest first."""
    return list(st.session_state.get(HISTORY, []))


def remember(query: str) -> None:
    """Put a query in front of the history."""
    others = [other for other in history() if other != query]
    st.session_state[HISTORY] = [query, *others][:HISTORY_KEPT]


def use_picked() -> None:
    """Callback of the history: ask the picked query again."""
    if st.session_state.get(PICKED) is not None:
        st.session_state[QUERY] = st.session_state[PICKED]
        st.session_state[PICKED] = None


# -- the selected document -------------------------------------------------------------------------


def selected_row(ids: Sequence[str]) -> int:
    """Where the selected document stands now; the first row where it is not listed."""
    selected = st.session_state.get(SELECTED)
    return ids.index(selected) if selected in ids else 0


def select(key: str, ids: Sequence[str]) -> None:
    """Callback of the table: remember which document was chosen, so that it stays chosen when rows move."""
    rows = st.session_state[key].selection.rows
    if rows and rows[0] < len(ids):
        st.session_state[SELECTED] = ids[rows[0]]


# -- language and runs -----------------------------------------------------------------------------


def language() -> str:
    """The chosen language, else the URL's, else the browser's."""
    for chosen in (st.session_state.get(LANGUAGE), st.query_params.get(LANGUAGE)):
        if chosen in LANGUAGES:
            return str(chosen)
    return language_of(st.context.locale)


def keep_language() -> None:
    """Callback of the language switch: write the choice into the URL."""
    st.query_params[LANGUAGE] = st.session_state[LANGUAGE]


def count_run() -> int:
    """How many runs this session has ended."""
    st.session_state[RUN] = st.session_state.get(RUN, 0) + 1
    return int(st.session_state[RUN])


def palette() -> Palette:
    """The colours for the theme the browser shows."""
    return DARK if st.context.theme.type == "dark" else LIGHT
