"""Fitting a profile's calibration: what is known beforehand is found, and nothing held out is looked at."""

from dataclasses import replace

import numpy as np
import pytest

from m3retriever import (
    Document,
    HashingEncoder,
    InvalidArgumentError,
    M3Index,
    MemoryStore,
    Profile,
    ProfileError,
    load_profile,
    save_profile,
)
from m3retriever.calibrating import MIN_QUESTIONS, Evidence, Wanted, calibrate, fitted_profile
from m3retriever.calibrating.thresholds import Pairs
from m3retriever.calibrating.unrelated import identical_pairs, opening, questions_of, unrelated_pairs, without_one_word
from m3retriever.calibration import LEVELS, calibration_of
from m3retriever.fitting import calibrate_index
from m3retriever.passages import Split, parents_of
from m3retriever.profile import check_profile
from m3retriever.types import MODES, ModeScores, Weights


def world(count, *, seed=0, candidates=20, relevant=4, gap=0.35):
    """Questions whose relevant documents score higher by `gap` in dense, and by nothing in the other modes."""
    random = np.random.default_rng(seed)
    scores, qrels = {}, {}
    for number in range(count):
        values = random.normal(0.4, 0.1, (candidates, 3))
        values[:relevant, 0] += gap
        ids = tuple(f"d{number}-{row}" for row in range(candidates))
        scores[f"q{number}"] = ModeScores(ids, values)
        qrels[f"q{number}"] = dict.fromkeys(ids[:relevant], 1)
    return scores, qrels


def unanswerable(count, seed=9):
    random = np.random.default_rng(seed)
    return [ModeScores(tuple(f"u{row}" for row in range(20)), random.normal(0.4, 0.1, (20, 3))) for _ in range(count)]


DENSE = Profile(weights=Weights(1, 0, 0))


WISHES = [Wanted("precision", 0.9), Wanted("recall", 0.9), Wanted("fpr", 0.05), Wanted("recall", 0.8, 0.9)]


@pytest.mark.parametrize("wanted", WISHES, ids=str)
def test_what_is_asked_for_is_met_on_questions_that_were_not_seen(wanted):
    found = calibrate(Evidence(*world(200), unanswerable(200)), DENSE, wanted)["dense"]
    scores, qrels = world(1000, seed=1)
    run = {query: dict(zip(one.ids, one.column("dense").tolist(), strict=True)) for query, one in scores.items()}
    pairs = Pairs.of(run, qrels)
    wrong = np.array([one.column("dense").max() for one in unanswerable(1000, seed=3)])
    value = wanted.value_at(found.threshold, pairs, wrong)
    if wanted.confidence is None:
        assert value == pytest.approx(wanted.value, abs=0.03)
        assert found.held_out.mean == pytest.approx(wanted.value, abs=0.03)
    else:
        assert value >= wanted.value
    assert found.held_out.halves == 20
    assert found.held_out.deviation < 0.05


def test_the_hybrid_is_that_of_the_profile_and_every_mode_has_its_own():
    found = calibrate(Evidence(*world(100)), DENSE, Wanted("f", 1))
    assert found["hybrid"].threshold == pytest.approx(found["dense"].threshold)
    assert found["dense"].held_out.mean > 0.8 > 0.5 > found["sparse"].held_out.mean
    assert found["dense"].brier < 0.05 < 0.1 < found["sparse"].brier
    assert found["dense"].calibration_error < 0.03
    steep = found["dense"].calibration
    assert steep.probability(0.9) > 0.9 > 0.1 > steep.probability(0.3)


def test_what_cannot_be_had_is_said_and_the_rest_is_fitted():
    found = calibrate(Evidence(*world(50)), DENSE, Wanted("precision", 0.99))
    assert "precision 0.99 is not reached" in found["sparse"].problem
    assert found["sparse"].threshold is None
    assert found["sparse"].calibration.scores
    assert found["dense"].problem is None


def test_what_is_held_out_is_worse_than_what_was_fitted_where_nothing_can_be_learned():
    """Few questions, labels drawn at random: the best F on a half is chance, and chance does not come again."""
    gaps = []
    for seed in range(12):
        random = np.random.default_rng(seed)
        scores, _ = world(16, seed=seed, candidates=6, gap=0)
        qrels = {query: {id: int(random.random() < 0.4) for id in one.ids} for query, one in scores.items()}
        found = calibrate(Evidence(scores, qrels), DENSE, Wanted("f", 0.3), modes=("dense",))["dense"]
        gaps.append(found.measured.f(0.3) - found.held_out.mean)
    assert np.mean(gaps) > 0.05


def test_probabilities_are_held_out_by_question():
    """Each question has a level of its own, on which all of its pairs are relevant or none: who has seen a question
    knows its other pairs."""
    random = np.random.default_rng(0)
    scores, qrels = {}, {}
    for number, level in enumerate(random.permutation(np.linspace(0, 1, 40))):
        ids = tuple(f"d{number}-{row}" for row in range(10))
        scores[f"q{number}"] = ModeScores(ids, np.full((10, 3), level) + random.normal(0, 1e-4, (10, 3)))
        qrels[f"q{number}"] = dict.fromkeys(ids, int(random.random() < 0.5))
    found = calibrate(Evidence(scores, qrels), DENSE, modes=("dense",))["dense"]
    assert found.brier > 0.22, "no better than saying a half of everything"


def test_a_promise_is_measured_as_it_was_made_question_by_question():
    """Ninety questions with one relevant document each, which scores high, and ten with fifty, which score low."""
    scores, qrels = {}, {}
    for number in range(100):
        many = number % 10 == 0
        ids = tuple(f"d{number}-{row}" for row in range(50 if many else 1))
        scores[f"q{number}"] = ModeScores(ids, np.full((len(ids), 3), 0.2 if many else 0.9))
        qrels[f"q{number}"] = dict.fromkeys(ids, 1)
    found = calibrate(Evidence(scores, qrels), DENSE, Wanted("recall", 0.75, 0.9), modes=("dense",))["dense"]
    assert found.threshold == pytest.approx(0.9, abs=1e-6)
    assert found.measured.mean_recall == pytest.approx(0.9)
    assert found.measured.recall < 0.2
    assert found.held_out.mean > 0.75


def test_rates_of_unrelated_pairs_are_held_out_by_question():
    """Each question shifts its pairs by its own amount: halves that share questions would agree too well."""
    random = np.random.default_rng(0)
    pairs = [
        ModeScores(tuple(f"d{row}" for row in range(50)), random.normal(random.normal(0, 0.3), 0.05, (50, 3)))
        for _ in range(20)
    ]
    found = calibrate(Evidence({}, {}, unrelated=pairs), DENSE, Wanted("fpr", 0.05), modes=("dense",))["dense"]
    assert found.held_out.deviation > 0.03


def test_what_was_not_wanted_leaves_thresholds_and_what_was_not_fitted_leaves_nothing():
    profile = Profile(thresholds={"hybrid": 0.3}, calibration={"hybrid": {"scores": [0.1], "probabilities": [0.5]}})
    kept = fitted_profile(profile, calibrate(Evidence(*world(20)), profile), None)
    assert kept.thresholds == {"hybrid": 0.3}
    by_rank = Profile(fusion="rrf")
    bare = fitted_profile(by_rank, calibrate(Evidence({}, {}, unrelated=unanswerable(20)), by_rank), None)
    assert "hybrid" not in bare.calibration
    check_profile(bare, "any")


def test_a_question_that_finds_nothing_is_no_false_positive():
    nothing = ModeScores(("a",), np.zeros((1, 3), np.float32))
    something = [ModeScores(("a",), np.full((1, 3), value)) for value in (0.2, 0.4, 0.6, 0.8)]
    evidence = Evidence({}, {}, [nothing] * 6 + something, unanswerable(5))
    found = calibrate(evidence, DENSE, Wanted("fpr", 0.2), modes=("sparse",))["sparse"]
    assert found.threshold == pytest.approx(0.6)
    assert found.false_positives == pytest.approx(0.2)
    assert found.calibration.threshold("fpr<=0.2") == pytest.approx(0.6)
    assert found.calibration.threshold("fpr<=0.5") == pytest.approx(0.2)


def test_without_labels_the_rates_of_unrelated_pairs_are_known():
    evidence = Evidence({}, {}, unrelated=unanswerable(100))
    found = calibrate(evidence, DENSE, Wanted("fpr", 0.01))
    share = np.mean(np.concatenate([one.column("dense") for one in evidence.unrelated]) >= found["dense"].threshold)
    assert share == pytest.approx(0.01, abs=0.001)
    assert found["dense"].calibration.unrelated.score_at(0.01) == pytest.approx(found["dense"].threshold, abs=0.01)
    assert (found["dense"].calibration.scores, found["dense"].method, found["dense"].measured) == ((), None, None)
    with pytest.raises(InvalidArgumentError, match="precision >= 0.9 needs questions with known answers"):
        calibrate(evidence, DENSE, Wanted("precision", 0.9))


def test_a_fusion_of_ranks_has_no_rates_of_pairs():
    found = calibrate(Evidence(*world(20), unrelated=unanswerable(20)), Profile(fusion="rrf"), Wanted("fpr", 0.1))
    assert found["dense"].calibration.unrelated is not None
    assert found["hybrid"].calibration.unrelated is None
    assert "needs scores of what should not be returned" in found["hybrid"].problem


def test_levels_rise_and_come_from_the_evidence():
    alike = ModeScores(("a", "b", "c"), np.full((3, 3), 0.95, np.float32))
    found = calibrate(Evidence(*world(100), unrelated=unanswerable(100), identical=alike), DENSE)["dense"].calibration
    assert list(found.levels) == list(LEVELS[1:])
    assert list(found.levels.values()) == sorted(found.levels.values())
    assert found.levels["weak"] == pytest.approx(0.4 + 1.645 * 0.1, abs=0.02)  # a twentieth of unrelated pairs reach it
    assert found.probability(found.levels["related"]) == pytest.approx(0.5, abs=0.01)
    assert found.levels["nearly identical"] == pytest.approx(0.95)
    assert [found.level(score) for score in (0.1, 0.58, 0.8, 0.99)] == list(LEVELS)


def test_the_profile_keeps_what_was_fitted(tmp_path):
    profile = Profile(weights=Weights(1, 0, 0), thresholds={"hybrid": 0.1}, fitted={"tuning": {"measure": "nDCG@10"}})
    evidence = Evidence(*world(60), unanswerable(60), unanswerable(50, seed=5))
    found = calibrate(evidence, profile, Wanted("fpr", 0.05), modes=("hybrid", "dense"))
    fitted = fitted_profile(profile, found, Wanted("fpr", 0.05), questions=60)
    save_profile(fitted, tmp_path / "profile.toml")
    again = load_profile(tmp_path / "profile.toml")
    assert again.thresholds == {"hybrid": found["hybrid"].threshold, "dense": found["dense"].threshold}
    assert again.weights == profile.weights
    for mode in ("hybrid", "dense"):
        assert calibration_of(again, mode) == found[mode].calibration
    assert again.fitted["tuning"] == {"measure": "nDCG@10"}
    assert again.fitted["calibration"]["questions"] == 60
    assert again.fitted["calibration"]["dense"]["held_out"] == found["dense"].held_out.mean
    at = calibration_of(again, "dense").threshold("fpr<=0.05")
    assert np.mean([one.column("dense").max() >= at for one in evidence.unanswerable]) <= 0.05


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: calibrate(Evidence({}, {}), DENSE), "or unrelated pairs; got neither"),
        (
            lambda: calibrate(Evidence(*world(MIN_QUESTIONS - 1)), DENSE),
            f"at least {MIN_QUESTIONS} questions with a relevant document; got",
        ),
        (lambda: Wanted("accuracy", 0.9), "for precision, recall, f or fpr; got 'accuracy'"),
        (lambda: Wanted("precision", 0.9, 0.95), "a confidence goes with recall"),
        (lambda: Wanted("precision", 2.0), "precision must be above 0 and at most 1; got 2.0"),
        (lambda: Wanted("recall", 0), "recall must be above 0"),
        (lambda: Wanted("recall", 0.9, 1.0), "confidence must be between 0 and 1"),
        (lambda: Wanted("f", float("inf")), "beta must be a number above 0"),
        (lambda: Wanted("fpr", -0.1), "a false-positive rate is between 0 and 1"),
        (lambda: Wanted("fpr", float("nan")), "a false-positive rate is between 0 and 1"),
    ],
)
def test_what_has_no_meaning_is_refused(call, message):
    with pytest.raises(InvalidArgumentError, match=message):
        call()


# -- from an index -----------------------------------------------------------------------------------

COLOURS, ANIMALS = ["red", "blue", "green", "grey"], ["fox", "whale", "crow", "mole", "hare"]
DOCUMENTS = [
    Document(f"{colour} {animal}", f"The {colour} {animal}. It lives here and there.")
    for colour in COLOURS
    for animal in ANIMALS
]
QUERIES = {document.id: f"where does the {document.id} live" for document in DOCUMENTS}
QRELS = {document.id: {document.id: 1} for document in DOCUMENTS}


@pytest.fixture
def index():
    index = M3Index(HashingEncoder(), MemoryStore())
    index.add(DOCUMENTS)
    return index


def test_unrelated_pairs_leave_out_what_is_relevant_and_repeat_exactly(index):
    pairs = unrelated_pairs(index, QUERIES, QRELS, questions=6, documents=30)
    assert [len(one) for one in pairs] == [19] * 6
    for one in pairs:
        assert one.query[len("where does the ") : -len(" live")] not in one.ids
    again = unrelated_pairs(index, QUERIES, QRELS, questions=6, documents=30)
    assert [(one.ids, one.values.tolist()) for one in again] == [(one.ids, one.values.tolist()) for one in pairs]
    assert [len(one) for one in unrelated_pairs(index, questions=3, documents=5)] == [5, 5, 5]
    own = {opening(document.text): document.id for document in DOCUMENTS}
    assert all(own[one.query] not in one.ids for one in unrelated_pairs(index, questions=20, documents=30))


def test_an_index_of_one_document_has_no_unrelated_pairs():
    index = M3Index(HashingEncoder(), MemoryStore())
    index.add(DOCUMENTS[:1])
    with pytest.raises(InvalidArgumentError, match="at least 2 documents; the index has 1"):
        unrelated_pairs(index)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two.", "One."),
        ("\n\n  A title\nand more", "A title"),
        ("第一句。第二句。", "第一句。"),
        ("", ""),
        (" \n ", ""),
        ("x" * 500, "x" * 200),
    ],
)
def test_the_opening_is_the_first_sentence(text, expected):
    assert opening(text) == expected


def test_a_text_loses_one_word_or_one_sign_where_there_are_no_blanks():
    random = np.random.default_rng(0)
    for _ in range(20):
        assert sorted([*without_one_word("a b c", random).split(), "x"]) in (
            [["a", "b", "x"], ["a", "c", "x"], ["b", "c", "x"]]
        )  # fmt: skip
        assert without_one_word("红狐狸", random) in ("狐狸", "红狸", "红狐")
    assert [without_one_word(text, random) for text in ("fox", "é", "")] == ["fox", "é", ""]


def test_nearly_identical_texts_score_nearly_as_identical_ones():
    encoder = HashingEncoder()
    texts = [document.text for document in DOCUMENTS]
    alike = identical_pairs(encoder, texts)
    assert len(alike) == len(texts)
    assert (alike.column("dense") > 0.7).all()
    assert len(identical_pairs(encoder, [])) == 0


def test_questions_are_those_given_or_openings_of_documents(index):
    assert questions_of(index, index.ids(), QUERIES, count=3).items() <= QUERIES.items()
    found = questions_of(index, index.ids(), None, count=5)
    assert len(found) == 5
    assert all(text == f"The {id}." for id, text in found.items())


def test_an_index_is_calibrated_in_one_call_and_the_profile_is_tied_to_its_model(index):
    steps = []
    found, profile = calibrate_index(
        index, QUERIES, QRELS, Wanted("fpr", 0.1), unanswerable=["nothing of that kind"] * 10, on_step=steps.append
    )
    assert sum(steps) == len(QUERIES) + 10 + 4
    assert profile.model == index.encoder.name
    assert set(found) == {"hybrid", *MODES}
    index.profile = profile
    assert [hit.document.id for hit in index.search("where does the red fox live", 1, threshold="profile")] == ["red fox"]
    assert index.search("nothing of that kind", threshold="profile") == []
    assert index.search("red fox", 1)[0].probability is not None


def test_a_recall_that_the_depth_cannot_give_makes_it_deeper(index):
    index.profile = Profile(depth=1)
    far = {f"q{place}": {document.id: 1 for document in DOCUMENTS} for place in range(10)}
    _, profile = calibrate_index(index, dict.fromkeys(far, "the"), far, Wanted("recall", 0.9))
    assert profile.depth in (16, 20), "twice as deep until the documents are among the candidates"
    _, same = calibrate_index(index, dict.fromkeys(far, "the"), far, Wanted("f", 1))
    assert same.depth == 1


def test_where_no_depth_gives_the_recall_the_depth_stays_and_what_is_not_in_the_index_is_counted(index):
    index.profile = Profile(depth=1)
    far = {f"q{place}": {document.id: 1 for document in DOCUMENTS} | {"elsewhere": 1} for place in range(10)}
    _, profile = calibrate_index(index, dict.fromkeys(far, "the"), far, Wanted("recall", 0.9))
    assert profile.fitted["calibration"]["judged_but_not_in_the_index"] == 10
    assert profile.depth in (16, 20)
    found, profile = calibrate_index(index, dict.fromkeys(far, ""), far, Wanted("recall", 0.9, 0.999))
    assert (found["hybrid"].threshold, profile.depth) == (None, 1) or profile.depth > 1


def test_passages_of_a_relevant_document_are_not_unrelated():
    index = M3Index(HashingEncoder(), MemoryStore())
    long = Document("long", " ".join(f"word{place}" for place in range(300)))
    index.add([long, *DOCUMENTS[:5]], split=Split(20, 4))
    parts = set(parents_of(index))
    assert len(parts) > 5
    for pairs in (unrelated_pairs(index, {"q": "word1 word2"}, {"q": {"long": 1}}), unrelated_pairs(index)):
        for one in pairs:
            own = "word" in one.query
            assert not own or not parts & set(one.ids)


def test_a_calibration_of_other_weights_is_refused_and_one_without_a_threshold_says_so(index):
    _, profile = calibrate_index(index, QUERIES, QRELS, Wanted("f", 1))
    check_profile(profile, index.encoder.name)
    for changed in (replace(profile, weights=Weights(0, 1, 0)), replace(profile, fusion="rrf")):
        with pytest.raises(ProfileError, match="calibrate again, or take calibration.hybrid"):
            check_profile(changed, index.encoder.name)
    without = replace(profile, thresholds={})
    with pytest.raises(ProfileError, match="no threshold for hybrid: none gave what was wanted"):
        index.search("red fox", threshold="profile", profile=without)
    assert index.search("red fox", threshold="profile", profile=Profile()), "never calibrated: no threshold"
