import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3retriever.inspector.downloads import csv_text


def test_a_table_is_csv_with_a_header():
    assert csv_text([{"id": "a", "score": 0.5}, {"id": 'b, "c"', "score": -1}]) == 'id,score\r\na,0.5\r\n"b, ""c""",-1\r\n'
    assert csv_text([]) == ""


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_what_a_spreadsheet_would_run_is_text(start):
    text = csv_text([{f"{start}name": f"{start}HYPERLINK(1)"}])
    assert [row[0] for row in csv.reader(io.StringIO(text, newline=""))] == [f"'{start}name", f"'{start}HYPERLINK(1)"]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1, max_size=5))
def test_every_cell_comes_back_and_none_is_a_formula(cells):
    [_, row] = csv.reader(io.StringIO(csv_text([{str(at): cell for at, cell in enumerate(cells)}]), newline=""))
    assert [one.removeprefix("'") for one in row] == [one.removeprefix("'") for one in cells]
    assert not any(one.startswith(("=", "+", "-", "@")) for one in row)
