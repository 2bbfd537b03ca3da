"""Ask a folder of Markdown, with LlamaIndex: load, split, index, retrieve, answer with citations.

Run: python examples/llama_index_rag.py [FOLDER OR FILE ...] [--question "..."]... [--path ./index]
     [--model mini|BAAI/bge-m3] [--llm PROVIDER:MODEL]
Reads this repository's README and docs unless told otherwise. Without --llm the answer consists of the
passages' own best sentences, so that nothing leaves this machine; --llm anthropic:NAME takes the class
of the package llama-index-llms-anthropic, and so on. With --path the index stays there, and a second
run encodes only what has changed and forgets what is gone; LangChain finds the same documents in it.
"""

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

from llama_index.core import Document, QueryBundle, VectorStoreIndex
from llama_index.core.llms import LLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.query_engine import CitationQueryEngine
from llama_index.core.schema import BaseNode

from m3retriever import M3Index, M3RetrieverError
from m3retriever.llama_index import ExtractiveLLM, M3Retriever, M3VectorStore

ROOT = Path(__file__).resolve().parents[1]
QUESTIONS = [
    "What happens to a write after a crash?",
    "Is it safe to search while another process writes?",
    "Who won the football match on Sunday?",  # nothing in the documents: the answer should say so
]


def load(sources: list[Path]) -> list[Document]:
    """One Document per Markdown file; its id is what a citation will name."""
    files = [(file, source) for source in sources for file in (sorted(source.rglob("*.md")) if source.is_dir() else [source])]
    if not files:
        raise FileNotFoundError(f"no Markdown files in {', '.join(map(str, sources))}")
    return [Document(text=file.read_text("utf-8"), id_=file.relative_to(source.parent).as_posix()) for file, source in files]


def split(documents: list[Document]) -> list[BaseNode]:
    """Passages with ids that stay the same from run to run, so that adding them again replaces them."""
    splitter = SentenceSplitter(
        chunk_size=160, chunk_overlap=0, id_func=lambda place, document: f"{document.node_id} {place}"
    )  # fmt: skip
    return splitter.get_nodes_from_documents(documents)


def forget_gone(index: M3Index, sources: list[Path], kept: set[str]) -> None:
    """Remove the passages of these folders and files that are in them no more; others stay."""
    theirs = tuple(f"{source.name}/" if source.is_dir() else f"{source.name} " for source in sources)
    index.delete([id for id in index.ids() if id.startswith(theirs) and id not in kept])


def language_model(name: str) -> LLM:
    """The model that --llm names: LlamaIndex has a package a provider, with its class in `llama_index.llms.PROVIDER`."""
    provider, _, model = name.partition(":")
    try:
        module = importlib.import_module(f"llama_index.llms.{provider}")
    except ImportError:
        sys.exit(f"--llm {name} needs LlamaIndex's package: pip install llama-index-llms-{provider.replace('_', '-')}")
    kinds = [kind for kind in map(vars(module).get, module.__all__) if isinstance(kind, type) and issubclass(kind, LLM)]
    try:
        return kinds[0](model=model)
    except Exception as error:  # noqa: BLE001  # no key, no such model: every provider raises its own
        sys.exit(f"--llm {name}: {error}".splitlines()[0])


def ask(question: str, engine: CitationQueryEngine) -> None:
    """Print the answer, then the passages it may cite, with their scores in every mode."""
    nodes = engine.retrieve(QueryBundle(question))
    print(f"\n{question}\n{engine.synthesize(QueryBundle(question), nodes)}\n")
    for place, node in enumerate(nodes, 1):
        scores = "  ".join(f"{mode} {score:.3f}" for mode, score in node.scores.items())
        print(f"  [{place}] {node.node_id:<22} hybrid {node.score:.3f}  from  {scores}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="*", type=Path, default=[ROOT / "README.md", ROOT / "docs"])
    parser.add_argument("--question", action="append", help="may be given several times")
    parser.add_argument("--path", help="where to keep the index; default: a temporary folder")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--llm", help="PROVIDER:MODEL")
    parser.add_argument("-k", type=int, default=4, help="passages to answer from")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            documents = load(arguments.sources)
            model = language_model(arguments.llm) if arguments.llm else None
            with M3Index.open(arguments.path or folder, model=arguments.model) as index:
                store = M3VectorStore(index)
                nodes = split(documents)
                VectorStoreIndex.from_vector_store(store, embed_model=store.embed_model).insert_nodes(nodes)
                forget_gone(index, arguments.sources, {node.node_id for node in nodes})
                engine = CitationQueryEngine(
                    M3Retriever(index=index, k=arguments.k),
                    llm=model or ExtractiveLLM(model=index.encoder),
                    citation_chunk_size=2048,  # more than a passage has, so that source 1 is the first passage
                )
                for question in arguments.question or QUESTIONS:
                    ask(question, engine)
        except (M3RetrieverError, OSError, ValueError) as error:
            sys.exit(f"{error}")


if __name__ == "__main__":
    main()
