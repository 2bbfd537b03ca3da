"""One hit in detail: the sum that makes its score, and its text, alignment and shared tokens."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from m3retriever import Document, M3Index, SharedToken, Token
from m3retriever.inspector import charts, markup, state
from m3retriever.inspector.analysis import ranking
from m3retriever.inspector.analysis import tokens as aligned
from m3retriever.inspector.analysis.ranking import Part, Row
from m3retriever.inspector.charts.ranking import contribution_bar
from m3retriever.inspector.charts.tokens import heatmap, match_bars
from m3retriever.inspector.context import Page
from m3retriever.inspector.i18n import Translate
from m3retriever.inspector.retrieval import query_vectors
from m3retriever.types import FloatArray, Tokenizes

BARS = 40  # query tokens in the bar chart
HEAT_ROWS, HEAT_COLUMNS = 24, 24  # query and document tokens in the heatmap: what fits beside the table
FULL_TEXT_CHARACTERS = 200_000
TOKEN_PIXELS, BAR_PIXELS = 110, 94
SMALLEST = 1e-9  # a progress bar needs an end above its beginning


@dataclass(frozen=True, eq=False)
class Tokens:
    """Query and document as the model saw them, token by token.

    Attributes
    ----------
    query, document : one Token per ColBERT vector
    similarity : (q, d)
    """

    query: list[Token]
    document: list[Token]
    similarity: FloatArray


def draw(page: Page, query: str, row: Row, document: Document) -> None:
    """Draw the detail of one hit."""
    index, t = page.index, page.t
    markup.show(markup.heading(row))
    if page.profile.fusion == "weighted_sum":
        _sum(ranking.parts_of(row, page.weights), row.score, t)
    else:
        markup.show(markup.note(t("detail.no_sum", fusion=page.profile.fusion, score=f"{row.score:.4f}")))
    asked, held = query_vectors(index, page.source, query), index.vectors([row.id])
    query_weights, weights_held = asked.sparse_row(0), held.sparse_row(0)
    tokens = _tokens(index, query, document, aligned.similarities(asked, held))
    text, alignment, lexical, raw = st.tabs([t("tab.text"), t("tab.alignment"), t("tab.lexical"), t("tab.raw")])
    with text:
        _text(document, tokens, query_weights.keys() & weights_held.keys(), t)
    with alignment:
        _alignment(query, document, tokens, t)
    with lexical:
        _lexical(aligned.shared_tokens(query_weights, weights_held, _names(index, query)), row.scores["sparse"], t)
    with raw:
        st.json(_raw(row, document), expanded=True)


def _sum(parts: Sequence[Part], score: float, t: Translate) -> None:
    palette = state.palette()
    words = ", ".join(f"{t(f'mode.{part.mode}')} {part.score:.3f} × {part.weight:.2f}" for part in parts)
    bar = contribution_bar(parts, palette=palette, t=t)
    charts.show(bar, alt_text=f"{t('detail.parts')} {words}", palette=palette)
    markup.show(markup.sum_of_parts(parts, score, t))


def _tokens(index: M3Index, query: str, document: Document, similarity: FloatArray) -> Tokens | None:
    """None where the encoder does not say which characters its vectors stand for."""
    if not isinstance(index.encoder, Tokenizes):
        return None
    tokens = Tokens(index.encoder.tokenize(query), index.encoder.tokenize(document.text), similarity)
    return tokens if similarity.shape == (len(tokens.query), len(tokens.document)) and similarity.size else None


def _names(index: M3Index, query: str) -> dict[int, str]:
    """What the query's tokens are called."""
    if not isinstance(index.encoder, Tokenizes):
        return {}
    tokens = index.encoder.tokenize(query)
    return {token.id: label for token, label in zip(tokens, aligned.token_labels(query, tokens), strict=True)}


def _text(document: Document, tokens: Tokens | None, shared: Set[int], t: Translate) -> None:
    if tokens is None:
        st.text(document.text[:FULL_TEXT_CHARACTERS])
        return
    tints = aligned.tints(document.text, tokens.document, tokens.similarity, shared)
    passages = aligned.passages(document.text, tokens.document, tokens.similarity, tints)
    excerpt = len(tokens.document) > aligned.WHOLE_TOKENS
    if excerpt:
        markup.show(markup.note(t("detail.excerpt", n=len(tokens.document)), name="excerpt"))
    markup.show(markup.tinted(document.text, passages))
    markup.show(markup.note(t("detail.tints")))
    if excerpt:
        with st.expander(t("detail.full_text")):
            st.text(document.text[:FULL_TEXT_CHARACTERS])


def _alignment(query: str, document: Document, tokens: Tokens | None, t: Translate) -> None:
    if tokens is None:
        markup.show(markup.note(t("detail.no_tokens")))
        return
    palette = state.palette()
    rows, columns = aligned.token_labels(query, tokens.query), aligned.token_labels(document.text, tokens.document)
    matches = aligned.matches(rows, columns, tokens.similarity)
    mean = sum(match.similarity for match in matches) / len(matches)
    words = "; ".join(f"{match.query} → {match.document} {match.similarity:.2f}" for match in matches[:BARS])
    charts.show(match_bars(matches[:BARS], palette=palette), alt_text=words, palette=palette)
    markup.show(markup.note(t("detail.mean", score=f"{mean:.3f}", n=len(matches)), name="mean"))
    cells = aligned.heat_cells(tokens.similarity, rows=HEAT_ROWS, columns=HEAT_COLUMNS)
    drawn = heatmap(cells, rows=rows, columns=columns, palette=palette, t=t)
    charts.show(drawn, alt_text=t("detail.heatmap"), palette=palette)
    if len(rows) > HEAT_ROWS:
        markup.show(markup.note(t("detail.cut", bars=min(BARS, len(rows)), rows=HEAT_ROWS, n=len(rows))))


def _lexical(tokens: Sequence[SharedToken], score: float, t: Translate) -> None:
    column = st.column_config
    frame = pd.DataFrame(
        {
            "token": [token.token for token in tokens],
            "query": [token.query_weight for token in tokens],
            "document": [token.document_weight for token in tokens],
            "product": [token.product for token in tokens],
        }
    )
    columns: dict[str, Any] = {"token": column.TextColumn(t("column.token"), width=TOKEN_PIXELS)}
    for name in ("query", "document", "product"):
        columns[name] = column.ProgressColumn(
            t(f"column.{name}"),
            min_value=0.0,
            max_value=max([SMALLEST, *frame[name]]),
            format="%.3f",
            color="orange",
            width=BAR_PIXELS,
        )
    st.dataframe(frame, hide_index=True, height="content", column_config=columns, alt=t("tab.lexical"))
    markup.show(markup.note(t("detail.products", score=f"{score:.3f}"), name="products"))


def _raw(row: Row, document: Document) -> dict[str, object]:
    return {
        "id": document.id,
        "metadata": dict(document.metadata),
        "scores": {"hybrid": row.score, **{str(mode): score for mode, score in row.scores.items()}},
        "ranks": {"hybrid": row.rank, **{str(mode): rank for mode, rank in row.ranks.items()}},
    }
