"""Bringing a payload of an earlier format up to date, in one transaction: whoever is killed meanwhile finds it as it was.

Format 1 had no int8 codes of dense vectors and other posting lists, format 2 no seals and no hashes of metadata.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lmdb

from m3retriever.stores.seals import DATABASES, Seals, sealed, sum_of_keys
from m3retriever.stores.snapshot import FORMAT_KEY, HASH, KEYS_KEY, SUMS, Snapshot
from m3retriever.stores.writer import DERIVED, FORMAT, Writer

UPGRADED = ("1", "2")


def upgrade(txn: lmdb.Transaction, dbs: dict[str, Any], seals: Seals) -> None:
    """Seal what is kept as it was, and make anew what is made of it."""
    if Snapshot(txn, dbs, seals).format() not in UPGRADED:
        return  # another process was first
    for name in DERIVED:
        txn.drop(dbs[name], delete=False)
    sums = [_seal(txn, name, dbs[name]) for name in DATABASES]
    txn.put(KEYS_KEY, sealed("meta", KEYS_KEY, SUMS.pack(*sums)), db=dbs["meta"])
    txn.put(FORMAT_KEY, str(FORMAT).encode(), db=dbs["meta"])
    writer = Writer(txn, dbs, seals)
    writer.rebuild()
    writer.finish()


def _seal(txn: lmdb.Transaction, name: str, database: Any) -> int:
    """Seal every value of a database; the sum of its keys."""
    keys = [bytes(key) for key in txn.cursor(database).iternext(keys=True, values=False) if bytes(key) != FORMAT_KEY]
    change = CHANGED.get(name, bytes)
    for key in keys:
        txn.put(key, sealed(name, key, change(txn.get(key, db=database))), db=database)
    return sum_of_keys(keys)


def _with_metadata(start: int) -> Callable[[Any], bytes]:
    """Puts the hash of metadata, unknown, behind the text's, which begins at `start`."""
    return lambda value: bytes(value[: start + HASH]) + bytes(HASH) + bytes(value[start + HASH :])


CHANGED: dict[str, Callable[[Any], bytes]] = {"rows": _with_metadata(0), "pending": _with_metadata(1)}
