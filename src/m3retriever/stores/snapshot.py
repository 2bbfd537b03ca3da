"""Reading a payload: one LMDB transaction, seen as columns by slot."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import lmdb
import numpy as np

from m3retriever.errors import DamagedIndexError
from m3retriever.kernels import SEGMENT, Int8Array, best_postings, dequantize, maxsim, quantize, residual_norms, rough_products
from m3retriever.stores.seals import DATABASES, Seals, is_whole
from m3retriever.vectors import FloatArray, IntArray, M3Vectors, offsets

FEW_ROWS = 8  # of a chunk are read one by one
CHUNK = 256  # dense vectors kept in one value: 1 MB at d = 1024, read in place by a scan
HEADER = struct.Struct("<II")  # sparse entries, tokens
NUMBER = struct.Struct(">I")  # big-endian, so that keys sort
PAIR = struct.Struct(">II")
POSITION = "position"  # of `meta`
HASH = 16  # bytes of a text's hash, and of its metadata's
FORMAT_KEY, KEYS_KEY = b"format", b"keys"  # of `meta`: the one value without a seal, that all versions read; the sums of keys
UNCOUNTED = {("meta", FORMAT_KEY), ("meta", KEYS_KEY)}  # not part of those sums
SUMS = struct.Struct(f"<{len(DATABASES)}Q")


def key_of(id: str) -> bytes:
    """A document id as a key: ids may be longer than LMDB's 511 bytes."""
    return hashlib.blake2b(id.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def slot_key(number: int) -> bytes:
    """A slot's or chunk's number as a key."""
    return NUMBER.pack(number)


def posting_key(token: int, segment: int) -> bytes:
    """Where the posting list of a token in a segment of slots is kept."""
    return PAIR.pack(token, segment)


@dataclass(frozen=True)
class Pending:
    """A write that Chroma has yet to confirm: "add" of a text and metadata with these hashes, or "delete"."""

    slot: int
    action: str
    id: str
    hash: bytes = bytes(HASH)
    metadata: bytes = bytes(HASH)

    def to_bytes(self) -> bytes:
        """The value kept under the slot: a letter, the hashes, the id."""
        return self.action[:1].encode() + self.hash + self.metadata + self.id.encode()

    @classmethod
    def from_bytes(cls, key: bytes, value: bytes) -> Pending:
        """Back from what `to_bytes` wrote."""
        action, hashes = {b"a": "add", b"d": "delete"}[value[:1]], value[1 : 1 + 2 * HASH]
        return cls(NUMBER.unpack(key)[0], action, value[1 + 2 * HASH :].decode(), hashes[:HASH], hashes[HASH:])


class Row(NamedTuple):
    """Which document has a slot, and the hashes of the text and metadata that were stored with its vectors.

    `metadata` is zeros where it is not known: in an index of an earlier format.
    """

    hash: bytes
    metadata: bytes
    id: str

    def to_bytes(self) -> bytes:
        """The value kept under the slot."""
        return self.hash + self.metadata + self.id.encode()

    @classmethod
    def from_bytes(cls, value: Any) -> Row:
        """Back from what `to_bytes` wrote."""
        raw = bytes(value)
        return cls(raw[:HASH], raw[HASH : 2 * HASH], raw[2 * HASH :].decode())


class Blob(NamedTuple):
    """One document's sparse entries and int8 token vectors; a tuple, for a search makes hundreds."""

    sparse_ids: IntArray
    sparse_weights: FloatArray
    scales: FloatArray
    codes: Int8Array

    def to_bytes(self) -> bytes:
        """Header, then the four arrays one after the other."""
        return b"".join(
            [
                HEADER.pack(len(self.sparse_ids), len(self.scales)),
                self.sparse_ids.astype("<i4").tobytes(),
                self.sparse_weights.astype("<f4").tobytes(),
                self.scales.astype("<f4").tobytes(),
                self.codes.tobytes(),
            ]
        )

    @classmethod
    def view(cls, value: Any) -> Blob:
        """The arrays inside a stored value, without copying: valid as long as its transaction."""
        try:
            entries, tokens = HEADER.unpack_from(value)
            at = HEADER.size
            ids = np.frombuffer(value, "<i4", entries, at)
            weights = np.frombuffer(value, "<f4", entries, at + 4 * entries)
            scales = np.frombuffer(value, "<f4", tokens, at + 8 * entries)
            codes = np.frombuffer(value, np.int8, offset=at + 8 * entries + 4 * tokens)
            return cls(ids, weights, scales, codes.reshape(tokens, -1) if tokens else codes.reshape(0, 1))
        except (ValueError, struct.error) as error:
            raise DamagedIndexError(f"a document's vectors in the payload have no form: {error}") from error


@dataclass(frozen=True, eq=False)
class DenseCodes:
    """int8 codes of a chunk's dense vectors, (CHUNK, d), their scales and how long what they leave over is, (CHUNK,)."""

    codes: Int8Array
    scales: FloatArray
    residuals: FloatArray

    def to_bytes(self) -> bytes:
        """The three arrays one after the other."""
        return self.codes.tobytes() + self.scales.astype("<f4").tobytes() + self.residuals.astype("<f4").tobytes()

    @classmethod
    def view(cls, value: Any) -> DenseCodes:
        """The arrays inside a stored value, without copying."""
        size = len(value) - 8 * CHUNK
        try:
            codes = np.frombuffer(value, np.int8, max(size, 0)).reshape(CHUNK, -1)
            return cls(codes, np.frombuffer(value, "<f4", CHUNK, size), np.frombuffer(value, "<f4", CHUNK, size + 4 * CHUNK))
        except ValueError as error:
            raise DamagedIndexError(f"codes of dense vectors in the payload have no form: {error}") from error

    @classmethod
    def empty(cls, dim: int) -> DenseCodes:
        """A chunk of zeros."""
        return cls(np.zeros((CHUNK, dim), np.int8), np.zeros(CHUNK, np.float32), np.zeros(CHUNK, np.float32))

    def copy(self) -> DenseCodes:
        """One that can be written to."""
        return DenseCodes(self.codes.copy(), self.scales.copy(), self.residuals.copy())

    def put(self, rows: IntArray, vectors: FloatArray) -> None:
        """Encode vectors (n, d) into these rows."""
        codes, scales = quantize(vectors)
        self.codes[rows], self.scales[rows] = codes, scales
        self.residuals[rows] = residual_norms(vectors, codes, scales)


def sparse_columns(blobs: Sequence[Blob]) -> tuple[IntArray, FloatArray, IntArray]:
    """Sparse entries in CSR, copied: ids, weights, offsets."""
    return (
        np.concatenate([np.empty(0, np.int32), *(blob.sparse_ids for blob in blobs)]),
        np.concatenate([np.empty(0, np.float32), *(blob.sparse_weights for blob in blobs)]),
        offsets([len(blob.sparse_ids) for blob in blobs]),
    )


def token_columns(blobs: Sequence[Blob], dim: int) -> tuple[Int8Array, FloatArray, IntArray]:
    """Token vectors, copied: int8 codes (t, d), scales (t,), offsets (n + 1,)."""
    return (
        np.concatenate([np.empty((0, dim), np.int8), *(blob.codes for blob in blobs if len(blob.scales))]),
        np.concatenate([np.empty(0, np.float32), *(blob.scales for blob in blobs)]),
        offsets([len(blob.scales) for blob in blobs]),
    )


class Snapshot:
    """A consistent view of the payload. What it returns is copied, but for blobs.

    Whatever is read may raise DamagedIndexError: every value is checked when this process reads it first.
    """

    def __init__(self, txn: lmdb.Transaction, dbs: dict[str, Any], seals: Seals) -> None:
        self._txn, self._dbs, self._seals = txn, dbs, seals

    def meta(self, name: str) -> str | None:
        """A named setting, or None."""
        value = self._get("meta", name.encode())
        return None if value is None else bytes(value).decode()

    def format(self) -> str | None:
        """The format it was written in; None where nothing was written yet."""
        value = self._txn.get(FORMAT_KEY, db=self._dbs["meta"])
        return None if value is None else bytes(value).decode(errors="replace")

    @property
    def has_seals(self) -> bool:
        """Whether values have seals: from format 3 on."""
        return self._txn.get(KEYS_KEY, db=self._dbs["meta"]) is not None

    def sums(self) -> list[int]:
        """What `sum_of_keys` is to give, by database."""
        value = self._get("meta", KEYS_KEY)
        return [0] * len(DATABASES) if value is None else list(SUMS.unpack(value))

    @property
    def revision(self) -> int:
        """Grows with every change that a search can see."""
        return int(self.meta("revision") or 0)

    def position(self) -> int | None:
        """The number of Chroma's last change that the payload knows of; None where that is not known."""
        value = self.meta(POSITION)
        return int(value) if value else None

    @property
    def settled(self) -> bool:
        """Whether no write waits for Chroma's confirmation."""
        return bool(self._txn.stat(self._dbs["pending"])["entries"] == 0)

    def __len__(self) -> int:
        return int(self._txn.stat(self._dbs["rows"])["entries"])

    def pending(self) -> list[Pending]:
        """Writes that Chroma has yet to confirm."""
        found, slots = [Pending.from_bytes(key, bytes(value)) for key, value in self._entries("pending")], self.slot_count()
        if any(entry.slot >= slots for entry in found):
            raise DamagedIndexError("the payload is damaged: a pending write is of a slot that there is not")
        return found

    def live(self) -> np.ndarray:
        """Which slots hold a document that counts: bool, as long as the highest slot demands."""
        raw = self._get("meta", b"live")
        if raw is None:
            return np.zeros(0, bool)
        if len(raw) * 8 >= self.slot_count() + 8:
            raise DamagedIndexError("the payload is damaged: more slots are said to be in use than there are")
        return np.unpackbits(np.frombuffer(raw, np.uint8)).view(bool)

    def slot_count(self) -> int:
        """One more than the highest slot in use, or somewhat above; no more than there are vectors to."""
        count = int(self.meta("next") or 0)
        if not 0 <= count <= CHUNK * self._txn.stat(self._dbs["dense"])["entries"]:
            raise DamagedIndexError("the payload is damaged: it says to have more slots than vectors")
        return count

    def slots(self, ids: Sequence[str]) -> IntArray:
        """Each id's slot, -1 for an id that is not here: (n,) int64."""
        found = (self._get("ids", key_of(id)) for id in ids)
        return np.array([-1 if value is None else NUMBER.unpack(value)[0] for value in found], np.int64)

    def ids(self, slots: IntArray) -> list[str]:
        """The ids of live slots."""
        return [bytes(value[2 * HASH :]).decode() for value in self._values("rows", slots)]

    def rows(self, slots: IntArray) -> list[Row]:
        """The documents of live slots."""
        return [Row.from_bytes(value) for value in self._values("rows", slots)]

    def rows_of(self, ids: Sequence[str]) -> dict[str, Row]:
        """The rows of those ids that are here."""
        slots = self.slots(ids)
        return {row.id: row for row in self.rows(slots[slots >= 0])}

    def all_rows(self) -> Iterator[tuple[int, Row]]:
        """Every slot in use and its row, ascending."""
        for key, value in self._entries("rows"):
            yield NUMBER.unpack(key)[0], Row.from_bytes(value)

    def damaged(self) -> Iterator[tuple[str, bytes]]:
        """Database and key of every value that is not what was written; all of them are read."""
        for database in DATABASES:
            for key, value in self._txn.cursor(self._dbs[database]):
                if (database, bytes(key)) != ("meta", FORMAT_KEY) and not is_whole(database, bytes(key), value):
                    yield database, bytes(key)

    def touch(self) -> None:
        """Read the first and the last byte of every value, whole or not."""
        for database in DATABASES:
            for key, value in self._txn.cursor(self._dbs[database]):
                bytes(key), bytes(value[:1]), bytes(value[-1:])

    def entries(self) -> int:
        """How many values there are."""
        return sum(self._txn.stat(self._dbs[name])["entries"] for name in DATABASES)

    def postings(self) -> Iterator[tuple[bytes, Any]]:
        """The key and value of every posting list, ascending."""
        yield from self._entries("postings")

    def posting(self, key: bytes) -> Any:
        """A posting list, None where there is none."""
        return self._get("postings", key)

    def numbers(self, database: str) -> IntArray:
        """The slots or chunks under which a database holds something, ascending."""
        keys = self._txn.cursor(self._dbs[database]).iternext(keys=True, values=False)
        return np.array([NUMBER.unpack(key)[0] for key in keys], np.int64)

    def grouped(self, slots: IntArray) -> Iterator[tuple[bytes, bytes, bytes]]:
        """The documents' sparse entries by posting list: its key, the places in the segment, the weights."""
        if not len(slots):
            return
        tokens, weights, counts = sparse_columns(self.blobs(slots))
        owners = np.repeat(slots, np.diff(counts))
        order = np.lexsort([owners // SEGMENT, tokens])  # stable: slots stay as they come
        tokens, weights, owners = tokens[order], weights[order], owners[order]
        places, values = (owners % SEGMENT).astype("<u2").tobytes(), weights.astype("<f4").tobytes()
        lists = np.stack([tokens, owners // SEGMENT], axis=1)
        starts = np.flatnonzero(np.r_[True, (np.diff(lists, axis=0) != 0).any(axis=1)][: len(lists)])
        edges = [*starts.tolist(), len(lists)]
        for (token, segment), (begin, end) in zip(lists[starts].tolist(), pairwise(edges), strict=True):
            yield posting_key(token, segment), places[2 * begin : 2 * end], values[4 * begin : 4 * end]

    def blob(self, slot: int) -> Blob:
        """One document's sparse entries and token vectors, in place: use them before the snapshot ends."""
        return Blob.view(self._value("blobs", slot))

    def dense(self, slots: IntArray) -> FloatArray:
        """Dense vectors, (n, d)."""
        wanted = [divmod(slot, CHUNK) for slot in slots.tolist()]
        if not wanted:
            return np.empty((0, 0), np.float32)
        chunks = {chunk: self._chunk(chunk) for chunk in {chunk for chunk, _ in wanted}}
        return np.stack([chunks[chunk][row] for chunk, row in wanted])

    def dense_products(self, query: FloatArray, slots: IntArray) -> FloatArray:
        """Inner products of a query (d,) with the dense vectors of ascending slots, to float32's rounding: (m,)."""
        chunks, bounds = _chunks_of(slots)
        if len(slots) < FEW_ROWS * len(chunks):
            products: FloatArray = self.dense(slots) @ query
            return products
        result = np.empty(len(slots), np.float32)
        for chunk, begin, end in zip(chunks, bounds, bounds[1:], strict=False):
            rows, matrix = slots[begin:end] % CHUNK, self._chunk(chunk)
            result[begin:end] = matrix[rows] @ query if len(rows) < CHUNK // 4 else (matrix @ query)[rows]
        return result

    def rough_dense_products(self, query: FloatArray, slots: IntArray) -> tuple[FloatArray, FloatArray]:
        """The same from int8 codes, a quarter of the bytes, and by how much each may be off at most: (m,) both."""
        chunks, bounds = _chunks_of(slots)
        parts = [self.codes(chunk) for chunk in chunks]
        return rough_products(query, parts, np.array(bounds), slots % CHUNK)

    def best_sparse(self, query: M3Vectors, depth: int, allowed: np.ndarray | None) -> tuple[IntArray, FloatArray]:
        """Slots and their sparse scores, the `depth` highest above 0 at least; `allowed` as long as `live`, None for all."""
        slots, lists, segments, weights = self.slot_count(), [], [], []
        terms = list(zip(query.sparse_ids.tolist(), query.sparse_weights.tolist(), strict=True))
        for segment in range(-(-slots // SEGMENT)):
            for token, weight in terms:
                value = self._get("postings", posting_key(token, segment))
                if value is not None:
                    lists.append(value)
                    segments.append(segment)
                    weights.append(weight)
        return best_postings(lists, np.array(segments, np.int64), np.array(weights), depth, slots=slots, allowed=allowed)

    def maxsim(self, query: M3Vectors, blobs: Sequence[Blob]) -> FloatArray:
        """`colbert_score` of the query with each blob's token vectors, read in place: (n,)."""
        return maxsim(query.colbert, [(blob.codes, blob.scales) for blob in blobs])

    def blobs(self, slots: IntArray) -> list[Blob]:
        """`blob` of each slot, in place."""
        return [Blob.view(value) for value in self._values("blobs", slots)]

    def sizes(self, slots: IntArray) -> IntArray:
        """How many sparse entries and token vectors each document has: (n, 2) int64. Unchecked: the values are not read."""
        found = (self._txn.get(slot_key(slot), db=self._dbs["blobs"]) for slot in slots.tolist())
        headers = [(0, 0) if value is None or len(value) < HEADER.size else HEADER.unpack_from(value) for value in found]
        return np.array(headers, np.int64).reshape(-1, 2)

    def vectors(self, slots: IntArray, dim: int) -> M3Vectors:
        """Everything that is stored of these documents; token vectors carry the loss of their int8 codes."""
        if not len(slots):
            return M3Vectors.empty(dim)
        blobs = self.blobs(slots)
        codes, scales, token_offsets = token_columns(blobs, dim)
        return M3Vectors(self.dense(slots), *sparse_columns(blobs), dequantize(codes, scales), token_offsets)

    def _chunk(self, number: int) -> FloatArray:
        try:
            return np.frombuffer(self._value("dense", number), "<f4").reshape(CHUNK, -1)
        except ValueError as error:
            raise DamagedIndexError(f"dense vectors in the payload have no form: {error}") from error

    def codes(self, number: int) -> DenseCodes:
        """The int8 codes of a chunk, in place."""
        return DenseCodes.view(self._value("codes", number))

    def _value(self, database: str, number: int) -> Any:
        """What stands under a slot's or chunk's number, as a buffer."""
        [value] = self._values(database, np.array([number]))
        return value

    def _values(self, database: str, numbers: IntArray) -> list[Any]:
        """`_value` of many."""
        get, handle = self._txn.get, self._dbs[database]
        keys = [NUMBER.pack(number) for number in numbers.tolist()]
        values = [get(key, None, handle) for key in keys]
        if None in values:
            raise DamagedIndexError(f"the payload is damaged: {database} lacks number {numbers[values.index(None)]}")
        return self._seals.all_opened(database, keys, values)

    def _get(self, database: str, key: bytes) -> Any:
        """What stands under a key, as a buffer without its seal; None where nothing does."""
        value = self._txn.get(key, db=self._dbs[database])
        return None if value is None else self._seals.opened(database, key, value)

    def _entries(self, database: str) -> Iterator[tuple[bytes, Any]]:
        for key, value in self._txn.cursor(self._dbs[database]):
            yield bytes(key), self._seals.opened(database, bytes(key), value)

    def _numbers(self, name: str) -> np.ndarray:
        raw = self._get("meta", name.encode())
        return np.zeros(0, np.uint32) if raw is None else np.frombuffer(raw, "<u4").copy()


def _chunks_of(slots: IntArray) -> tuple[list[int], list[int]]:
    """The chunks of ascending slots, and where each one's slots begin, with the end: (c,) and (c + 1,)."""
    chunks = slots // CHUNK
    starts = np.flatnonzero(np.r_[True, np.diff(chunks) > 0][: len(chunks)])
    return chunks[starts].tolist(), [*starts.tolist(), len(slots)]
