"""Query and document token by token: the text, the best matches and the weights, as Search and Pairs show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from m3retriever import Document, M3Index, M3Vectors
from m3retriever.inspector import charts, markup, retrieval
from m3retriever.inspector.analysis import tokens as analysis
from m3retriever.inspector.analysis.tokens import BARS, HEAT_ROWS, Comparison, Side
from m3retriever.inspector.charts.tokens import heatmap, match_bars
from m3retriever.inspector.context import Page
from m3retriever.inspector.i18n import Translate
from m3retriever.palette import Palette
from m3retriever.types import Tokenizes

KEPT = 50  # comparisons: a few hundred kB each where both texts are long
FULL_TEXT_CHARACTERS = 200_000
TOKEN_PIXELS, BAR_PIXELS = 110, 94
TABLE_ROWS, ROW_PIXELS, TABLE_PIXELS = 200, 32, 448  # tokens of a table, and its height
SMALLEST = 1e-9  # a progress bar needs an end above its beginning


def of_document(page: Page, query: str, document: Document) -> Comparison:
    """A query with a document of the index; computed once for each state of the index."""
    state = retrieval.state_of(page.index, page.source)
    return _of_document(page.index, document, query, document.id, state)


@st.cache_resource(show_spinner=False, max_entries=KEPT)
def _of_document(_index: M3Index, _document: Document, query: str, id: str, state: retrieval.State) -> Comparison:
    asked, held = retrieval.query_vectors(_index, state.source, query), _index.vectors([id])
    return analysis.compare(side(_index, query, asked), side(_index, _document.text, held))


def side(index: M3Index, text: str, vectors: M3Vectors) -> Side:
    """A text as the index's model sees it."""
    tokens = index.encoder.tokenize(text) if isinstance(index.encoder, Tokenizes) else None
    length: int | None = getattr(index.encoder, "max_length", None)
    return Side(text, vectors, tokens, None if length is None else length - 1)  # the first token has no ColBERT vector


# -- the text --------------------------------------------------------------------------------------


def draw_text(compared: Comparison, text: str, t: Translate) -> None:
    """The document with its tokens tinted; of a long one the best passages."""
    matched, unread = compared.matched, compared.unread[1]
    if matched is None:
        st.text(text[:FULL_TEXT_CHARACTERS])
        return
    if matched.excerpt:
        markup.show(markup.note(t("detail.excerpt", n=len(matched.columns)), name="excerpt"))
    if unread is not None:
        markup.show(markup.note(t("tokens.unread", n=unread), name="unread"))
    markup.show(markup.tinted(text, matched.passages))
    markup.show(markup.note(t("detail.tints")))
    if matched.excerpt or unread is not None:
        with st.expander(t("detail.full_text")):
            st.text(text[:FULL_TEXT_CHARACTERS])


# -- the matches -----------------------------------------------------------------------------------


def draw_matches(compared: Comparison, palette: Palette, t: Translate) -> None:
    """A bar for each query token, then the similarities themselves."""
    matched = compared.matched
    if matched is None:
        markup.show(markup.note(t("detail.no_tokens")))
        return
    words = "; ".join(f"{match.query} → {match.document} {match.similarity:.2f}" for match in matched.matches)
    charts.show(match_bars(matched.matches, palette=palette), alt_text=words, palette=palette)
    count = len(matched.rows)
    markup.show(markup.note(t("detail.mean", score=f"{matched.score:.3f}", n=count), name="mean"))
    drawn = heatmap(matched.cells, rows=matched.rows, columns=matched.columns, palette=palette, t=t)
    charts.show(drawn, alt_text=t("detail.heatmap"), palette=palette)
    if count > HEAT_ROWS:
        markup.show(markup.note(t("detail.cut", bars=min(BARS, count), rows=HEAT_ROWS, n=count), name="cut"))


# -- the weights -----------------------------------------------------------------------------------


def draw_weights(compared: Comparison, score: float, t: Translate) -> None:
    """The query's tokens with both weights and their product, then what the document is indexed under."""
    shared = compared.shared[:TABLE_ROWS]
    _weights(
        [token.token for token in shared],
        {
            "query": [token.query_weight for token in shared],
            "document": [token.document_weight for token in shared],
            "product": [token.product for token in shared],
        },
        t("tokens.shared"),
        t,
    )
    if len(compared.shared) > TABLE_ROWS:
        markup.show(markup.note(t("tokens.cut", n=len(compared.shared), shown=TABLE_ROWS)))
    markup.show(markup.note(t("detail.products", score=f"{score:.3f}"), name="products"))
    names, weights = [name for name, _ in compared.indexed], [weight for _, weight in compared.indexed]
    markup.show(markup.section(t("tokens.indexed"), t("tokens.heaviest", n=len(names))))
    _weights(names, {"document": weights}, t("tokens.indexed"), t)


def _weights(names: Sequence[str], weights: dict[str, list[float]], alt: str, t: Translate) -> None:
    column = st.column_config
    width = TOKEN_PIXELS + BAR_PIXELS * (3 - len(weights))
    columns: dict[str, Any] = {"token": column.TextColumn(t("column.token"), width=width)}
    for name, values in weights.items():
        full = max([SMALLEST, *values])
        columns[name] = column.ProgressColumn(
            t(f"column.{name}"), min_value=0.0, max_value=full, format="%.3f", color="orange", width=BAR_PIXELS
        )
    frame = pd.DataFrame({"token": names, **weights})
    height = min(ROW_PIXELS * (len(names) + 1), TABLE_PIXELS)
    st.dataframe(frame, hide_index=True, height=height, row_height=ROW_PIXELS, column_config=columns, alt=alt)
