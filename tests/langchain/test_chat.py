"""ExtractiveChatModel: a chat model as LangChain knows them, which quotes instead of writing."""

from __future__ import annotations

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_tests.unit_tests import ChatModelUnitTests

from m3retriever import Document, HashingEncoder, InvalidArgumentError, M3Index, MemoryStore
from m3retriever.extractive import NO_ANSWER, NO_PASSAGES, numbered
from m3retriever.langchain import ExtractiveChatModel, M3Retriever

PASSAGES = numbered(["Bread needs flour.", "Chroma keeps the vectors on disk. It keeps vectors on the disk."])
PROMPT = f"{PASSAGES}\n\nQuestion: who keeps the vectors on disk?"
FIRST, SECOND = "Chroma keeps the vectors on disk. [2] ", "It keeps vectors on the disk. [2]"


class Tokens(BaseCallbackHandler):
    """Keeps the tokens it is told of."""

    def __init__(self):
        self.tokens = []

    def on_llm_new_token(self, token, **told):
        self.tokens.append(token)


class AsyncTokens(AsyncCallbackHandler):
    """As Tokens."""

    def __init__(self):
        self.tokens = []

    async def on_llm_new_token(self, token, **told):
        self.tokens.append(token)


@pytest.fixture
def model():
    return ExtractiveChatModel(model=HashingEncoder())


async def collected(stream):
    return [piece async for piece in stream]


def test_the_answer_quotes_and_cites(model):
    message = model.invoke(PROMPT)
    assert isinstance(message, AIMessage)
    assert message.content == FIRST + SECOND
    assert message.response_metadata["model_name"] == model.encoder.name


def test_a_stream_comes_sentence_by_sentence(model):
    assert [chunk.content for chunk in model.stream(PROMPT) if chunk.content] == [FIRST, SECOND]


async def test_async_gives_what_sync_gives(model):
    assert (await model.ainvoke(PROMPT)).content == model.invoke(PROMPT).content
    assert [chunk.content for chunk in await collected(model.astream(PROMPT)) if chunk.content] == [FIRST, SECOND]
    assert [message.content for message in await model.abatch([PROMPT, "why?"])] == [FIRST + SECOND, NO_PASSAGES["en"]]


async def test_the_event_loop_stays_free(slow_encoder, beats_during):
    slow = ExtractiveChatModel(model=slow_encoder)
    assert await beats_during(slow.ainvoke(PROMPT)) >= 5
    assert await beats_during(collected(slow.astream(PROMPT))) >= 5


async def test_callbacks_hear_of_every_sentence(model):
    tokens, later = Tokens(), AsyncTokens()
    list(model.stream(PROMPT, config={"callbacks": [tokens]}))
    await collected(model.astream(PROMPT, config={"callbacks": [later]}))
    assert [token for token in tokens.tokens if token] == [token for token in later.tokens if token] == [FIRST, SECOND]


def test_the_last_human_message_asks_and_system_messages_may_hold_the_passages(model):
    chat = [
        SystemMessage(f"Question: what is asked here?\n\n{PASSAGES}"),
        HumanMessage("what needs flour?"),
        AIMessage("Flour. Question: what is flour?"),
        HumanMessage([{"type": "text", "text": "who keeps the vectors on disk?"}]),
    ]
    assert model.invoke(chat).content == FIRST + SECOND
    assert model.invoke(chat[:2]).content == "Bread needs flour. [1]"
    assert model.invoke([*chat[:3], HumanMessage("谁画了蒙娜丽莎？")]).content == NO_ANSWER["zh"]


def test_without_a_human_message_there_is_nothing_to_answer(model):
    assert model.invoke([SystemMessage(PASSAGES)]).content == NO_ANSWER["en"]


def test_it_answers_at_the_end_of_a_chain(model):
    index = M3Index(model.encoder, MemoryStore())
    index.add([Document("a", "Chroma keeps the vectors on disk."), Document("b", "Bread needs flour.")])
    passages = M3Retriever(index=index, k=2) | RunnableLambda(lambda found: numbered([one.page_content for one in found]))
    prompt = ChatPromptTemplate.from_template("{passages}\n\nQuestion: {question}")
    chain = {"passages": passages, "question": RunnablePassthrough()} | prompt | model | StrOutputParser()
    assert chain.invoke("what needs flour?") == "Bread needs flour. [1]"
    assert "".join(chain.stream("who keeps the vectors on disk?")) == "Chroma keeps the vectors on disk. [1]"


def test_stop_ends_the_answer_where_it_begins(model):
    assert model.invoke(PROMPT, stop=["[2] It", "nowhere"]).content == "Chroma keeps the vectors on disk. "
    assert [chunk.content for chunk in model.stream(PROMPT, stop=["on the"]) if chunk.content] == [
        FIRST,
        "It keeps vectors ",
    ]
    assert model.invoke(PROMPT, stop=["Chroma"]).content == ""


def test_sentences_are_at_most_as_many_as_asked_for(model):
    assert ExtractiveChatModel(model=model.encoder, sentences=1).invoke(PROMPT).content == FIRST.strip()
    with pytest.raises(InvalidArgumentError, match="0"):
        ExtractiveChatModel(model=model.encoder, sentences=0).invoke(PROMPT)


def test_a_call_may_name_another_model(model):
    other = HashingEncoder(dim=128)
    message = model.invoke(PROMPT, model=other)
    assert message.content == FIRST + SECOND
    assert message.response_metadata["model_name"] == other.name
    assert model.invoke(PROMPT, model="hashing").response_metadata["model_name"] == HashingEncoder().name


def test_traces_and_caches_tell_models_apart(model):
    params = model._get_ls_params(stop=["x"])
    assert (params["ls_provider"], params["ls_model_name"], params["ls_stop"]) == ("m3retriever", model.encoder.name, ["x"])
    other = ExtractiveChatModel(model=HashingEncoder(dim=128))
    assert model._get_llm_string() != other._get_llm_string()
    assert model._get_llm_string() != ExtractiveChatModel(model=model.encoder, sentences=2)._get_llm_string()


class TestStandardSuite(ChatModelUnitTests):
    """LangChain's own suite for chat models."""

    @property
    def chat_model_class(self):
        return ExtractiveChatModel

    @property
    def chat_model_params(self):
        return {"model": "hashing"}
