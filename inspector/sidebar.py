"""The sidebar: how to rank, which language, which index."""

from __future__ import annotations

import streamlit as st

from m3retriever import MODES, M3Index, Profile, Weights
from m3retriever.inspector import markup, state
from m3retriever.inspector.analysis.settings import K_MAX, K_MIN, K_STEP
from m3retriever.inspector.i18n import LANGUAGES, Translate
from m3retriever.inspector.project import Project
from m3retriever.inspector.source import Source


def draw(index: M3Index, source: Source, project: Project, t: Translate) -> None:
    """Draw the sidebar."""
    with st.sidebar:
        st.markdown(f"**{t('sidebar.scoring')}**")
        presets = st.container(horizontal=True, gap="xsmall")
        _weights(index.profile, t)
        with presets:  # after the sliders, which take their values from a link
            _presets(index.profile, t)
        _limits(index.profile, t)
        _language(t)
        _history(project, t)
        name = source.collection or source.place.name
        markup.show(markup.note(t("sidebar.index", name=name, n=len(index), model=index.encoder.name), name="index"))


def _presets(profile: Profile, t: Translate) -> None:
    own = state.defaults(profile).weights
    presets = dict(state.SHOWN_PRESETS)
    if own is not None and not any(_same(own, other) for other in presets.values()):
        presets = {"profile": own, **presets}
    active = state.settings(profile).weights
    for name, weights in presets.items():
        st.button(
            t(f"preset.{name}"),
            key=f"preset_{name}",
            type="primary" if _same(weights, active) else "secondary",
            on_click=state.use_weights,
            args=(weights,),
        )


def _weights(profile: Profile, t: Translate) -> None:
    shown = state.defaults(profile).weights
    for mode in MODES:
        value = float(getattr(shown, mode))
        st.slider(t(f"mode.{mode}"), 0.0, 1.0, value, state.STEP, key=mode, bind="query-params")
    weights = state.settings(profile).weights
    if weights is not None:
        markup.show(markup.weight_bar(weights, t))


def _limits(profile: Profile, t: Translate) -> None:
    shown, applies = state.defaults(profile), state.thresholds_apply(profile)
    st.slider(
        t("sidebar.threshold"),
        0.0,
        1.0,
        shown.threshold,
        state.STEP,
        key=state.THRESHOLD,
        bind="query-params",
        disabled=not applies,
    )
    if not applies:
        markup.show(markup.note(t("sidebar.no_threshold", fusion=profile.fusion)))
    elif "hybrid" not in profile.thresholds:
        markup.show(markup.note(t("sidebar.uncalibrated")))
    st.slider(t("sidebar.k"), K_MIN, K_MAX, shown.k, K_STEP, key=state.K, bind="query-params")


def _language(t: Translate) -> None:
    st.segmented_control(
        t("sidebar.language"),
        list(LANGUAGES),
        format_func=LANGUAGES.__getitem__,
        key=state.LANGUAGE,
        default=state.language(),
        required=True,
        on_change=state.keep_language,
    )


def _history(project: Project, t: Translate) -> None:
    """Earlier queries. The options of a select box are plain text, unlike a button's label."""
    queries = [query for query in state.history(project) if query != state.query()]
    if not queries:
        return
    st.selectbox(
        t("sidebar.history"),
        queries,
        index=None,
        key=state.PICKED,
        placeholder=t("sidebar.ask_again"),
        on_change=state.use_picked,
    )
    st.button(
        t("sidebar.forget"), key="forget", on_click=state.forget, args=(project,), type="tertiary", disabled=project.read_only
    )


def _same(weights: Weights, active: Weights | None) -> bool:
    """Whether two weights rank alike, to the step of a slider."""
    if active is None:
        return False
    pairs = zip(weights.normalized(), active.normalized(), strict=True)
    return all(abs(one - other) < state.STEP / 2 for one, other in pairs)
