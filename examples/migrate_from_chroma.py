"""An existing Chroma collection gains sparse and ColBERT search; its texts, metadata and ids stay as they are.

Run: python examples/migrate_from_chroma.py [--path FOLDER --collection NAME] [--question "..."]
     [--model mini|BAAI/bge-m3]
A collection whose dense vectors are this model's is adopted where it is: M3Index.open encodes the texts
once for the two new modes and keeps what they need beside the collection. One with another model's vectors
is refused, and copied into a new collection NAME-m3; the old one stays. Let nobody write meanwhile.
Without --path both kinds are made in a temporary folder, to show them.
"""

import argparse
import sys
import tempfile

import chromadb
from chromadb.config import Settings
from langchain_chroma import Chroma

from m3retriever import ChromaStore, Document, Encoder, EncoderMismatchError, M3Index, M3RetrieverError, load_encoder
from m3retriever.langchain import M3Embeddings
from m3retriever.ranking import SEARCH_MODES

TEXTS = [
    "To choose a new password, open the login page and follow the link sent to your email.",
    "Error E4103: the VAT number belongs to another country. Choose the country first.",
    "Money for a cancelled order is returned to your card within five working days.",
    "You can download all invoices of a year as one archive from the reports page.",
]
METADATAS = [{"page": place, "area": area} for place, area in enumerate(["login", "billing", "orders", "billing"], 1)]


def make_samples(path: str, encoder: Encoder) -> list[str]:
    """A collection with this model's dense vectors, made through LangChain, and one that counts letters."""
    client = chromadb.PersistentClient(path, Settings(anonymized_telemetry=False))
    ids = [f"doc-{place}" for place in range(len(TEXTS))]
    Chroma("helpdesk", M3Embeddings(encoder), client=client).add_texts(TEXTS, METADATAS, ids)
    letters = [[float(text.count(letter)) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in TEXTS]
    client.create_collection("letters", embedding_function=None).add(ids, letters, METADATAS, TEXTS)
    client.close()
    return ["helpdesk", "letters"]


def content(path: str, collection: str) -> dict[str, list]:
    """What any Chroma client sees: text, metadata and dense vector by id."""
    client = chromadb.PersistentClient(path, Settings(anonymized_telemetry=False))
    got = client.get_collection(collection, embedding_function=None).get(include=["documents", "metadatas", "embeddings"])
    client.close()
    rows = zip(got["ids"], got["documents"], got["metadatas"], got["embeddings"].tolist(), strict=True)
    return {id: row for id, *row in rows}


def migrated(path: str, collection: str, encoder: Encoder) -> tuple[str, M3Index]:
    """The collection as an M3Index: where it is if its vectors are the encoder's, else a copy of it."""
    try:
        return collection, M3Index.open(path, model=encoder, collection=collection)
    except EncoderMismatchError as error:
        print(f"  not where it is: {error}")
    copy = f"{collection}-m3"
    index = M3Index.open(path, model=encoder, collection=copy)
    rows = content(path, collection).items()
    index.add([Document(id, text, metadata or {}) for id, (text, metadata, _) in rows if text])
    return copy, index


def show(path: str, collection: str, encoder: Encoder, questions: list[str]) -> None:
    """Migrate a collection, search it by every mode, and compare it with what it was."""
    before = content(path, collection)
    print(f"\n{collection}: {len(before)} documents")
    name, index = migrated(path, collection, encoder)
    with index:
        print(f"  {name}: {len(index)} documents found by every mode")
        for question in questions:
            print(f"  {question}")
            for mode in SEARCH_MODES:
                hits = index.search(question, 1, mode=mode)
                print(f"    {mode:<8} {f'{hits[0].document.id}  {hits[0].score:.3f}' if hits else '-'}")
    after, made = content(path, collection), content(path, name)
    same = all(made[id][:2] == row[:2] for id, row in before.items() if row[0])
    print(f"  {collection} after it: {len(after)} documents, {'unchanged' if after == before else 'CHANGED'}")
    print(f"  texts, metadata and ids in {name}: {'the same' if same else 'NOT the same'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", help="the Chroma folder; default: a temporary one with two samples")
    parser.add_argument("--collection", help="its name in that folder")
    parser.add_argument("--question", action="append", help="may be given several times")
    parser.add_argument("--model", default="mini")
    arguments = parser.parse_args()
    if bool(arguments.path) != bool(arguments.collection):
        parser.error("--path and --collection go together")
    if arguments.path and not ChromaStore.exists(arguments.path, arguments.collection):
        sys.exit(f"there is no collection {arguments.collection!r} in {arguments.path}")
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.path or folder
        try:
            encoder = load_encoder(arguments.model)
            for collection in [arguments.collection] if arguments.path else make_samples(path, encoder):
                show(path, collection, encoder, arguments.question or ["E4103", "when do I get my money back"])
        except M3RetrieverError as error:
            sys.exit(f"{error}")


if __name__ == "__main__":
    main()
