"""A chat page over an index: each answer with its passages beside it, and every passage with its three scores.

Run: streamlit run examples/langchain_chat_streamlit.py -- [--path ./index] [--model mini|BAAI/bge-m3]
     [--llm PROVIDER:MODEL]
An index that holds nothing yet is filled with this repository's README and docs; to chat about files of
your own, index them first: m3retriever index FOLDER --path ./index. Without --llm the answers are the
passages' own best sentences. The page has no login: keep it on this machine (--server.address 127.0.0.1).
Texts and answers are shown by st.text and st.code, which know no Markdown and no HTML, so that no document
can load an image or place a link.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import streamlit as st
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_text_splitters import RecursiveCharacterTextSplitter

from m3retriever import MODES, M3Index
from m3retriever.extractive import numbered
from m3retriever.langchain import ExtractiveChatModel, M3Retriever, M3VectorStore

ROOT = Path(__file__).resolve().parents[1]
COLOURS = ("blue", "orange", "violet")
PROMPT = ChatPromptTemplate.from_messages(
    [
        ("system", "Answer from the passages alone and cite them as [1], [2]. If they do not answer, say so."),
        ("human", "{passages}\n\nQuestion: {question}"),
    ]
)
# Ours, and the only HTML here: st.text in the page's own font, with its lines wrapped.
STYLE = "<style>[data-testid=stText] {font-family: inherit; white-space: pre-wrap; overflow-wrap: anywhere}</style>"


@st.cache_resource(show_spinner="Opening the index ...")
def opened(path: str | None, model: str, llm: str | None) -> tuple[M3Index, BaseChatModel]:
    """The index and the model that answers, once for all visitors."""
    index = M3Index.open(path or tempfile.mkdtemp(prefix="m3-chat-"), model=model)
    if not len(index):
        splitter = RecursiveCharacterTextSplitter.from_language("markdown", chunk_size=600, chunk_overlap=0)
        files = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
        pages = [Document(file.read_text("utf-8"), metadata={"source": file.name}) for file in files]
        M3VectorStore(index).add_documents(splitter.split_documents(pages))
    if llm is None:
        return index, ExtractiveChatModel(model=index.encoder)
    from langchain.chat_models import init_chat_model  # pip install langchain langchain-PROVIDER

    return index, init_chat_model(llm)


def answer(question: str, passages: list[Document], model: BaseChatModel) -> Iterator[str]:
    """The answer so far, longer each time."""
    chain, text = PROMPT | model | StrOutputParser(), ""
    for piece in chain.stream({"passages": numbered([passage.page_content for passage in passages]), "question": question}):
        text += piece
        yield text


def show_passages(passages: list[Document]) -> None:
    """Each passage with its source and score, and what that came from (# is its rank by a mode); a click shows its text."""
    for place, passage in enumerate(passages, 1):
        found = passage.metadata
        badges = [f"{mode} {score:.3f} #{found['ranks'][mode]}" for mode, score in found["scores"].items()]
        with st.container(border=True, gap="small"):
            st.text(f"[{place}] {found.get('source', passage.id)} · {found['score']:.3f}")
            with st.expander(" ".join(f":{colour}-badge[{badge}]" for colour, badge in zip(COLOURS, badges, strict=True))):
                st.code(passage.page_content, language=None, wrap_lines=True)


def turn(question: str) -> tuple:
    """A question on the page with room for what follows: the answer to the left, the passages to the right."""
    with st.chat_message("user"):
        st.text(question)
    left, right = st.columns([5, 4], gap="medium")
    return left.chat_message("assistant").empty(), right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", help="where the index is; default: a temporary folder")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--llm", help="PROVIDER:MODEL")
    arguments = parser.parse_args()

    st.set_page_config("Ask your documents", ":material/forum:", layout="wide")
    st.html(STYLE)
    st.title("Ask your documents")
    try:
        index, model = opened(arguments.path, arguments.model, arguments.llm)
    except Exception as error:  # noqa: BLE001  # ours, a missing package's, and what each provider raises
        st.error("The index or the language model cannot be opened.")
        st.text(str(error))
        st.stop()
    mode = st.sidebar.radio("Search by", ["hybrid", *MODES])
    k = st.sidebar.slider("Passages", 1, 10, 4)
    st.sidebar.caption(f"{len(index)} passages · {index.encoder.name}")

    history = st.session_state.setdefault("history", [])
    for question, text, passages in history:
        box, right = turn(question)
        box.text(text)
        with right:
            show_passages(passages)
    if question := st.chat_input("What happens to a write after a crash?"):
        box, right = turn(question)
        passages = M3Retriever(index=index, k=k, mode=mode, return_scores=True).invoke(question)
        with right:
            show_passages(passages)
        text = ""
        for text in answer(question, passages, model):
            box.text(text)
        history.append((question, text, passages))


main()
