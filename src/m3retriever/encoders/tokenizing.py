"""A checkpoint's tokenizer without transformers: the `tokenizers` object and the ids that mean something."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m3retriever.types import Token

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILE, IDS_FILE = "tokenizer.json", "special_ids.json"
IDS_BYTES = 10_000  # read of the second: ours has 50


@dataclass(frozen=True, eq=False)
class Tokenizing:
    """Texts as token ids.

    Attributes
    ----------
    tokenizer : the `tokenizers.Tokenizer`, which adds the special tokens; nobody else may use it, its truncation is set
    pad, unknown : their ids; `unknown` is None where every text can be written
    unused : ids that have no sparse weight: CLS, end of text, padding, unknown
    """

    tokenizer: Tokenizer
    pad: int
    unknown: int | None
    unused: frozenset[int]

    @classmethod
    def of(cls, tokenizer: Any) -> Tokenizing:
        """From a fast tokenizer of transformers."""
        ids = (tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id)
        return cls(tokenizer.backend_tokenizer, ids[2], ids[3], frozenset(id for id in ids if id is not None))

    @classmethod
    def load(cls, folder: Path) -> Tokenizing:
        """From a folder that `save` wrote."""
        from tokenizers import Tokenizer

        with (folder / IDS_FILE).open("rb") as file:
            ids = json.loads(file.read(IDS_BYTES))
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        unknown = None if ids["unknown"] is None else int(ids["unknown"])
        return cls(tokenizer, int(ids["pad"]), unknown, frozenset(map(int, ids["unused"])))

    def save(self, folder: Path) -> None:
        """Write it into a folder."""
        self.tokenizer.save(str(folder / TOKENIZER_FILE))
        ids = {"pad": self.pad, "unknown": self.unknown, "unused": sorted(self.unused)}
        (folder / IDS_FILE).write_text(json.dumps(ids), encoding="utf-8")

    def limit(self, max_length: int) -> None:
        """Cut texts to so many tokens, special ones included, from now on, and pad none."""
        self.tokenizer.enable_truncation(max_length)
        self.tokenizer.no_padding()

    def encode(self, texts: list[str]) -> tuple[list[list[int]], int]:
        """Token ids of each text, and how many texts were cut."""
        found = self.tokenizer.encode_batch([_clean(text) for text in texts])
        return [encoding.ids for encoding in found], sum(bool(encoding.overflowing) for encoding in found)

    def tokens(self, text: str) -> list[Token]:
        """The tokens after CLS, with the characters they cover; the last is the end-of-text."""
        found = self.tokenizer.encode(_clean(text))
        return [Token(id, *span) for id, span in zip(found.ids[1:], found.offsets[1:], strict=True)]


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()  # a lone surrogate is no text: tokenizers refuse it
