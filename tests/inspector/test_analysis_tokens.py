import numpy as np
import pytest

from m3retriever import HashingEncoder, M3Vectors, ModeScores, Token, Weights
from m3retriever.fusion import weighted_sum
from m3retriever.inspector.analysis import tokens as analysis
from m3retriever.inspector.analysis.tokens import Cell, Match, Tint
from m3retriever.scoring import colbert_score, sparse_score

HALVES = Weights(0.5, 0.25, 0.25)
SCORES = ModeScores(("a", "b", "c"), np.array([[0.8, 0.0, 0.4], [0.4, 0.8, 0.8], [0.0, 0.4, 0.0]], np.float32))
TITLES = {"a": "Apple", "b": "Beet", "c": "Cress"}


def rows(k=3, threshold=None):
    return analysis.result_rows(SCORES, weighted_sum(SCORES, HALVES), TITLES, k=k, threshold=threshold)


# -- tokens ----------------------------------------------------------------------------------------


def test_a_tint_is_the_best_match_with_any_query_token():
    tokens = [Token(5, 0, 2), Token(6, 3, 5)]
    similarity = np.array([[0.1, 0.9], [0.7, -0.2]])
    assert analysis.tints("ab cd", tokens, similarity, {6}) == [Tint(0, 2, 0.7, False), Tint(3, 5, 0.9, True)]


def test_a_tint_leaves_out_the_end_token_and_leading_spaces():
    tokens = [Token(5, 0, 2), Token(6, 2, 5), Token(2, 0, 0)]
    similarity = np.array([[0.5, 0.6, 0.9]])
    assert analysis.tints("ab cd", tokens, similarity, set()) == [Tint(0, 2, 0.5, False), Tint(3, 5, 0.6, False)]


def test_tokens_over_the_same_characters_are_one_tint_with_the_best_match():
    tokens = [Token(5, 0, 1), Token(6, 0, 1), Token(7, 1, 2)]
    similarity = np.array([[0.3, 0.8, 0.1]])
    assert analysis.tints("码x", tokens, similarity, {5}) == [Tint(0, 1, 0.8, True), Tint(1, 2, 0.1, False)]


def test_labels_name_the_end_token():
    assert analysis.token_labels("ab cd", [Token(1, 0, 2), Token(2, 2, 5), Token(3, 5, 5)]) == ["ab", "cd", "</s>"]


def test_every_query_token_is_matched_with_its_best_document_token():
    similarity = np.array([[0.1, 0.9], [0.7, -0.2]])
    assert analysis.matches(["q", "r"], ["x", "y"], similarity) == [Match("q", "y", 0.9), Match("r", "x", 0.7)]
    assert analysis.matches(["q"], [], np.empty((1, 0))) == []


def test_the_mean_of_the_matches_is_the_colbert_score():
    encoder = HashingEncoder(16)
    query, document = encoder.encode_queries(["reset my password"]), encoder.encode_documents(["to reset a password"])
    similarity = analysis.similarities(query, document)
    labels = analysis.token_labels("reset my password", encoder.tokenize("reset my password"))
    found = analysis.matches(labels, ["to", "reset", "a", "password"], similarity)
    assert similarity.shape == (3, 4)
    expected = colbert_score(query.colbert_row(0), document.colbert_row(0))
    assert np.mean([match.similarity for match in found]) == pytest.approx(expected, abs=1e-6)


def test_heat_cells_keep_each_row_s_best_column_before_higher_ones_that_are_best_for_none():
    similarity = np.array([[0.9, 0.8, 0.0, 0.1], [0.0, 0.0, 0.0, 0.3]])
    cells = analysis.heat_cells(similarity, rows=2, columns=2)
    assert cells == [Cell(0, 0, 0.9, True), Cell(0, 3, 0.1, False), Cell(1, 0, 0.0, False), Cell(1, 3, 0.3, True)]


def test_heat_cells_are_limited_in_both_directions():
    cells = analysis.heat_cells(np.random.default_rng(0).random((50, 400)), rows=8, columns=5)
    assert len(cells) == 40
    assert [cell.column for cell in cells[:5]] == sorted(cell.column for cell in cells[:5])
    assert analysis.heat_cells(np.empty((0, 3)), rows=8, columns=5) == []


def test_shared_tokens_have_both_weights_and_their_product_largest_first():
    query, document = {7: 0.5, 8: 1.0, 9: 0.2}, {7: 0.4, 9: 1.5}
    tokens = analysis.shared_tokens(query, document, {7: "seven", 8: "eight"})
    assert [(token.token, token.query_weight, token.document_weight) for token in tokens] == [
        ("9", 0.2, 1.5),
        ("seven", 0.5, 0.4),
        ("eight", 1.0, 0.0),
    ]
    assert sum(token.product for token in tokens) == pytest.approx(sparse_score(query, document))


# -- long documents --------------------------------------------------------------------------------


def long_document(length, answers):
    """A text of `length` words with the query's two tokens at given places: text, tokens, similarity."""
    text = " ".join("w" for _ in range(length))
    tokens = [Token(1, 2 * word, 2 * word + 1) for word in range(length)]
    similarity = np.full((2, length), 0.1)
    for row, column in answers:
        similarity[row, column] = 0.9
    return text, tokens, similarity


def shown(length, answers):
    text, tokens, similarity = long_document(length, answers)
    marked = analysis.tints(text, tokens, similarity, set())
    return text, analysis.passages(text, tokens, similarity, marked)


def test_a_short_document_is_one_passage():
    text, [whole] = shown(analysis.WHOLE_TOKENS, [(0, 3)])
    assert (whole.start, whole.end, len(whole.tints)) == (0, len(text), analysis.WHOLE_TOKENS)


def test_a_long_document_is_shown_by_the_passage_that_answers():
    _, [passage] = shown(5_000, [(0, 3_000), (1, 3_010)])
    assert passage.start <= 2 * 3_000 < 2 * 3_010 < passage.end
    assert len(passage.tints) == analysis.PASSAGE_TOKENS


def test_passages_far_apart_are_both_shown_in_the_order_of_the_text():
    _, passages = shown(5_000, [(0, 4_000), (1, 1_000)])
    assert len(passages) == 2
    assert passages[0].start <= 2 * 1_000 < passages[0].end < passages[1].start <= 2 * 4_000 < passages[1].end


def test_a_long_document_without_a_match_still_shows_something():
    _, [passage] = shown(1_000, [])
    assert passage.start == 0


def test_similarities_of_vectors_that_match_nothing_are_negative():
    vectors = M3Vectors.from_rows(np.eye(2), [{}, {}], [np.array([[1.0, 0.0]]), np.array([[-1.0, 0.0]])])
    assert analysis.similarities(vectors[0], vectors[1]).tolist() == [[-1.0]]
