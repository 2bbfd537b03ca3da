"""A LlamaIndex language model that writes nothing of its own: it quotes the sentences that answer, and cites them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from itertools import accumulate
from typing import Any, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from pydantic import ConfigDict, Field, PrivateAttr, SkipValidation

from m3retriever.encoders import DEFAULT_MODEL, as_encoder
from m3retriever.extractive import Prompt, answer, read_prompt
from m3retriever.types import Encoder

WINDOW = 100_000  # tokens that LlamaIndex may put into one prompt: there is no limit here, only time
OUTPUT = 1_000  # tokens it keeps free for the answer: a few sentences

Response = TypeVar("Response")


class ExtractiveLLM(CustomLLM):
    """Answers with the sentences of the prompt's passages that fit its question best, each with its citation.

    Reads LlamaIndex's own templates and others that follow the conventions of `m3retriever.extractive`.
    Citations are the numbers that the prompt gives its sources, as `CitationQueryEngine` does; without
    numbers there are none. Asked to refine an answer, it keeps it unless the new context has better
    sentences. In a chat the question is the last user message. Where no passage fits, the answer says
    so. It cannot write: prompts that want a summary or a rewritten question get sentences all the same.

    Parameters
    ----------
    model
        A name or folder for `load_encoder`, or an Encoder, such as `index.encoder`, to share its model.
    sentences
        How many at most, at least 1.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: SkipValidation[str | Encoder] = Field(default=DEFAULT_MODEL, exclude=True)
    sentences: int = 3
    _encoder: Encoder = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Load the model once, when the LLM is made."""
        super().model_post_init(context)
        self._encoder = as_encoder(self.model)

    @classmethod
    def class_name(cls) -> str:
        return "m3_extractive"

    @property
    def encoder(self) -> Encoder:
        """What scores the sentences."""
        return self._encoder

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(context_window=WINDOW, num_output=OUTPUT, model_name=f"extractive {self.encoder.name}")

    # -- completions -------------------------------------------------------------------------------

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The whole answer."""
        return CompletionResponse(text="".join(self._pieces(self._read(prompt, formatted))))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """The answer, sentence by sentence."""
        return _completions(self._pieces(self._read(prompt, formatted)))

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """`complete`, in a thread."""
        return CompletionResponse(text="".join(await self._apieces(self._read(prompt, formatted))))

    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """`stream_complete`, in a thread."""
        return _awaitable(_completions(await self._apieces(self._read(prompt, formatted))))

    # -- chats -------------------------------------------------------------------------------------

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The whole answer to the last user message."""
        return ChatResponse(message=_reply("".join(self._pieces(_asked(messages)))))

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """The answer to the last user message, sentence by sentence."""
        return _replies(self._pieces(_asked(messages)))

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """`chat`, in a thread."""
        return ChatResponse(message=_reply("".join(await self._apieces(_asked(messages)))))

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """`stream_chat`, in a thread."""
        return _awaitable(_replies(await self._apieces(_asked(messages))))

    # ----------------------------------------------------------------------------------------------

    def _read(self, prompt: str, formatted: bool) -> Prompt:
        return read_prompt(prompt if formatted or self.completion_to_prompt is None else self.completion_to_prompt(prompt))

    def _pieces(self, prompt: Prompt) -> list[str]:
        return answer(self.encoder, prompt, sentences=self.sentences)

    async def _apieces(self, prompt: Prompt) -> list[str]:
        return await asyncio.to_thread(self._pieces, prompt)


def _asked(messages: Sequence[ChatMessage]) -> Prompt:
    question = next((message.content or "" for message in reversed(messages) if message.role == MessageRole.USER), "")
    system = [message.content or "" for message in messages if message.role == MessageRole.SYSTEM]
    return read_prompt(question, "\n\n".join(system))


def _reply(text: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.ASSISTANT, content=text)


def _completions(pieces: Sequence[str]) -> CompletionResponseGen:
    for piece, text in zip(pieces, accumulate(pieces), strict=True):
        yield CompletionResponse(text=text, delta=piece)


def _replies(pieces: Sequence[str]) -> ChatResponseGen:
    for piece, text in zip(pieces, accumulate(pieces), strict=True):
        yield ChatResponse(message=_reply(text), delta=piece)


async def _awaitable(found: Iterable[Response]) -> AsyncGenerator[Response, None]:
    """What has been found already, for `async for`."""
    for one in found:
        yield one
