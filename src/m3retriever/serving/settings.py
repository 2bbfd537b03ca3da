"""What a service is told about itself: how much it takes at once, how long it lets wait, what may share a pass."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from m3retriever.errors import InvalidArgumentError, shown

Batching = Literal["exact", "joined"]
BATCHINGS: tuple[Batching, ...] = get_args(Batching)
ESCAPED = 12  # bytes of a character in JSON at most: two \uXXXX
AROUND_TEXTS = 1 << 20  # bytes of a body beside its texts: names, filters, brackets


@dataclass(frozen=True)
class Settings:
    """Numbers of a service; the defaults hold one batch of `M3Index.add` in one request.

    Attributes
    ----------
    batching : "exact" answers with the bits that the library gives in one process; "joined" always encodes requests that wait
        together in one pass, so that the last bits may depend on who else asks
    max_batch : texts of different requests in one pass
    batch_wait : seconds that a pass waits for others to share it, where passes are shared
    queue : requests waiting or being answered; the next is refused
    timeout : seconds that a request may wait for its turn, its body may take to arrive, and a client be late in taking its
        answer (`Pieces`)
    refresh : seconds between two looks at what other clients of a Chroma server have changed; 0 looks at the start only
    max_texts, max_characters : of one request; BGE-M3 sends back about a kilobyte for each character
    max_row_characters : of one request whose token vectors are sent as numbers, which take several times as much
    max_answer_bytes : of large answers being made or sent at a time (`Room`)
    """

    batching: Batching = "exact"
    max_batch: int = 64
    batch_wait: float = 0.002
    queue: int = 256
    timeout: float = 30.0
    refresh: float = 60.0
    max_texts: int = 256
    max_characters: int = 200_000
    max_row_characters: int = 20_000
    max_answer_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        if self.batching not in BATCHINGS:
            raise InvalidArgumentError(f"batching must be one of {', '.join(BATCHINGS)}; got {shown(self.batching)}")
        for name in ("max_batch", "queue", "max_texts", "max_characters", "max_row_characters", "max_answer_bytes"):
            if getattr(self, name) < 1:
                raise InvalidArgumentError(f"{name} must be >= 1; got {getattr(self, name)}")
        if not (math.isfinite(self.timeout) and self.timeout > 0):
            raise InvalidArgumentError(f"timeout must be a number of seconds above 0; got {self.timeout}")
        for name in ("batch_wait", "refresh"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise InvalidArgumentError(f"{name} must be a number of seconds, 0 or more; got {getattr(self, name)}")

    @property
    def max_bytes(self) -> int:
        """Of a request's body: texts within the limits fit, however they are escaped."""
        return AROUND_TEXTS + ESCAPED * self.max_characters
