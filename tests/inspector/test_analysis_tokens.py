import numpy as np
import pytest

from m3retriever import HashingEncoder, M3Vectors, Token, scoring
from m3retriever.inspector.analysis import tokens as analysis
from m3retriever.inspector.analysis.tokens import Cell, Match, Side, Tint
from m3retriever.scoring import colbert_score, sparse_score

ENCODER = HashingEncoder(16)


def side(text, *, vectors=None, tokens=None, reads=None):
    vectors = ENCODER.encode_documents([text]) if vectors is None else vectors
    return Side(text, vectors, ENCODER.tokenize(text) if tokens is None else tokens, reads)


def aligned(similarity):
    """The alignment of vectors whose inner products are these."""
    similarity = np.asarray(similarity, np.float32)
    return analysis.align(similarity, np.eye(similarity.shape[1], dtype=np.float32))


# -- matches ---------------------------------------------------------------------------------------


def test_every_query_token_is_matched_with_its_best_document_token():
    found = aligned([[0.25, 0.75], [0.5, -0.25]])
    assert analysis.matches(["q", "r"], ["x", "y"], found) == [Match("q", "y", 0.75), Match("r", "x", 0.5)]
    assert found.reached.tolist() == [0.5, 0.75]


def test_vectors_that_match_nothing_have_negative_similarities():
    found = analysis.align(np.array([[1.0, 0.0]], np.float32), np.array([[-1.0, 0.0]], np.float32))
    assert (found.peaks.tolist(), found.reached.tolist()) == ([-1.0], [-1.0])


@pytest.mark.parametrize("block", [1, 2_000, 1 << 30])
def test_blocks_of_rows_give_what_the_whole_matrix_gives(monkeypatch, block):
    monkeypatch.setattr(scoring, "BLOCK_VALUES", block)
    random = np.random.default_rng(7)
    query, document = (random.integers(-4, 5, (count, 6)).astype(np.float32) for count in (31, 905))  # exact products
    whole, found = query @ document.T, analysis.align(query, document)
    assert found.nearest.tolist() == whole.argmax(axis=1).tolist()
    assert found.peaks.tolist() == whole.max(axis=1).tolist()
    assert found.reached.tolist() == whole.max(axis=0).tolist()
    assert found.cells
    assert all(whole[cell.row, cell.column] == cell.similarity for cell in found.cells)
    assert list(found.windows) == best_windows(whole)
    assert float(found.peaks.mean(dtype=np.float64)) == colbert_score(query, document)


def best_windows(similarity):
    """Greedily the passage that adds most to the mean of the best matches, by the definition."""
    starts = range(0, similarity.shape[1] - analysis.PASSAGE_TOKENS + 1, analysis.PASSAGE_STEP)
    peaks = {start: similarity[:, start : start + analysis.PASSAGE_TOKENS].max(axis=1) for start in starts}
    reached, chosen = np.full(len(similarity), -1.0), []
    while len(chosen) < analysis.PASSAGES:
        free = [start for start in starts if all(abs(start - other) >= analysis.PASSAGE_TOKENS for other in chosen)]
        gains = {start: np.maximum(reached, peaks[start]).mean() - reached.mean() for start in free}
        best = max(free, key=lambda start: (gains[start], -start))
        if gains[best] < analysis.PASSAGE_GAIN:
            break
        chosen.append(best)
        reached = np.maximum(reached, peaks[best])
    return sorted(chosen)


def test_two_long_texts_are_compared_without_all_their_similarities(monkeypatch):
    largest = 0
    blocks = scoring.token_similarities

    def watched(query, document):
        nonlocal largest
        for block in blocks(query, document):
            largest = max(largest, block.size)
            yield block

    monkeypatch.setattr(analysis, "token_similarities", watched)
    random = np.random.default_rng(3)
    query, document = (random.normal(size=(count, 8)).astype(np.float32) for count in (8_000, 8_191))
    found = analysis.align(query, document)
    assert largest <= 1 << 22
    some = [0, 511, 512, 7_999]
    assert found.peaks[some] == pytest.approx((query[some] @ document.T).max(axis=1), rel=1e-6)
    assert found.reached[some] == pytest.approx((query @ document[some].T).max(axis=0), rel=1e-6)


def test_heat_cells_keep_each_row_s_best_column_before_higher_ones_that_are_best_for_none():
    similarity = np.array([[0.9, 0.8, 0.0, 0.1], [0.0, 0.0, 0.0, 0.3]])
    cells = analysis.heat_cells(similarity, rows=2, columns=2)
    assert cells == [Cell(0, 0, 0.9, True), Cell(0, 3, 0.1, False), Cell(1, 0, 0.0, False), Cell(1, 3, 0.3, True)]


def test_heat_cells_are_limited_in_both_directions():
    cells = analysis.heat_cells(np.random.default_rng(0).random((50, 400)), rows=8, columns=5)
    assert len(cells) == 40
    assert [cell.column for cell in cells[:5]] == sorted(cell.column for cell in cells[:5])
    assert analysis.heat_cells(np.empty((0, 3)), rows=8, columns=5) == []


# -- the text --------------------------------------------------------------------------------------


def test_a_tint_is_the_best_match_with_any_query_token():
    tokens = [Token(5, 0, 2), Token(6, 3, 5)]
    assert analysis.tints("ab cd", tokens, np.array([0.7, 0.9]), {6}) == [Tint(0, 2, 0.7, False), Tint(3, 5, 0.9, True)]


def test_a_tint_leaves_out_the_end_token_and_leading_spaces():
    tokens = [Token(5, 0, 2), Token(6, 2, 5), Token(2, 0, 0)]
    reached = np.array([0.5, 0.6, 0.9])
    assert analysis.tints("ab cd", tokens, reached, set()) == [Tint(0, 2, 0.5, False), Tint(3, 5, 0.6, False)]


def test_tokens_over_the_same_characters_are_one_tint_with_the_best_match():
    tokens = [Token(5, 0, 1), Token(6, 0, 1), Token(7, 1, 2)]
    reached = np.array([0.3, 0.8, 0.1])
    assert analysis.tints("码x", tokens, reached, {5}) == [Tint(0, 1, 0.8, True), Tint(1, 2, 0.1, False)]


def shown(length, answers):
    """A text of `length` words with the query's two tokens at given places: text, passages."""
    words = [f"w{number}" for number in range(length)]
    for token, place in answers:
        words[place] = ("alpha", "beta")[token]
    document = side(" ".join(words))
    found = analysis.compare(side("alpha beta"), document)
    return document.text, found.matched


def test_a_short_document_is_one_passage():
    text, matched = shown(analysis.WHOLE_TOKENS, [(0, 3)])
    [whole] = matched.passages
    assert (whole.start, whole.end, len(whole.tints)) == (0, len(text), analysis.WHOLE_TOKENS)
    assert not matched.excerpt


def test_a_long_document_is_shown_by_the_passage_that_answers():
    text, matched = shown(2_000, [(0, 1_500), (1, 1_510)])
    [passage] = matched.passages
    assert matched.excerpt
    assert {"alpha", "beta"} <= set(text[passage.start : passage.end].split())
    assert len(passage.tints) == analysis.PASSAGE_TOKENS


def test_passages_far_apart_are_both_shown_in_the_order_of_the_text():
    text, matched = shown(2_000, [(0, 1_500), (1, 300)])
    first, second = matched.passages
    assert "beta" in text[first.start : first.end].split()
    assert "alpha" in text[second.start : second.end].split()
    assert first.end < second.start


def test_passages_do_not_overlap_and_neighbours_are_joined():
    similarity = np.zeros((3, 900))
    similarity[[0, 1, 2], [35, 140, 160]] = 0.9
    found = aligned(similarity)
    assert found.windows == (30, 150), "the one from 60 would show the third match too, but also what is shown already"
    text = "w " * 900
    document = Side(text, ENCODER.encode_documents(["x"]), [Token(1, 2 * word, 2 * word + 1) for word in range(900)])
    [passage] = analysis.passages(document, found.windows, [])
    assert (passage.start, passage.end) == (2 * 30, 2 * 269 + 1)


def test_a_long_document_without_a_match_still_shows_something():
    vectors = M3Vectors.from_rows(np.eye(1, 2), [{}], [np.tile([[0.0, 1.0]], (1_000, 1))])
    away = M3Vectors.from_rows(np.eye(1, 2), [{}], [np.array([[1.0, 0.0]])])
    document = Side("w " * 1_000, vectors, [Token(1, 2 * word, 2 * word + 1) for word in range(1_000)])
    found = analysis.compare(Side("x", away, [Token(2, 0, 1)]), document)
    [passage] = found.matched.passages
    assert passage.start == 0


def test_what_the_model_does_not_read_is_said_and_not_tinted():
    tokens = [Token(1, 0, 2), Token(2, 3, 5), Token(3, 0, 0)]
    vectors = M3Vectors.from_rows(np.eye(1, 2), [{}], [np.eye(3, 2)])
    found = analysis.compare(Side("ab cd", vectors, tokens, 3), Side("ab cd ef", vectors, tokens, 3))
    assert found.unread == (None, 3)
    assert [(passage.start, passage.end) for passage in found.matched.passages] == [(0, 5)]
    assert not Side("ab cd  \n", vectors, tokens, 3).unread, "blanks at the end are no loss"
    assert not Side("ab cd ef", vectors, tokens, 4).unread, "characters that are no token are no loss either"
    assert not Side("ab cd ef", vectors, tokens).unread


def test_without_tokens_there_are_weights_alone():
    vectors = ENCODER.encode_documents(["reset"])
    [token] = vectors.sparse_row(0)
    found = analysis.compare(Side("reset", vectors, None), Side("reset", vectors, None))
    assert found.matched is None
    assert [one.token for one in found.shared] == [str(token)]
    assert analysis.compare(side("reset", tokens=[]), side("reset")).matched is None


def test_the_mean_of_the_matches_is_the_colbert_score():
    query, document = side("reset my password"), side("to reset a password")
    found = analysis.compare(query, document)
    assert found.matched.score == colbert_score(query.vectors.colbert, document.vectors.colbert)
    assert np.mean([match.similarity for match in found.matched.matches]) == pytest.approx(found.matched.score, abs=1e-6)
    assert (found.matched.rows, found.matched.columns) == (["reset", "my", "password"], ["to", "reset", "a", "password"])


# -- names and weights -----------------------------------------------------------------------------


def test_labels_name_the_end_token_and_blanks():
    tokens = [Token(1, 0, 2), Token(2, 2, 5), Token(4, 5, 6), Token(3, 0, 0)]
    assert analysis.token_labels("ab cd ", tokens) == ["ab", "cd", "␣", "</s>"]


def test_the_blank_in_front_of_a_chinese_text_is_not_called_after_its_first_character():
    tokens = [Token(6, 0, 1), Token(7, 0, 2), Token(8, 2, 4), Token(2, 0, 0)]  # as XLM-R's tokenizer gives them
    assert analysis.token_labels("忘记密码", tokens) == ["␣", "忘记", "密码", "</s>"]


def names(text, *pieces):
    tokens, at = [], 0
    for number, piece in enumerate(pieces):
        at = text.index(piece, at)
        tokens.append(Token(number, at, at + len(piece)))
        at += len(piece)
    return list(analysis.names_of(Side(text, ENCODER.encode_documents([text]), tokens)).values())


def test_a_piece_of_a_word_is_named_with_the_word_around_it():
    assert names("Sort unsorted lists.", "Sort", " un", "sor", "ted", " lists", ".") == [
        "Sort",
        "un… (unsorted)",
        "…sor… (unsorted)",
        "…ted (unsorted)",
        "lists",
        ".",
    ]


def test_a_chinese_token_is_no_piece_of_a_word():
    assert names("如何重置密码abc", "如何", "重置", "密码", "abc") == ["如何", "重置", "密码", "abc"]


def test_a_very_long_word_is_not_written_beside_its_piece():
    assert names("x" * 60 + "ing", "xx", "ing") == ["xx…", "…ing"]


def test_a_token_that_is_a_word_elsewhere_is_named_by_the_word():
    tokens = [Token(5, 2, 4), Token(5, 5, 7)]
    assert analysis.names_of(Side("abcd cd", ENCODER.encode_documents(["x"]), tokens)) == {5: "cd"}


def test_shared_tokens_have_both_weights_and_their_product_largest_first():
    query, document = {7: 0.5, 8: 1.0, 9: 0.2}, {7: 0.4, 9: 1.5}
    tokens = analysis.shared_tokens(query, document, {7: "seven", 8: "eight"})
    assert [(token.token, token.query_weight, token.document_weight) for token in tokens] == [
        ("9", 0.2, 1.5),
        ("seven", 0.5, 0.4),
        ("eight", 1.0, 0.0),
    ]
    assert sum(token.product for token in tokens) == pytest.approx(sparse_score(query, document))


def test_a_document_is_indexed_under_its_heaviest_tokens():
    assert analysis.heaviest({7: 0.5, 8: 1.0, 9: 0.7}, {8: "eight", 7: "seven"}) == [("eight", 1.0), ("9", 0.7), ("seven", 0.5)]
    assert len(analysis.heaviest(dict.fromkeys(range(100), 1.0), {})) == analysis.INDEXED
