"""Checksums in a payload: LMDB has none, and a flipped bit would change an answer without a word.

Every value ends with a seal, the XXH3 hash (64 bits) of its content, its key and its database: a value that
changed, or that is found under another's key, does not fit. The sum of the keys' hashes of each database
tells whether an entry was lost. A value is hashed when a process reads it first, at memory speed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from xxhash import xxh3_64_intdigest

from m3retriever.errors import DamagedIndexError

DATABASES = ("ids", "rows", "blobs", "dense", "codes", "postings", "pending", "meta")
NUMBERS = {name: number for number, name in enumerate(DATABASES)}  # part of every seal: never to be changed
SEAL_BYTES = 8
REMEMBERED = 1 << 17  # seals of a database: about 15 MB
SUMS_TO = 1 << 64


def sealed(database: str, key: bytes, value: bytes) -> bytes:
    """A value as it is kept: followed by its seal."""
    return value + xxh3_64_intdigest(value, _seed(database, key)).to_bytes(SEAL_BYTES, "little")


def sum_of_keys(keys: Iterable[bytes]) -> int:
    """What tells whether a set of keys is whole, whatever their order: it grows and shrinks key by key."""
    return sum(map(xxh3_64_intdigest, keys)) % SUMS_TO


def is_whole(database: str, key: bytes, value: Any) -> bool:
    """Whether a value is what was written under this key."""
    seal = xxh3_64_intdigest(value[:-SEAL_BYTES], _seed(database, key))
    return len(value) >= SEAL_BYTES and seal == int.from_bytes(value[-SEAL_BYTES:], "little")


class Seals:
    """Opens sealed values, and remembers which were found whole; safe to use from several threads."""

    def __init__(self) -> None:
        self._whole: dict[str, set[bytes]] = {name: set() for name in DATABASES}  # keys followed by their seals

    def opened(self, database: str, key: bytes, value: Any) -> Any:
        """The value, a memoryview, without its seal; DamagedIndexError where they do not fit."""
        return self.all_opened(database, [key], [value])[0]

    def all_opened(self, database: str, keys: Sequence[bytes], values: Sequence[Any]) -> list[Any]:
        """`opened` of many: a search reads hundreds."""
        whole = self._whole[database]
        for key, value in zip(keys, values, strict=True):
            if key + bytes(value[-SEAL_BYTES:]) not in whole:
                self._check(database, key, value)
        return [value[:-SEAL_BYTES] for value in values]

    def _check(self, database: str, key: bytes, value: Any) -> None:
        if not is_whole(database, key, value):
            raise DamagedIndexError(f"a value of {database!r} is not what was written: key {key.hex()}")
        whole = self._whole[database]
        if len(whole) >= REMEMBERED:
            whole.clear()
        whole.add(key + bytes(value[-SEAL_BYTES:]))


def _seed(database: str, key: bytes) -> int:
    return xxh3_64_intdigest(key, NUMBERS[database])
