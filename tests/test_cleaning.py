"""Cleaning: what nobody sees goes, what anybody reads stays."""

import time
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from m3retriever import Document, InvalidArgumentError
from m3retriever.cleaning import FORMS, clean, clean_document

ZWSP, ZWNJ, ZWJ = "\u200b", "\u200c", "\u200d"


@pytest.mark.parametrize(
    ("dirty", "wanted"),
    [
        ("", ""),
        ("plain text.", "plain text."),
        ("one\r\ntwo\rthree\u2028four\x0bfive\x0csix\x85seven", "one\ntwo\nthree\nfour\nfive\nsix\nseven"),
        ("one\u2029two", "one\n\ntwo"),
        ("a  b\u00a0\u3000c", "a b c"),
        ("a \t b\tc", "a\tb\tc"),
        ("a\x1fb", "a b"),
        ("  indented  \n\t\nnext \t\n\n\n\nlast\n\n", "indented\n\nnext\n\nlast"),
        ("- item\n  - inner", "- item\n - inner"),
        ("\ufeffaf\u00adfix\x00 be\x07ll\x7f \x9b", "affix bell"),
        ("left\u200e\u202eright\u2066\u2069 w\u2060j", "leftright wj"),
        ("cafe\u0301 \u212b", "café Å"),
        ("e\x00\u0301", "é"),
        ("ﬁne ² ｆｕｌｌ", "ﬁne ² ｆｕｌｌ"),
        (" \u200b\x00\ufeff\u00ad\n\u200d\t", ""),
    ],
)
def test_dirt_is_removed_and_text_is_kept(dirty, wanted):
    assert clean(dirty) == wanted


def test_nfkc_folds_variants_as_well():
    assert clean("ﬁne ² ｆｕｌｌ　① ㍿", form="NFKC") == "fine 2 full 1 株式会社"
    for wrong in ("NFD", "nfc", None):
        with pytest.raises(InvalidArgumentError, match="form must be one of NFC, NFKC; got"):
            clean("x", form=wrong)


@pytest.mark.parametrize(
    "meaning",
    [
        f"می{ZWNJ}خواهم",
        f"क्{ZWJ}ष",
        f"क्{ZWNJ}ष",
        f"ന്{ZWJ} word",  # a final consonant of Malayalam, as older texts write it
        f"👩{ZWJ}👩{ZWJ}👧{ZWJ}👦",
        f"👩🏽{ZWJ}⚕\ufe0f",
        f"🙂{ZWJ}↔\ufe0f",
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "ᠮᠣᠩᠭᠣᠯ\u180eᠠ",
        f"ភាសា{ZWSP}ខ្មែរ",
        "\u0600١٢",
        "\u06dd١",
    ],
)
def test_invisible_characters_stay_where_they_carry_something(meaning):
    assert clean(meaning) == meaning


@pytest.mark.parametrize(
    ("dirty", "wanted"),
    [
        (f"zero{ZWSP}width{ZWNJ}in{ZWJ}side", "zerowidthinside"),
        (f"Привет{ZWJ}мир λό{ZWNJ}γος", "Приветмир λόγος"),
        (f"{ZWNJ}می{ZWNJ} {ZWNJ}خواهم{ZWJ}", "می خواهم"),
        (f"می{ZWNJ}{ZWNJ}{ZWSP}خواهم", f"می{ZWNJ}خواهم"),
        (f"👩{ZWJ} and {ZWJ}👧, a{ZWJ}👧", "👩 and 👧, a👧"),
        (f"红{ZWSP}酒", "红酒"),
        (f"๑{ZWNJ}๒", "๑๒"),
        ("hi\U000e0069\U000e0067\U000e006e\U000e006f\U000e0072\U000e0065 there", "hi there"),
        ("🏴\U000e0067\U000e0062 flag", "🏴 flag"),
    ],
)
def test_invisible_characters_go_where_they_carry_nothing(dirty, wanted):
    assert clean(dirty) == wanted


INVISIBLE = [*"\x00\x07\x1b\x7f\x9f\u00ad\u200e\u202e\u2060\ufeff", ZWSP, ZWNJ, ZWJ, "\u180e", "\U000e0067", "\U000e007f"]
SEEN = [
    *"aZ1é. \t\n\r\x0b\x1c\u00a0\u2028\u2029\u3000红ﬁ²ｆ́",
    "e",
    "\u0301",
    "\u0338",
    "=",
    "ب",
    "\u064e",
    "क",
    "\u094d",
    "\u093c",
    "ខ",
    "🏴",
    "👩",
    "\ufe0f",
]
TEXTS = st.one_of(st.text(), st.lists(st.sampled_from(INVISIBLE + SEEN)).map("".join))


def read(text, form):
    """What a reader reads, whichever way its accents are composed."""
    parts = unicodedata.normalize({"NFC": "NFD", "NFKC": "NFKD"}[form], text)
    return [sign for sign in parts if unicodedata.category(sign)[0] in "LNPS"]


@settings(max_examples=1000)
@given(TEXTS, st.sampled_from(FORMS))
@example(f"e{ZWSP}\u0301{ZWNJ}ب", "NFC")
@example(f"क\u0301{ZWNJ}\u094d{ZWJ} ", "NFC")
@example("\r\x00\n\r", "NFC")
def test_cleaning_twice_is_cleaning_once_and_loses_nothing_that_is_read(text, form):
    once = clean(text, form=form)
    assert clean(once, form=form) == once
    assert read(once, form) == read(text, form)
    assert unicodedata.is_normalized(form, once)
    assert not any(unicodedata.category(sign) == "Cc" and sign not in "\n\t" for sign in once)
    assert "\n\n\n" not in once
    assert "  " not in once
    assert once == once.strip()
    assert not any(line != line.rstrip() for line in once.split("\n"))


@given(st.lists(st.sampled_from([*INVISIBLE, *" \t\n\r\x0b\x1c\u00a0\u2028\u3000"])).map("".join), st.sampled_from(FORMS))
def test_text_of_nothing_stays_nothing(text, form):
    assert clean(text, form=form) == ""


def test_long_runs_take_time_in_proportion():
    runs = [f"a{ZWNJ}", ZWNJ, f"ب{ZWNJ}", " \n", "\n", " ", "\x00", "\U000e0061", "🏴\U000e0061", "\r", "\u0301"]
    begun = time.perf_counter()
    for run in runs:
        clean(run * 100_000)
    assert time.perf_counter() - begun < 30, "with work that grows as the square it would be hours"


def test_a_document_is_cleaned_with_its_title_and_nothing_else_of_it():
    document = Document("a\u00ad", "Ti\u00adtle\r\ntext ", {"title": "Ti\u00adtle ", "source": "x\u00ad", "page": 1})
    cleaned = clean_document(document)
    assert cleaned == Document("a\u00ad", "Title\ntext", {"title": "Title", "source": "x\u00ad", "page": 1})
    assert document.metadata["title"] == "Ti\u00adtle "
    assert clean_document(Document("a", "ﬁ", {"title": 7}), form="NFKC") == Document("a", "fi", {"title": 7})
