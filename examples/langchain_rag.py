"""Ask a folder of Markdown, with LangChain: load, split, index, retrieve, answer with citations.

Run: python examples/langchain_rag.py [FOLDER OR FILE ...] [--question "..."]... [--path ./index]
     [--model mini|BAAI/bge-m3] [--llm PROVIDER:MODEL]
Reads this repository's README and docs unless told otherwise. Without --llm the answer consists of the
passages' own best sentences, so that nothing leaves this machine; --llm takes what LangChain's
init_chat_model takes, such as anthropic:NAME or ollama:NAME. With --path the index stays there, and a
second run encodes only what has changed and forgets what is gone.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_text_splitters import RecursiveCharacterTextSplitter

from m3retriever import M3Index, M3RetrieverError
from m3retriever.extractive import numbered
from m3retriever.langchain import ExtractiveChatModel, M3Retriever, M3VectorStore

ROOT = Path(__file__).resolve().parents[1]
QUESTIONS = [
    "What happens to a write after a crash?",
    "Is it safe to search while another process writes?",
    "Who won the football match on Sunday?",  # nothing in the documents: the answer should say so
]
PROMPT = ChatPromptTemplate.from_messages(
    [
        ("system", "Answer from the passages alone and cite them as [1], [2]. If they do not answer, say so."),
        ("human", "{passages}\n\nQuestion: {question}"),
    ]
)


def load(sources: list[Path]) -> list[Document]:
    """One Document per Markdown file; `source` is what a citation will name."""
    files = [(file, source) for source in sources for file in (sorted(source.rglob("*.md")) if source.is_dir() else [source])]
    if not files:
        raise FileNotFoundError(f"no Markdown files in {', '.join(map(str, sources))}")
    return [
        Document(file.read_text("utf-8"), metadata={"source": file.relative_to(source.parent).as_posix()})
        for file, source in files
    ]


def split(documents: list[Document]) -> list[Document]:
    """Passages with ids that stay the same from run to run, so that adding them again replaces them."""
    splitter = RecursiveCharacterTextSplitter.from_language("markdown", chunk_size=600, chunk_overlap=0)
    passages = []
    for document in documents:
        for place, passage in enumerate(splitter.split_documents([document])):
            passage.id = f"{passage.metadata['source']} {place}"
            passages.append(passage)
    return passages


def forget_gone(index: M3Index, sources: list[Path], kept: set[str]) -> None:
    """Remove the passages of these folders and files that are in them no more; others stay."""
    theirs = tuple(f"{source.name}/" if source.is_dir() else f"{source.name} " for source in sources)
    index.delete([id for id in index.ids() if id.startswith(theirs) and id not in kept])


def language_model(name: str) -> BaseChatModel:
    """The model that --llm names."""
    try:
        from langchain.chat_models import init_chat_model
    except ImportError:
        sys.exit("--llm needs the langchain package and the provider's: pip install langchain langchain-PROVIDER")
    try:
        return init_chat_model(name)
    except Exception as error:  # noqa: BLE001  # no package, no key, no such model: every provider raises its own
        sys.exit(f"--llm {name}: {error}".splitlines()[0])


def ask(question: str, retriever: M3Retriever, model: BaseChatModel) -> None:
    """Print the answer as it comes, then the passages it may cite, with their scores in every mode."""
    passages = retriever.invoke(question)
    chain = PROMPT | model | StrOutputParser()
    print(f"\n{question}")
    for piece in chain.stream({"passages": numbered([passage.page_content for passage in passages]), "question": question}):
        print(piece, end="", flush=True)
    print("\n")
    for place, passage in enumerate(passages, 1):
        scores = "  ".join(f"{mode} {score:.3f}" for mode, score in passage.metadata["scores"].items())
        print(f"  [{place}] {passage.id:<22} hybrid {passage.metadata['score']:.3f}  from  {scores}")


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
                added = M3VectorStore(index).add_documents(split(documents))
                forget_gone(index, arguments.sources, set(added))
                retriever = M3Retriever(index=index, k=arguments.k, return_scores=True)
                for question in arguments.question or QUESTIONS:
                    ask(question, retriever, model or ExtractiveChatModel(model=index.encoder))
        except (M3RetrieverError, OSError, ValueError) as error:
            sys.exit(f"{error}")


if __name__ == "__main__":
    main()
