"""docs/scale.md: every number follows from scale.json by the formula beside it, and every row says where it is from."""

import json
import math
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import typer
from benchmarks import scale, scale_page
from benchmarks.scale_costs import ASSUMED, CROSSINGS, EACH, FROM_DISK, IN_ENGINE, PLANNED, SAID, calculated, everything, fitted
from benchmarks.scale_page import IN_QDRANT, MEASURED, shown
from hypothesis import given
from hypothesis import strategies as st

from m3retriever import ChromaStore, PooledEncoder
from m3retriever.cli import app
from m3retriever.stores.places import place_of

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "scale.md").read_text(encoding="utf-8")
FOUND = json.loads((DOCS / "scale.json").read_text(encoding="utf-8"))
QUANTITIES = {name: one["value"] for name, one in FOUND["quantities"].items()}
UNITS = {
    "B": 1,
    "KB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "TB": 1e12,
    "PB": 1e15,
    "ns": 1e-9,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1,
    "min": 60,
    "h": 3600,
    "days": 86400,
    "": 1,
    "million": 1e6,
    "billion": 1e9,
    "trillion": 1e12,
}
FUNCTIONS = {"max": max, "min": min, "ceil": math.ceil, "__builtins__": {}}
SLACK = 0.0051  # three digits: half of the last one, at 100
NUMBER = re.compile(r"(-?[\d.,]+) ?([A-Za-zµ]*)(?:/s)?")


def tables():
    """Rows of the page's tables as {column: cell}, by the mark's name."""
    found = {}
    for name, body in re.findall(r"<!-- scale (\w+) -->\n(.*?)<!-- /scale -->", PAGE, re.S):
        lines = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in body.splitlines() if line.startswith("|")]
        found[name] = [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]
    return found


TABLES = tables()
ROWS = [(table, row) for table, rows in TABLES.items() for row in rows]


def read(cell):
    """A number of the page: "1.5 GB" is 1.5e9."""
    found = NUMBER.fullmatch(cell)
    assert found, cell
    return float(found[1].replace(",", "")) * UNITS[found[2]]


def same(cell, value):
    """Whether a cell is this value to three digits in the cell's own unit, or to the last one of a whole number."""
    found = NUMBER.fullmatch(cell)
    number, unit = float(found[1].replace(",", "")), UNITS[found[2]]
    return number in (float(f"{value / unit:.3g}"), value)


def formula(row):
    """What is told after "calculated"; None for another kind of row."""
    found = re.fullmatch(r"calculated: `(.*)`", row["how"])
    return found and found[1]


def known():
    """Names with full precision: what was measured, what the page assumes, and what the page calculates from them."""
    values = dict(QUANTITIES)
    values |= {row["name"].strip("`"): read(row["value"]) for row in TABLES["assumed"]}
    for table in ("each", "disk", "million", "qdrant"):
        for row in TABLES[table]:
            if formula(row):
                values[row["name"].strip("`")] = eval(formula(row), FUNCTIONS, values)  # noqa: S307  # arithmetic of our own page
    return values


# -- the page -------------------------------------------------------------------------------------------


def test_every_row_says_where_its_numbers_are_from():
    assert {name: bool(rows) for name, rows in TABLES.items()} == {name: name != "run" for name in scale_page.TABLES}
    kinds = {"measured": r"measured: .+", "calculated": r"calculated: `.+`", "assumed": r"assumed: .+"}
    for table, row in ROWS:
        assert any(re.fullmatch(kind, row["how"]) for kind in kinds.values()), (table, row)
    assert {table for table, row in ROWS if row["how"].startswith("assumed")} == {"assumed"}


def test_what_was_measured_is_what_is_kept_with_the_command_that_made_it():
    for row in TABLES["measured"]:
        assert same(row["value"], QUANTITIES[row["name"].strip("`")]), row
        assert row["how"] == "measured: `python -m benchmarks.scale`"
    assert [row["name"].strip("`") for row in TABLES["measured"]] == list(MEASURED)


def test_what_was_measured_in_qdrants_engine_is_what_is_kept():
    rows = [row for row in TABLES["qdrant"] if not formula(row)]
    assert [row["name"].strip("`") for row in rows] == list(IN_QDRANT)
    for row in rows:
        assert same(row["value"], FOUND["qdrant"][row["name"].strip("`")]), row
        assert row["how"] == "measured: `python -m benchmarks.qdrant --keep`"
    assert "said_engine_disk" in [row["name"].strip("`") for row in TABLES["qdrant"] if formula(row)]


def test_what_is_calculated_follows_by_the_formula_in_its_row():
    values = known()
    rows = [row for table in ("each", "disk", "million", "qdrant") for row in TABLES[table] if formula(row)]
    assert len(rows) == len(EACH) + len(FROM_DISK) + len(SAID) + len(IN_ENGINE)
    for row in rows:
        assert same(row["value"], values[row["name"].strip("`")]), row


@pytest.mark.parametrize(
    ("column", "passages"), [("1 million", 1e6), ("10 million", 1e7), ("100 million", 1e8), ("1 billion", 1e9)]
)
def test_what_is_planned_follows_by_the_formula_in_its_row(column, passages):
    values = known() | {"passages": passages}
    assert len(TABLES["planned"]) == len(PLANNED)
    for row in TABLES["planned"]:
        values[row["name"].strip("`")] = value = eval(formula(row), FUNCTIONS, values)  # noqa: S307
        assert same(row[column], value), row


def test_limits_are_where_the_formulas_put_them_and_the_first_comes_first():
    values = known()
    places = [eval(formula(row), FUNCTIONS, values) for row in TABLES["crossings"]]  # noqa: S307
    assert len(places) == len(CROSSINGS)
    assert places == sorted(places)
    assert all(same(row["passages"], place) for row, place in zip(TABLES["crossings"], places, strict=True))


@pytest.mark.parametrize(
    ("crossing", "planned", "limit"),
    [
        ("the dense scan", "scan", "patience"),
        ("the sparse search", "sparse", "patience"),
        ("storing in a folder", "stored", "week"),
        ("a folder fills", "folder_disk", "full * disk"),
        ("HNSW leaves", "hnsw_ram", "full * ram"),
        ("int8 codes leave", "scanned", "full * ram"),
    ],
)
def test_at_its_crossing_a_term_is_at_its_limit(crossing, planned, limit):
    values = everything(QUANTITIES)
    [one] = [one for one in CROSSINGS if one.what.startswith(crossing)]
    values["passages"] = calculated(one.formula, values)
    assert calculated(PLANNED[planned].formula, values) == pytest.approx(calculated(limit, values))


def test_every_assumption_is_on_the_page_with_its_source():
    shown_there = {row["name"].strip("`"): (read(row["value"]), row["how"]) for row in TABLES["assumed"]}
    assert shown_there == {name: (one.value, f"assumed: {one.source}") for name, one in ASSUMED.items()}
    used = " ".join(one.formula for one in (*EACH.values(), *PLANNED.values(), *FROM_DISK.values(), *CROSSINGS))
    assert set(ASSUMED) - {"query_tokens"} <= set(re.findall(r"[a-z_]+", used))


def test_the_page_is_what_the_numbers_give(tmp_path):
    for name in ("scale.md", "scale.json"):
        shutil.copy(DOCS / name, tmp_path)
    scale.main(["--page", "--out", str(tmp_path)])
    assert (tmp_path / "scale.md").read_text(encoding="utf-8") == PAGE


def test_the_words_around_the_tables_hold_no_measurement():
    prose = re.sub(r"<!-- scale (\w+) -->.*?<!-- /scale -->|```.*?```|`[^`]*`", "", PAGE, flags=re.S)
    units = "|".join(unit for unit in UNITS if unit)
    assert not re.findall(rf"\d[\d.,]* ?(?:{units}|%|times|documents|passages)\b", prose)
    assert "shared machine" in prose


def test_a_page_without_a_mark_is_refused():
    with pytest.raises(LookupError, match="scale measured"):
        scale_page.render(PAGE.replace("<!-- scale measured -->", ""), FOUND)


def test_what_is_taken_from_the_page_on_speed_stands_there():
    page = (DOCS / "speed.md").read_text(encoding="utf-8").split("## A million documents")[1]
    said = {
        "million_scan": "dense scan .3 s",
        "million_sparse": "search 4 ms",
        "million_scoring": "scoring 7 ms",
        "million_search": "whole search .4 s",
        "million_own": "93 MB of own memory",
        "million_disk": "25 GB on disk",
        "million_added": "240 documents a second",
    }
    assert set(said) == set(scale.MILLION)
    for name, words in said.items():
        assert words in " ".join(page.split()), words
        number, unit = re.search(r"([\d.]+) ?(ms|s|MB|GB)?\b", words).groups(default="")
        assert QUANTITIES[name] == pytest.approx(float(number) * UNITS[unit])


def test_the_page_s_commands_are_commands_and_its_settings_settings():
    root = typer.main.get_command(app)
    commands = re.findall(r"^m3retriever (\w+) (.*)$", PAGE, re.M)
    assert {name for name, _ in commands} == {"copy", "index"}
    for name, rest in commands:
        with root.make_context("m3retriever", [name]) as context:
            root.get_command(context, name).make_context(name, shlex.split(rest), parent=context)
    [address] = {word for _, rest in commands for word in shlex.split(rest) if "?" in word}
    assert place_of(address).collection == "documents"  # which refuses what cannot be said behind an address
    for what, names in (
        (ChromaStore, ("dense",)),
        (PooledEncoder, ()),
    ):
        assert what.__name__ in PAGE
        assert all(name in what.__init__.__annotations__ for name in names)


# -- the slopes -----------------------------------------------------------------------------------------


def test_what_was_measured_is_the_slope_of_the_points_that_are_kept():
    points = [point for point in FOUND["points"] if point["dim"] == 1024]
    documents = [point["documents"] for point in points]
    assert documents == list(scale.FULL.documents)
    series, encoding = FOUND["token_series"], FOUND["encoding"]
    by_hand = {
        "scan_passage": (documents, [point["opened"]["legs"]["scan"] for point in points]),
        "hnsw_bytes": (documents, [point["disk"]["Chroma's vector index"] * point["documents"] for point in points]),
        "token_bytes": ([one["tokens"] for one in series], [one["disk"]["token vectors, sparse weights"] for one in series]),
        "encode_token": (encoding["tokens"], encoding["seconds"]),
        "maxsim_token": (FOUND["maxsim"]["tokens"], FOUND["maxsim"]["seconds"]),
    }
    for name, (x, y) in by_hand.items():
        slope, intercept = np.polyfit(x, y, 1)
        one = FOUND["quantities"][name]
        assert (one["value"], one["intercept"]) == (pytest.approx(slope), pytest.approx(intercept)), name
    assert {name: QUANTITIES[name] for name in scale.MILLION} == scale.MILLION
    assert scale._slopes(FOUND) == {name: one for name, one in FOUND["quantities"].items() if name not in scale.MILLION}


def test_a_line_through_three_points():
    line = fitted([0, 1, 2], [1, 3, 8])  # mean 4, so the slope is (-1·1 + 0·3 + 1·8) / 2
    assert (line.slope, line.intercept) == (3.5, 0.5)
    assert line.explained == pytest.approx(1 - (0.25 + 1 + 0.25) / 26)


@given(
    st.lists(
        st.tuples(st.integers(0, 1000), st.integers(-1000, 1000)), min_size=3, max_size=20, unique_by=lambda point: point[0]
    )
)
def test_a_line_is_that_of_least_squares_and_moves_with_its_points(points):
    x, y = zip(*points, strict=True)
    line = fitted(x, y)
    slope, intercept = np.polyfit(x, y, 1)
    assert (line.slope, line.intercept) == (pytest.approx(slope, abs=1e-6), pytest.approx(intercept, abs=1e-6))
    assert -1e-9 <= line.explained <= 1 + 1e-9
    moved = fitted(x, [3 * one + 7 for one in y])
    assert (moved.slope, moved.intercept) == (pytest.approx(3 * line.slope), pytest.approx(3 * line.intercept + 7, abs=1e-6))


def test_a_formula_is_arithmetic_and_nothing_else():
    assert calculated("2 + 3 * max(a, ceil(b / 4)) - 1", {"a": 1, "b": 9}) == 10
    assert calculated("a - b - 1", {"a": 5, "b": 3}) == 1
    for bad in ("a.real", "open(a)", "'a'", "a if a else a", "a ** 9", "[a]", "max(a, key=a)"):
        with pytest.raises(ValueError, match="arithmetic"):
            calculated(bad, {"a": 1.0})
    with pytest.raises(KeyError):
        calculated("b", {"a": 1.0})


@given(st.floats(1e-9, 9e17), st.sampled_from(["B", "s", "", "/s"]))
def test_a_number_is_shown_with_three_digits_in_a_unit_that_it_can_be_read_back_from(value, unit):
    value = max(value, 1.0) if unit in ("B", "", "/s") else min(value, 9e9)
    text = shown(value, unit)
    assert read(text) == pytest.approx(value, rel=SLACK)
    assert text.endswith("/s") == (unit == "/s")


def test_numbers_as_they_are_shown():
    shown_as = [
        shown(1.234e9, "B"),
        shown(0.00212, "s"),
        shown(312e12, "/s"),
        shown(6, ""),
        shown(1536, ""),
        shown(86400 * 11.57, "s"),
    ]
    assert shown_as == ["1.23 GB", "2.12 ms", "312 trillion/s", "6", "1,536", "11.6 days"]


def test_an_index_is_looked_at_as_it_grows():
    points = scale._grown((40, 80), 16, 3, look=False)
    assert [(point.documents, point.dim, point.tokens) for point in points] == [(40, 16, 3), (80, 16, 3)]
    assert 0 < points[0].add_seconds < points[1].add_seconds
    for part in ("token vectors, sparse weights", "exact dense vectors", "texts and metadata in Chroma"):
        assert 0 < points[1].disk[part] * 80 <= 1.5 * points[0].disk[part] * 80
