"""A LangChain chat model that writes nothing of its own: it quotes the sentences that answer, and cites them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import ConfigDict, PrivateAttr, SkipValidation

from m3retriever.encoders import DEFAULT_MODEL, as_encoder
from m3retriever.extractive import answer, read_prompt
from m3retriever.types import Encoder

PROVIDER = "m3retriever"


class ExtractiveChatModel(BaseChatModel):
    """Answers with the sentences of the prompt's passages that fit its question best, each with its citation.

    The question is in the last human message, the passages in that message or in a system message, as
    `m3retriever.extractive` reads them. Where no passage fits, the answer says so. The same prompt
    always gets the same answer; settings of generative models, such as `temperature`, change nothing.

    Parameters
    ----------
    model
        A name or folder for `load_encoder`, or an Encoder, such as `index.encoder`, to share its model.
        A call may give another: `invoke(messages, model="mini")`.
    sentences
        How many at most, at least 1.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: SkipValidation[str | Encoder] = DEFAULT_MODEL
    sentences: int = 3
    _encoder: Encoder = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Load the model once, when the chat model is made."""
        super().model_post_init(context)
        self._encoder = as_encoder(self.model)

    @property
    def encoder(self) -> Encoder:
        """What scores the sentences."""
        return self._encoder

    @property
    def _llm_type(self) -> str:
        return "m3-extractive"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.encoder.name, "sentences": self.sentences}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        """What a trace says of this model."""
        given = {"model": kwargs.pop("model", self.encoder)}
        name = given["model"] if isinstance(given["model"], str) else given["model"].name
        return {**super()._get_ls_params(stop=stop, **kwargs), "ls_provider": PROVIDER, "ls_model_name": name}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _result(*self._answer(messages, stop, **kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _result(*await asyncio.to_thread(self._answer, messages, stop, **kwargs))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        yield from _chunks(*self._answer(messages, stop, **kwargs))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in _chunks(*await asyncio.to_thread(self._answer, messages, stop, **kwargs)):
            yield chunk

    def _answer(
        self, messages: Sequence[BaseMessage], stop: Sequence[str] | None, *, model: str | Encoder | None = None, **_: Any
    ) -> tuple[list[str], dict[str, str]]:
        """The answer, a sentence a piece, up to where one of the `stop` texts begins, and what its messages tell of it."""
        asked = next((str(message.text) for message in reversed(messages) if message.type == "human"), "")
        context = "\n\n".join(str(message.text) for message in messages if message.type == "system")
        encoder = self.encoder if model is None else as_encoder(model)
        pieces = answer(encoder, read_prompt(asked, context), sentences=self.sentences)
        return _stopped(pieces, stop or ()), {"model_provider": PROVIDER, "model_name": encoder.name}


def _result(pieces: Sequence[str], metadata: dict[str, str]) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=AIMessage("".join(pieces), response_metadata=metadata))])


def _chunks(pieces: Sequence[str], metadata: dict[str, str]) -> Iterator[ChatGenerationChunk]:
    """A chunk a piece; the last one says that it is, and holds the metadata."""
    for piece in pieces[:-1]:
        yield ChatGenerationChunk(message=AIMessageChunk(content=piece))
    last = AIMessageChunk(content=pieces[-1], response_metadata=metadata, chunk_position="last")
    yield ChatGenerationChunk(message=last)


def _stopped(pieces: Sequence[str], stop: Sequence[str]) -> list[str]:
    whole = "".join(pieces)
    left = min((place for text in stop if (place := whole.find(text)) >= 0), default=len(whole))
    kept: list[str] = []
    for piece in pieces:
        kept.append(piece[:left])
        left = max(0, left - len(piece))
    return [piece for piece in kept if piece] or [""]
