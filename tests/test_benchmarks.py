"""The benchmarks measure what they say, on data that is as they say; no test here looks at a time."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from benchmarks import __main__ as command
from benchmarks import growth, ingest, kernels, machine, page, search
from benchmarks.kept import Group, Kept
from benchmarks.measuring import MISSING, Bound, NotEqualError, Ratio, Row, duration, interleaved, must_equal, number
from benchmarks.peers import PEERS
from benchmarks.sizes import TINY
from benchmarks.synthetic import BLOCK, CENTRES, NEAR, NONZERO, QUERY_NONZERO, QUERY_TOKENS, SPREAD, Corpus, centres, chances

from m3retriever.kernels import native
from m3retriever.scoring import score

DOCS = Path(__file__).parents[1] / "docs"
pytestmark = pytest.mark.filterwarnings("ignore")  # of the peers and what they import
ROW = Row(
    "kernels", "a|b", "a peer", 7, Ratio(1.0, 8.5, 12.0), 0.002, at_least=8, within=0.001, bounds=(Bound("reading", 3.5, 3),)
)
LEGS = ("dense", "scan", "hnsw", "sparse", "scoring", "search")
GROWN = growth.Growth(
    1_000, 1024, 8, "2026-11-21", "a machine", 900.0, 0.2, dict.fromkeys(LEGS, 0.002), 180.0, {"dense": 1.0, "hnsw": 0.987},
    3 * 10**8, 10**8, {"inverted index": 1234.5}, {"scoring": 0.004, "search": 0.006},
)  # fmt: skip


# -- what is measured on -----------------------------------------------------------------------------


def test_a_document_is_the_same_whatever_is_drawn_with_it():
    corpus = Corpus(dim=16, tokens=3)
    whole, part = corpus.vectors(0, BLOCK + 20), corpus.vectors(BLOCK - 5, BLOCK + 20)
    for name in ("dense", "sparse_ids", "sparse_weights", "colbert"):
        assert getattr(whole[BLOCK - 5 :], name).tobytes() == getattr(part, name).tobytes(), name
    assert corpus.documents(0, BLOCK + 20)[BLOCK - 5 :] == corpus.documents(BLOCK - 5, BLOCK + 20)
    assert Corpus(dim=16, tokens=3, seed=1).dense(0, 1).tolist() != whole.dense[:1].tolist()


def test_dense_vectors_lie_as_far_from_their_centres_as_is_said():
    dense = Corpus(dim=512).dense(0, 400)
    np.testing.assert_allclose(np.linalg.norm(dense, axis=1), 1, atol=1e-5)
    nearest = (dense @ centres(512, 0).T).max(axis=1)
    np.testing.assert_allclose(nearest, 1 / np.sqrt(1 + SPREAD**2), atol=0.12)
    assert abs(nearest.mean() - 1 / np.sqrt(1 + SPREAD**2)) < 0.01
    assert centres(512, 0).shape == (CENTRES, 512)


def test_each_document_has_80_different_tokens_in_order_the_common_ones_in_most():
    corpus = Corpus(dim=8)
    ids, weights, bounds = corpus.sparse(0, 1_000)
    assert set(np.diff(bounds)) == {NONZERO}
    rows = ids.reshape(-1, NONZERO)
    assert (np.diff(rows, axis=1) > 0).all()
    assert weights.min() >= 0.02
    assert weights.max() <= 0.3
    shares = np.bincount(ids, minlength=corpus.vocabulary) / 1_000
    assert shares[0] > 0.95
    drawn = 1 - (1 - np.diff(chances(corpus.vocabulary), prepend=0)) ** 160  # about as many draws as give 80
    assert abs(shares[50:500].mean() - drawn[50:500].mean()) < 0.05
    assert shares[100_000:].mean() < 0.005


def test_a_query_lies_near_a_document_and_shares_its_tokens():
    corpus = Corpus(dim=256, tokens=20)
    queries, documents = corpus.queries(6, 50), corpus.vectors(0, 50)
    for query in queries:
        products = documents.dense @ query.dense[0]
        target = int(products.argmax())
        assert abs(products[target] - 1 / np.sqrt(1 + NEAR**2)) < 0.03
        assert len(query.sparse_ids) == QUERY_NONZERO
        assert query.sparse_row(0).items() <= documents.sparse_row(target).items()
        assert len(query.colbert) == QUERY_TOKENS
        assert (query.colbert @ documents.colbert_row(target).T).max(axis=1).min() > 0.8


def test_texts_are_the_sparse_tokens_as_words():
    corpus = Corpus(dim=8)
    [document] = corpus.documents(3, 4)
    assert document.text.split() == [f"w{token}" for token in corpus.sparse(3, 4)[0].tolist()]
    assert document.metadata == {"page": 3}


def test_token_vectors_shrink_where_the_disk_does_not_hold_them():
    assert growth.tokens_for(1_000, 1024) == 8
    assert growth.tokens_for(10**6, 1024, 25e9) == 4  # 25 KB a document, of which 20 are taken
    assert growth.tokens_for(10**6, 1024, 1e9) == 1


# -- how it is measured ------------------------------------------------------------------------------


def test_both_run_equally_often_in_turn_and_who_begins_changes():
    ran = []
    timing = interleaved(lambda n: ran.append(("theirs", n)), lambda n: ran.append(("ours", n)), 3)
    one, two = ("theirs", "ours"), ("ours", "theirs")
    assert ran == [(who, n) for n, order in enumerate((one, one, two, one)) for who in order]
    assert timing.ratio.low <= timing.ratio.median <= timing.ratio.high


def test_a_sample_s_time_is_extrapolated(monkeypatch):
    clock = iter([0.0, 2.0, 10.0, 11.0])  # theirs takes 2, ours 1
    monkeypatch.setattr("benchmarks.measuring._rest", lambda: None)
    monkeypatch.setattr("benchmarks.measuring.time.perf_counter", lambda: next(clock))
    assert interleaved(lambda _: None, lambda _: None, 1, factor=50).ratio == Ratio(100, 100, 100)


def test_a_wrong_result_ends_the_benchmark():
    must_equal("a search", ours=[1, 2], plain=[1, 2])
    with pytest.raises(NotEqualError, match="a search is not what the plain computation gives"):
        must_equal("a search", ours=[1, 2], plain=[2, 1])


def test_a_kernel_that_is_off_ends_the_benchmark(monkeypatch):
    real = kernels.matching.best_matches
    monkeypatch.setattr(kernels.matching, "best_matches", lambda *given: np.nextafter(real(*given), np.float32(2)))
    with pytest.raises(NotEqualError, match="MaxSim"):
        list(kernels.late_interaction(TINY))


def test_a_search_whose_scores_are_off_ends_the_benchmark(monkeypatch):
    monkeypatch.setattr(search, "score", lambda query, documents: score(query, documents) + np.float32(1e-6))
    with pytest.raises(NotEqualError, match="dense and sparse scores of a search"):
        list(search.known_vectors(TINY))


@pytest.mark.parametrize("place", [0, 49, 50, 51, 99])
def test_reading_looks_at_every_byte(place):
    codes = [np.full((10, 10), 127, np.int8), np.full(7, -127, np.int8)]
    assert set(machine.read(*codes)(0)) == {None}
    codes[0].reshape(-1)[place] = -128
    assert [found for found in machine.read(*codes)(0) if found] == [codes[0].ctypes.data + place]


def test_the_machine_is_named_with_its_threads_and_versions():
    words = machine.described()
    assert f"{native.threads()} threads" in words
    assert f"numpy {np.__version__}" in words
    assert native.engine() in words


# -- every group, on next to nothing -----------------------------------------------------------------


@pytest.mark.parametrize("group", [kernels, ingest], ids=lambda module: module.GROUP)
def test_every_row_of_a_group_is_measured(group):
    checked(group.rows(TINY), group.GROUP)


def test_every_peer_is_searched_or_said_to_be_missing():
    rows = checked(search.known_vectors(TINY), "search")
    assert [row.peer for row in rows][: len(PEERS)] == [peer.name for peer in PEERS]


@pytest.mark.model
def test_a_model_is_searched_and_encodes_beside_its_peers():
    rows = checked(search.with_a_model(TINY), "search") + checked(command.encoding(TINY), "encoding")
    assert len(rows) == 5


def test_a_peer_that_is_not_installed_is_a_row_and_no_error(monkeypatch):
    for name in ("langchain_chroma", "langchain_classic", "qdrant_client"):
        monkeypatch.setitem(__import__("sys").modules, name, None)  # as if it were not there
    rows = list(search.known_vectors(TINY))
    assert [row.note for row in rows if row.ratio is None] == [MISSING] * (len(PEERS) + 1)
    assert "not installed" in page.as_text(rows)


def test_an_index_is_made_opened_and_measured_as_it_grows(tmp_path):
    found = growth.grown(200, date="2026-11-21", machine="a machine", dim=32)
    assert found.recall == {"dense": 1.0, "hnsw": pytest.approx(1.0, abs=0.2)}
    assert 100 <= found.candidates <= 200
    assert set(found.legs) == set(LEGS)
    assert found.disk[growth.PARTS["dense"]] >= 32 * 4
    kept = Kept().with_growth(found)
    kept.write(tmp_path)
    assert Kept.read(tmp_path) == kept


def checked(rows, group):
    rows = list(rows)
    assert rows
    for row in rows:
        assert row.group == group
        assert row.note == MISSING if row.ratio is None else row.ratio.low > 0, row
        json.dumps(row.to_dict())
    return rows


# -- what is kept and shown --------------------------------------------------------------------------


def test_a_row_says_what_was_wanted_and_whether_it_was_met():
    assert ROW.goals() == ["ratio ≥ 8: met", "≤ 1 ms: not met", "≤ 3 times reading: not met"]
    assert page.as_text([ROW]).startswith(
        "kernels: a|b\n    against a peer: 1 – 8.5 – 12 (7 rounds); ours 2 ms; 3.5 times reading; ratio ≥ 8: met"
    )


@pytest.mark.parametrize(("value", "shown"), [(0.2134, "0.21"), (1.0, "1"), (7.96, "8"), (12.4, "12"), (1650, "1,650")])
def test_ratios_are_shown_to_two_digits(value, shown):
    assert number(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(2.5, "2.5 s"), (0.25, "250 ms"), (0.0003, "0.3 ms"), (2e-5, "20 µs")])
def test_times_are_shown_in_their_unit(value, shown):
    assert duration(value) == shown


def test_a_run_replaces_what_it_measured_and_nothing_else(tmp_path):
    old = Kept().with_group("kernels", Group("d1", "m1", [ROW, ROW])).with_group("search", Group("d1", "m1", [ROW]))
    old.with_growth(GROWN).write(tmp_path)
    new = Kept.read(tmp_path).with_group("kernels", Group("d2", "m2", [ROW]))
    assert new.groups == {"kernels": Group("d2", "m2", [ROW]), "search": Group("d1", "m1", [ROW])}
    assert new.growth == {1_000: GROWN}


def test_the_page_shows_every_row_with_its_day_and_machine():
    kept = Kept().with_group("kernels", Group("2026-11-21", "a machine", [ROW, Row.missing("kernels", "x", "y")]))
    shown = page.render(kept.with_growth(GROWN))
    assert "## Inner loops\n\n2026-11-21, machine 1." in shown
    assert "| a\\|b | a peer | 7 | 1 – **8.5** – 12 | 2 ms | 3.5 times reading | ratio ≥ 8: met; " in shown
    assert f"| x | y |  | – |  |  |  | {MISSING} |" in shown
    assert "| 1,000 | 2 ms |" in shown
    assert "1. a machine" in shown


def test_pictures_hold_every_row_and_size():
    kept = Kept().with_group("kernels", Group("d", "m", [ROW, Row.missing("kernels", "x", "y")])).with_growth(GROWN)
    pictures = page.drawn(kept)
    assert pictures[page.RATIOS].count('class="whisker"') == 1  # what is missing has no bar
    assert "against a peer" in pictures[page.RATIOS]
    assert "1,000 documents" in pictures[page.GROWTH]
    assert all(picture.startswith("<svg") and "NaN" not in picture for picture in pictures.values())


def test_the_page_is_what_the_numbers_give():
    kept = Kept.read(DOCS)
    assert kept.groups, "docs/benchmarks.json holds nothing: run `make bench`"
    wanted = {page.PAGE: page.render(kept), **page.drawn(kept)}
    assert {name: (DOCS / name).read_text(encoding="utf-8") for name in wanted} == wanted
    assert set(re.findall(r"\]\((benchmarks[^)]*)\)", wanted[page.PAGE])) == set(page.drawn(kept))


def test_the_command_runs_what_is_asked_for_and_keeps_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "FULL", TINY)
    command.main(["--only", "kernels", "--out", str(tmp_path)])
    assert "against FlagEmbedding colbert_score" in capsys.readouterr().out
    assert list(Kept.read(tmp_path).groups) == ["kernels"]
    assert (tmp_path / page.PAGE).read_text(encoding="utf-8") == page.render(Kept.read(tmp_path))
    with pytest.raises(SystemExit):
        command.main(["--only", "kernel"])
    assert "groups are encoding, kernels, search, ingest and growth; got kernel" in capsys.readouterr().err
