"""VLLMEncoder against a stand-in that answers as vLLM's documentation says: the numbers of BGEM3Encoder."""

import importlib.util
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from m3retriever import (
    BGEM3Encoder,
    EncoderMismatchError,
    InvalidArgumentError,
    ModelLoadError,
    ServiceError,
    TruncationWarning,
    VLLMEncoder,
    load_encoder,
)
from m3retriever.encoders.vllm import _batches, _floats, _largest
from m3retriever.testing import check_encoder
from m3retriever.types import Tokenizes


def beside(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


checkpoints, stand_in = beside("checkpoints"), beside("vllm_stand_in")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what FlagEmbedding imports

TEXTS = [
    "What is BGE M3?",
    "",
    "   ",
    "a",
    "the the the capital of the France",
    "BM25 is a bag-of-words </s> retrieval <unk> <pad> <s> function",
    "汉字 漢字かな 🎉 never seen",
    "ends with </s>",
    "The quick brown fox jumps over the lazy dog. " * 40,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return checkpoints.tiny_xlm_roberta(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def checkpoint(folder):
    return stand_in.Checkpoint(folder)


@pytest.fixture(scope="module")
def local(folder):
    return BGEM3Encoder(folder, max_length=96)


@contextmanager
def encoder_of(url, **settings):
    encoder = VLLMEncoder(url, **settings)
    try:
        yield encoder
    finally:
        encoder.close()


def encoded(encoder, texts=TEXTS):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)
        return encoder.encode_documents(texts)


def assert_same(ours, theirs, tolerance=1e-5):
    np.testing.assert_allclose(ours.dense, theirs.dense, atol=tolerance)
    np.testing.assert_array_equal(ours.sparse_offsets, theirs.sparse_offsets)
    np.testing.assert_array_equal(ours.sparse_ids, theirs.sparse_ids)
    np.testing.assert_allclose(ours.sparse_weights, theirs.sparse_weights, atol=tolerance)
    np.testing.assert_array_equal(ours.colbert_offsets, theirs.colbert_offsets)
    np.testing.assert_allclose(ours.colbert, theirs.colbert, atol=tolerance)


@pytest.mark.parametrize("base64", [True, False])
def test_numbers_equal_the_local_model_s_in_every_mode(checkpoint, local, base64):
    with stand_in.running(checkpoint) as server:
        server.base64 = base64
        with encoder_of(server.url, max_length=96) as encoder:
            assert_same(encoded(encoder), encoded(local))
            assert encoder.truncated == 1
            assert len(local.encode_documents(TEXTS[:1]).sparse_ids), "a comparison of nothing proves nothing"


def test_the_contract_holds(checkpoint):
    with stand_in.running(checkpoint) as server, encoder_of(server.url) as encoder:
        check_encoder(encoder)
        assert (encoder.name, encoder.dim, encoder.max_length) == ("vllm:BAAI/bge-m3", 64, 128)
        assert not isinstance(encoder, Tokenizes)
        assert len(encoder.encode_documents([])) == 0


def test_rounding_to_half_precision_leaves_norms_of_1(checkpoint, local):
    with stand_in.running(checkpoint, dtype=np.float16) as server, encoder_of(server.url, max_length=96) as encoder:
        ours = encoded(encoder)
        assert_same(ours, encoded(local), tolerance=2e-3)
        np.testing.assert_allclose(np.linalg.norm(ours.colbert, axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(ours.dense, axis=1), 1, atol=1e-6)


def test_three_processes_with_a_task_each_are_one_encoder(checkpoint, local):
    with (
        stand_in.running(checkpoint, tasks=("embed",)) as dense,
        stand_in.running(checkpoint, tasks=("token_classify",)) as sparse,
        stand_in.running(checkpoint, tasks=("token_embed",)) as colbert,
    ):
        with encoder_of(dense.url, sparse_url=sparse.url, colbert_url=colbert.url, max_length=96) as encoder:
            assert_same(encoded(encoder), encoded(local))
        by_name = load_encoder(f"vllm+{dense.url},{sparse.url},{colbert.url}")
        assert_same(by_name.encode_queries(["What is BGE M3?"]), local.encode_queries(["What is BGE M3?"]))
        by_name.close()
        with pytest.raises(
            ModelLoadError, match="does not do task token_classify .status 400.*--pooler-config.task token_classify"
        ):
            VLLMEncoder(dense.url)
    with pytest.raises(InvalidArgumentError, match="one address or three"):
        load_encoder("vllm+http://a,http://b")


def test_what_vllm_is_said_to_leave_out_may_also_come(checkpoint, local):
    everything = {"token_embed": slice(None), "token_classify": slice(None)}
    with stand_in.running(checkpoint, keeps=everything) as server, encoder_of(server.url, max_length=96) as encoder:
        assert_same(encoded(encoder), encoded(local))


@pytest.mark.parametrize("task", ["token_embed", "token_classify"])
def test_positions_that_fit_no_tokens_are_refused(checkpoint, task):
    keeps = {**stand_in.KEEPS, task: slice(2, -1)}
    with stand_in.running(checkpoint, keeps=keeps) as server, pytest.raises(ModelLoadError, match=f"in task {task} for"):
        VLLMEncoder(server.url)


def test_many_texts_go_in_batches_and_come_back_in_order(checkpoint, local):
    texts = [f"BGE M3 {'dense retrieval ' * (row % 9)} {row}" for row in range(150)]
    with stand_in.running(checkpoint) as server, encoder_of(server.url, max_length=96, concurrency=3) as encoder:
        assert_same(encoded(encoder, texts), encoded(local, texts))
        sizes = [len(asked["input"]) for path, asked in server.seen if path == "/v1/embeddings"]
    assert sorted(sizes) == [1, 1, 22, 64, 64], "two at the start, and three batches"


def test_a_cut_text_is_counted_once_however_many_batches_there_are(checkpoint):
    texts = ["What is BGE M3? " * 9, *(f"text {row}" for row in range(150))]
    with stand_in.running(checkpoint) as server, encoder_of(server.url, max_length=20) as encoder:
        with pytest.warns(TruncationWarning, match="1 of 151 texts are longer than 20 tokens"):
            encoder.encode_documents(texts)
        assert encoder.truncated == 1


def test_a_query_is_asked_once_and_a_cut_one_each_time(checkpoint):
    with stand_in.running(checkpoint) as server, encoder_of(server.url, max_length=20) as encoder:
        first = encoder.encode_queries(["What is"])
        asked = len(server.seen)
        assert_same(encoder.encode_queries(["What is"]), first, tolerance=0)
        assert len(server.seen) == asked
        for _ in range(2):
            with pytest.warns(TruncationWarning, match="1 of 1 texts are longer than 20 tokens"):
                encoder.encode_queries(["What is BGE M3? " * 9])
        assert encoder.truncated == 2


def test_another_model_is_refused_at_the_start_and_later(checkpoint):
    with stand_in.running(checkpoint, name="mine") as server:
        with pytest.raises(ModelLoadError, match="want the model BAAI/bge-m3; the service at .* has mine: give it as model="):
            VLLMEncoder(server.url)
        with encoder_of(server.url, model="mine", name="bge-m3-1234-cls") as encoder:
            assert encoder.name == "bge-m3-1234-cls"
            server.pooling = lambda asked: {"model": "other", "data": []}
            with pytest.raises(EncoderMismatchError, match="want the model mine"):
                encoder.encode_documents(["a"])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (None, "not vLLM's"),
        ([{"index": 0, "data": "?"}], "not vLLM's"),
        ([{"index": 0, "data": ["a"]}], "not vLLM's"),
        ([{"index": 0, "data": [[1.0], [1.0, 2.0]]}], "not vLLM's"),
        ([{"index": 0, "data": "AAA="}], "not vLLM's"),
        ([{"index": "first", "data": []}], "not vLLM's"),
        ([{"index": 1, "data": []}], "vectors of 1 texts; want 1|gave vectors"),
        ([{"index": 0, "data": []}] * 2, "gave vectors of 2 texts; want 1"),
        ([{"index": 0, "data": [[1.0]] * 64}], "numbers in task"),
    ],
)
def test_an_answer_that_is_not_vllm_s_is_one_clear_error(checkpoint, data, says):
    with stand_in.running(checkpoint) as server, encoder_of(server.url) as encoder:
        server.pooling = lambda asked: {"model": server.name, "data": data}
        with pytest.raises(ServiceError, match=says):
            encoder.encode_documents(["What is BGE M3?"])


def test_another_tokenizer_is_refused(checkpoint):
    with stand_in.running(checkpoint) as server:
        server.tokenize = lambda asked: {"tokens": [101, 102]}
        with pytest.raises(ModelLoadError, match="not BGE-M3's, which begin with <s>"):
            VLLMEncoder(server.url)


def test_a_token_keeps_its_largest_weight_and_those_without_meaning_none():
    assert _largest([5, 6, 5, 2, 3, 1], np.array([0.1, 0.0, 0.3, 0.4, 0.5, 0.6], np.float32)) == {5: pytest.approx(0.3)}
    assert np.isnan(_largest([5], np.array([np.nan], np.float32))[5]), "what is not finite is refused later, not passed over"


def test_batches_hold_every_text_once_in_order():
    rows = [[0] * length for length in (5, 9_000, 9_000, 20_000, 3, *[1] * 70)]
    batches = list(_batches(rows))
    assert [len(row) for batch in batches for row in batch] == [len(row) for row in rows]
    assert [len(batch) for batch in batches] == [2, 1, 1, 64, 7]


def test_numbers_are_read_from_base64_and_from_lists():
    assert _floats("AACAPwAAAMA=").tolist() == [1.0, -2.0]
    assert _floats([[1.0, 2], [3, 4]]).tolist() == [1, 2, 3, 4]
    assert _floats([]).tolist() == []
