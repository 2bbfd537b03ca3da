"""A LangChain app that has its own Chroma store and embedding model: M3Reranker puts what it finds in order.

Run: python examples/rerank_existing_chroma.py [--question "..."]... [--model mini|BAAI/bge-m3]
The store is made here, with a deliberately poor embedding (it counts letters), to have something to mend.
Reranking only reads: the collection, its vectors and its model stay as they are, and nothing is indexed.
"""

import argparse
import sys
import tempfile

import chromadb
from chromadb.config import Settings
from langchain_chroma import Chroma
from langchain_core.embeddings import Embeddings

from m3retriever import M3RetrieverError
from m3retriever.langchain import M3Reranker

TEXTS = {
    "password": "To choose a new password, open the login page and follow the link sent to your email.",
    "lock": "After five wrong attempts an account is locked for one hour to keep it safe.",
    "e4102": "Error E4102: the VAT number has a wrong check digit. Correct it in the billing form.",
    "e4103": "Error E4103: the VAT number belongs to another country. Choose the country first.",
    "refund": "Money for a cancelled order is returned to your card within five working days.",
    "export": "You can download all invoices of a year as one archive from the reports page.",
    "address": "A parcel that has left the warehouse can no longer be sent to another address.",
    "language": "The language of the pages follows the browser; change it at the foot of any page.",
    "delete": "Closing an account removes personal data after thirty days; until then it can be opened again.",
    "seats": "A plan has as many seats as people who may log in at the same time.",
}
QUESTIONS = ["I forgot my credentials", "E4103", "how long until I get my money back?"]


class LetterCounts(Embeddings):
    """How often each letter occurs: an embedding that knows nothing of meaning."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[1.0 + text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def content(store: Chroma) -> dict[str, list]:
    """All that the collection holds, by id, to compare."""
    got = store.get(include=["documents", "metadatas", "embeddings"])
    rows = zip(got["ids"], got["documents"], got["metadatas"], got["embeddings"].tolist(), strict=True)
    return {id: row for id, *row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--question", action="append", help="may be given several times")
    parser.add_argument("--model", default="mini")
    arguments = parser.parse_args()
    try:
        reranker = M3Reranker(model=arguments.model, top_n=3, return_scores=True)
    except M3RetrieverError as error:
        sys.exit(f"{error}")
    with tempfile.TemporaryDirectory() as folder:
        client = chromadb.PersistentClient(folder, Settings(anonymized_telemetry=False))
        store = Chroma("helpdesk", LetterCounts(), client=client)
        store.add_texts(list(TEXTS.values()), ids=list(TEXTS))
        before = content(store)
        for question in arguments.question or QUESTIONS:
            found = store.similarity_search(question, k=8)
            print(f"\n{question}\n  before:  {', '.join(document.id for document in found)}\n  after:")
            for document in reranker.compress_documents(found, question):
                scores = "  ".join(f"{mode} {score:.3f}" for mode, score in document.metadata["scores"].items())
                print(f"    {document.id:<9} hybrid {document.metadata['relevance_score']:.3f}  from  {scores}")
        print(f"\nthe collection is {'as it was' if content(store) == before else 'CHANGED'}: {len(TEXTS)} documents")
        client.close()


if __name__ == "__main__":
    main()
