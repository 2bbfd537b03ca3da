"""M3Index: what goes in comes out, ranked and explained; the edges are defined."""

import asyncio
import threading
import time

import chromadb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3retriever import (
    MODES,
    ChromaStore,
    Document,
    EncoderMismatchError,
    HashingEncoder,
    InvalidArgumentError,
    InvalidDocumentError,
    InvalidFilterError,
    M3Index,
    MemoryStore,
    Profile,
    ProfileError,
    StoreError,
    UnknownDocumentError,
    Weights,
    save_profile,
)
from m3retriever.ranking import SEARCH_MODES

DOCUMENTS = [
    Document("fox", "the red fox jumps", {"tenant": "a", "page": 1}),
    Document("whale", "a blue whale sings", {"tenant": "b", "page": 2}),
    Document("wine", "red red wine", {"tenant": "a", "page": 3}),
    Document("empty", "", {"tenant": "b"}),
]


class CountingEncoder(HashingEncoder):
    """Counts the texts it is given: a real encoder, with a tally."""

    def __init__(self):
        super().__init__()
        self.documents, self.queries = [], []

    def encode_documents(self, texts, *, progress=False):
        self.documents.extend(texts)
        return super().encode_documents(texts)

    def encode_queries(self, texts):
        self.queries.extend(texts)
        return super().encode_documents(texts)


@pytest.fixture(params=["memory", "chroma"])
def index(request, tmp_path):
    store = MemoryStore() if request.param == "memory" else ChromaStore(tmp_path)
    with M3Index(CountingEncoder(), store) as opened:
        opened.add(DOCUMENTS)
        yield opened


def ids(hits):
    return [hit.document.id for hit in hits]


def test_a_hit_carries_every_score_and_its_parts_sum_to_the_score(index):
    hits = index.search("red fox")
    assert ids(hits)[:2] == ["fox", "wine"]
    for hit in hits:
        parts = [weight * hit.scores[mode] for weight, mode in zip((0.4, 0.2, 0.4), MODES, strict=True)]
        assert hit.score == pytest.approx(sum(parts), abs=1e-6)
        assert set(hit.scores) == set(hit.ranks) == set(MODES)
    assert hits[0].ranks == {"dense": 1, "sparse": 1, "colbert": 1}
    assert hits[0].found_by == {"dense", "sparse"}
    assert hits[0].document == DOCUMENTS[0]


def test_a_mode_ranks_by_its_own_score_and_hybrid_by_the_weights(index):
    for mode in MODES:
        hits = index.search("red wine", mode=mode)
        assert [hit.score for hit in hits] == sorted((hit.scores[mode] for hit in hits), reverse=True)
        assert [hit.ranks[mode] for hit in hits] == list(range(1, len(hits) + 1))
    only_sparse = index.search("red wine", weights=(0, 1, 0))
    assert [hit.score for hit in only_sparse] == [pytest.approx(hit.scores["sparse"]) for hit in only_sparse]


def test_sparse_mode_returns_only_what_shares_a_token(index):
    assert ids(index.search("whale", mode="sparse")) == ["whale"]
    assert index.search("nothing shared", mode="sparse") == []


def test_ties_break_by_id():
    index = M3Index(HashingEncoder(), MemoryStore())
    index.add([Document(id, "same text") for id in ("c", "a", "b", "d")])
    for mode in SEARCH_MODES:
        assert ids(index.search("same text", 3, mode=mode)) == ["a", "b", "c"]


def test_k_may_be_larger_than_the_index_and_an_empty_index_has_no_hits(index):
    assert len(index.search("red fox", 1000)) == len(DOCUMENTS)
    assert M3Index(HashingEncoder(), MemoryStore()).search("anything") == []


def test_k_beyond_the_profiles_depth_widens_the_search():
    index = M3Index(HashingEncoder(), MemoryStore(), Profile(depth=2))
    index.add([Document(f"{row:02}", f"w{row}") for row in range(30)])
    assert len(index.search("w1", 25)) == 25
    assert len(index.score("w1")) <= 4


@pytest.mark.parametrize("mode", SEARCH_MODES)
def test_a_filter_holds_in_every_mode(index, mode):
    for tenant, allowed in (("a", {"fox", "wine"}), ("b", {"whale", "empty"}), ("nobody", set())):
        found = ids(index.search("red fox whale", mode=mode, where={"tenant": tenant}))
        assert set(found) <= allowed
    assert set(ids(index.search("red fox", where={"page": {"$gt": 1}}))) == {"whale", "wine"}


def test_a_document_whose_metadata_changes_during_a_search_does_not_slip_through(tmp_path):
    index = M3Index(HashingEncoder(), ChromaStore(tmp_path))
    index.add(DOCUMENTS)
    search = index.store.search

    def and_then_it_changes(query, *, depth, where=None):
        scores = search(query, depth=depth, where=where)
        index.add([Document("fox", "the red fox jumps", {"tenant": "b"})])
        return scores

    index.store.search = and_then_it_changes
    assert ids(index.search("red fox", where={"tenant": "a"})) == ["wine"]


def test_the_threshold_is_the_lowest_score_that_counts(index):
    best, second = index.search("red fox", 2)
    assert ids(index.search("red fox", threshold=second.score)) == ["fox", "wine"]
    assert ids(index.search("red fox", threshold=best.score)) == ["fox"]
    assert index.search("red fox", threshold=best.score + 1e-9) == []


def test_the_profile_gives_weights_fusion_and_thresholds():
    profile = Profile(weights=Weights(0, 0, 1), thresholds={"hybrid": 0.9})
    index = M3Index(HashingEncoder(), MemoryStore(), profile)
    index.add(DOCUMENTS)
    hits = index.search("red")
    assert hits[0].score == pytest.approx(hits[0].scores["colbert"])
    assert ids(index.search("the red fox jumps", threshold="profile")) == ["fox"]
    assert len(index.search("the red fox jumps", threshold="profile", mode="dense")) == 4, "no threshold for dense"
    by_rank = M3Index(HashingEncoder(), index.store, Profile(fusion="rrf"))
    assert by_rank.search("red fox")[0].score == pytest.approx(1 / 61)


def test_a_profile_of_another_model_is_refused():
    with pytest.raises(ProfileError, match="fitted on 'bge-m3-x', not on 'hashing-256'"):
        M3Index(HashingEncoder(), MemoryStore(), Profile(model="bge-m3-x"))


def test_adding_again_replaces_what_changed_and_skips_what_did_not(index):
    encoded = len(index.encoder.documents)
    changed = Document("fox", "a grey fox", {"page": 9})
    done = index.add([changed, *DOCUMENTS[1:], Document("new", "new text")])
    assert (done.new, done.replaced, done.unchanged) == (1, 1, 3)
    assert index.encoder.documents[encoded:] == ["a grey fox", "new text"]
    assert index.get(["fox"]) == [changed]
    assert ids(index.search("grey", mode="sparse")) == ["fox"]
    assert "fox" not in ids(index.search("jumps", mode="sparse"))


def test_a_change_of_type_in_metadata_is_a_change(index):
    assert index.add([Document("fox", "the red fox jumps", {"tenant": "a", "page": 1.0})]).replaced == 1
    assert type(index.get(["fox"])[0].metadata["page"]) is float


@pytest.mark.parametrize(
    ("first", "second"), [([1, 0], [True, False]), ([1, 2], [1.0, 2.0]), (["1"], [1]), (1, True), ([1], 1)]
)
def test_a_change_of_type_within_a_list_is_a_change_too(index, first, second):
    assert index.add([Document("typed", "x", {"k": first})]).new == 1
    assert index.add([Document("typed", "x", {"k": second})]).replaced == 1
    assert repr(index.get(["typed"])[0].metadata["k"]) == repr(second)
    assert index.add([Document("typed", "x", {"k": second, "none": None})]).unchanged == 1
    if isinstance(second, list):
        assert index.ids({"k": {"$contains": second[0]}}) == ["typed"]
        assert index.ids({"k": {"$contains": first[0] if isinstance(first, list) else first}}) in (
            [],
            ["typed"][: first == [1]],
        )


def test_deleting_forgets_in_every_mode(index):
    index.delete(["fox"])
    assert len(index) == 3
    for mode in SEARCH_MODES:
        assert "fox" not in ids(index.search("the red fox jumps", mode=mode))
    index.delete([])
    assert len(index) == 3


def test_unknown_ids_are_errors_that_change_nothing(index):
    for call in (index.get, index.delete, index.vectors):
        with pytest.raises(UnknownDocumentError, match=r"not in the store: 'nobody' \(1 of 2 asked for\)"):
            call(["fox", "nobody"])
    with pytest.raises(KeyError):
        index.explain("red", "nobody")
    assert len(index) == 4


def test_search_many_equals_search_and_encodes_once(index):
    queries = ["red fox", "whale", "wine"]
    together = index.search_many(queries, 3)
    assert index.encoder.queries == queries
    for query, hits in zip(queries, together, strict=True):
        assert [(hit.document.id, hit.score) for hit in index.search(query, 3)] == [
            (hit.document.id, hit.score) for hit in hits
        ]
    assert index.search_many([]) == []


def test_score_gives_raw_scores_of_candidates_or_of_any_document(index):
    scores = index.score("red fox")
    one = index.score("red fox", ids=["whale"])
    assert one.ids == ("whale",)
    np.testing.assert_array_equal(one.values[0], scores.values[scores.ids.index("whale")])


def test_score_leaves_out_ids_that_do_not_pass_the_filter(index):
    everything = ["whale", "wine", "fox", "empty"]
    assert index.score("red", ids=everything).ids == tuple(everything)
    assert index.score("red", ids=everything, where={"tenant": "a"}).ids == ("wine", "fox")
    assert index.score("red", ids=everything, where_document={"$contains": "sings"}).ids == ("whale",)
    assert index.score("red", ids=["whale"], where={"tenant": "a"}).ids == ()
    with pytest.raises(UnknownDocumentError, match="'nobody'"):
        index.score("red", ids=["fox", "nobody"], where={"tenant": "a"})


def test_bad_arguments_are_one_clear_error(index):
    for call, kind, message in [
        (lambda: index.search("x", 0), InvalidArgumentError, "k must be an integer >= 1; got 0"),
        (lambda: index.search("x", True), InvalidArgumentError, "k must be an integer"),
        (lambda: index.search("x", mode="bm25"), InvalidArgumentError, "mode must be one of hybrid, dense, sparse, colbert"),
        (lambda: index.search("x", weights=(0, 0, 0)), InvalidArgumentError, "not all 0"),
        (lambda: index.search("x", weights=(1, 1)), InvalidArgumentError, "three numbers"),
        (lambda: index.search("x", mode="dense", weights=(1, 1, 1)), InvalidArgumentError, "weights go with mode 'hybrid'"),
        (lambda: index.search("x", threshold=float("nan")), InvalidArgumentError, "threshold must be a finite number"),
        (lambda: index.search("x", threshold="high"), InvalidArgumentError, "'p>=P' or 'fpr<=F' .* got 'high'"),
        (lambda: index.search(None), InvalidArgumentError, "a query is a str"),
        (lambda: index.search_many("x"), InvalidArgumentError, "queries are a list of them; got 'x'"),
        (lambda: index.search("x", where={}), InvalidFilterError, "for no filter pass None"),
        (lambda: index.get("fox"), InvalidArgumentError, r"write \['fox'\]"),
        (lambda: index.get([1]), InvalidArgumentError, "ids is a list of str; got 1"),
        (lambda: index.explain("x", 5), InvalidArgumentError, "an id is a str; got 5"),
        (lambda: index.get(["\ud800"]), UnknownDocumentError, "not in the store"),
        (lambda: index.add(Document("a", "b")), InvalidArgumentError, r"write \[document\]"),
        (lambda: index.search("x", threshold=[1]), InvalidArgumentError, "threshold must be a finite number"),
        (lambda: M3Index(index.encoder, index.store, Profile(fusion="no")), InvalidArgumentError, "fusion must be one of"),
        (lambda: index.add([Document("a", "x"), Document("a", "y")]), InvalidDocumentError, "must be unique within one call"),
    ]:
        with pytest.raises(kind, match=message):
            call()
    assert len(index) == 4


def test_a_bad_document_far_down_leaves_the_whole_call_undone(index):
    documents = [Document(f"n{row}", "x") for row in range(600)] + [Document("bad", "x", {"k": object()})]
    with pytest.raises(InvalidDocumentError, match="document 'bad', metadata key 'k'"):
        index.add(documents)
    assert len(index) == 4


def test_odd_queries_are_answered(index):
    for query in ("", "   ", "\x00", "\ud800 red", "red " * 5000, "🦊"):
        assert len(index.search(query, 2)) == 2


def test_explain_says_which_stage_cut_a_document(index):
    assert index.explain("red fox", "fox").stage == "hit"
    assert index.explain("red fox", "wine", k=1).stage == "below k"
    assert index.explain("red fox", "wine", threshold=0.99).stage == "below threshold"
    assert index.explain("red fox", "whale", where={"tenant": "a"}).stage == "filtered out"
    assert index.explain("red fox", "whale", mode="sparse").stage == "not a candidate"
    narrow = M3Index(index.encoder, index.store, Profile(depth=1))
    lost = narrow.explain("red fox jumps", "whale", k=1)
    assert (lost.stage, lost.rank, lost.ranks) == ("not a candidate", None, {})
    assert lost.deeper is not None
    assert f"depth to {lost.deeper.depth}" in lost.advice
    wider = M3Index(index.encoder, index.store, Profile(depth=lost.deeper.depth))
    assert wider.explain("red fox jumps", "whale", k=1).ranks["dense"] == lost.deeper.ranks["dense"]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 8), st.integers(0, 79))
def test_the_depth_that_is_named_brings_the_document_in_and_one_less_does_not(seed, depth, chosen):
    random = np.random.default_rng(seed)
    words = [f"w{number}" for number in range(30)]
    texts = [" ".join(random.choice(words, 4)) for _ in range(80)]
    index = M3Index(HashingEncoder(), MemoryStore(), Profile(depth=depth))
    index.add([Document(str(number), text) for number, text in enumerate(texts)])
    query = " ".join(random.choice(words, 3))
    lost = index.explain(query, str(chosen), k=1)
    if lost.stage != "not a candidate":
        assert lost.deeper is None
        return
    assert lost.deeper is not None, "80 documents are all found in the end"
    index.profile = Profile(depth=lost.deeper.depth)
    assert index.explain(query, str(chosen), k=1).stage != "not a candidate"
    index.profile = Profile(depth=lost.deeper.depth - 1)
    assert index.explain(query, str(chosen), k=1).stage == "not a candidate"


def test_a_lost_document_has_the_score_it_would_have_among_the_candidates():
    by_rank = M3Index(HashingEncoder(), MemoryStore(), Profile(fusion="rrf", depth=1))
    by_rank.add(DOCUMENTS)
    lost = by_rank.explain("red fox jumps", "whale", k=1)
    assert lost.stage == "not a candidate"
    assert lost.score < lost.best


def test_explain_agrees_with_search(index):
    hits = index.search("red fox")
    for place, hit in enumerate(hits, start=1):
        explained = index.explain("red fox", hit.document.id)
        assert (explained.rank, explained.score, explained.scores) == (place, hit.score, hit.scores)
        assert explained.ranks == hit.ranks
        assert sum(explained.contributions.values()) == pytest.approx(hit.score)
        assert sum(token.product for token in explained.shared_tokens) == pytest.approx(hit.scores["sparse"], abs=1e-6)
    assert [token.token for token in index.explain("red fox", "wine").shared_tokens] == ["red"]
    assert explained.best == hits[0].score


def test_async_twins_equal_their_calls_and_leave_the_loop_free(index):
    class SlowEncoder(HashingEncoder):
        def encode_queries(self, texts):
            time.sleep(0.3)
            return super().encode_queries(texts)

    slow = M3Index(SlowEncoder(), index.store)

    async def work():
        beats = 0

        async def heart():
            nonlocal beats
            while True:
                await asyncio.sleep(0.01)
                beats += 1

        beating = asyncio.create_task(heart())
        hits = await slow.asearch("red fox", 2, where={"tenant": "a"})
        many = await slow.asearch_many(["red fox"], 2)
        scores = await slow.ascore("red fox", ids=["fox"])
        explained = await slow.aexplain("red fox", "fox", k=1)
        added = await slow.aadd([Document("later", "x")])
        got = await slow.aget(["later"])
        assert len(await slow.avectors(["later"])) == 1
        await slow.adelete(["later"])
        beating.cancel()
        return beats, hits, many, scores, explained, added, got

    beats, hits, many, scores, explained, added, got = asyncio.run(work())
    assert beats > 20
    assert ids(hits) == ["fox", "wine"]
    assert len(many[0]) == 2
    assert scores.ids == ("fox",)
    assert (explained.stage, added.new, got[0].id, len(index)) == ("hit", 1, "later", 4)


def test_open_remembers_the_model_and_takes_the_folders_profile(tmp_path):
    with M3Index.open(tmp_path, model="hashing") as index:
        index.add(DOCUMENTS)
    with M3Index.open(tmp_path) as index:
        assert index.encoder.name == "hashing-256"
        before = index.search("red fox")
    save_profile(Profile(weights=Weights(0, 1, 0)), tmp_path / "profile.toml")
    with M3Index.open(tmp_path) as index:
        assert index.profile.weights == Weights(0, 1, 0)
        assert index.search("red fox")[0].score == pytest.approx(before[0].scores["sparse"])
    with pytest.raises(EncoderMismatchError, match="made with the model 'hashing-256'; got 'hashing-64'"):
        M3Index.open(tmp_path, model=HashingEncoder(64))
    with M3Index.open(tmp_path, profile=Profile()) as index:
        assert [hit.score for hit in index.search("red fox")] == [hit.score for hit in before]


def test_open_encodes_what_another_client_put_into_chroma(tmp_path, caplog):
    import chromadb
    from chromadb.config import Settings

    with M3Index.open(tmp_path, model="hashing") as index:
        index.add(DOCUMENTS)
    client = chromadb.PersistentClient(str(tmp_path), settings=Settings(anonymized_telemetry=False))
    encoder = HashingEncoder()
    collection = client.get_collection("m3retriever")
    collection.add(ids=["other"], documents=["a green frog"], embeddings=encoder.encode_documents(["a green frog"]).dense)
    with M3Index.open(tmp_path) as index:
        assert "1 documents in Chroma have no vectors in every mode yet" in caplog.text
        assert ids(index.search("green frog", 1)) == ["other"]
        assert index.search("green frog", 1)[0].scores["colbert"] > 0.9
        assert not index.store._lock.held, "reading on must not keep others from writing"


def test_open_encodes_anew_what_another_client_changed(tmp_path):
    import chromadb
    from chromadb.config import Settings

    with M3Index.open(tmp_path, model="hashing") as index:
        index.add(DOCUMENTS)
    client = chromadb.PersistentClient(str(tmp_path), settings=Settings(anonymized_telemetry=False))
    dense = HashingEncoder().encode_documents(["a green frog"]).dense
    client.get_collection("m3retriever").update(ids=["fox"], documents=["a green frog"], embeddings=dense)
    with M3Index.open(tmp_path) as index:
        assert ids(index.search("green frog", mode="sparse")) == ["fox"]
        assert "fox" not in ids(index.search("jumps", mode="sparse"))


def test_opening_during_another_write_neither_encodes_nor_undoes_it(tmp_path):
    with M3Index.open(tmp_path, model="hashing") as index:
        index.add(DOCUMENTS)
    writer, opened = M3Index.open(tmp_path), []
    publish = writer.store._payload.publish

    def slowly(*staged):
        thread = threading.Thread(target=lambda: opened.append(M3Index.open(tmp_path, model=CountingEncoder())))
        thread.start()
        time.sleep(0.5)  # the reader opens between Chroma's part of the write and ours
        publish(*staged)
        opened.append(thread)

    writer.store._payload.publish = slowly
    writer.add([Document("new", "green frog")])
    del writer.store._payload.publish
    writer.delete(["new"])
    for one in opened:
        if isinstance(one, threading.Thread):
            one.join()
    [reader] = [one for one in opened if isinstance(one, M3Index)]
    assert reader.encoder.documents == [], "what the writer is about to publish is not missing"
    assert len(reader) == len(writer) == len(DOCUMENTS)
    assert "new" not in ids(reader.search("green frog"))
    reader.close()
    writer.close()


@pytest.mark.parametrize("path", [None, 5, b"index", "", "a\0b", "lone \ud800"], ids=ascii)
def test_a_path_that_names_no_folder_is_refused_in_words(path):
    with pytest.raises(InvalidArgumentError, match="path must name a folder; got "):
        M3Index.open(path, model="hashing")


def test_a_model_that_cannot_be_loaded_leaves_no_folder(tmp_path):
    with pytest.raises(OSError, match="no such folder"):
        M3Index.open(tmp_path / "index", model="./nothing")
    assert not (tmp_path / "index").exists()


def test_a_store_of_ones_own_needs_only_the_methods_of_the_protocol():
    class Plain:
        """A store as someone would write it from the Protocol alone: a dict, and KeyError for what is not there."""

        def __init__(self):
            self.inner, self.held = MemoryStore(), {}

        def add(self, documents, vectors):
            self.inner.add(documents, vectors)
            self.held.update({document.id: document for document in documents})

        def delete(self, ids):
            self.inner.delete(ids)
            for id in ids:
                del self.held[id]

        def get(self, ids):
            return [self.held[id] for id in ids]

        def search(self, query, *, depth, where=None):
            return self.inner.search(query, depth=depth, where=where)

        def score(self, query, ids):
            return self.inner.score(query, ids)

        def __len__(self):
            return len(self.inner)

        def close(self):
            pass

    index = M3Index(HashingEncoder(), Plain())
    assert index.add(DOCUMENTS).new == 4
    assert index.add([*DOCUMENTS, Document("new", "x")]).unchanged == 4
    assert ids(index.search("red fox", 1)) == ["fox"]
    assert index.explain("red fox", "fox").shared_tokens == ()
    index.delete(["new"])
    assert len(index) == 4


def test_queries_may_come_from_any_iterable(index):
    assert len(index.search_many(query for query in ["red", "whale"])) == 2


def test_long_texts_are_stored_in_smaller_batches():
    encoder = CountingEncoder()
    index, calls = M3Index(encoder, MemoryStore()), []
    encode = encoder.encode_documents

    def noted(texts, *, progress=False):
        calls.append(len(texts))
        return encode(texts)

    encoder.encode_documents = noted
    index.add(
        [Document(str(row), f"{row} " + "x" * 80_000) for row in range(5)] + [Document(f"s{row}", "y") for row in range(300)]
    )
    assert calls[:2] == [2, 2]
    assert sum(calls) == 305
    assert max(calls) <= 256


def test_a_failed_open_lets_go_of_the_folder(tmp_path):
    with M3Index.open(tmp_path, model="hashing") as index:
        index.add(DOCUMENTS)
    for _ in range(3):
        with pytest.raises(EncoderMismatchError):
            M3Index.open(tmp_path, model=HashingEncoder(64))
    with M3Index.open(tmp_path) as index:
        index.add([Document("x", "x")])


def test_an_open_that_fails_at_its_profile_lets_go_of_the_folder(tmp_path):
    where = f"qdrant:{tmp_path / 'index'}"  # which one store at a time has open
    with M3Index.open(where, model="hashing") as index:
        index.add(DOCUMENTS)
    (tmp_path / "broken.toml").write_text("depth = 0")
    with pytest.raises(ProfileError) as failed:  # whose traceback keeps alive whatever was not closed
        M3Index.open(where, profile=tmp_path / "broken.toml")
    with M3Index.open(where) as index:
        assert len(index) == len(DOCUMENTS), failed.value


WORDS = st.lists(st.sampled_from(["red", "fox", "blue", "whale", "wine", "sea"]), max_size=5).map(" ".join)
CORPUS = st.lists(st.tuples(WORDS, st.sampled_from("abc")), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(corpus=CORPUS, query=WORDS, tenant=st.sampled_from("abc"), mode=st.sampled_from(SEARCH_MODES), k=st.integers(1, 15))
def test_hits_are_the_best_of_what_the_filter_allows(corpus, query, tenant, mode, k):
    index = M3Index(HashingEncoder(), MemoryStore())
    index.add([Document(str(row), text, {"tenant": owner}) for row, (text, owner) in enumerate(corpus)])
    hits = index.search(query, k, mode=mode, where={"tenant": tenant})
    allowed = [str(row) for row, (_, owner) in enumerate(corpus) if owner == tenant]
    assert all(hit.document.metadata["tenant"] == tenant for hit in hits)
    if not allowed:
        assert hits == []
        return
    scores = index.score(query, ids=allowed)
    column = scores.values.astype(float) @ (0.4, 0.2, 0.4) if mode == "hybrid" else scores.column(mode).astype(float)
    expected = sorted(zip(-column, allowed, strict=True))
    if mode == "sparse":
        expected = [pair for pair in expected if pair[0] < 0]
    np.testing.assert_allclose([hit.score for hit in hits], [-value for value, _ in expected[:k]], atol=1e-6)


def test_ids_are_listed_in_ascending_order(index):
    assert index.ids() == ["empty", "fox", "whale", "wine"]
    assert index.ids({"tenant": "a"}) == ["fox", "wine"]
    index.delete(["fox"])
    assert index.ids({"tenant": "a"}, where_document={"$contains": "red"}) == ["wine"]
    assert M3Index(HashingEncoder(), MemoryStore()).ids({"tenant": "a"}) == []


def test_a_call_may_bring_a_profile_of_its_own(index, tmp_path):
    save_profile(Profile(weights=Weights(0, 1, 0), thresholds={"hybrid": 0.05}, depth=1), tmp_path / "sparse.toml")
    path = tmp_path / "sparse.toml"
    expected = index.search("red fox", weights=(0, 1, 0), threshold=0.05)
    assert index.search("red fox", threshold="profile", profile=path) == expected
    assert index.search_many(["red fox"], threshold="profile", profile=str(path)) == [expected]
    assert asyncio.run(index.asearch("red fox", threshold="profile", profile=path)) == expected
    assert index.search_diverse("red fox", balance=1, threshold="profile", profile=path) == expected
    assert index.explain("red fox", "whale", threshold="profile", profile=path).stage == "below threshold"
    assert index.explain("red fox jumps", "whale", k=1, profile=path).stage == "not a candidate", "depth is the profile's too"
    assert index.search("red fox", profile="keyword") == index.search("red fox", weights=(0.3, 0.6, 0.1))
    assert index.search("red fox", weights=(1, 1, 1), profile="keyword") == index.search("red fox", weights=(1, 1, 1))
    assert index.profile == Profile(), "for this call alone"
    for bad in (Profile(model="another"), "no such preset", b"keyword"):
        for call in (index.search, index.search_diverse, lambda query, profile: index.explain(query, "fox", profile=profile)):
            with pytest.raises(ProfileError):
                call("red", profile=bad)


def contents(folder):
    """Every file's bytes, without LMDB's table of readers, which is no content."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "lock.mdb"}


def test_a_read_only_index_answers_alike_and_changes_nothing_of_ours(tmp_path):
    with M3Index.open(tmp_path, model="hashing") as index:
        index.add(DOCUMENTS)
        expected = index.search("red fox"), index.explain("red fox", "whale")
    files, before = set(contents(tmp_path)), contents(tmp_path / "m3")
    with M3Index.open(tmp_path, read_only=True) as index:
        assert (index.search("red fox"), index.explain("red fox", "whale")) == expected
    assert contents(tmp_path / "m3") == before
    assert set(contents(tmp_path)) == files, "Chroma keeps its own books in a file that was there"


def test_a_read_only_index_refuses_writes_and_leaves_what_another_client_added(tmp_path):
    with M3Index.open(tmp_path, model="hashing") as index:
        index.add(DOCUMENTS)
    client = chromadb.PersistentClient(str(tmp_path))
    client.get_collection("m3retriever").upsert(ids=["theirs"], documents=["red"], embeddings=[[1.0] + [0.0] * 255])
    client.close()
    before = contents(tmp_path / "m3")
    with M3Index.open(tmp_path, read_only=True) as index:
        assert index.store.missing() == ["theirs"], "what another client added waits"
        for write in (lambda: index.add([Document("new", "x")]), lambda: index.delete(["fox"]), index.store.remember):
            with pytest.raises(StoreError, match="opened to be read only"):
                write()
    assert contents(tmp_path / "m3") == before  # Chroma itself works through its log
    with M3Index.open(tmp_path) as index:
        assert "theirs" in index.ids()


def test_what_is_not_there_cannot_be_opened_to_be_read(tmp_path):
    with pytest.raises(StoreError, match="no index in"):
        M3Index.open(tmp_path / "none", model="hashing", read_only=True)
    assert not list(tmp_path.iterdir())
    chromadb.PersistentClient(str(tmp_path)).create_collection("theirs").add(ids=["1"], documents=["x"], embeddings=[[1.0]])
    with pytest.raises(StoreError, match="holds no vectors yet"):
        M3Index.open(tmp_path, model="hashing", collection="theirs", read_only=True)
