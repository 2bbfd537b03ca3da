"""OpenVINO: parity with torch, what an export costs and survives, wrong combinations; the query cache, the batches."""

import importlib.util
import json
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3retriever import (
    BGEM3Encoder,
    Document,
    HashingEncoder,
    InvalidArgumentError,
    M3Index,
    MiniEncoder,
    MissingExtraError,
    ModelLoadError,
    Profile,
    ProfileError,
    TruncationWarning,
    load_encoder,
)
from m3retriever.demo.corpus import standard_library_documents
from m3retriever.encoders import exporting, loop, query_cache
from m3retriever.encoders.fidelity import Sample, fidelity
from m3retriever.encoders.openvino_graph import codes
from m3retriever.profile import check_profile
from m3retriever.testing import check_encoder

spec = importlib.util.spec_from_file_location("checkpoints", Path(__file__).with_name("checkpoints.py"))
checkpoints = importlib.util.module_from_spec(spec)
spec.loader.exec_module(checkpoints)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:torch")
TEXTS = ["What is BGE M3?", "", "   ", "a", "the the the capital of the France", "BM25 " * 30, "漢字 🎉"]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """The user's cache, elsewhere for these tests."""
    place = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place))
        yield place / "m3retriever" / "openvino"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return checkpoints.tiny_xlm_roberta(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def mini_folder(tmp_path_factory):
    return checkpoints.mini_as_folder(tmp_path_factory.mktemp("mini") / "model")


@pytest.fixture(scope="module")
def docstrings():
    texts = [document.text for document in standard_library_documents()[:1500:10]]
    return Sample(texts, [text.split("\n")[0] for text in texts[::5]])


def fast(folder, precision="fp32", **settings):
    return BGEM3Encoder(folder, precision=precision, backend="openvino", **settings)


def exports(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.exists() else []


def assert_near(ours, theirs, texts, atol):
    np.testing.assert_allclose(ours.dense, theirs.dense, atol=atol)
    np.testing.assert_allclose(ours.colbert, theirs.colbert, atol=atol)
    for row, text in enumerate(texts):
        assert ours.sparse_row(row).keys() == theirs.sparse_row(row).keys(), text
        np.testing.assert_allclose(list(ours.sparse_row(row).values()), list(theirs.sparse_row(row).values()), atol=atol)


class TestNumbers:
    @pytest.mark.parametrize(("layout", "pooling"), [("tiny", "cls"), ("tiny", "mean"), ("mini_folder", "mean")])
    def test_fp32_in_openvino_equals_torch_in_every_mode(self, request, layout, pooling):
        folder = request.getfixturevalue(layout)
        torch, openvino = BGEM3Encoder(folder, pooling=pooling, max_length=128), fast(folder, pooling=pooling, max_length=128)
        assert_near(openvino.encode_documents(TEXTS), torch.encode_documents(TEXTS), TEXTS, 1e-4)
        assert (openvino.name, openvino.dim, openvino.max_length) == (torch.name, torch.dim, torch.max_length)
        assert [openvino.tokenize(text) for text in TEXTS] == [torch.tokenize(text) for text in TEXTS]

    def test_padding_changes_no_text_beyond_rounding(self, tiny):
        encoder, texts = fast(tiny), ["What is BM25?", "M3 " * 60]
        together = encoder.encode_documents(texts)
        for row, text in enumerate(texts):
            assert_near(together[row], encoder.encode_documents([text]), [text], 1e-6)

    def test_modes_and_raw_vectors_are_as_in_torch(self, tiny):
        for settings in (
            {"modes": ["dense"]},
            {"modes": ["dense", "sparse"]},
            {"modes": ["dense", "colbert"]},
            {"normalize": False},
        ):
            torch, openvino = BGEM3Encoder(tiny, **settings), fast(tiny, **settings)
            assert_near(openvino.encode_documents(TEXTS), torch.encode_documents(TEXTS), TEXTS, 1e-4)
            assert openvino.name == torch.name

    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_the_engine_fulfils_the_contract(self, tiny, precision):
        check_encoder(fast(tiny, precision))
        check_encoder(MiniEncoder(precision=precision, backend="openvino"))

    def test_int8_of_the_real_model_is_as_near_to_fp32_as_is_asked(self, mini_folder, docstrings):
        """Measured: cosine .9995 and tau .979 on these 150 docstrings, .9996 and .987 on 500 answers of another collection."""
        found = fidelity(BGEM3Encoder(mini_folder, pooling="mean"), fast(mini_folder, "int8", pooling="mean"), *docstrings)
        assert found.dense_mean >= 0.999
        assert found.sparse >= 0.999
        assert found.colbert_tau >= 0.976
        assert found.top10 >= 0.97

    def test_a_text_of_8192_tokens_is_read_to_its_end(self, tmp_path):
        folder = checkpoints.tiny_xlm_roberta(tmp_path / "model", hidden=32, positions=8194)
        torch, openvino = BGEM3Encoder(folder), fast(folder)
        text = "M3 BM25 " * 8000
        with pytest.warns(TruncationWarning, match="longer than 8192 tokens"):
            ours, theirs = openvino.encode_documents([text]), torch.encode_documents([text])
        assert len(ours.colbert) == 8191
        assert_near(ours, theirs, [text], 1e-4)

    @given(st.lists(st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3), min_size=1, max_size=4))
    def test_codes_are_off_by_half_a_scale_at_most(self, rows):
        weights = np.array(rows, np.float32)
        held, scales = codes(weights)
        assert held.dtype == np.int8
        assert (np.abs(held * scales - weights) <= 0.5001 * scales + 1e-30).all()

    def test_codes_of_a_case_made_by_hand(self):
        held, scales = codes(np.array([[-2, 1, 0], [0, 0, 0]], np.float32))
        assert held.tolist() == [[-127, 64, 0], [0, 0, 0]]
        np.testing.assert_allclose(scales, [[2 / 127], [1]])


class TestExports:
    def test_the_second_load_exports_nothing_and_imports_no_torch(self, tiny):
        fast(tiny)
        code = (
            "import sys; from m3retriever import BGEM3Encoder\n"
            f"encoder = BGEM3Encoder({str(tiny)!r}, precision='fp32', backend='openvino')\n"
            "print(encoder.encode_queries(['fox']).dense.shape, 'torch' in sys.modules, 'transformers' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "(1, 64) False False"
        assert "exporting" not in done.stderr

    def test_an_export_reports_its_fidelity_and_keeps_it(self, tmp_path, capsys, caplog):
        folder = checkpoints.tiny_xlm_roberta(tmp_path / "model")
        with caplog.at_level("INFO", logger="m3retriever"):
            fast(folder)
        (name,) = exports(folder / exporting.FOLDER)
        found = exporting.stored_fidelity(folder / exporting.FOLDER / name)
        assert found.dense_mean > 0.99999
        assert found.colbert_tau > 0.99
        assert str(found) in caplog.text
        assert f"cosine {found.dense_mean:.5f}" in capsys.readouterr().err
        assert exporting.stored_fidelity(folder) is None

    def test_another_checkpoint_precision_or_head_is_another_export(self, tmp_path):
        folder = checkpoints.tiny_xlm_roberta(tmp_path / "model")
        for settings in ({}, {"precision": "int8"}, {"pooling": "mean"}):
            fast(folder, **settings)
        assert len(exports(folder / exporting.FOLDER)) == 3
        (folder / "sparse_linear.pt").write_bytes((tiny_other(tmp_path) / "sparse_linear.pt").read_bytes())
        fast(folder)
        assert len(exports(folder / exporting.FOLDER)) == 4

    def test_an_export_that_was_killed_is_made_again(self, tmp_path):
        folder = checkpoints.tiny_xlm_roberta(tmp_path / "model")
        code = (
            "import time, openvino; from m3retriever import BGEM3Encoder\n"
            "save = openvino.save_model\n"
            "def slow(*given, **named): save(*given, **named); print('written', flush=True); time.sleep(60)\n"
            "openvino.save_model = slow\n"
            f"BGEM3Encoder({str(folder)!r}, precision='int8')"
        )
        with subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline().strip() == "written"
            process.send_signal(signal.SIGKILL)
        assert [name.endswith(".partial") for name in exports(folder / exporting.FOLDER)] == [True]
        assert fast(folder, "int8").encode_queries(["fox"]).dense.shape == (1, 64)
        assert [name.endswith(".partial") for name in exports(folder / exporting.FOLDER)] == [False]

    def test_two_exports_at_once_both_end_well(self, tmp_path):
        folder = checkpoints.tiny_xlm_roberta(tmp_path / "model")
        code = f"from m3retriever import BGEM3Encoder; BGEM3Encoder({str(folder)!r}, precision='int8'); print('well')"
        both = [subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, text=True) for _ in "ab"]
        assert [process.communicate()[0].strip() for process in both] == ["well", "well"]
        assert len(exports(folder / exporting.FOLDER)) == 1

    def test_a_folder_that_cannot_be_written_exports_into_the_cache(self, tmp_path, cache):
        folder = checkpoints.tiny_xlm_roberta(tmp_path / "model", hidden=96)
        (folder / exporting.FOLDER).write_text("no folder can be made here, not even by root")
        before = set(exports(cache))
        fast(folder)
        (made,) = set(exports(cache)) - before
        times = (cache / made / "model.bin").stat().st_mtime_ns
        fast(folder)
        assert (cache / made / "model.bin").stat().st_mtime_ns == times

    def test_where_nothing_can_be_written_it_says_so(self, tmp_path, monkeypatch):
        folder = checkpoints.tiny_xlm_roberta(tmp_path / "model", hidden=48)
        (folder / exporting.FOLDER).write_text("no folder")
        (tmp_path / "file").write_text("no folder")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        with pytest.raises(ModelLoadError, match="cannot write an export: neither .* can be written to"):
            fast(folder)

    def test_a_damaged_export_says_what_to_delete(self, tmp_path):
        folder = checkpoints.tiny_xlm_roberta(tmp_path / "model")
        fast(folder)
        (place,) = (folder / exporting.FOLDER).glob("*-fp32-*/")
        settings = (place / "settings.json").read_text()
        for name, content in (("settings.json", "{"), ("settings.json", "{}"), ("tokenizer.json", "{"), ("model.xml", "<net")):
            kept = (place / name).read_bytes()
            (place / name).write_text(content)
            with pytest.raises(ModelLoadError, match="delete that folder, and it is made again"):
                fast(folder)
            (place / name).write_bytes(kept)
        assert json.loads(settings)["dim"] == fast(folder).dim

    def test_a_network_of_another_kind_is_refused(self, tmp_path):
        folder = checkpoints.tiny_xlm_roberta(tmp_path / "model")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
        with pytest.raises(ModelLoadError, match="with gelu and absolute positions"):
            fast(folder)
        assert exports(folder / exporting.FOLDER) == []


def tiny_other(tmp_path):
    import torch

    other = tmp_path / "other"
    other.mkdir()
    torch.save(torch.nn.Linear(64, 1).state_dict(), other / "sparse_linear.pt")
    return other


class TestChoices:
    def test_int8_takes_openvino_and_says_what_it_is(self, tiny):
        encoder = BGEM3Encoder(tiny, precision="int8")
        assert (encoder.backend, encoder.precision, encoder.device) == ("openvino", "int8", "cpu")
        assert encoder.name == BGEM3Encoder(tiny).name, "vectors of all precisions of a checkpoint can be mixed"
        with pytest.raises(ProfileError, match="in int8, not in fp32"):
            check_profile(Profile(model=encoder.name, precision="int8"), encoder.name, "fp32")

    def test_combinations_without_a_meaning_are_refused(self, tiny):
        for settings, message in [
            ({"precision": "int8", "backend": "torch"}, "'int8' needs backend='openvino'"),
            ({"precision": "fp16", "backend": "openvino"}, "backend 'openvino' runs fp32 and int8; got 'fp16'"),
            ({"backend": "onnx"}, "backend must be one of auto, torch, openvino"),
            ({"precision": "int8", "device": "cuda"}, "runs on device 'cpu'; got 'cuda'"),
        ]:
            with pytest.raises(InvalidArgumentError, match=message):
                BGEM3Encoder(tiny, **settings)
        with pytest.raises(InvalidArgumentError, match="the mini model runs in fp32 or int8; got 'bf16'"):
            MiniEncoder(precision="bf16")
        with pytest.raises(InvalidArgumentError, match="the hashing encoder has no precision"):
            load_encoder("hashing", precision="int8")

    def test_without_openvino_the_extra_is_named(self, tiny, monkeypatch):
        monkeypatch.setitem(sys.modules, "openvino", None)
        with pytest.raises(MissingExtraError, match=r"openvino is not installed; run: pip install 'm3retriever\[fast\]'"):
            BGEM3Encoder(tiny, precision="int8")

    def test_an_index_is_opened_in_the_precision_that_its_opener_chooses(self, tmp_path):
        with M3Index.open(tmp_path / "index", model="mini", precision="int8") as index:
            assert index.encoder.precision == "int8"
            index.add([Document("fox", "A fox jumps over the dog."), Document("market", "The market fell.")])
        with M3Index.open(tmp_path / "index") as index:
            assert index.encoder.precision == "fp32"
            assert index.search("fox")[0].document.id == "fox"
        with pytest.raises(InvalidArgumentError, match="choose them where it is made"):
            M3Index.open(tmp_path / "index", model=HashingEncoder(), precision="int8")


class TestIndependence:
    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_openvino_gives_texts_of_as_many_tokens_the_same_bits_alone_and_together(self, tiny, precision):
        encoder, random = BGEM3Encoder(tiny, precision=precision, backend="openvino"), np.random.default_rng(0)
        assert encoder.independence == "equal_lengths"
        texts = [" ".join(random.choice(checkpoints.CORPUS[0].split(), random.integers(1, 9))) for _ in range(120)]
        by_length = defaultdict(list)
        for text in texts:
            by_length[len(encoder.tokenize(text))].append(text)
        for alike in by_length.values():
            together = encoder.encode_documents(alike)
            for row, text in enumerate(alike):
                alone = encoder.encode_documents([text])
                for name in ("dense", "sparse_ids", "sparse_weights", "colbert"):
                    assert getattr(together[row], name).tobytes() == getattr(alone, name).tobytes()

    def test_torch_promises_nothing_and_words_are_hashed_one_by_one(self, tiny):
        assert BGEM3Encoder(tiny).independence == "never"
        assert HashingEncoder().independence == "always"


class TestQueryCache:
    def test_a_query_asked_again_has_the_same_bits_and_is_not_encoded(self, tiny):
        encoder = BGEM3Encoder(tiny)
        first, expected = encoder.encode_queries(["What is BM25?"]), encoder.encode_documents(["What is BM25?"])
        again = encoder.encode_queries(["What is BM25?"])
        for found in (first, again):
            for name in ("dense", "sparse_ids", "sparse_weights", "colbert"):
                assert getattr(found, name).tobytes() == getattr(expected, name).tobytes()
        assert (encoder.cache_hits, encoder.cache_misses) == (1, 1)

    def test_what_a_caller_does_to_its_vectors_changes_no_later_ones(self, tiny):
        encoder = BGEM3Encoder(tiny)
        kept = encoder.encode_queries(["fox"]).dense.copy()
        for _ in range(2):
            encoder.encode_queries(["fox"]).dense[:] = 0
        np.testing.assert_array_equal(encoder.encode_queries(["fox"]).dense, kept)

    def test_the_oldest_query_gives_way_and_one_asked_again_is_young(self, tiny, monkeypatch):
        monkeypatch.setattr(query_cache, "CACHED_QUERIES", 2)
        encoder = BGEM3Encoder(tiny)
        for text in ("a", "b", "a", "c", "a", "b"):
            encoder.encode_queries([text])
        assert (encoder.cache_hits, encoder.cache_misses) == (2, 4), "hits: a twice; b had given way to c"

    def test_long_queries_several_at_once_and_documents_are_not_kept(self, tiny, monkeypatch):
        monkeypatch.setattr(query_cache, "CACHED_BYTES", 64 * 4 * 10)
        encoder = BGEM3Encoder(tiny)
        for _ in range(2):
            encoder.encode_queries(["M3 " * 40])
            encoder.encode_queries(["a", "b"])
            encoder.encode_queries([])
            encoder.encode_documents(["a"])
        assert (encoder.cache_hits, encoder.cache_misses) == (0, 2)

    def test_a_query_that_is_cut_warns_each_time(self, tiny):
        encoder = BGEM3Encoder(tiny, max_length=8)
        for count in (1, 2):
            with pytest.warns(TruncationWarning):
                encoder.encode_queries(["M3 " * 40])
            assert encoder.truncated == count

    def test_threads_share_it(self, tiny):
        encoder, wrong = BGEM3Encoder(tiny), []
        texts = [f"BM25 {row}" for row in range(20)]
        expected = {text: BGEM3Encoder.encode_documents(encoder, [text]).dense.tobytes() for text in texts}

        def ask(start):
            for row in range(60):
                text = texts[(start + row) % len(texts)]
                if encoder.encode_queries([text]).dense.tobytes() != expected[text]:
                    wrong.append(text)

        threads = [threading.Thread(target=ask, args=[start]) for start in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert encoder.cache_hits + encoder.cache_misses == 240


class TestBatches:
    def test_cases_made_by_hand(self):
        assert loop.batch_size([8, 7, 2], 100) == 2, "8 tokens of 100 are worth while; padding 2 to 8 is not"
        assert loop.batch_size([4, 2, 2], 100) == 2, "4 of 100 are too few for a pass: one more comes along"
        assert loop.batch_size([10, 10, 10], 25) == 2
        assert loop.batch_size([100], 10) == 1

    @given(st.lists(st.integers(2, 300), min_size=1, max_size=60), st.integers(1, 4096))
    def test_a_batch_keeps_the_budget_and_has_a_text(self, lengths, budget):
        lengths = sorted(lengths, reverse=True)
        count = loop.batch_size(lengths, budget)
        assert 1 <= count <= len(lengths)
        assert count == 1 or count * lengths[0] <= budget
