"""Index: what it holds, with which model it was made, what its profile was fitted on, and its documents."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, cast

import pandas as pd
import streamlit as st

from m3retriever import MODES, Document, M3Index, M3RetrieverError
from m3retriever.inspector import charts, markup, retrieval, state
from m3retriever.inspector.analysis import index as analysis
from m3retriever.inspector.analysis.filters import parsed_filter
from m3retriever.inspector.analysis.index import Fit, Listed, Sizes
from m3retriever.inspector.analysis.ranking import title_of
from m3retriever.inspector.charts.index import token_histogram
from m3retriever.inspector.context import Page, current
from m3retriever.inspector.i18n import Translate
from m3retriever.inspector.retrieval import QUERY_CHARACTERS, State
from m3retriever.report import store_info
from m3retriever.types import KeptStore

FRESH = 10  # seconds for which the numbers hold: another client's documents do not move the revision
KEPT = 20  # lists of documents
TEXT_CHARACTERS = 200_000
COLUMNS, DOCUMENT_COLUMNS = [1, 1.25, 1.25], [1.5, 1]  # widths
ROW_PIXELS, TABLE_PIXELS, TEXT_PIXELS, FIT_PIXELS = 32, 480, 420, 224
COLUMN_PIXELS = {"id": 150, "title": 200, "metadata": 230, "characters": 80}
FITTED = (  # what the library writes into a profile's `fitted`
    *("tuning", "calibration", "questions", "unanswerable", "documents", "judged_but_not_in_the_index", "measure"),
    *("chosen", "held_out", "wanted", "method", "brier", "calibration_error", "mean", "p"),
)


def draw() -> None:
    """Draw the page."""
    page = current()
    now = retrieval.state_of(page.index, page.source)
    store = cast(KeptStore, page.index.store)  # what `open_index` opens
    with st.spinner(page.t("index.counting"), show_time=True):
        info, sizes = _info(store, now), _sizes(page.index, now)
    _numbers(info, page.t)
    _notices(page, store, info)
    left, middle, right = st.columns(COLUMNS, gap="medium")
    with left:
        _facts(page, info)
    with middle:
        if sizes is not None:
            _vectors(page, info, sizes)
    with right:
        _profile(page)
    _documents(page, now)


@st.cache_data(show_spinner=False, ttl=FRESH, max_entries=retrieval.STATES_KEPT)
def _info(_store: KeptStore, now: State) -> dict[str, Any]:
    """What `m3retriever info --json` prints."""
    return store_info(_store, now.source.place)


@st.cache_resource(show_spinner=False, max_entries=retrieval.STATES_KEPT)
def _ids(_index: M3Index, now: State) -> list[str]:
    return _index.ids()


@st.cache_resource(show_spinner=False, max_entries=retrieval.STATES_KEPT)
def _sizes(_index: M3Index, now: State) -> Sizes | None:
    counts = cast(KeptStore, _index.store).sizes(analysis.sample_of(_ids(_index, now)))
    return analysis.sizes_of(counts, _reads(_index))


def _reads(index: M3Index) -> int | None:
    """How many token vectors a text has at most: the first token has none."""
    length: int | None = getattr(index.encoder, "max_length", None)
    return None if length is None else length - 1


# -- the index -------------------------------------------------------------------------------------


def _numbers(info: dict[str, Any], t: Translate) -> None:
    shown = {
        "documents": f"{info['documents']:,}",
        "without_vectors": f"{info['without_vectors']:,}",
        "revision": analysis.revision_in_words(info["revision"]),
        **({} if info["bytes_on_disk"] is None else {"bytes_on_disk": analysis.size_in_words(info["bytes_on_disk"])}),
    }
    markup.show(markup.tiles([markup.Tile(name, t(f"index.fact_{name}"), value) for name, value in shown.items()]))


def _notices(page: Page, store: KeptStore, info: dict[str, Any]) -> None:
    t, writer = page.t, store.writer()
    if not info["documents"]:
        markup.show(markup.notice("info", t("index.empty"), t("index.how_to_fill", path=info["path"])))
    if writer is not None:
        markup.show(markup.notice("info", t("index.writing", writer=writer)))
    if info["without_vectors"]:
        what = "read_only" if page.source.read_only else "writer" if writer is not None else "restart"
        text = t("index.foreign", n=info["without_vectors"])
        markup.show(markup.notice("warning", text, t(f"index.foreign_{what}")))


def _facts(page: Page, info: dict[str, Any]) -> None:
    t, encoder = page.t, page.index.encoder
    length, precision = getattr(encoder, "max_length", None), getattr(encoder, "precision", None)
    rows = {
        "model": info["model"],
        "model_name": info["model_name"],
        "precision": precision,
        "dimension": info["dimension"],
        "reads": None if length is None else t("index.up_to", n=length),
        "collection": info["collection"],
        "path": info["path"],
        "bytes": None if info["bytes_on_disk"] is None else f"{info['bytes_on_disk']:,}",
        "access": t("index.read_only") if page.source.read_only else t("index.writable"),
    }
    markup.show(markup.section(t("index.about")))
    markup.show(markup.facts([(t(f"index.fact_{name}"), str(value)) for name, value in rows.items() if value is not None]))


def _vectors(page: Page, info: dict[str, Any], sizes: Sizes) -> None:
    """In which modes documents are stored, and how long they are."""
    t = page.t
    markup.show(markup.section(t("index.vectors"), t("index.sample", n=sizes.n)))
    rows = {
        "dense": (sizes.n, t("index.numbers_each", n=info["dimension"])),
        "sparse": (sizes.sparse, t("index.tokens_each", n=f"{sizes.sparse_mean:.0f}")),
        "colbert": (sizes.colbert, t("index.tokens_each", n=f"{sizes.colbert_mean:.0f}")),
    }
    markup.show(markup.facts([(t(f"mode.{mode}"), f"{count} · {each}") for mode, (count, each) in rows.items()]))
    reads = _reads(page.index)
    words = t("index.tokens_alt", n=sizes.n, mean=f"{sizes.colbert_mean:.0f}", longest=sizes.longest)
    chart = token_histogram(sizes.bins, reads=reads, palette=page.palette, t=t)
    charts.show(chart, alt_text=words, palette=page.palette)
    markup.show(markup.note(words, name="tokens"))
    if sizes.full:
        markup.show(markup.note(t("index.full", n=sizes.full, of=sizes.n, reads=(reads or 0) + 1), name="full"))


# -- the profile -----------------------------------------------------------------------------------


def _profile(page: Page) -> None:
    t, profile, path = page.t, page.index.profile, page.project.profile_path
    found = path.is_file()
    markup.show(markup.section(t("index.profile"), str(path) if found else str(page.source.profile or t("index.defaults"))))
    weights = " · ".join(f"{t(f'mode.{mode}')} {weight:.3f}" for mode, weight in zip(MODES, profile.weights, strict=True))
    thresholds = " · ".join(f"{t(f'mode.{mode}')} {value:.3f}" for mode, value in profile.thresholds.items())
    rows = {"weights": weights, "fusion": profile.fusion, "thresholds": thresholds or t("index.none"), "depth": profile.depth}
    markup.show(markup.facts([(t(f"index.fact_{name}"), str(value)) for name, value in rows.items()]))
    if not profile.fitted:
        markup.show(markup.note(t("index.unfitted"), name="unfitted"))
    for fit in analysis.fits_of(profile.fitted):
        _fit(fit, t)


def _fit(fit: Fit, t: Translate) -> None:
    numbers = " · ".join(f"{_fitted(name, t)} {value}".strip() for name, value in fit.numbers)
    markup.show(markup.section(_fitted(fit.name, t), numbers))
    if fit.table:
        frame = pd.DataFrame(fit.table).rename(columns=lambda name: _fitted(name, t))
        height = min(ROW_PIXELS * (len(frame) + 1), FIT_PIXELS)
        st.dataframe(frame, hide_index=True, height=height, row_height=ROW_PIXELS, alt=_fitted(fit.name, t))


def _fitted(name: str, t: Translate) -> str:
    """What a key of `fitted` is called; one that is not the library's as it is."""
    return t(f"fitted.{name}") if name in FITTED else name


# -- documents -------------------------------------------------------------------------------------


def _documents(page: Page, now: State) -> None:
    t = page.t
    markup.show(markup.section(t("index.documents")))
    wanted = st.text_input(
        t("index.find"),
        key=state.FIND,
        bind="query-params",
        placeholder=t("index.find_example"),
        label_visibility="collapsed",
        icon=":material/search:",
        max_chars=QUERY_CHARACTERS,
    )
    try:
        with st.spinner(t("index.looking"), show_time=True):
            count, rows = _found(page.index, (wanted or "").strip(), now)
    except M3RetrieverError as error:
        markup.show(markup.notice("error", t("index.no_filter"), str(error)))
        return
    markup.show(markup.note(t("index.found", n=f"{count:,}", shown=len(rows)), name="found"))
    if rows:
        left, right = st.columns(DOCUMENT_COLUMNS, gap="medium")
        with left:
            chosen = _table(rows, t)
        with right:
            _document(next(iter(page.index.get([chosen.id], skip_unknown=True)), None), t)


@st.cache_resource(show_spinner=False, max_entries=KEPT)
def _found(_index: M3Index, wanted: str, now: State) -> tuple[int, list[Listed]]:
    """How many documents there are under an id, a part of one or a filter, and the first of them."""
    if wanted.startswith("{"):
        ids = _index.ids(parsed_filter(wanted))
    else:
        ids = analysis.ids_like(_ids(_index, now), wanted) if wanted else _ids(_index, now)
    documents = _index.get(ids[: analysis.ROWS], skip_unknown=True)
    return len(ids), [analysis.listed(document) for document in documents]


def _table(rows: Sequence[Listed], t: Translate) -> Listed:
    """The documents found; gives the one that is selected."""
    column, ids = st.column_config, repr([row.id for row in rows])
    labels = [t("index.id"), t("column.title"), t("index.metadata"), t("index.characters")]
    event = st.dataframe(
        pd.DataFrame([vars(row) for row in rows]),
        key="documents_" + hashlib.sha256(ids.encode("utf-8", "replace")).hexdigest()[:16],
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row-required",
        selection_default={"selection": {"rows": [0]}},
        height=min(ROW_PIXELS * (len(rows) + 1), TABLE_PIXELS),
        row_height=ROW_PIXELS,
        column_config={
            name: column.Column(label, width=width) for (name, width), label in zip(COLUMN_PIXELS.items(), labels, strict=True)
        },
        alt=t("index.table", n=len(rows)),
    )
    chosen = event.selection.rows
    return rows[chosen[0]] if chosen and chosen[0] < len(rows) else rows[0]


def _document(document: Document | None, t: Translate) -> None:
    if document is None:
        markup.show(markup.note(t("index.gone")))
        return
    markup.show(markup.section(title_of(document), document.id))
    with st.container(height=TEXT_PIXELS):
        st.text(document.text[:TEXT_CHARACTERS])
        if document.metadata:
            markup.show(markup.facts([(str(name), str(value)) for name, value in document.metadata.items()]))


if __name__ == "__main__":
    draw()
