"""The quality page: its pictures, its words, and that no text on it is anything but text."""

import dataclasses
import math
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3retriever.calibrating import Calibrated, Evidence, Wanted, calibrate, fitted_profile
from m3retriever.calibrating.reliability import Bin
from m3retriever.calibrating.thresholds import MIN_RETURNED, Pairs
from m3retriever.calibration import Calibration
from m3retriever.errors import InvalidArgumentError
from m3retriever.evaluation import Evaluation, compare_values, evaluate_scores
from m3retriever.exactness import Exactness
from m3retriever.palette import DARK, LIGHT, STEPS, hexadecimal, oklch, ramp
from m3retriever.quality_page import quality_page
from m3retriever.quality_page.charts import (
    LARGEST,
    SMALLEST,
    bar,
    curves,
    histogram,
    radius,
    reliability_picture,
    strip,
    threshold_picture,
)
from m3retriever.quality_page.charts import shares as shares_bar
from m3retriever.quality_page.fits import best_mark, chosen_threshold, levels_strip, thresholds_section
from m3retriever.quality_page.markup import chance, counted, escaped, paragraph, score, shortened, signed, table, tag, text
from m3retriever.quality_page.overview import first_rank, headline, verdict, without_long_lists, worst_questions
from m3retriever.quality_page.shapes import Scale
from m3retriever.quality_page.ternary import COLBERT, DENSE, SPARSE, Mark, hexagon, point, step_of, ternary_picture
from m3retriever.tuning import Found, tune
from m3retriever.tuning.settings import Setting, simplex
from m3retriever.types import MODES, ModeScores, Profile, Weights

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HOSTILE = "</title></style></pre><script>alert(1)</script><img src=x onerror=alert(2)>\"'><b>&amp;\x00\x1b[31m\u202e\ud800"
SECTIONS = ["summary", "modes", "tuning", "thresholds", "reliability", "questions", "exactness", "profile"]


class Page(HTMLParser):
    """A page as a browser reads it: elements that close, their attributes, and the text between them."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.texts, self._open = [], [], []
        self.feed(html)
        self.close()
        assert not self._open, f"left open: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"{tag} has an attribute twice"
        if tag != "meta":
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open[-1:] == [tag], f"</{tag}> closes another element"
        self._open.pop()

    def handle_data(self, data):
        if self._open[-1:] != ["style"]:
            self.texts.append(data)

    def all(self, name, **wanted):
        """The attributes of every such element."""
        return [held for tag, held in self.elements if tag == name and all(held.get(key) == wanted[key] for key in wanted)]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def numbers(element, *names):
    return tuple(float(element[name]) for name in names)


def points(element):
    return [tuple(map(float, pair.split(","))) for pair in element["points"].split()]


@pytest.fixture(scope="module")
def judged():
    """Scores and judgements of 24 questions: the relevant document scores higher, in each mode to another degree."""
    random = np.random.default_rng(7)
    scores, qrels = {}, {}
    for number in range(24):
        values = random.uniform(0, 0.6, (30, 3)).astype(np.float32)
        values[0] += random.uniform(0, [0.5, 0.2, 0.4])
        scores[f"q{number}"] = ModeScores(tuple(f"d{row}" for row in range(30)), values)
        qrels[f"q{number}"] = {"d0": 1, "d1": int(number % 3 == 0)}
    return scores, qrels


@pytest.fixture(scope="module")
def parts(judged):
    """Everything that `quality_page` takes."""
    scores, qrels = judged
    wanted = Wanted("precision", 0.5)
    evaluation = evaluate_scores(scores, qrels, ["nDCG@10", "RR@10"], profile=Profile())
    calibrated = calibrate(Evidence(scores, qrels, list(scores.values())[:5], list(scores.values())), Profile(), wanted)
    return {
        "evaluation": evaluation,
        "profile": fitted_profile(Profile(model="a model"), calibrated, wanted=str(wanted)),
        "queries": {query: f"question {query}" for query in qrels},
        "qrels": qrels,
        "tuning": tune(scores, qrels, fusions=["weighted_sum"], learners=["routed"]),
        "calibrated": calibrated,
        "wanted": wanted,
        "pairs": {mode: Pairs.of(run, qrels) for mode, run in evaluation.runs.items()},
        "exactness": Exactness(24, 10, {"hybrid": 0.95, "dense": 1.0, "sparse": 1.0, "colbert": 0.9}, 0.99, 0.00042),
    }


def tiny(values):
    """An evaluation of {mode: {query: value}} by nDCG@10."""
    by_mode = {mode: {"nDCG@10": values.get(mode, dict.fromkeys(values["hybrid"], 0.0))} for mode in ("hybrid", *MODES)}
    return Evaluation(tuple(values["hybrid"]), by_mode, {mode: {} for mode in by_mode})


class TestThePage:
    def test_is_html_that_closes_with_unique_ids_and_every_section(self, parts):
        page = Page(quality_page("an index", **parts))
        ids = [held["id"] for _, held in page.elements if "id" in held]
        assert ids == SECTIONS
        assert [held["href"] for held in page.all("a")] == [f"#{name}" for name in SECTIONS]
        assert page.all("html") == [{"lang": "en"}]

    def test_asks_for_nothing_and_runs_nothing(self, parts):
        html = quality_page("an index", **parts)
        page = Page(html)
        [policy] = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
        assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
        assert not {"script", "link", "img", "iframe", "object", "form", "base"} & {tag for tag, _ in page.elements}
        assert not re.search(r"https?:|url\(|@import|javascript:", html)
        assert {held["content"] for held in page.all("meta") if "http-equiv" not in held and "name" in held} == {
            "width=device-width, initial-scale=1"
        }

    def test_says_of_each_picture_what_is_on_it_or_hides_what_is_beside_its_number(self, parts):
        pictures = Page(quality_page("an index", **parts)).all("svg")
        told = [held for held in pictures if held.get("role") == "img"]
        assert len(told) == 1 + 4 + 4  # the map, thresholds and reliability of each mode
        assert all(held["aria-label"].endswith(".") for held in told)
        assert all(held.get("aria-hidden") == "true" for held in pictures if held.get("role") != "img")

    def test_gives_every_table_a_caption_and_every_header_a_scope(self, parts):
        page = Page(quality_page("an index", **parts))
        assert len(page.all("caption")) == len(page.all("table")) == 7
        assert {held.get("scope") for held in page.all("th")} == {"col", "row"}

    def test_is_the_same_for_the_same_input(self, parts):
        assert quality_page("an index", **parts) == quality_page("an index", **parts)

    def test_shows_hostile_texts_as_texts(self, parts):
        calm = Page(quality_page("calm", **parts))
        queries = dict.fromkeys(parts["queries"], f"{HOSTILE}question")
        [first, *_] = parts["tuning"].against.values()
        tuning = dataclasses.replace(parts["tuning"], against={f"{HOSTILE}baseline": first})
        calibrated = {mode: dataclasses.replace(one, problem=f"{HOSTILE}problem") for mode, one in parts["calibrated"].items()}
        profile = dataclasses.replace(parts["profile"], model=f"{HOSTILE}model", fitted={"note": f"{HOSTILE}note"})
        changed = {**parts, "queries": queries, "tuning": tuning, "calibrated": calibrated, "profile": profile}
        html = quality_page(f"{HOSTILE}title", **changed)
        html.encode("utf-8")  # a lone surrogate would fail
        hostile = Page(html)
        assert {tag for tag, _ in hostile.elements} == {tag for tag, _ in calm.elements}
        assert not [key for _, held in hostile.elements for key in held if key.startswith("on") or key == "src"]
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", html)
        shown = set(re.findall("<script>alert\\(1\\)</script>.*?\ufffd([a-z]+)", hostile.text))
        assert shown >= {"question", "baseline", "problem", "model", "note", "title"}

    def test_shows_hostile_ids_where_a_text_is_missing(self):
        evaluation = tiny({"hybrid": {HOSTILE: 0.5, "plain": 0.25}})
        page = Page(quality_page("t", evaluation, profile=Profile(), queries={}))
        assert "<script>alert(1)</script>" in page.text
        assert not page.all("script")
        assert "plain" in page.text

    @pytest.mark.parametrize(
        ("left_out", "sentence"),
        [
            (["tuning"], "Weights were not tuned"),
            (["calibrated", "pairs"], "No thresholds were fitted"),
            (["calibrated"], "No probabilities were fitted"),
            (["pairs"], "The curves need the scored pairs"),
            (["exactness"], "--exact brings it"),
        ],
    )
    def test_says_what_brings_a_section_whose_input_is_missing(self, parts, left_out, sentence):
        whole = Page(quality_page("an index", **parts))
        less = Page(quality_page("an index", **{**parts, **dict.fromkeys(left_out)}))
        assert sentence in less.text
        assert sentence not in whole.text
        assert [held["id"] for _, held in less.elements if "id" in held] == SECTIONS
        assert len(less.elements) < len(whole.elements)

    def test_leaves_ranks_out_without_judgements(self, parts):
        assert "rank of the first relevant document" in Page(quality_page("t", **parts)).text
        without = Page(quality_page("t", **{**parts, "qrels": None})).text
        assert "rank of the first relevant document" not in without
        assert not re.search(r"#\d", without)

    def test_of_no_question_says_so(self):
        page = Page(quality_page("t", tiny({"hybrid": {}}), profile=Profile(), queries={}))
        assert page.text.count("No question has a known answer, so nothing was measured.") == 3
        assert not page.all("table")

    @pytest.mark.parametrize("values", [{}, {"dense": {"RR": {}}}, {"hybrid": {}}])
    def test_needs_the_hybrid_and_a_measure(self, values):
        with pytest.raises(InvalidArgumentError, match="needs the hybrid and at least one measure"):
            quality_page("t", Evaluation((), values, {}), profile=Profile(), queries={})


class TestColours:
    @pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
    def test_texts_stand_out_from_what_is_behind_them(self, palette):
        for behind in (palette.background, palette.track):
            assert contrast(palette.text, behind) >= 4.5
            assert contrast(palette.muted, behind) >= 4.5

    def test_oklch_gives_published_colours(self):
        assert hexadecimal(oklch(1, 0, 0)) == "#ffffff"
        assert hexadecimal(oklch(0.627955, 0.257683, 29.2339)) == "#ff0000"
        assert hexadecimal(oklch(0.452014, 0.313214, 264.052)) == "#0000ff"

    @pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
    def test_the_ramp_goes_from_end_to_end_in_even_steps(self, palette):
        lightness = [oklab_lightness(colour) for colour in ramp(palette.ramp_from, palette.ramp_to)]
        assert len(lightness) == STEPS
        assert lightness[0] == pytest.approx(palette.ramp_from, abs=0.01)
        assert lightness[-1] == pytest.approx(palette.ramp_to, abs=0.01)
        np.testing.assert_allclose(np.diff(lightness), (palette.ramp_to - palette.ramp_from) / (STEPS - 1), atol=0.01)


def linear(colour):
    parts = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def contrast(first, second):
    """WCAG 2.2, from 1 to 21."""
    darker, lighter = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (first, second))
    return (lighter + 0.05) / (darker + 0.05)


def oklab_lightness(colour):
    """The way back, with the matrices of the source (Ottosson, 2020)."""
    to_lms = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566]]
    to_lms.append([0.0883024619, 0.2817188376, 0.6299787005])
    return float(np.cbrt(np.array(to_lms) @ linear(colour)) @ [0.2104542553, 0.7936177850, -0.0040720468])


class TestMarkup:
    def test_an_element_escapes_its_texts_and_attributes(self):
        assert tag("p", text('a < "b"'), class_="x", data_name='">', hidden=None) == (
            '<p class="x" data-name="&quot;&gt;">a &lt; &quot;b&quot;</p>'
        )
        assert tag("circle", cx=1.5, cy=2.0, r=1 / 3) == '<circle cx="1.5" cy="2" r="0.33"></circle>'
        assert tag("meta", name="x") == '<meta name="x">'

    @given(st.text(st.characters(codec=None), max_size=60))
    def test_no_text_leaves_an_element_and_each_ordinary_one_comes_back(self, given_text):
        page = Page(tag("p", tag("i", text(given_text), title=given_text)))
        assert [name for name, _ in page.elements] == ["p", "i"]
        if given_text.isprintable():
            assert "".join(page.texts) == given_text == page.all("i")[0]["title"]

    def test_control_characters_are_shown_as_replaced(self):
        assert escaped("a\x00b\x1b\x9f\u202e\ud800\tc\nd") == "a\ufffdb\ufffd\ufffd\ufffd\ufffd\tc\nd"

    def test_a_table_has_a_caption_headers_and_the_name_of_each_cell(self):
        page = Page(table("what", ["mode", "<mean>"], [[text("dense"), text("0.5")]]))
        assert page.all("th") == [{"scope": "col"}, {"scope": "col"}, {"scope": "row"}]
        assert page.all("td") == [{"data-name": "<mean>"}]
        assert page.text == "what mode <mean> dense 0.5"

    def test_numbers_read_well(self):
        assert [score(value) for value in (0.5123, 0.0, 0.00731, -0.25)] == ["0.512", "0.000", "0.00731", "-0.250"]
        assert [signed(value) for value in (0.0123, -0.004, 0.0001, -0.0001)] == ["+0.012", "−0.004", "0.000", "0.000"]
        assert [chance(value) for value in (0.0421, 0.0009)] == ["0.042", "< 0.001"]
        assert [counted(1, "question"), counted(2000, "question")] == ["1 question", "2,000 questions"]
        assert [shortened("a \n b", 9), shortened("abcdef", 4)] == ["a b", "abc…"]
        assert paragraph("a.", "", "b.") == "<p>a. b.</p>"


class TestScale:
    def test_a_known_number_lies_at_a_known_pixel(self):
        assert [Scale(0, 10, 100, 200)(value) for value in (0, 2.5, 10)] == [100, 125, 200]
        assert Scale(0, 1, 290, 170)(0.25) == 260  # upside down, as in a picture

    def test_covers_its_values_and_something_around_a_single_one(self):
        assert Scale.over([3, 1, 2], 0, 100) == Scale(1, 3, 0, 100)
        assert Scale.over([0.25], 0, 100)(0.25) == 50
        assert Scale.over([], 0, 100) == Scale(0, 1, 0, 100)

    def test_ticks_are_round_and_on_the_scale(self):
        assert Scale(0, 1, 0, 1).ticks() == [0, 0.2, 0.4, 0.6, 0.8, 1]
        assert Scale(-0.13, 0.84, 0, 1).ticks() == [0, 0.2, 0.4, 0.6, 0.8]
        assert Scale(0.0031, 0.0162, 0, 1).ticks() == [0.005, 0.01, 0.015]

    @given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
    def test_ticks_are_few_evenly_apart_and_inside(self, low, size):
        scale = Scale(low, low + size, 0, 1)
        ticks = scale.ticks()
        assert 2 <= len(ticks) <= 7
        np.testing.assert_allclose(np.diff(ticks), ticks[1] - ticks[0], rtol=1e-6)
        assert min(map(scale, ticks)) >= -1e-6
        assert max(map(scale, ticks)) <= 1 + 1e-6


class TestTernary:
    def test_a_mode_alone_lies_in_its_corner_and_equal_weights_in_the_middle(self):
        assert [point(Weights.of({mode: 2.0})) for mode in MODES] == [DENSE, SPARSE, COLBERT]
        middle = np.mean([DENSE, SPARSE, COLBERT], axis=0)
        np.testing.assert_allclose(point(Weights(5, 5, 5)), middle)
        np.testing.assert_allclose(point(Weights(1, 0, 1)), (np.array(DENSE) + COLBERT) / 2)

    def test_the_triangle_has_equal_sides(self):
        sides = [math.dist(*pair) for pair in ((DENSE, SPARSE), (SPARSE, COLBERT), (COLBERT, DENSE))]
        np.testing.assert_allclose(sides, sides[0])

    def test_cells_of_neighbours_share_an_edge(self):
        def corners(weights):
            return points({"points": hexagon(point(weights), 300 / 20)})

        shared = [
            (a, b) for a in corners(Weights(0.4, 0.2, 0.4)) for b in corners(Weights(0.35, 0.25, 0.4)) if math.dist(a, b) < 0.05
        ]
        assert len(shared) == 2

    def test_values_take_equal_parts_of_the_ramp(self):
        assert [step_of(value, 0, 1) for value in (-1, 0, 0.5, 0.999, 1)] == [0, 0, STEPS // 2, STEPS - 1, STEPS - 1]
        assert step_of(0.3, 0.3, 0.3) == STEPS - 1

    def test_every_weighting_is_a_cell_and_the_marks_lie_on_their_places(self):
        grid = [(weights, weights.sparse) for weights in simplex(0.1)]
        best, usual = Mark("best", Weights(0, 1, 0), 1.0), Mark("default", Weights(), None)
        page = Page(ternary_picture("nDCG@10", grid, best=best, usual=usual))
        cells = page.all("polygon")
        assert len(cells) == len(grid) == 66
        by_step = {cell["class"] for cell in cells}
        assert {"step-0", f"step-{STEPS - 1}"} <= by_step
        top = next(cell for cell in cells if cell["class"] == f"step-{STEPS - 1}")
        np.testing.assert_allclose(np.mean(points(top), axis=0), SPARSE, atol=0.01)
        assert numbers(page.all("circle")[0], "cx", "cy") == pytest.approx(SPARSE, abs=0.01)
        square = page.all("rect", **{"class": "ring"})[0]
        middle = float(square["x"]) + float(square["width"]) / 2, float(square["y"]) + float(square["height"]) / 2
        assert middle == pytest.approx(point(Weights()), abs=0.02)
        assert {"dense", "sparse", "colbert", "best 1.000", "default", "0.4 / 0.2 / 0.4"} <= set(page.texts)
        assert "dense 0.4, sparse 0.2, colbert 0.4: 0.2000" in page.texts
        assert "from 0.000 to 1.000" in page.all("svg")[0]["aria-label"]

    @pytest.mark.parametrize(("weights", "first"), [(Weights(1, 0, 0), "best 0.900"), (Weights(0, 0, 1), "default 0.800")])
    def test_the_name_of_a_place_stands_on_its_side_of_the_map(self, weights, first):
        grid = [(one, one.dense) for one in simplex(0.5)]
        page = Page(ternary_picture("RR", grid, best=Mark("best", weights, 0.9), usual=Mark("default", Weights(), 0.8)))
        names = [held for held in page.all("text") if held["class"] == "strong halo"]
        assert [held["x"] for held in names] == ["8", "412"]
        assert next(name for name in page.texts if name in ("best 0.900", "default 0.800")) == first
        assert numbers(page.all("circle")[0], "cx", "cy") == pytest.approx(point(weights), abs=0.01)

    def test_marks_the_best_sum_of_the_grid_where_the_chosen_fusion_is_another(self, parts):
        tuning = parts["tuning"]
        assert best_mark(tuning).weights == tuning.best.weights
        other = Found(Setting(Weights(), "rrf"), 0.5, {}, ())
        changed = dataclasses.replace(tuning, found={**tuning.found, "linear": other}, chosen="linear")
        assert best_mark(changed) == ("best sum", *max(tuning.grid, key=lambda one: one[1]))


def pairs_of(relevant, other):
    scores = np.array([*relevant, *other], np.float64)
    is_relevant = np.arange(len(scores)) < len(relevant)
    return Pairs(scores, is_relevant, np.zeros(len(scores), np.int64), np.array([len(relevant)]))


class TestThresholdPicture:
    def test_bars_are_shares_of_their_own_side_on_one_scale(self):
        boxes = Page("".join(histogram("dense", pairs_of([0, 1, 1, 1], [0, 0]), Scale(0, 1, 0, 400)))).all("rect")
        heights = {(held["class"], float(held["x"])): float(held["height"]) for held in boxes}
        assert heights == {("dense", 0.0): 15.5, ("dense", 390.0): 46.5, ("other", 0.0): 62.0}
        tops = [float(held["y"]) + float(held["height"]) for held in boxes if held["class"] == "dense"]
        assert tops == [88, 88]  # up from the middle line
        assert [float(held["y"]) for held in boxes if held["class"] == "other"] == [88]

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.lists(st.floats(0, 1), min_size=1, max_size=50))
    def test_each_side_adds_up_to_the_same(self, relevant, other):
        pairs = pairs_of(relevant, other)
        boxes = Page("".join(histogram("dense", pairs, Scale.over(pairs.scores.tolist(), 0, 400)))).all("rect")
        up, down = (sum(float(held["height"]) for held in boxes if held["class"] == side) for side in ("dense", "other"))
        assert up == pytest.approx(down, abs=0.5)

    def test_curves_are_what_measuring_at_each_threshold_gives(self):
        random = np.random.default_rng(3)
        pairs = pairs_of(random.normal(0.6, 0.2, 40), random.normal(0.3, 0.2, 200))
        across, down = Scale.over(pairs.scores.tolist(), 0, 1e6), Scale(0, 1, 0, 1e6)  # wide, so that no digit is lost
        lines = {held["class"]: points(held) for held in Page("".join(curves(pairs, across, down))).all("polyline")}
        assert list(lines) == ["line precision", "line recall", "line f1"]
        for place, (x, _) in enumerate(lines["line f1"]):
            measured = pairs.measured(across.low + x / 1e6 * (across.high - across.low))
            wanted = (measured.precision, measured.recall, measured.f())
            assert [line[place][1] / 1e6 for line in lines.values()] == pytest.approx(wanted, abs=1e-6)

    def test_curves_end_where_too_few_answers_are_left(self):
        pairs = pairs_of([0.1 * place for place in range(11)], [])
        [line, *_] = Page("".join(curves(pairs, Scale(0, 1, 0, 100), Scale(0, 1, 100, 0)))).all("polyline")
        last = points(line)[-1][0] / 100
        assert int((pairs.scores >= last).sum()) == MIN_RETURNED
        assert curves(pairs_of([], []), Scale(0, 1, 0, 100), Scale(0, 1, 100, 0)) == []
        assert curves(pairs_of([0.1], [0.2]), Scale(0, 1, 0, 100), Scale(0, 1, 100, 0)) == []

    def test_the_threshold_is_a_line_with_its_number_and_what_it_gives(self):
        page = Page(threshold_picture("dense", pairs_of([0.0, 1.0], [0.0, 0.0]), 0.5))
        [line] = page.all("line", **{"class": "limit"})
        assert numbers(line, "x1", "x2") == (224, 224)  # midway from 40 to 408
        assert [numbers(dot, "cx", "cy") for dot in page.all("circle")] == [(224, 182), (224, 237)]  # precision 1, recall 0.5
        assert "threshold 0.500" in page.text
        assert "threshold is 0.500" in page.all("svg")[0]["aria-label"]

    def test_a_threshold_beyond_all_scores_is_on_the_picture(self):
        [line] = Page(threshold_picture("dense", pairs_of([0.0], [0.2]), 0.8)).all("line", **{"class": "limit"})
        assert float(line["x1"]) == 408

    def test_without_a_threshold_there_is_no_line(self):
        page = Page(threshold_picture("dense", pairs_of([0.0, 1.0], [0.0]), None))
        assert not page.all("line", **{"class": "limit"})
        assert "no threshold is chosen" in page.all("svg")[0]["aria-label"]

    def test_the_fitted_threshold_goes_before_the_profiles(self):
        fitted = {"dense": Calibrated(Calibration(), threshold=0.5), "sparse": Calibrated(Calibration())}
        held = {"dense": 0.1, "sparse": 0.2}
        assert [chosen_threshold(mode, fitted, held) for mode in MODES] == [0.5, 0.2, None]
        assert chosen_threshold("dense", None, held) == 0.1

    def test_pairs_without_scores_are_no_picture(self):
        assert "there is no curve" in thresholds_section(None, {"dense": pairs_of([], [])}, {}, None)


class TestReliabilityPicture:
    def test_a_point_lies_where_said_and_true_put_it(self):
        page = Page(reliability_picture("dense", [Bin(0.2, 0.3, 100, 0.25, 0.75), Bin(0.5, 0.6, 25, 0.5, 0.5)]))
        first, second = page.all("circle")
        assert numbers(first, "cx", "cy") == (87, 55)  # 42 + 180 / 4, and 190 - 180 * 3 / 4
        assert numbers(second, "cx", "cy") == (132, 100)
        [diagonal] = page.all("line", **{"class": "zero"})
        assert numbers(diagonal, "x1", "y1", "x2", "y2") == (42, 190, 222, 10)
        assert "said 0.250, true 0.750, 100 pairs" in page.texts

    def test_areas_go_by_pairs_within_what_can_be_seen(self):
        assert radius(400, 400) ** 2 == pytest.approx(4 * radius(100, 400) ** 2)
        assert radius(1_000_000, 400) == LARGEST
        assert radius(1, 400) == SMALLEST


class TestBars:
    def test_a_bar_is_as_long_as_its_value_with_its_interval_on_it(self):
        page = Page(bar("dense", 0.25, (0.2, 0.4)))
        assert [numbers(held, "width") for held in page.all("rect")] == [(100,), (25,)]
        assert numbers(page.all("line")[0], "x1", "x2") == (20, 40)

    def test_shares_follow_each_other_and_fill_the_bar(self):
        boxes = Page(shares_bar({"dense": 0.5, "sparse": 0.2, "colbert": 0.3})).all("rect")
        assert [numbers(held, "x", "width") for held in boxes] == [(0, 50), (50, 20), (70, 30)]

    def test_bands_fill_the_strip_and_change_at_their_bounds(self):
        boxes = Page(strip([0.25, 0.5], [3, 7, 11], Scale(0, 1, 0, 100))).all("rect")
        assert [numbers(held, "x", "width") for held in boxes] == [(0, 25), (25, 25), (50, 50)]
        assert [held["class"] for held in boxes] == ["step-3", "step-7", "step-11"]

    def test_levels_that_are_not_known_have_no_band(self):
        boxes = Page(levels_strip(Calibration((0.0, 1.0), (0.0, 1.0), levels={"related": 0.6}))).all("rect")
        assert [numbers(held, "width") for held in boxes] == [(60,), (40,)]


class TestWords:
    def test_the_headline_says_whether_the_hybrid_is_better_than_the_best_mode(self):
        assert (
            verdict("dense", 0.0123, 0.0004) == "The hybrid is better than dense, the best single mode, by 0.012 (p < 0.001)."
        )
        assert verdict("dense", -0.05, 0.01) == (
            "The hybrid is worse than dense, the best single mode, by 0.050 (p = 0.010). Tune the weights, or search by dense."
        )
        assert "may be chance (p = 0.050)" in verdict("dense", 0.05, 0.05)

    def test_the_headline_compares_with_the_best_mode_question_by_question(self):
        values = {f"q{number}": number / 40 for number in range(20)}
        better = {query: value + 0.25 for query, value in values.items()}
        page = Page(headline(tiny({"hybrid": better, "sparse": values}), "nDCG@10", Profile()))
        assert "better than sparse, the best single mode, by 0.250 (p < 0.001)" in page.text
        assert compare_values(values, better).p_value < 0.001
        assert "better on 20 questions, worse on 0 and the same on 0" in page.text
        assert "dense 0.4 sparse 0.2 colbert 0.4" in page.text

    def test_weights_are_shown_of_fusions_that_have_any(self):
        evaluation = tiny({"hybrid": {"q": 1.0}})
        assert "these weights" not in headline(evaluation, "nDCG@10", Profile(fusion="logistic"))
        assert "these weights" in headline(evaluation, "nDCG@10", Profile(fusion="rrf"))

    def test_equal_means_are_all_marked_best(self):
        page = Page(quality_page("t", tiny({"hybrid": {"q": 1.0}, "dense": {"q": 1.0}}), profile=Profile(), queries={}))
        assert len(page.all("span", **{"class": "mark"})) == 2

    def test_the_worst_questions_come_first_and_perfect_ones_not_at_all(self):
        values = {
            "hybrid": {"a": 1.0, "b": 0.5, "c": 0.0, "d": 0.0, "e": 0.0},
            "sparse": {"a": 0, "b": 0, "c": 0, "d": 1, "e": 0},
        }
        assert worst_questions(tiny(values), "nDCG@10") == ["d", "c", "e", "b"]
        many = {"hybrid": {f"q{number:02}": number / 100 for number in range(50)}}
        assert worst_questions(tiny(many), "nDCG@10") == [f"q{number:02}" for number in range(20)]

    def test_perfect_answers_leave_no_worst_question(self):
        page = Page(quality_page("t", tiny({"hybrid": {"q": 1.0}}), profile=Profile(), queries={"q": "a question"}))
        assert "every question has the highest nDCG@10" in page.text
        assert "a question" not in page.text

    def test_the_rank_of_the_first_relevant_document_breaks_ties_by_id(self):
        run = {"a": 0.5, "b": 0.9, "c": 0.5}
        assert first_rank(run, {"c": 1}) == 3
        assert first_rank(run, {"a": 1, "c": 2}) == 2
        assert first_rank(run, {"b": 0, "z": 1}) is None
        assert first_rank({}, {"a": 1}) is None

    def test_a_mode_that_would_have_found_it_is_marked_with_its_rank(self):
        evaluation = dataclasses.replace(
            tiny({"hybrid": {"q": 0.1}, "dense": {"q": 0.2}, "sparse": {"q": 0.9}}),
            runs={"hybrid": {"q": {"a": 2, "b": 1}}, "sparse": {"q": {"a": 1, "b": 2}}, "dense": {}, "colbert": {}},
        )
        page = Page(quality_page("t", evaluation, profile=Profile(), queries={"q": "why"}, qrels={"q": {"b": 1}}))
        assert "why q 0.100 #2 0.200 – 0.900 #1 best 0.000 –" in page.text

    def test_exactness_is_told_with_its_numbers(self, parts):
        words = Page(quality_page("t", **parts)).text
        assert "On 24 questions, against scoring every document" in words
        assert "99.0% of the hybrid's best 10" in words
        assert "more than 0.00042" in words
        assert "hybrid 95.0% dense 100.0%" in words

    def test_the_threshold_table_says_what_was_wanted_and_held_out(self, parts):
        words = Page(quality_page("t", **parts)).text
        held_out = parts["calibrated"]["hybrid"].held_out
        assert "Thresholds for precision >= 0.5." in words
        assert f"{held_out.mean:.3f} ± {held_out.deviation:.3f}" in words


class TestTheProfile:
    def test_is_shown_as_toml_that_reads_back_apart_from_its_long_lists(self, parts):
        html = quality_page("t", **parts)
        shown = tomllib.loads(Page(html[html.index("<details>") : html.index("</details>") + 10]).texts[-1])
        assert shown["weights"] == {"dense": 0.4, "sparse": 0.2, "colbert": 0.4}
        assert shown["thresholds"] == dict(parts["profile"].thresholds)
        scores = parts["profile"].calibration["dense"]["scores"]
        assert shown["calibration"]["dense"]["scores"] == [*scores[:3], *scores[-3:]]
        assert len(scores) > 6

    def test_short_lists_stay_and_long_ones_say_how_many_are_missing(self):
        short = "a = [\n" + "    1,\n" * 7 + "]"
        assert without_long_lists(short) == short
        assert without_long_lists("a = [\n" + "    -1.5e-3,\n" * 10 + "]").splitlines()[4] == "    # 4 more numbers"
