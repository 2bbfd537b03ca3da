"""Long documents as passages: cut so that nothing is lost, replaced as one, found as one."""

import asyncio
import importlib.util
import random
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from m3retriever import (
    BGEM3Encoder,
    ChromaStore,
    Document,
    HashingEncoder,
    Hit,
    InvalidArgumentError,
    InvalidDocumentError,
    M3Index,
    MemoryStore,
    MiniEncoder,
    Profile,
    Token,
    TruncationWarning,
)
from m3retriever.encoders.hashing import NO_WORD
from m3retriever.passages import (
    AGGREGATIONS,
    RESERVED,
    Split,
    border,
    document_hits,
    parent_of,
    parents_of,
    split,
)

spec = importlib.util.spec_from_file_location("checkpoints", Path(__file__).with_name("checkpoints.py"))
checkpoints = importlib.util.module_from_spec(spec)
spec.loader.exec_module(checkpoints)

SMALL = Split(size=8, overlap=2)


class Reads(HashingEncoder):
    """Reads the beginning of a text only, marks its end, and counts what it is given; no other word is in `seen`."""

    def __init__(self, max_length=10):
        super().__init__(32)
        self.max_length, self.tokenized, self.encoded = max_length, 0, []

    def tokenize(self, text):
        self.tokenized += len(text)
        words = [token for token in super().tokenize(text) if token.end > token.start]
        return [*words[: self.max_length - 2], Token(NO_WORD, 0, 0)]

    def encode_documents(self, texts, *, progress=False):
        self.encoded.extend(texts)
        return super().encode_documents(texts)


class Pieces(HashingEncoder):
    """A part of a text has more tokens than it has in the whole: its first word is read letter by letter."""

    def tokenize(self, text):
        first, *others = super().tokenize(text)
        return [*(Token(first.id, place, place + 1) for place in range(first.start, first.end)), *others]


def spans(parts):
    return [(part.metadata["passage_start"], part.metadata["passage_end"]) for part in parts]


def words(count, name="w"):
    return " ".join(f"{name}{number}" for number in range(count))


# -- cutting ---------------------------------------------------------------------------------------


def test_a_text_that_just_fits_stays_itself_and_one_word_more_is_cut():
    encoder = Reads(10)
    document = Document("a", words(8), {"lang": "en"})
    [same] = split(document, encoder)
    assert same is document
    parts = split(Document("a", words(9), {"lang": "en"}), encoder)
    assert [part.id for part in parts] == ["a#1", "a#2"]
    assert parts[0] == Document(
        "a#1",
        "w0 w1 w2 w3 w4 w5 w6 w7 ",
        {"lang": "en", "passage_of": "a", "passage": 1, "passage_start": 0, "passage_end": 24},
    )
    assert parts[1].text == "w6 w7 w8", "it shares a quarter, two of eight tokens"
    assert split(Document("a", ""), encoder) == [Document("a", "")]


def test_a_passage_ends_and_begins_with_a_sentence_where_one_is_near():
    text = "One two three four. Five six seven. Eight nine ten! Eleven twelve thirteen fourteen. The end."
    parts = split(Document("a", text), HashingEncoder(), SMALL)
    assert [part.text for part in parts] == [
        "One two three four. Five six seven. ",
        "six seven. Eight nine ten! Eleven twelve thirteen ",
        "twelve thirteen fourteen. The end.",
    ]
    far = "One two three. Four five six seven eight nine ten"
    assert split(Document("a", far), HashingEncoder(), SMALL)[0].text == "One two three. Four five six seven eight "


def test_a_passage_shares_a_little_more_where_a_sentence_begins_there():
    text = words(9) + ". " + words(14, "v")
    first, second = split(Document("a", text), HashingEncoder(), Split(size=16, overlap=6))
    assert first.text.split()[-1] == "v6"
    assert second.text == words(14, "v"), "seven shared for six, from the sentence's beginning"


def test_what_neighbours_share_is_no_passage_of_its_own():
    text = "xx x x xx xxx xx xx x"  # from "xxx" the four tokens reach no further than those from "xx" before it
    parts = split(Document("a", text), Pieces(16), Split(size=4, overlap=2))
    assert spans(parts) == [(0, 7), (3, 14), (7, 17), (17, 21)]


def test_a_text_that_goes_on_after_what_is_no_word_is_cut_too():
    encoder = Reads(10)
    assert len(split(Document("a", words(8) + " " + "-" * 500), encoder)) == 1
    parts = split(Document("a", words(8) + " " + "-" * 500 + " end"), encoder)
    assert len(parts) == 2
    assert parts[1].text.endswith("- end")


def test_chinese_is_cut_at_its_own_signs():
    text = "我喜欢吃红苹果。你呢？他们也喜欢，我们都喜欢红苹果"
    parts = split(Document("a", text), HashingEncoder(), Split(size=10, overlap=0))
    assert [part.text for part in parts] == ["我喜欢吃红苹果。你呢？", "他们也喜欢，我们都喜欢", "红苹果"]


@pytest.mark.parametrize(
    ("text", "low", "high", "place"),
    [
        ("One. Two thr", 0, 12, 5),
        ("One. Two thr", 5, 12, 9),
        ("one 1.5 two", 0, 9, 8),
        ("he said “no.” And", 0, 17, 14),
        ("one\n\n  two thr", 0, 14, 7),
        ("说：“好。”然后", 0, 8, 6),
        ("什么？！然后", 0, 6, 4),
        ("क्या। हाँ जी", 0, 11, 6),
        ("abcdef", 0, 4, 4),
        ("ae\u0301\u0301b", 0, 3, 1),
        ("👨\u200d👩\u200d👧x", 0, 3, 3),
        ("a👨\u200d👩", 0, 2, 1),
    ],
)
def test_the_border_is_the_last_good_place(text, low, high, place):
    assert border(text, low, high) == place


@given(count=st.integers(0, 200), size=st.integers(4, 40), data=st.data())
def test_words_without_sentences_make_the_windows_of_the_textbook(count, size, data):
    overlap = data.draw(st.integers(0, size // 2))
    text = words(count)
    listed = text.split()
    wanted, start = [], 0
    while True:
        wanted.append(listed[start : start + size])
        if start + size >= count:
            break
        start += size - overlap
    parts = split(Document("a", text), HashingEncoder(16), Split(size, overlap))
    assert [part.text.split() for part in parts] == wanted


SIGNS = st.sampled_from([*"abcXYZ   \n\n\t.!?,;”)。！”，我红酒क\u0301\u200d\u00a0ﷺ👩", "\u094d"])
TEXTS = st.one_of(st.text(max_size=300), st.lists(SIGNS, max_size=400).map("".join))


ENCODERS = st.sampled_from([HashingEncoder(16), Reads(32), Pieces(16)])


@settings(max_examples=300)
@given(text=TEXTS, size=st.integers(1, 30), encoder=ENCODERS, data=st.data())
def test_every_character_is_in_a_passage_and_no_passage_is_too_long(text, size, encoder, data):
    text = text.encode("utf-8", "ignore").decode()
    overlap = data.draw(st.integers(0, size // 2))
    parts = split(Document("a", text), encoder, Split(size, overlap))

    whole = Pieces(16) if isinstance(encoder, Pieces) else HashingEncoder(16)  # reads to the end

    def count(passage):
        return sum(token.end > token.start for token in whole.tokenize(passage))

    assert (len(parts) == 1) == (count(text) <= size or len(text) == 1)
    if len(parts) == 1:
        assert parts[0].id == "a"
        return
    reached = 0
    for number, (part, (start, end)) in enumerate(zip(parts, spans(parts), strict=True), start=1):
        assert (part.id, part.metadata["passage"], parent_of(part)) == (f"a#{number}", number, "a")
        assert part.text == text[start:end] != ""
        assert start <= reached < end, "no gap, and each goes on"
        assert count(part.text) <= size or end == start + 1
        reached = end
    assert reached == len(text)


@pytest.mark.parametrize("overlap", [1, 3, 8])
def test_neighbours_share_as_many_tokens_as_asked_for(overlap):
    chosen = random.Random(overlap)
    text = "".join(chosen.choice(["one ", "two ", "three. ", "four, "]) for _ in range(500))
    parts = split(Document("a", text), HashingEncoder(16), Split(16, overlap))
    for (_, end), (start, _) in zip(spans(parts), spans(parts)[1:], strict=False):
        shared = len(HashingEncoder(16).tokenize(text[start:end]))
        assert overlap <= shared <= overlap + 16 // 8


@pytest.mark.parametrize(
    "text",
    [
        words(20_000),
        "x" * 200_000,
        " " * 200_000 + words(30),
        "." * 200_000,
        words(9) + "\n" * 99_999 + words(9),
        "我。" * 50_000,
    ],
    ids=["words", "one word", "blanks first", "dots", "blanks between", "chinese"],
)
def test_cutting_takes_time_in_proportion_to_the_text(text):
    encoder = Reads(256)
    split(Document("a", text), encoder)
    assert encoder.tokenized < 8 * len(text) + 8 * 256, "each character is tokenised a few times, not once a passage"


@pytest.fixture(scope="module")
def mini():
    return MiniEncoder(max_length=32)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return BGEM3Encoder(checkpoints.tiny_xlm_roberta(tmp_path_factory.mktemp("tiny") / "model"), max_length=32)


LONG = (
    "BGE M3 is an embedding model. It supports dense retrieval, lexical matching and multi-vector interaction!\n\n"
    "Überraschungsmoment: ﬁne caféś e\u0301 ½ — “quoted.” And so on… 我喜欢吃苹果。你呢？ｆｕｌｌ　width "
    "averyveryveryveryverylongwordwithoutanyblankinittobeseenorheard https://example.org/a/b?c=d&e=f 1,234.5 "
) * 6


@pytest.mark.filterwarnings("ignore::m3retriever.UnknownTextWarning")
@pytest.mark.parametrize("name", ["mini", "tiny"])
@pytest.mark.parametrize("how", [Split(), Split(overlap=0), Split(7), Split(11, 5), Split(30, 15), Split(1)], ids=str)
def test_what_a_real_tokenizer_is_given_is_never_cut(name, how, request):
    encoder = request.getfixturevalue(name)
    tokenizer = Tokenizer.from_str(encoder._loop.tokenizing.tokenizer.to_str())
    tokenizer.no_truncation()
    with pytest.warns(TruncationWarning):
        encoder.encode_documents([LONG])
    parts = split(Document("a", LONG), encoder, how)
    assert len(parts) > 10
    lengths = [len(tokenizer.encode(part.text).ids) - 2 for part in parts]
    single = [len(part.text) == 1 for part in parts]
    assert all(length <= how.tokens(encoder)[0] or one for length, one in zip(lengths, single, strict=True))
    assert max(lengths) <= 30
    reached = 0
    for part, (start, end) in zip(parts, spans(parts), strict=True):
        assert start <= reached < end
        assert part.text == LONG[start:end]
        reached = end
    assert reached == len(LONG)
    encoder.encode_documents([part.text for part in parts])


def test_a_text_that_fills_a_real_model_to_the_last_token_stays_itself(mini):
    assert len(split(Document("a", "fox " * 30), mini)) == 1
    mini.encode_documents(["fox " * 30])
    assert len(split(Document("a", "fox " * 31), mini)) == 2
    with pytest.warns(TruncationWarning):
        mini.encode_documents(["fox " * 31])


class WithoutTokens:
    """An encoder that is nothing but the Protocol."""

    name, dim = "plain", 16
    encode_documents = HashingEncoder(16).encode_documents
    encode_queries = HashingEncoder(16).encode_queries


def test_what_cannot_be_cut_is_refused_by_name():
    document = Document("a", "text")
    with pytest.raises(InvalidArgumentError, match="WithoutTokens has no tokenize"):
        split(document, WithoutTokens(), SMALL)
    with pytest.raises(InvalidArgumentError, match=r"HashingEncoder has no max_length.*Split\(size=...\)"):
        split(document, HashingEncoder())
    with pytest.raises(InvalidArgumentError, match="size must be from 1 to 8, what Reads reads of a text; got 9"):
        split(document, Reads(10), Split(9))
    with pytest.raises(InvalidArgumentError, match="size must be from 1 to 0"):
        split(document, Reads(2))
    with pytest.raises(InvalidArgumentError, match="overlap must be at most half of the size, 4; got 5"):
        split(document, Reads(10), Split(overlap=5))
    for wrong in ({"size": 0}, {"size": 2.5}, {"size": True}, {"overlap": -1}, {"overlap": "2"}):
        with pytest.raises(InvalidArgumentError, match=r"must be an integer >= 1"):
            Split(**wrong)
    with pytest.raises(InvalidArgumentError, match="split must be True, False or a Split; got 8"):
        M3Index(Reads(), MemoryStore()).add([document], split=8)


@pytest.mark.parametrize("key", RESERVED)
def test_metadata_that_passages_need_are_refused_by_name(key):
    with pytest.raises(InvalidDocumentError, match=f"document 'a': the metadata key '{key}'"):
        split(Document("a", "short", {key: 1}), Reads())
    assert len(split(Document("a", "short", {key: None}), Reads())) == 1


def test_only_what_was_cut_here_is_a_passage():
    [first, *_] = split(Document("a#3", words(20)), Reads())
    assert parent_of(first) == "a#3"
    assert parent_of(Document("a#3", "", {"passage_of": "a", "passage": 3})) is None
    assert parent_of(Document("b#1", "", first.metadata)) is None
    assert parent_of(Document("a#3#1", "", {**first.metadata, "passage": "1"})) is None
    assert parent_of(Document("a#3", "")) is None


# -- adding ----------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "chroma"])
def index(request, tmp_path):
    store = MemoryStore() if request.param == "memory" else ChromaStore(tmp_path)
    with M3Index(Reads(10), store) as opened:
        yield opened


def test_passages_stand_in_the_place_of_a_long_document(index):
    done = index.add([Document("long", words(20), {"lang": "en"}), Document("short", "w19")], split=True)
    assert (done.new, done.replaced, done.unchanged) == (2, 0, 0)
    assert index.ids() == ["long#1", "long#2", "long#3", "short"]
    assert index.get(["long#2"]) == [split(Document("long", words(20), {"lang": "en"}), index.encoder)[1]]
    assert [hit.document.id for hit in index.search("w18", mode="sparse")] == ["long#3"], "nothing is cut off"
    assert index.ids({"lang": "en"}) == ["long#1", "long#2", "long#3"]
    assert parents_of(index) == {f"long#{number}": "long" for number in (1, 2, 3)}


def test_what_is_here_already_is_not_encoded_again(index):
    documents = [Document("long", words(20)), Document("short", "w19")]
    index.add(documents, split=True)
    index.encoder.encoded.clear()
    done = index.add(documents, split=True)
    assert (done.new, done.replaced, done.unchanged) == (0, 0, 2)
    assert index.encoder.encoded == []
    changed = Document("long", words(19) + " other")
    done = index.add([changed, documents[1]], split=True)
    assert (done.new, done.replaced, done.unchanged) == (0, 1, 1)
    assert index.encoder.encoded == [split(changed, index.encoder)[-1].text], "only the passage that changed"


@pytest.mark.parametrize(("before", "after"), [(20, 12), (12, 20), (20, 3), (3, 20), (3, 4)])
def test_an_earlier_version_goes_whether_it_was_split_or_not(index, before, after):
    other = Document("lon", words(20, "v"))
    index.add([other, Document("long", words(before))], split=True)
    done = index.add([Document("long", words(after, "x"))], split=True)
    assert (done.new, done.replaced, done.unchanged) == (0, 1, 0)
    new = split(Document("long", words(after, "x")), index.encoder)
    assert index.ids() == sorted(part.id for part in [*split(other, index.encoder), *new])
    assert index.get([part.id for part in new]) == new


def test_a_long_document_that_was_added_whole_is_replaced_by_its_passages(index):
    index.add([Document("long", words(20))])
    done = index.add([Document("long", words(20))], split=True)
    assert (done.new, done.replaced) == (0, 1)
    assert index.ids() == ["long#1", "long#2", "long#3"]
    index.add([Document("long", words(20))])
    assert index.ids() == ["long", "long#1", "long#2", "long#3"], "without split, passages stay"
    done = index.add([Document("long", words(20))], split=True)
    assert (done.replaced, done.unchanged) == (1, 0), "something went"
    assert index.ids() == ["long#1", "long#2", "long#3"]


def test_other_documents_with_like_ids_and_metadata_stay(index):
    theirs = [
        Document("long#9", "not a passage"),
        Document("long#1#1", "nor this"),
        Document("own", "chapter", {"passage_of": "long", "passage": 7}),
        Document("place", "chapter", {"passage_of": "long", "passage": 1, "passage_start": 0, "passage_end": 7}),
    ]
    index.add(theirs)
    index.add([Document("long", words(20))], split=True)
    index.add([Document("long", "short now")], split=True)
    assert index.ids() == ["long", "long#1#1", "long#9", "own", "place"]
    assert parents_of(index) == {}
    with pytest.raises(InvalidDocumentError, match="'passage_of'"):
        index.add([theirs[2]], split=True)


def test_an_id_that_is_taken_is_refused_before_anything_changes(index):
    index.add([Document("long#2", "mine")])
    long = Document("long", words(20))
    with pytest.raises(InvalidDocumentError, match="'long#2' is that of a passage of 'long', and of a document in this"):
        index.add([Document("first", "one"), long], split=True)
    assert index.ids() == ["long#2"]
    index.delete(["long#2"])
    with pytest.raises(InvalidDocumentError, match="the id 'long#2' is that of a document, and of a passage of another"):
        index.add([Document("long#2", "mine"), long], split=True)
    assert index.ids() == []
    index.add([long], split=True)
    for how in (False, True):
        with pytest.raises(InvalidDocumentError, match="is that of a document, and of a passage of 'long' in this index"):
            index.add([Document("long#2", "mine")], split=how)
    assert index.get(["long#2"])[0].metadata["passage_of"] == "long"
    again = index.get(index.ids())
    assert index.add(again).unchanged == 3, "passages themselves can be added again"


class Stops(Reads):
    """Fails after so many calls."""

    left = 1_000_000

    def encode_documents(self, texts, *, progress=False):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().encode_documents(texts)


class ForgetsToDelete(M3Index):
    """Stops before anything is removed, as long as it is told to."""

    stopping = False

    def delete(self, ids, *, skip_unknown=False):
        if self.stopping:
            raise KeyboardInterrupt
        super().delete(ids, skip_unknown=skip_unknown)


@pytest.mark.parametrize("kept", ["memory", "chroma"])
def test_a_call_that_was_interrupted_is_repaired_by_repeating_it(kept, tmp_path):
    store = MemoryStore() if kept == "memory" else ChromaStore(tmp_path)
    old, new = Document("long", words(6000)), Document("long", words(2500, "x"))
    with ForgetsToDelete(Stops(10), store) as index:
        index.add([old], split=True)
        index.encoder.left = 1  # of two batches
        with pytest.raises(KeyboardInterrupt):
            index.add([new], split=True)
        wanted = {part.id: part for part in split(new, index.encoder)}
        held = index.get(index.ids())
        assert any(document == wanted.get(document.id) for document in held), "one batch was stored"
        assert any(document != wanted.get(document.id) for document in held)
        index.encoder.left, index.stopping = 1_000_000, True
        with pytest.raises(KeyboardInterrupt):
            index.add([new], split=True)
        assert len(index) > len(wanted)
        index.stopping = False
        assert index.add([new], split=True).replaced == 1
        assert {document.id: document for document in index.get(index.ids())} == wanted


def test_two_versions_added_at_once_do_not_mix():
    for _ in range(5):
        index = M3Index(Reads(10), MemoryStore())
        versions = [Document("long", words(count, name)) for count, name in ((3000, "x"), (5000, "y"))]
        threads = [threading.Thread(target=index.add, args=([version],), kwargs={"split": True}) for version in versions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        held = {document.id: document for document in index.get(index.ids())}
        assert held in [{part.id: part for part in split(version, index.encoder)} for version in versions]


def test_passages_are_removed_by_their_ids_or_all_by_their_documents(index):
    index.add([Document("long", words(20)), Document("other", words(20, "v"))], split=True)
    index.delete(["long#2"])
    assert "long#1" in index.ids()
    with pytest.raises(KeyError):
        index.delete(["long"])
    assert index.delete_where({"passage_of": "long"}) == 2
    assert index.ids() == ["other#1", "other#2", "other#3"]
    index.add([Document("other", words(20, "v"))], split=True)
    index.delete(["other#2"])
    done = index.add([Document("other", words(20, "v"))], split=True)
    assert (done.replaced, index.ids()) == (1, ["other#1", "other#2", "other#3"]), "what was lost comes back"


def test_a_store_that_does_not_list_its_ids_is_told_apart():
    class Forgetful(MemoryStore):
        ids = None

    index = M3Index(Reads(10), Forgetful())
    with pytest.raises(InvalidArgumentError, match="Forgetful does not list its ids"):
        index.add([Document("long", words(20))], split=True)


# -- finding ---------------------------------------------------------------------------------------


def hit(id, score, of=None, number=1, text="text"):
    place = {} if of is None else {"passage_of": of, "passage": number, "passage_start": 0, "passage_end": len(text)}
    return Hit(Document(id, text, place), score, {"dense": score}, {"dense": 1}, frozenset({"dense"}))


def test_passages_of_one_document_are_one_hit():
    hits = [hit("a#1", 0.5, "a", 1), hit("b", 0.4), hit("a#3", 0.9, "a", 3), hit("a#2", 0.1, "a", 2), hit("c#1", 0.4, "c")]
    found = document_hits(hits)
    assert [(one.id, one.score) for one in found] == [("a", 0.9), ("b", 0.4), ("c", 0.4)]
    assert found[0].best.document.id == "a#3"
    assert [one.document.id for one in found[0].passages] == ["a#3", "a#1", "a#2"]
    mean = document_hits(hits, aggregate="mean", top=2)
    assert [(one.id, one.score) for one in mean] == [("a", pytest.approx(0.7)), ("b", 0.4), ("c", 0.4)]
    assert document_hits(hits, aggregate="mean", top=9)[1].score == pytest.approx(0.4), "a has three: 0.5, ties by id"
    assert [one.id for one in document_hits(hits, aggregate="mean", top=3)] == ["a", "b", "c"]
    ties = [hit("b#1", 1.0, "b"), hit("b#2", 0.0, "b", 2), hit("a", 0.5)]
    assert [one.id for one in document_hits(ties, aggregate="mean")] == ["a", "b"]
    assert document_hits([]) == []


SCORES = st.dictionaries(
    st.tuples(st.sampled_from("abcde"), st.integers(1, 6)), st.sampled_from([-0.5, 0.0, 0.1, 0.25, 0.7, 0.9])
)


@given(SCORES, st.sampled_from(AGGREGATIONS), st.integers(1, 5), st.randoms())
def test_aggregation_agrees_with_its_definition_in_any_order(scores, aggregate, top, order):
    hits = [hit(f"{of}#{number}", score, of, number) for (of, number), score in scores.items()]
    order.shuffle(hits)
    found = document_hits(hits, aggregate=aggregate, top=top)
    ranked = [(-one.score, one.id) for one in found]
    wanted = {}
    for of in {of for of, _ in scores}:
        own = sorted((score for (one, _), score in scores.items() if one == of), reverse=True)
        wanted[of] = own[0] if aggregate == "best" else sum(own[:top]) / len(own[:top])
    assert {one.id: one.score for one in found} == pytest.approx(wanted)
    assert ranked == sorted(ranked)


def test_an_aggregation_that_there_is_not_is_refused():
    for name, wrong in (("aggregate", {"aggregate": "sum"}), ("top", {"top": 0})):
        with pytest.raises(InvalidArgumentError, match=f"{name} must be"):
            document_hits([], **wrong)
        with pytest.raises(InvalidArgumentError, match=f"{name} must be"):
            M3Index(Reads(), MemoryStore()).search_documents("q", **wrong)


def test_a_hit_names_its_document_and_the_characters_of_its_best_passage(index):
    text = words(20)
    index.add([Document("long", text), Document("short", "w18 alone")], split=True)
    found = index.search_documents("w18")
    assert {one.id for one in found} == {"long", "short"}
    [long] = [one for one in found if one.id == "long"]
    assert long.best.document.id == "long#3"
    assert text[long.start : long.end] == long.best.document.text
    assert {one.document.id for one in long.passages} == {"long#1", "long#2", "long#3"}
    [short] = [one for one in found if one.id == "short"]
    assert (short.start, short.end, short.best.document.text) == (0, 9, "w18 alone")
    assert index.search_documents("w18", 1) == found[:1]
    assert [one.id for one in index.search_documents("w3", mode="sparse")] == ["long"]
    assert index.search_documents("w18", where={"passage_of": {"$eq": "nobody"}}) == []
    assert asyncio.run(index.asearch_documents("w18", aggregate="mean")) == index.search_documents("w18", aggregate="mean")
    with pytest.raises(InvalidArgumentError, match="k must be an integer >= 1"):
        index.search_documents("w18", 0)


def test_a_document_with_many_passages_does_not_crowd_out_the_others():
    profile = Profile(depth=2)
    index = M3Index(Reads(10), MemoryStore(), profile)
    others = [Document(f"d{number}", "a fox b c d") for number in range(5)]
    index.add([Document("book", "fox " * 400), *others], split=True)
    assert len({hit.document.metadata.get("passage_of") for hit in index.search("fox", 10)}) == 1
    assert [one.id for one in index.search_documents("fox", 3)] == ["book", "d0", "d1"]
    assert len(index.search_documents("fox", 50)) == 6
    assert [one.id for one in index.search_documents("fox", 3, profile=Profile(depth=500))] == ["book", "d0", "d1"]


@pytest.mark.parametrize("aggregate", AGGREGATIONS)
def test_documents_rank_as_if_every_passage_had_been_looked_at(aggregate):
    chosen = random.Random(5)
    texts = [" ".join(f"w{chosen.randrange(40)}" for _ in range(chosen.randrange(1, 60))) for _ in range(25)]
    documents = [Document(f"d{row}", text) for row, text in enumerate(texts)]
    index = M3Index(Reads(10), MemoryStore())
    index.add(documents, split=True)
    for query in ("w1 w2 w3", "w7", "w39 w38"):
        everything = index.search(query, 10_000)
        assert len(everything) == len(index)
        wanted = document_hits(everything, aggregate=aggregate)
        assert index.search_documents(query, 7, aggregate=aggregate) == wanted[:7]


def test_the_end_of_a_long_text_is_found_with_the_mini_model(tmp_path):
    filler = "The committee met on Tuesday and discussed the seating plan at length. " * 80
    documents = [
        Document("minutes", filler + "Finally, octopuses have three hearts and blue blood."),
        Document("zoo", "The zoo opens at nine and closes at six."),
    ]
    with M3Index(MiniEncoder(), ChromaStore(tmp_path)) as index:
        index.add(documents, split=True)
        assert index.encoder.truncated == 0
        [first, _] = index.search_documents("How many hearts does an octopus have?", 2)
        assert first.id == "minutes"
        assert "three hearts" in documents[0].text[first.start : first.end]
