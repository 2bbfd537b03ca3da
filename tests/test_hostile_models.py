"""A checkpoint that someone else made is numbers, a vocabulary and settings: loading one runs nothing of it."""

import importlib.util
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from m3retriever import BGEM3Encoder, Document, M3Index, ModelLoadError
from m3retriever.encoders.bge_m3 import CONFIG_BYTES
from m3retriever.encoders.exporting import stored_fidelity
from m3retriever.encoders.openvino_engine import OpenVINOEngine
from m3retriever.encoders.tokenizing import Tokenizing
from m3retriever.stores.payload import open_payload, release_payload

spec = importlib.util.spec_from_file_location("checkpoints", Path(__file__).with_name("checkpoints.py"))
checkpoints = importlib.util.module_from_spec(spec)
spec.loader.exec_module(checkpoints)

pytestmark = pytest.mark.filterwarnings("ignore")  # of FlagEmbedding and what it imports


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return checkpoints.tiny_xlm_roberta(tmp_path_factory.mktemp("made") / "model")


@pytest.fixture
def folder(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "model"))


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "ran"


class Evil:
    """Runs when it is unpickled."""

    def __init__(self, marker):
        self._marker = marker

    def __reduce__(self):
        return exec, (f"open({str(self._marker)!r}, 'w').close()",)


CODE = """
open({marker!r}, "w").close()
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
class Config(PretrainedConfig):
    model_type = "evil"
class Model(PreTrainedModel):
    config_class = Config
class Words(PreTrainedTokenizerFast):
    pass
"""


def changed(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("form", ["pickle", "archive"])
@pytest.mark.parametrize("name", ["sparse_linear.pt", "colbert_linear.pt"])
def test_a_head_that_would_run_code_is_refused(folder, marker, name, form):
    if form == "pickle":
        (folder / name).write_bytes(pickle.dumps(Evil(marker)))
    else:
        torch.save({"weight": Evil(marker)}, folder / name)
    with pytest.raises(ModelLoadError, match="cannot load the checkpoint in"):
        BGEM3Encoder(folder)
    assert not marker.exists()


def test_weights_that_would_run_code_are_refused(folder, marker):
    (folder / "model.safetensors").unlink()
    torch.save({"embeddings.word_embeddings.weight": Evil(marker)}, folder / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match="cannot load the checkpoint in"):
        BGEM3Encoder(folder)
    assert not marker.exists()


def test_where_there_are_safetensors_no_pickle_is_read(folder, marker):
    before = BGEM3Encoder(folder).encode_queries(["fox"])
    torch.save({"embeddings.word_embeddings.weight": Evil(marker)}, folder / "pytorch_model.bin")
    np.testing.assert_array_equal(BGEM3Encoder(folder).encode_queries(["fox"]).dense, before.dense)
    assert not marker.exists()
    assert load_file(folder / "model.safetensors")


@pytest.mark.parametrize("model_type", ["xlm-roberta", "evil"])
def test_classes_that_a_checkpoint_brings_are_not_imported(folder, marker, model_type):
    (folder / "evil.py").write_text(CODE.format(marker=str(marker)))
    classes = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model", "AutoTokenizer": ["evil.Words", "evil.Words"]}
    changed(folder / "config.json", model_type=model_type, auto_map=classes)
    changed(folder / "tokenizer_config.json", tokenizer_class="Words", auto_map=classes)
    if model_type == "evil":
        with pytest.raises(ModelLoadError):
            BGEM3Encoder(folder)
    else:
        assert BGEM3Encoder(folder).dim == 64
    assert not marker.exists()


@pytest.mark.parametrize(
    "asking",
    [
        {"attn_implementation": "someone/kernel"},
        {"_attn_implementation": "someone/kernel@main"},
        {"_attn_implementation_internal": "someone/kernel"},
        {"attn_implementation": {"": "sdpa", "text_config": "someone/kernel"}},
        {"text_config": {"layers": [{"attn_implementation": "someone/kernel"}]}},
    ],
)
def test_compiled_code_from_a_hub_is_not_fetched(folder, asking):
    changed(folder / "config.json", **asking)
    with pytest.raises(ModelLoadError, match="asks for code from a hub, .*someone/kernel.*: m3retriever loads no code"):
        BGEM3Encoder(folder)


def test_an_attention_of_transformers_own_may_be_asked_for(folder):
    changed(folder / "config.json", attn_implementation="eager")
    assert BGEM3Encoder(folder).dim == 64


def test_an_adapter_cannot_bring_another_model_in(folder):
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/else", "peft_type": "LORA"}')
    with pytest.raises(ModelLoadError, match="holds an adapter of another model: merge the two"):
        BGEM3Encoder(folder)


@pytest.mark.parametrize("content", ["[" * 200_000, "[]", '{"hidden_size": "x"}', '{"a":' * 50_000])
def test_a_configuration_that_is_none_is_a_clear_error(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(ModelLoadError):
        BGEM3Encoder(folder)


def test_a_configuration_as_long_as_a_book_is_not_read(folder):
    with (folder / "config.json").open("a") as file:
        file.write(" " * CONFIG_BYTES)
    with pytest.raises(ModelLoadError, match=f"config.json has more than {CONFIG_BYTES} bytes"):
        BGEM3Encoder(folder)


def test_the_model_that_an_index_names_runs_nothing_either(folder, marker, tmp_path):
    with M3Index.open(tmp_path / "index", model="hashing") as index:
        index.add([Document("a", "red fox")])
    torch.save({"weight": Evil(marker)}, folder / "sparse_linear.pt")
    payload = open_payload(tmp_path / "index" / "m3" / "m3retriever")
    payload.set_meta(source=str(folder))
    release_payload(payload)
    with pytest.raises(ModelLoadError, match="cannot load the checkpoint in"):
        M3Index.open(tmp_path / "index")
    assert not marker.exists()


# -- what was exported ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """A graph of two nodes, in the form of an export whose vectors have 4 numbers."""
    openvino = pytest.importorskip("openvino")
    opset = pytest.importorskip("openvino.opset13")
    ids = opset.parameter(openvino.PartialShape([-1, -1]), np.int64, "ids")
    ids.get_output_tensor(0).set_names({"ids"})
    dense = opset.result(opset.gather(opset.convert(ids, "f32"), opset.constant(np.arange(4)), opset.constant(1)))
    dense.get_output_tensor(0).set_names({"dense"})
    folder = tmp_path_factory.mktemp("graph")
    openvino.save_model(openvino.Model([dense], [ids], "tiny"), folder / "model.xml", compress_to_fp16=False)
    (folder / "settings.json").write_text('{"dim": 4, "positions": 8, "modes": ["dense"], "int8": false}')
    return folder


def test_an_export_is_what_its_settings_say(graph):
    engine = OpenVINOEngine(graph)
    assert engine.run(np.arange(8)[None], np.ones((1, 8), np.int64)).dense.tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize(
    "settings",
    [
        *("[", "[]", "[" * 9_000, '"text"', "{}", '{"dim": null, "positions": 8, "modes": ["dense"], "int8": false}'),
        '{"dim": 1000000000000, "positions": 8, "modes": ["dense"], "int8": false}',
        '{"dim": 1e999, "positions": 8, "modes": ["dense"], "int8": false}',
        '{"dim": -4, "positions": 8, "modes": ["dense"], "int8": false}',
        '{"dim": 4, "positions": 1000000000000, "modes": ["dense"], "int8": false}',
        '{"dim": 4, "positions": 8, "modes": ["dense", "colbert"], "int8": false}',
        '{"dim": 4, "positions": 8, "modes": 5, "int8": false}',
        '{"dim": 4, "positions": 8, "modes": ["dense"], "int8": false}' + " " * 20_000 + "}",
    ],
    ids=lambda settings: settings[:30],
)
def test_settings_that_do_not_go_with_the_graph_are_refused_before_room_is_made_for_them(graph, tmp_path, settings):
    folder = shutil.copytree(graph, tmp_path / "export")
    (folder / "settings.json").write_text(settings)
    if settings.endswith(" }"):
        assert OpenVINOEngine(folder).dim == 4, "no more is read than settings have"
        return
    with pytest.raises(ModelLoadError, match="cannot load the export in .*; delete that folder, and it is made again"):
        OpenVINOEngine(folder)


@pytest.mark.parametrize(
    ("pattern", "replacement"), [('offset="0"', 'offset="99999999999"'), ('size="', 'size="9999999999'), ("Gather", "Evil")]
)
def test_a_graph_that_points_beyond_its_numbers_is_refused(graph, tmp_path, pattern, replacement):
    folder = shutil.copytree(graph, tmp_path / "export")
    content = (folder / "model.xml").read_text()
    assert pattern in content
    (folder / "model.xml").write_text(content.replace(pattern, replacement))
    with pytest.raises(ModelLoadError, match="cannot load the export in"):
        OpenVINOEngine(folder)


@pytest.mark.parametrize(
    "ids", ['{"pad": "x", "unknown": 3, "unused": []}', '{"pad": 1, "unknown": 3, "unused": ["x"]}', "[" * 9_000]
)
def test_ids_of_special_tokens_are_whole_numbers(made, tmp_path, ids):
    shutil.copy(made / "tokenizer.json", tmp_path)
    (tmp_path / "special_ids.json").write_text(ids)
    with pytest.raises((ValueError, RecursionError)):  # `exporting` makes a ModelLoadError of any
        Tokenizing.load(tmp_path)


@pytest.mark.parametrize("content", ["[" * 9_000, "[]", '{"dense_mean": "x"}', '{"dense_mean": {}}', "{" + " " * 20_000 + "}"])
def test_a_comparison_that_cannot_be_read_is_as_none(tmp_path, content):
    (tmp_path / "fidelity.json").write_text(content)
    assert stored_fidelity(tmp_path) is None
