"""The one module that owns what a session and its URL remember.

Widgets whose key is a URL parameter are bound to it; the language is handled by hand. Callbacks go
one way: a button writes sliders, a slider writes nothing (a late echo from the browser would undo it).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from m3retriever import MODES, M3RetrieverError, Profile, Weights
from m3retriever.fusion import POINTWISE
from m3retriever.inspector.i18n import LANGUAGES, language_of
from m3retriever.inspector.project import Project
from m3retriever.inspector.retrieval import QUERY_CHARACTERS
from m3retriever.palette import DARK, LIGHT, Palette
from m3retriever.profile import PRESETS

# URL parameters, beside the three modes: each is the key of one widget
QUERY, THRESHOLD, K, LANGUAGE, WHERE, DOCUMENT, MISSING = "q", "threshold", "k", "lang", "where", "doc", "missing"
GOLDEN, MEASURE, MODE, FIRST, SECOND, TEXT, OTHER = "golden", "measure", "mode", "first", "second", "a", "b"
MEASURES, QUESTION = "measures", "question"
LINES, MATRIX, FIND = "lines", "matrix", "find"
WISH, CONFIDENCE, FUSIONS, LEARNED, ROUTED = "for", "confidence", "fusions", "learned", "routed"
WISHES = {"f": "beta", "precision": "precision", "recall": "recall", "fpr": "fpr"}  # where each wish's number is kept
# of the session alone
HISTORY, PICKED, SELECTED, MOVES, RUN, UPLOADS, NOTICE = "history", "picked", "selected", "moves", "run", "uploads", "notice"

LEVELS, EDITED_ON, STARTED, SLOTS, TAB = "levels", "edited_on", "started", "slots", "tab"

SHOWN_PRESETS = {name: PRESETS[name] for name in ("bge-m3", "semantic", "keyword", "cross-lingual")}
K_DEFAULT = 20
SEARCH_PAGE = Path(__file__).with_name("views") / "search.py"
STEP = 0.01  # of weights and threshold
HISTORY_KEPT = 20
TEXT_CHARACTERS = 100_000  # of a text that is compared with another: more than any model reads
SHARED_CHARACTERS = 1_000  # of a text in the URL: a server reads 64 kB of address and headers, a Chinese letter has 9


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
    return profile.fusion in POINTWISE


def _weights(profile: Profile, shown: Weights | None) -> Weights | None:
    values = [float(st.session_state.get(mode, getattr(shown, mode))) for mode in MODES]
    if not any(values):
        return None
    return profile.weights if Weights(*values) == shown else Weights(*values)


def use_weights(weights: Weights) -> None:
    """Callback: set the three sliders, to the shares of these weights."""
    for mode, share in zip(MODES, weights.normalized(), strict=True):
        st.session_state[mode] = round(share, 2)


def use_threshold(threshold: float) -> None:
    """Callback: set the threshold's slider."""
    st.session_state[THRESHOLD] = round(min(1.0, max(0.0, threshold)), 2)


def use_profile(profile: Profile) -> None:
    """Set the sliders to a profile, such as one that was just saved."""
    use_weights(profile.weights)
    for mode in ("hybrid", *MODES):
        use_cut(mode, profile.thresholds.get(mode, 0.0))


def save_profile(project: Project, profile: Profile) -> None:
    """Write the profile that every search reads, and let the sliders follow."""
    project.save_profile(profile)
    use_profile(profile)


# -- thresholds and tuning -------------------------------------------------------------------------


def cut_key(mode: str) -> str:
    """The key, and URL parameter, of one mode's threshold; the hybrid's is the sidebar's."""
    return THRESHOLD if mode == "hybrid" else f"cut_{mode}"


def use_cut(mode: str, threshold: float) -> None:
    """Callback: set the threshold's slider of a mode, or the sidebar's."""
    if mode == "hybrid":
        use_threshold(threshold)
    else:
        st.session_state[cut_key(mode)] = round(min(1.0, max(0.0, threshold)), 3)


def level_key(mode: str, level: str) -> str:
    """The key of the input of one level's bound."""
    return f"level_{mode}_{level}"


def edited_levels() -> dict[str, dict[str, float]]:
    """By mode, the levels' bounds that were changed by hand in this session."""
    held: dict[str, dict[str, float]] = st.session_state.setdefault(LEVELS, {})
    return held


def edits_belong_to(key: Hashable) -> None:
    """Drop what was edited by hand on other questions, or with other weights."""
    if st.session_state.get(EDITED_ON, key) != key:
        edited_levels().clear()
    st.session_state[EDITED_ON] = key


def edit_level(mode: str, level: str, shown: Mapping[str, float]) -> None:
    """Callback of an input: keep what it says beside the other bounds that are shown."""
    value = st.session_state[level_key(mode, level)]
    changed = {**shown, level: value}
    edited_levels()[mode] = {name: float(bound) for name, bound in changed.items() if bound is not None}


def reset_levels(mode: str) -> None:
    """Callback: take the fitted bounds again."""
    edited_levels().pop(mode, None)


def start(key: Hashable) -> None:
    """Callback: begin what is not begun by itself."""
    st.session_state.setdefault(STARTED, set()).add(key)


def started(key: Hashable) -> bool:
    """Whether it was begun in this session."""
    return key in st.session_state.get(STARTED, ())


# -- query and history -----------------------------------------------------------------------------


def query() -> str:
    """The query, without the spaces around it; cut where the URL brought a longer one."""
    return str(st.session_state.get(QUERY, st.query_params.get(QUERY, ""))).strip()[:QUERY_CHARACTERS]


def history(project: Project) -> list[str]:
    """Earlier queries, newest first: this session's, and where they are kept those of sessions before."""
    own = list(st.session_state.get(HISTORY, []))
    return list(dict.fromkeys([*own, *project.history()]))[:HISTORY_KEPT]


def remember(project: Project, query: str) -> None:
    """Put a query in front of the history; where it cannot be written it lasts as long as the session."""
    own = list(st.session_state.get(HISTORY, []))
    if own and own[0] == query:
        return
    st.session_state[HISTORY] = [query, *(other for other in own if other != query)][:HISTORY_KEPT]
    with contextlib.suppress(M3RetrieverError):
        project.remember(query)


def forget(project: Project) -> None:
    """Callback: clear the history; what was kept on disk stays where nothing may be written."""
    st.session_state[HISTORY] = []
    with contextlib.suppress(M3RetrieverError):
        project.forget()


def use_picked() -> None:
    """Callback of the history: ask the picked query again."""
    if st.session_state.get(PICKED) is not None:
        st.session_state[QUERY] = st.session_state[PICKED]
        st.session_state[PICKED] = None


def ask(query: str, document: str | None = None) -> None:
    """Let the page Search show a query, and a document."""
    st.session_state[QUERY] = query[:QUERY_CHARACTERS]
    go_to(document)


def open_search() -> NoReturn:
    """Leave for the page Search, which shows the query. Of the URL only the query is kept here; what is set by a widget
    that is there too comes back with it."""
    st.switch_page(SEARCH_PAGE, query_params={QUERY: query()})


# -- the selected document -------------------------------------------------------------------------


def selected() -> str | None:
    """The id of the document in detail: what was chosen, else the URL's."""
    return st.session_state.get(SELECTED, st.query_params.get(DOCUMENT))


def selected_row(ids: Sequence[str]) -> int:
    """Where the selected document stands now; the first row where it is not listed."""
    document = selected()
    return ids.index(document) if document in ids else 0


def select(key: str, ids: Sequence[str]) -> None:
    """Callback of the table: remember which document was chosen, so that it stays chosen when rows move."""
    rows = st.session_state[key].selection.rows
    if rows and rows[0] < len(ids):
        select_document(ids[rows[0]])


def go_to(id: str | None) -> None:
    """Callback: choose a document elsewhere than in the table, which must then be drawn anew."""
    st.session_state[MOVES] = st.session_state.get(MOVES, 0) + 1
    select_document(id)


def table_key(*of: object) -> str:
    """The key of a table whose rows can be chosen: another where it shows something else."""
    shown = repr((of, st.session_state.get(MOVES, 0)))
    return "table_" + hashlib.sha256(shown.encode("utf-8", "replace")).hexdigest()[:16]


def select_document(id: str | None) -> None:
    """Remember the chosen document, in the URL too."""
    st.session_state[SELECTED] = id
    if id is None:
        st.query_params.pop(DOCUMENT, None)
    else:
        st.query_params[DOCUMENT] = id


# -- choices that the user's language names, which a link must not ------------------------------------


def chosen(name: str, options: Sequence[str], default: str) -> str:
    """What was chosen under a name, else the URL's; the default where that is none of the options."""
    for choice in (st.session_state.get(name), st.query_params.get(name)):
        if choice in options:
            st.query_params[name] = str(choice)
            return str(choice)
    return default


def choose(name: str, choice: str) -> None:
    """Callback: remember a choice, in the URL too."""
    st.session_state[name] = st.query_params[name] = choice


def choose_shown(name: str, key: str) -> None:
    """Callback of a widget: remember what it shows."""
    choose(name, st.session_state[key])


# -- texts, which may be too long for a link ---------------------------------------------------------


def share_text(name: str) -> None:
    """Before the widget of this key: its text is the session's, else the URL's, and where it is short it goes into the URL."""
    text = st.session_state.setdefault(name, st.query_params.get(name, "")[:TEXT_CHARACTERS])
    shared = text if len(text) <= SHARED_CHARACTERS else ""
    if not shared:
        st.query_params.pop(name, None)
    elif st.query_params.get(name) != shared:
        st.query_params[name] = shared


def swap_texts() -> None:
    """Callback: the query becomes the document, and the document the query."""
    st.session_state[TEXT], st.session_state[OTHER] = st.session_state.get(OTHER, ""), st.session_state.get(TEXT, "")


# -- uploads and what was just done ----------------------------------------------------------------


def uploads(kind: str) -> dict[str, Any]:
    """What was uploaded in this session, by name."""
    held: dict[str, Any] = st.session_state.setdefault(UPLOADS, {}).setdefault(kind, {})
    return held


def keep_upload(kind: str, name: str, content: Any) -> None:
    """Keep what was read of an upload."""
    uploads(kind)[name] = content


def seen_upload(kind: str, file_id: str) -> bool:
    """Whether this file was read before: the uploader shows it again in every run."""
    return file_id in st.session_state.setdefault(f"{UPLOADS}_{kind}", set())


def mark_upload(kind: str, file_id: str) -> None:
    """Remember that this file was read."""
    st.session_state.setdefault(f"{UPLOADS}_{kind}", set()).add(file_id)


def attempt(change: Callable[..., object], *args: object) -> None:
    """Callback: make a change; its error is shown by the run that follows."""
    try:
        change(*args)
    except M3RetrieverError as error:
        st.session_state[NOTICE] = str(error)


def problem() -> str | None:
    """The error of the callback that was just run, once."""
    found: str | None = st.session_state.pop(NOTICE, None)
    return found


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


def session() -> str:
    """This session's name."""
    context = get_script_run_ctx()
    return "" if context is None else context.session_id


def fill_slot(slot: str, key: Hashable) -> Hashable | None:
    """Remember which work this session waits for in a slot; the one before, if it was another."""
    slots: dict[str, Hashable] = st.session_state.setdefault(SLOTS, {})
    old, slots[slot] = slots.get(slot), key
    return old if old != key else None


def count_run() -> int:
    """How many runs this session has ended."""
    st.session_state[RUN] = st.session_state.get(RUN, 0) + 1
    return int(st.session_state[RUN])


def palette() -> Palette:
    """The colours for the theme the browser shows."""
    return DARK if st.context.theme.type == "dark" else LIGHT
