"""How near two encoders are: cases made by hand, scipy, and properties."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau
from typer.testing import CliRunner

from m3retriever import HashingEncoder, InvalidArgumentError, M3Vectors
from m3retriever.cli import app
from m3retriever.encoders.fidelity import Fidelity, compare, cosines, fidelity, kendall_tau, top_agreement
from m3retriever.encoders.samples import CHINESE, ENGLISH, SAMPLE
from m3retriever.scoring import colbert_score

SCORES = st.lists(st.floats(-1, 1, width=16), min_size=2, max_size=30)


def vectors(dense, sparse=None, colbert=None):
    rows = len(dense)
    return M3Vectors.from_rows(dense, sparse or [{}] * rows, colbert or [np.asarray([row], np.float32) for row in dense])


def test_an_encoder_is_as_near_to_itself_as_can_be():
    found = fidelity(HashingEncoder(), HashingEncoder(), SAMPLE.texts, SAMPLE.queries)
    assert (found.dense_mean, found.dense_min, found.sparse) == (pytest.approx(1), pytest.approx(1), pytest.approx(1))
    assert (found.colbert_tau, found.top10, found.good) == (pytest.approx(1), 1, True)
    assert (found.texts, found.queries) == (len(SAMPLE.texts), len(SAMPLE.queries))


def test_another_encoder_is_far():
    found = compare(*((given := HashingEncoder().encode_documents(ENGLISH.texts), given),
                      (other := HashingEncoder().encode_documents(ENGLISH.texts[::-1]), other)))  # fmt: skip
    assert found.dense_mean < 0.9
    assert not found.good
    assert "fit thresholds for this precision" in str(found)


def test_a_case_made_by_hand():
    texts = vectors([[1, 0], [0, 1], [0.6, 0.8]], [{1: 1.0}, {}, {2: 3.0, 3: 4.0}])
    others = vectors([[1, 0], [0.6, 0.8], [0.6, 0.8]], [{1: 9.0}, {}, {2: 5.0}])
    queries = vectors([[1, 0]])
    found = compare((texts, queries), (others, queries))
    assert found.dense_mean == pytest.approx((1 + 0.8 + 1) / 3)
    assert found.dense_min == pytest.approx(0.8)
    assert found.sparse == pytest.approx((1 + 1 + 3 / 5) / 3)
    assert found.colbert_tau == pytest.approx(kendalltau([1, 0, 0.6], [1, 0.6, 0.6]).statistic)
    assert found.top10 == 1, "all three are among the best ten of both"


def test_max_sim_is_the_colbert_score():
    encoder = HashingEncoder()
    texts, queries = encoder.encode_documents(ENGLISH.texts), encoder.encode_queries(ENGLISH.queries)
    shuffled = np.random.default_rng(0).permutation(len(texts))
    others = texts.take(shuffled)
    wanted = []
    for query in queries:
        scores = [[colbert_score(query.colbert, text.colbert) for text in side] for side in (texts, others)]
        wanted.append(kendalltau(*scores))
    assert compare((texts, queries), (others, queries)).colbert_tau == pytest.approx(np.mean([one.statistic for one in wanted]))


def test_texts_without_tokens_score_nothing_and_break_nothing():
    empty = vectors([[1, 0], [0, 1]], colbert=[np.empty((0, 2), np.float32)] * 2)
    found = compare((empty, empty), (empty, empty))
    assert (found.colbert_tau, found.top10) == (1, 1)


@given(SCORES, st.randoms())
def test_tau_is_scipys_and_one_for_the_same_order(scores, random):
    scores = [round(score, 4) for score in scores]
    other = scores[:]
    random.shuffle(other)
    a, b = np.array(scores), np.array(other)
    if len(set(scores)) > 1:
        assert kendall_tau(a, b) == pytest.approx(kendalltau(a, b).statistic)
        assert kendall_tau(a, 2 * a + 1) == pytest.approx(1)
        assert kendall_tau(a, -a) == pytest.approx(-kendall_tau(a, a))
    else:
        assert kendall_tau(a, b) == 1


def test_tau_of_scores_that_are_all_equal():
    flat, sloped = np.zeros(3), np.arange(3.0)
    assert (kendall_tau(flat, flat + 1), kendall_tau(flat, sloped), kendall_tau(sloped, flat)) == (1, 0, 0)


def test_scores_that_differ_by_rounding_are_ties():
    a = np.array([0.5, 0.5, 0.1])
    assert kendall_tau(a, a + np.array([1e-7, -1e-7, 0])) == pytest.approx(1)
    assert kendall_tau(a, a + np.array([1e-3, -1e-3, 0])) < 1


def test_top_agreement_of_a_case_made_by_hand():
    a, b = np.array([4.0, 3, 2, 1]), np.array([4.0, 1, 2, 3])
    assert top_agreement(a, b, k=2) == 0.5
    assert top_agreement(a, b, k=99) == 1


@given(SCORES, st.integers(1, 40))
def test_top_agreement_is_symmetric_and_full_with_itself(scores, k):
    a, b = np.array(scores), np.array(scores[::-1])
    assert top_agreement(a, a, k) == 1
    assert top_agreement(a, b, k) == top_agreement(b, a, k)


def test_cosines_of_a_zero_vector_are_zero():
    assert cosines(np.array([[0.0, 0], [3, 4]]), np.array([[1.0, 0], [6, 8]])).tolist() == [0, pytest.approx(1)]


def test_too_little_to_compare_is_refused():
    for texts, queries in ((["one"], ["a"]), (["one", "two"], [])):
        with pytest.raises(InvalidArgumentError, match="want at least 2 texts and 1 query"):
            fidelity(HashingEncoder(), HashingEncoder(), texts, queries)


def test_the_limits_are_those_of_the_warning():
    good = Fidelity(0.999, 0.9, 1, 0.98, 1, 10, 10)
    assert good.good
    assert not Fidelity(0.9989, 0.9, 1, 0.98, 1, 10, 10).good
    assert not Fidelity(0.999, 0.9, 1, 0.9799, 1, 10, 10).good
    assert Fidelity(**good.as_dict()) == good


def test_the_samples_are_of_two_languages_and_without_doubles():
    assert len(set(SAMPLE.texts)) == len(SAMPLE.texts) == len(ENGLISH.texts) + len(CHINESE.texts)
    assert all(re.search(r"[\u4e00-\u9fff]", text) for text in (*CHINESE.texts, *CHINESE.queries))
    assert all(text.isascii() for text in (*ENGLISH.texts, *ENGLISH.queries))


def test_doctor_prints_the_fidelity_of_a_precision(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"id": str(row), "text": text}) + "\n" for row, text in enumerate(ENGLISH.texts)))
    asked = ["doctor", "--fidelity", "--model", "mini", "--texts", str(texts)]
    plain = CliRunner().invoke(app, asked)
    assert plain.exit_code == 0, plain.output
    assert "fidelity int8" in plain.output
    assert "24 texts, 24 queries" in plain.output
    content = json.loads(CliRunner().invoke(app, [*asked, "--precision", "fp32", "--json"]).stdout)
    assert content["fidelity"]["dense_mean"] == pytest.approx(1)
    assert content["checks"][0]["level"] == "ok"
