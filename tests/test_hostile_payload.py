"""A payload whose values fit their seals and make no sense: whoever makes an index can make its seals too."""

import shutil
import struct

import pytest

from m3retriever import ChromaStore, Document, HashingEncoder, M3Index, M3RetrieverError, StoreError
from m3retriever.stores.payload import open_payload, release_payload
from m3retriever.stores.snapshot import CHUNK, HEADER, key_of, slot_key

ENCODER = HashingEncoder(64)
FAR = 2**32 - 1
HASHES = bytes(32)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "index"
    with M3Index(ENCODER, ChromaStore(folder)) as index:
        index.add([Document(f"d{number}", f"red fox w{number}", {"n": number}) for number in range(5)])
    return folder


VALUES = {
    "a blob of more than there is": ("blobs", slot_key(1), HEADER.pack(FAR, FAR)),
    "a blob without a header": ("blobs", slot_key(1), b""),
    "a blob of another dimension": ("blobs", slot_key(1), HEADER.pack(0, 1) + bytes(4) + bytes(7)),
    "a blob of negative tokens": ("blobs", slot_key(1), HEADER.pack(1, 0) + struct.pack("<if", -5, 1)),
    "vectors of another dimension": ("dense", slot_key(0), bytes(4 * CHUNK * 3)),
    "vectors cut in a number": ("dense", slot_key(0), bytes(7)),
    "codes of another dimension": ("codes", slot_key(0), bytes(CHUNK * 3 + 8 * CHUNK)),
    "codes cut short": ("codes", slot_key(0), bytes(10)),
    "a row without hashes": ("rows", slot_key(1), b"abc"),
    "a row that is no text": ("rows", slot_key(1), HASHES + b"\xff"),
    "a row under half a number": ("rows", b"ab", HASHES + b"d9"),
    "half a slot": ("ids", key_of("d1"), b"ab"),
    "a slot far away": ("ids", key_of("d1"), slot_key(FAR)),
    "a pending write of no kind": ("pending", slot_key(1), b"z" + HASHES + b"d1"),
    "an empty pending write": ("pending", slot_key(1), b""),
    "a pending write of no text": ("pending", slot_key(1), b"a" + HASHES + b"\xff"),
    "a pending write far away": ("pending", slot_key(FAR), b"a" + HASHES + b"d1"),
    "a pending write nowhere": ("pending", b"k", b"a" + HASHES + b"d1"),
    **{f"{name} {kind}": ("meta", name.encode(), value) for name in ("revision", "next", "dim") for kind, value in {
        "in words": b"many", "that is no text": b"\xff", "with a fraction": b"1.5", "of 5,000 digits": b"9" * 5_000,
    }.items()},
    "a negative number of slots": ("meta", b"next", b"-5"),
    "a billion slots": ("meta", b"next", b"1000000000"),
    "more slots in use than there are": ("meta", b"live", b"\xff" * 1_000_000),
    "no slots in use": ("meta", b"live", b""),
    "half a free slot": ("meta", b"free", b"abc"),
    "a free slot far away": ("meta", b"free", struct.pack("<I", FAR)),
    "a free slot that is in use": ("meta", b"free", struct.pack("<I", 0)),
    "a slot that is free twice": ("meta", b"free", struct.pack("<2I", 5, 5)),
    "a model that is no text": ("meta", b"model", b"\xff"),
}  # fmt: skip


def use(folder):
    """Everything that reads or writes values; what is refused is refused by name, and the next is tried."""
    refused = []

    def tried(call):
        try:
            call()
        except M3RetrieverError as error:
            refused.append(error)

    try:
        index = M3Index(ENCODER, ChromaStore(folder))
    except StoreError as error:
        return [error]
    with index:
        for mode in ("dense", "sparse", "colbert", "hybrid"):
            tried(lambda mode=mode: index.search("red fox", mode=mode))
        tried(lambda: index.search("fox", where={"n": 1}))
        tried(lambda: index.explain("red fox", "d1"))
        tried(lambda: index.store.vectors(["d1"]))
        tried(lambda: index.store.sizes(["d1"]))
        tried(index.ids)
        tried(index.store.settings)
        tried(lambda: index.add([Document("new", "green crow")]))
        tried(lambda: index.add([Document("d1", "green crow")]))
        tried(lambda: index.delete(["d2"]))
    return refused


@pytest.mark.parametrize("name", VALUES)
def test_values_that_make_no_sense_are_refused_by_every_call_in_words(made, tmp_path, name, monkeypatch):
    folder = shutil.copytree(made, tmp_path / "index")
    database, key, value = VALUES[name]
    payload = open_payload(folder / "m3" / "m3retriever")
    with payload._write() as writer:
        writer.put(database, key, value)
        if database == "meta":
            monkeypatch.setattr(writer, "finish", lambda: None)
    release_payload(payload)
    assert use(folder), "nothing was refused"


def test_the_index_of_these_tests_is_whole_as_it_stands(made, tmp_path):
    assert use(shutil.copytree(made, tmp_path / "index")) == []
