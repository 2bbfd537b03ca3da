"""The long form: ten thousand drawn batches, settings, filters, vectors and files, and the few that are large."""

import os
import time
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from m3retriever import Document, InvalidDocumentError
from m3retriever.io import read_documents
from torture.arguments import FILTERS, SETTINGS, check_filter, check_setting, filters, junk
from torture.broken import VECTORS, check_lines, check_vectors, lines
from torture.counts import count
from torture.inputs import WAYS, batches, check_batch, check_stored, guarded

ROUNDS = float(os.environ.get("M3_TORTURE_ROUNDS", "1"))
LARGE = 10_000_000  # characters
MANY = 100_000  # tokens
LARGE_TEXTS = ["é" * LARGE, "red sea " * MANY, "w1 " * MANY, "\x00" * MANY]
some_texts = st.lists(st.sampled_from(["fox", "", "sea"]), min_size=1, max_size=4)

BATCHES, ARGUMENTS, BROKEN, FILES = (int(share * ROUNDS) for share in (4_000, 3_600, 1_400, 1_000))  # 10,000 in all


def drawn(number: int) -> settings:
    return settings(
        max_examples=number,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[Phase.generate, Phase.shrink],
    )


@pytest.fixture(params=["chroma", "memory"])
def index(request, tmp_path):
    with guarded(tmp_path / "index" if request.param == "chroma" else None) as opened:
        yield opened


def kind(index) -> str:
    return type(index.store).__name__


def test_a_batch_goes_in_whole_and_comes_back_exactly_or_not_at_all(index):
    done = Counter()

    @drawn(BATCHES // 2)
    @given(st.sampled_from(sorted(WAYS)), batches())
    def hold(way, documents):
        done[check_batch(index, way, documents)] += 1

    hold()
    count(f"batches of odd documents, {kind(index)}", cases=done.total(), **done, failed=0)


def test_a_setting_or_a_filter_is_taken_or_refused_in_words(index):
    done = Counter()

    @drawn(ARGUMENTS // 3)
    @given(st.sampled_from(sorted(SETTINGS)), junk)
    def hold(name, value):
        done["taken" if check_setting(index, name, value) else "refused"] += 1

    @drawn(ARGUMENTS // 6)
    @given(st.sampled_from(sorted(FILTERS)), filters)
    def hold_filters(name, value):
        done["taken" if check_filter(index, name, value) else "refused"] += 1

    hold()
    hold_filters()
    count(f"odd settings and filters, {kind(index)}", cases=done.total(), **done, failed=0)


def test_broken_vectors_are_refused_and_change_nothing(index):
    done = Counter()

    @drawn(BROKEN // 2)
    @given(st.sampled_from(sorted(VECTORS)), some_texts, st.integers(0, 1_000_000))
    def hold(name, texts, place):
        check_vectors(index, name, texts, place)
        done["refused"] += 1

    hold()
    count(f"broken vectors, {kind(index)}", cases=done.total(), **done, failed=0)


def test_every_broken_line_is_named_and_no_good_one_is_lost(tmp_path):
    done = Counter()

    @drawn(FILES)
    @given(lines, st.sampled_from([b"\n", b"\r\n"]))
    def hold(chosen, ending):
        done["files"] += 1
        done["bad lines"] += check_lines(tmp_path / "drawn.jsonl", chosen, ending=ending)

    hold()
    count("files with broken lines", files=done["files"], bad_lines=done["bad lines"], failed=0)


@pytest.mark.parametrize("text", LARGE_TEXTS, ids=lambda text: repr(text[:4]))
def test_a_very_large_text_comes_back_as_it_went(index, text):
    large = [Document("large", text, {"n": 1})]
    began = time.perf_counter()
    index.add(large)
    check_stored(index, "add", large)
    count(f"a text of {len(text)} characters, {kind(index)}", seconds=round(time.perf_counter() - began, 1), failed=0)


def test_a_line_of_100_megabytes_costs_a_message_and_no_document(tmp_path):
    file = tmp_path / "long.jsonl"
    with file.open("wb") as out:
        out.write(b'{"id": "a", "text": "x"}\n{"id": "long", "text": "')
        for _ in range(100):
            out.write(b"x" * 1_000_000)
        out.write(b'"}\n{"id": "b", "text": "x"}\n')
    told: list[InvalidDocumentError] = []
    assert [one.id for one in read_documents(file, on_bad=told.append)] == ["a", "b"]
    assert ["line 2 is longer than" in str(one) for one in told] == [True]
    count("a line of 100 megabytes", lines=3, refused=1, failed=0)
