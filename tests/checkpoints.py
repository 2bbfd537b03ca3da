"""Checkpoints in BGE-M3's layout, made here: a tiny random XLM-R, and the mini model as a folder."""

import json
import shutil

import torch
from safetensors.torch import load_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import XLMRobertaConfig, XLMRobertaModel

from m3retriever.encoders.mini import HEADS, backbone_folder

CORPUS = (
    """BGE M3 is an embedding model supporting dense retrieval, lexical matching and multi-vector interaction.
BM25 is a bag-of-words retrieval function that ranks a set of documents based on the query terms in each document.
What is BGE M3? Defination of BM25. The quick brown fox jumps over the lazy dog. Paris is the capital of France.
""".splitlines()
    * 20
)


def tiny_xlm_roberta(folder, *, hidden=64, positions=130):
    """Random weights, two layers, a Unigram tokenizer with XLM-R's special tokens."""
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(
        CORPUS, trainers.UnigramTrainer(vocab_size=400, special_tokens=special, unk_token="<unk>", show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), special, strict=True))
    settings = {"tokenizer_class": "XLMRobertaTokenizerFast", "cls_token": "<s>", "sep_token": "</s>", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": 8192}))
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=hidden, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=2 * hidden, max_position_embeddings=positions, type_vocab_size=1, pad_token_id=1,
        bos_token_id=0, eos_token_id=2, layer_norm_eps=1e-5,
    )  # fmt: skip
    model = XLMRobertaModel(config).eval()
    with torch.no_grad():  # spread the tokens apart, so that scores differ
        model.embeddings.word_embeddings.weight.normal_(0, 1)
    model.save_pretrained(folder)
    sparse = torch.nn.Linear(hidden, 1)
    sparse.bias.data.fill_(0.5)
    torch.save(torch.nn.Linear(hidden, hidden).state_dict(), folder / "colbert_linear.pt")
    torch.save(sparse.state_dict(), folder / "sparse_linear.pt")
    return folder


def mini_as_folder(folder):
    """The mini model as a checkpoint that FlagEmbedding itself can load, with pooling "mean"."""
    source = backbone_folder()
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "vocab.txt"):
        shutil.copy(source / name, folder)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        settings = json.loads((source / name).read_text())
        (folder / name).write_text(json.dumps({**settings, "eos_token": "[SEP]"}))
    heads = load_file(HEADS)
    for head in ("sparse", "colbert"):
        state = {part: heads[f"{head}.{part}"].float() for part in ("weight", "bias")}
        torch.save(state, folder / f"{head}_linear.pt")
    return folder
