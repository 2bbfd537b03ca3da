"""Cleaning dirty text before it is indexed: Unicode form, characters nobody sees, blanks and empty lines."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from typing import Literal, get_args

from m3retriever.errors import InvalidArgumentError
from m3retriever.types import Document

Form = Literal["NFC", "NFKC"]
FORMS: tuple[Form, ...] = get_args(Form)

# What Unicode calls control and format, and what may well be written but is not seen. Not in it: the signs that
# Arabic, Syriac, Kaithi and hieroglyphs show or arrange numbers and pictures with, which are "format" as well.
INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u061c\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a]"
)
TAGS = re.compile("(\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f)|[\U000e0001-\U000e007f]+")
LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028]")
JOINERS = re.compile("[\u200b-\u200d\u180e]+")  # with the space of no width, and Mongolian's own joiner
BLANKS = re.compile(r"[^\S\n]+")
EMPTY_LINES = re.compile(r"\n{3,}")
ZERO_WIDTH_SPACE = "\u200b"
VIRAMA = 9  # Unicode's combining class of the signs that take a letter's vowel away
FIRST_JOINING = 0x590  # letters from Hebrew and Arabic on; Latin, Greek and Cyrillic before it are not joined
NO_BLANKS = [range(0xE00, 0xF00), range(0x1000, 0x10A0), range(0x1780, 0x1800)]  # Thai and Lao, Burmese, Khmer


def clean(text: str, *, form: Form = "NFC") -> str:
    """The same text for reader and model: `clean("a\\u00ad b\\r\\n")` is `"a b"`.

    Line ends become \\n, runs of blanks one blank (a tab where there is one among them), several empty lines one;
    blanks at the end of lines and around the text go, and so do characters that are not seen: control and
    format characters, soft hyphens, byte order marks, zero-width ones. Those stay where they carry something:
    joiners between letters (Persian, the scripts of India) or emoji, word borders in scripts without blanks
    (Thai, Lao, Burmese, Khmer), the tags of regional flags.

    No letter, digit or other visible sign is lost, and cleaning twice is cleaning once. Text of nothing but
    blanks and invisible characters becomes "".

    Parameters
    ----------
    form
        "NFC" keeps what characters look like; "NFKC" also folds their variants: full width, ligatures, raised
        digits.
    """
    if form not in FORMS:
        raise InvalidArgumentError(f"form must be one of {', '.join(FORMS)}; got {form!r}")
    text = LINE_ENDS.sub("\n", unicodedata.normalize(form, text)).replace("\u2029", "\n\n")
    text = TAGS.sub(lambda tags: tags.group(1) or "", INVISIBLE.sub("", text))  # group 1: a region's flag
    while (fewer := unicodedata.normalize(form, JOINERS.sub(_needed, text))) != text:
        text = fewer  # what an invisible character kept apart may compose
    text = BLANKS.sub(lambda run: "\t" if "\t" in run.group() else " ", text)
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    return EMPTY_LINES.sub("\n\n", text).strip()


def clean_document(document: Document, *, form: Form = "NFC") -> Document:
    """The document with its text cleaned, and its title, where the metadata hold one."""
    metadata, title = dict(document.metadata), document.metadata.get("title")
    if isinstance(title, str):
        metadata["title"] = clean(title, form=form)
    return replace(document, text=clean(document.text, form=form), metadata=metadata)


def _needed(run: re.Match[str]) -> str:
    """Of zero-width characters in a row the one that carries something where it stands: one of its kind is enough."""
    start, end = run.span()
    before, after = run.string[max(0, start - 1) : start], run.string[end : end + 1]
    joiner = run.group().replace(ZERO_WIDTH_SPACE, "")[:1]
    if joiner and (_joins(before, after) or (before and unicodedata.combining(before) == VIRAMA)):
        return joiner
    borders = all(side and any(ord(side) in block for block in NO_BLANKS) for side in (before, after))
    return ZERO_WIDTH_SPACE if borders and ZERO_WIDTH_SPACE in run.group() else ""


def _joins(before: str, after: str) -> bool:
    """Whether a joiner may matter between two characters: letters of a script that joins, or emoji."""
    kinds = {unicodedata.category(side)[0] if side else "" for side in (before, after)}
    letters = kinds <= {"L", "M"} and min(ord(before), ord(after)) >= FIRST_JOINING
    return letters or ("S" in kinds and kinds <= {"S", "M"})
