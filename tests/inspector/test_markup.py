import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import m3retriever.inspector
from m3retriever import Weights
from m3retriever.inspector import markup
from m3retriever.inspector.analysis.ranking import Part, Row
from m3retriever.inspector.analysis.tokens import Passage, Tint
from m3retriever.inspector.i18n import translator
from m3retriever.palette import LIGHT, ink_on, rgba

FOLDER = Path(m3retriever.inspector.__file__).parent
EVIL = "<img src=x onerror='a'> \"&"
ESCAPED = "&lt;img src=x onerror=&#x27;a&#x27;&gt; &quot;&amp;"
ROW = Row(1, EVIL, EVIL, 0.5, {"dense": 0.5}, {"dense": 1}, True)


@pytest.mark.parametrize(
    "html",
    [
        markup.heading(ROW),
        markup.note(EVIL),
        markup.notice("error", EVIL, EVIL),
        markup.tinted(EVIL, [Passage(0, len(EVIL), (Tint(0, 8, 0.9, True), Tint(9, len(EVIL), 0.1, False)))]),
    ],
)
def test_texts_are_escaped(html):
    assert "&lt;img" in html
    assert "<img" not in html
    assert re.sub(r"<[^>]*>", "", html).count("onerror=&#x27;a&#x27;") >= 1


def test_attributes_hold_only_numbers_and_names_of_ours():
    html = markup.tinted(EVIL, [Passage(0, len(EVIL), (Tint(0, 8, 0.9, True),))])
    assert re.findall(r"<span ([^>]*)>", html) == ["class='m3-tint-10 m3-shared' title='0.90'"]


def test_a_text_comes_out_whole_around_its_tints():
    text = "a <b> c"
    html = markup.tinted(text, [Passage(0, len(text), (Tint(2, 5, 0.9, False),))])
    assert re.sub(r"<[^>]*>", "", html) == "a &lt;b&gt; c"


def test_a_passage_inside_a_text_is_marked_as_cut():
    html = markup.tinted("one two three", [Passage(4, 7, ())])
    assert re.sub(r"<[^>]*>", "", html) == "… two …"


def test_a_weak_match_has_no_tint():
    html = markup.tinted("ab", [Passage(0, 2, (Tint(0, 2, 0.2, False),))])
    assert "<span" not in html


def test_the_sum_shows_score_times_weight_and_rank():
    html = markup.sum_of_parts([Part("dense", 0.884, 0.4, 0.3536, 3)], 0.3536, translator("en"))
    assert re.sub(r"<[^>]*>", " ", html).split() == ["Dense", "0.884", "×", "0.40", "=", "0.354", "#3", "Hybrid", "=", "0.354"]


def test_the_weight_bar_has_the_shares_as_words_too():
    html = markup.weight_bar(Weights(1, 1, 2), translator("en"))
    assert "aria-label='Dense 0.25, Sparse 0.25, ColBERT 0.50'" in html
    assert "width:50.00%" in html


def test_a_colour_is_made_transparent():
    assert rgba("#ff0010", 0.5) == "rgba(255, 0, 16, 0.50)"
    assert "m3-tint-10" in markup.styles(LIGHT)


@given(st.integers(0, 0xFFFFFF))
def test_ink_stands_out_on_any_colour(number):
    def luminance(colour):
        values = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    colour = f"#{number:06x}"
    dark, light = sorted([luminance(colour), luminance(ink_on(colour))])
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_no_other_module_makes_html_or_lets_data_near_markdown():
    for path in FOLDER.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert "unsafe_allow" not in source
        assert not re.search(r"st\.(write|info|warning|error|success|exception|metric|caption|title|header)\(", source), path
        assert ("st.html(" in source) == (path.name == "markup.py"), path


def test_no_module_hides_a_standard_one_when_streamlit_puts_the_folder_on_the_path():
    import sys

    assert not {path.stem for path in FOLDER.glob("*.py")} & sys.stdlib_module_names
