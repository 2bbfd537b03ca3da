"""What can be taken away: tables as CSV, runs, profiles and judgements in their own forms."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence

import streamlit as st

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run a cell that begins with one of these


def csv_text(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows of equal keys as CSV with a header; a text that a spreadsheet would take for a formula gets a "'" in front."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    if rows:
        writer.writerow([_safe(name) for name in rows[0]])
        writer.writerows([_safe(value) for value in row.values()] for row in rows)
    return file.getvalue()


def _safe(value: object) -> object:
    if isinstance(value, str) and value.startswith(FORMULA):
        return "'" + value
    return value


def button(
    label: str,
    text: str | Callable[[], str],
    file_name: str,
    *,
    key: str,
    mime: str = "text/plain",
    disabled: bool = False,
) -> None:
    """A button that downloads a text; CSV gets the mark by which spreadsheets know UTF-8.

    A long text is better given as a function, which is called when it is wanted; it must raise nothing.
    """
    encoding = "utf-8-sig" if mime == "text/csv" else "utf-8"
    data = text.encode(encoding, "replace") if isinstance(text, str) else lambda: text().encode(encoding, "replace")
    icon = ":material/download:"
    st.download_button(label, data, file_name, mime, key=key, on_click="ignore", icon=icon, disabled=disabled)


def csv_button(label: str, rows: Sequence[Mapping[str, object]], file_name: str, *, key: str) -> None:
    """A button that downloads a table."""
    button(label, csv_text(rows), file_name, key=key, mime="text/csv")
